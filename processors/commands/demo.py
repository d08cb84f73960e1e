"""aurastream demo: real observations through append, consumer group and projections, in one go."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import line, progress_bar, table
from aurastream.processors.commands.check import place_of, show_checked
from aurastream.processors.commands.common import Session, cached_streams, opened
from aurastream.processors.commands.imports import tell_import
from aurastream.processors.commands.options import json_option
from aurastream.processors.commands.slice import SLICE
from aurastream.processors.commands.view import show_ranking
from aurastream.processors.history import check_all
from aurastream.processors.host import tune_collector
from aurastream.processors.importing import Imported, ImportOptions, import_file
from aurastream.processors.importing.formats import find_formats, read_metadata
from aurastream.projections import Checked, Consumer, Ranked, View
from aurastream.projections.built_in import Clip, Clips, merged
from aurastream.streams import IMPORTS, Stream

FULL = Path("..") / "shared" / "data"
OBSERVATIONS = "chzzk_vod_views.csv.gz"
TOP = 10  # rows of a leaderboard


class Demo(msgspec.Struct):
    """What the demo did and found."""

    imported: Imported
    append_seconds: float
    applied: int
    apply_seconds: float
    checked: list[Checked]


@click.command()
@click.option(
    "--slice",
    "slice_only",
    is_flag=True,
    help="Use the shipped slice even where the full data lies in ../shared/data.",
)
@json_option
@click.pass_context
def demo(context: click.Context, slice_only: bool, as_json: bool) -> int:
    """Replay real view counts and look at the views.

    They are of a live-streaming platform. Run again, it appends nothing. Its stream is one among the others
    of the server that all commands use, so whatever can be asked of them can be asked of it.
    """
    use_slice = slice_only or not (FULL / OBSERVATIONS).exists()
    tune_collector()
    with opened(context) as session:
        done = _done(session, use_slice=use_slice, as_json=as_json)
    return 0 if all(result.is_equal for result in done.checked if result.is_live) else 1


def _done(session: Session, *, use_slice: bool, as_json: bool) -> Demo:
    """Worked off and shown."""
    stream = session.open("chzzk-slice" if use_slice else "chzzk", create=True)
    if not as_json:
        what = "a slice of the" if use_slice else "the"
        where = f"{stream.name}, {stream.partitions} partitions, on {session.server.facts.name}"
        line(f"{what} Chzzk observations -> {where}")
    done = _work(session, stream, (SLICE if use_slice else FULL) / OBSERVATIONS, quiet=as_json)
    if as_json:
        print_json(done)
    else:
        _show(session, stream, done)
        _say_next(stream)
    return done


def _work(session: Session, stream: Stream, file: Path, *, quiet: bool) -> Demo:
    """Append, consume, check."""
    imports = session.open(IMPORTS, create=True)
    started = time.perf_counter()
    imported = _imported(file, stream, imports)
    append_seconds = time.perf_counter() - started
    if not quiet:
        tell_import(imported, append_seconds)
    started = time.perf_counter()
    expected = imported.rows * len(session.installed.projections)
    applied = _consumed(session, (stream.name, IMPORTS), expected)
    apply_seconds = time.perf_counter() - started
    return Demo(imported, append_seconds, applied, apply_seconds, _checked(session, [stream, imports]))


def _checked(session: Session, streams: list[Stream]) -> list[Checked]:
    """Every view of the streams compared with a new fold, in the order in which they are shown."""
    projections = list(session.installed.projections.values())
    checked: list[Checked] = []
    with progress_bar("check  ", len(projections) * sum(stream.partitions for stream in streams)) as bar:
        for result in check_all(streams, projections, session.apps):
            checked.append(result)
            bar.to(len(checked))
    return sorted(checked, key=place_of)


def _imported(file: Path, stream: Stream, imports: Stream) -> Imported:
    metadata = read_metadata(file.with_name("chzzk_vods.csv.gz"))
    with progress_bar("append ") as bar:
        how = ImportOptions(metadata, progress=lambda account: bar.to(account.rows))
        return import_file(file, find_formats()["chzzk"], stream, imports, how)


def _consumed(session: Session, names: tuple[str, ...], expected: int) -> int:
    """How many events were applied."""
    with progress_bar("consume", expected) as bar:
        consumer = Consumer(
            session.server,
            list(session.installed.projections.values()),
            cached_streams(session, names),
            on_commit=lambda progress: bar.by(progress.events),
            recover=session.connection.recover,
        )
        consumer.run(until_idle=True)
        return bar.done


def _show(session: Session, stream: Stream, done: Demo) -> None:
    view = View(stream, Clips())
    _show_rankings(view)
    _show_categories(view)
    for name, title in (("days", "Last day, by category"), ("hours", "Last hour, by category")):
        _show_last_window(view, name, title)
    _show_recap(view)
    _show_rates(done, len(session.installed.projections))
    show_checked(done.checked)


def _show_rankings(view: View[Clip]) -> None:
    hours = view.projection.settings.viral_age_hours
    viral = f"Viral: younger than {hours:g} h (these looks are daily)"
    show_ranking(view.projection, "viral", view.ranking("viral", TOP).rows, viral)
    fastest = view.ranking("max_velocity", TOP).rows
    rows = [[place, *_rise(row)] for place, row in enumerate(fastest, start=1)]
    columns = ["#", "clip", "title~", "gained", "views/hour", "until"]
    table("Fastest ever: views/hour between two looks", columns, rows)


def _rise(row: Ranked) -> list[object]:
    """The clip's fastest rise between two looks."""
    clip = row.state
    return [row.key, clip.title, clip.max_delta, row.score, f"{clip.max_at:%Y-%m-%d %H:%M}"]


def _show_categories(view: View[Clip]) -> None:
    categories = sorted(view.totals("categories").rows.items(), key=lambda item: -item[1]["gained"])[:8]
    rows = [
        [name or "(none)", row["subjects"], row["latest_views_sum"], row["gained"]]
        for name, row in categories
    ]
    table("Categories that gained most", ["category~", "clips", "views", "gained"], rows)


def _show_last_window(view: View[Clip], name: str, title: str) -> None:
    columns = ("clips", "views", "gained", "viral")
    totals = view.totals(name).rows
    last = max(row.partition("|")[0] for row in totals)
    of_last = [
        (row.partition("|")[2] or "(none)", counts) for row, counts in totals.items() if row.startswith(last)
    ]
    of_last.sort(key=lambda item: -item[1]["gained"])
    rows = [[part, *(counts[column] for column in columns)] for part, counts in of_last[:6]]
    table(f"{title}: {last}", ["category~", *columns], rows)


def _show_recap(view: View[Clip]) -> None:
    recaps = view.rollup("recap").rows
    last = max(row.partition("|")[0] for row in recaps)
    recap = merged(part for row, parts in recaps.items() if row.startswith(last) for part in parts)
    polls = f"{len(recap.polls)} poll{'s' if len(recap.polls) > 1 else ''}"
    rows = [[clip.subject, clip.title, clip.views, clip.velocity] for clip in recap.top[:5]]
    title = f"Recap of {last}: {polls}, peak {recap.peak_velocity:.2f} views/min"
    table(title, ["clip", "title~", "views", "views/min"], rows)


def _show_rates(done: Demo, projections: int) -> None:
    line("")
    rows = done.imported.rows
    line(f"append: {rows:,} rows in {done.append_seconds:.1f} s, {rows / done.append_seconds:,.0f}/s")
    if not done.applied:
        line("apply:  nothing new; the views stand where they stood")
        return
    rate = f"{done.applied / done.apply_seconds:,.0f}/s"
    line(
        f"apply:  {done.applied:,} events by {projections} projections in {done.apply_seconds:.1f} s, {rate}"
    )


def _say_next(stream: Stream) -> None:
    program = "aurastream" if shutil.which("aurastream") else sys.argv[0]
    clip = View(stream, Clips()).ranking("max_velocity", 1).rows[0].key
    line("\nLook further:", "bold")
    for command in (
        "status",
        f"view clips --stream {stream.name} --ranking max_velocity",
        f"why clips {clip} --stream {stream.name}",
        f"audit {clip}",
        "check",
    ):
        line(f"  {program} {command}")
