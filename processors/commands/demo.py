"""aurastream demo: real observations through append, consumer group and projections, in one go."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from pathlib import Path

import click
import msgspec

from aurastream.processors import Installed, connected, find_plugins, line, progress_bar, table
from aurastream.processors import as_json as print_json
from aurastream.processors.commands.check import place_of, show_checked
from aurastream.processors.commands.common import Session, cached_streams
from aurastream.processors.commands.imports import tell_import
from aurastream.processors.commands.slice import SLICE
from aurastream.processors.commands.view import show_ranking
from aurastream.processors.history import check_all
from aurastream.processors.host import tune_collector
from aurastream.processors.importing import Imported, import_file
from aurastream.processors.importing.formats import FORMATS, read_metadata
from aurastream.projections import Checked, Consumer, Progress, View
from aurastream.projections.built_in import Clip, Clips, merged
from aurastream.streams import IMPORTS, Stream, home_directory

FULL = Path("..") / "shared" / "data"
VIRAL_AGE_HOURS = 72.0  # the observations are daily: at 6 hours of age hardly a broadcast was looked at


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
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def demo(slice_only: bool, as_json: bool) -> int:
    """Replay real view counts and look at the views.

    They are of a live-streaming platform. Run again, it appends nothing.

    Uses a server and a directory of its own, AURASTREAM_HOME/demo, unless AURASTREAM_REDIS_URL names a
    server.
    """
    full = FULL / "chzzk_vod_views.csv.gz"
    use_slice = slice_only or not full.exists()
    file = SLICE / full.name if use_slice else full
    tune_collector()
    os.environ["AURASTREAM_CLIPS_VIRAL_AGE_HOURS"] = str(
        VIRAL_AGE_HOURS
    )  # for this process and those that check
    installed = find_plugins()
    clips = Clips()
    with connected(home_directory() / "demo") as connection:
        found = Session(connection, installed)
        stream = found.open("chzzk-slice" if use_slice else "chzzk", create=True)
        if not as_json:
            what = "a slice of the" if use_slice else "the"
            line(
                f"{what} Chzzk observations -> {stream.name}, {stream.partitions} partitions, on "
                f"{found.server.facts.name}"
            )
        done = _work(found, stream, file, quiet=as_json)
        if as_json:
            print_json(done)
        else:
            _show(stream, clips, installed, done)
            _say_next(connection.home, stream.name)
    return 0 if all(result.is_equal for result in done.checked) else 1


def _work(found: Session, stream: Stream, file: Path, *, quiet: bool) -> Demo:
    """Append, consume, check."""
    metadata = read_metadata(file.with_name("chzzk_vods.csv.gz"))
    imports = found.open(IMPORTS, create=True)
    started = time.perf_counter()
    with progress_bar("append ") as bar:
        imported = import_file(
            file,
            FORMATS["chzzk"],
            stream,
            imports,
            metadata=metadata,
            progress=lambda result: bar.to(result.rows),
        )
    append_seconds = time.perf_counter() - started
    if not quiet:
        tell_import(imported, append_seconds)
    applied = 0
    projections = list(found.installed.projections.values())
    total = imported.rows * len(projections)
    started = time.perf_counter()
    with progress_bar("consume", total) as bar:

        def count(progress: Progress) -> None:
            nonlocal applied
            applied += progress.events
            bar.to(applied)

        Consumer(
            found.server,
            projections,
            cached_streams(found, (stream.name, IMPORTS)),
            on_commit=count,
            recover=found.connection.recover,
        ).run(until_idle=True)
    apply_seconds = time.perf_counter() - started
    checked: list[Checked] = []
    with progress_bar("check  ", len(projections) * (stream.partitions + imports.partitions)) as bar:
        for result in check_all([stream, imports], projections):
            checked.append(result)
            bar.to(len(checked))
    return Demo(imported, append_seconds, applied, apply_seconds, sorted(checked, key=place_of))


def _show(stream: Stream, clips: Clips, installed: Installed, done: Demo) -> None:
    view = View(stream, clips)
    title = (
        f"Viral: 1 view/min or more, younger than {VIRAL_AGE_HOURS:.0f} h (not 6 h: these looks are daily)"
    )
    show_ranking(title, view.ranking("viral", 10).rows, clips)
    fastest = view.ranking("max_velocity", 10).rows
    table(
        "Fastest ever: views/hour between two looks",
        ["#", "clip", "title~", "gained", "views/hour", "until"],
        [
            [
                place,
                row.key,
                row.state.title,
                row.state.max_delta,
                row.score,
                f"{row.state.max_at:%Y-%m-%d %H:%M}",
            ]
            for place, row in enumerate(fastest, start=1)
        ],
    )
    categories = sorted(view.totals("categories").rows.items(), key=lambda item: -item[1]["gained"])[:8]
    rows = [
        [name or "(none)", row["subjects"], row["latest_views_sum"], row["gained"]]
        for name, row in categories
    ]
    table("Categories that gained most", ["category~", "clips", "views", "gained"], rows)
    for name, title, columns in (
        ("days", "Last day, by category", ("clips", "views", "gained", "viral")),
        ("hours", "Last hour, by category", ("clips", "views", "gained", "viral")),
    ):
        _show_last_window(view, name, title, columns)
    recaps = view.rollup("recap").rows
    last = max(row.partition("|")[0] for row in recaps)
    recap = merged(part for row, parts in recaps.items() if row.startswith(last) for part in parts)
    top = [[clip.subject, clip.title, clip.views, clip.velocity] for clip in recap.top[:5]]
    table(
        f"Recap of {last}: {len(recap.polls)} poll{'s' if len(recap.polls) > 1 else ''}, peak "
        f"{recap.peak_velocity:.2f} views/min",
        ["clip", "title~", "views", "views/min"],
        top,
    )
    _show_rates(done, len(installed.projections))
    show_checked(done.checked)


def _show_last_window(view: View[Clip], name: str, title: str, columns: tuple[str, ...]) -> None:
    totals = view.totals(name).rows
    last = max(row.partition("|")[0] for row in totals)
    rows = [
        (row.partition("|")[2] or "(none)", counts) for row, counts in totals.items() if row.startswith(last)
    ]
    rows.sort(key=lambda item: -item[1]["gained"])
    table(
        f"{title}: {last}",
        ["category~", *columns],
        [[part, *(counts[c] for c in columns)] for part, counts in rows[:6]],
    )


def _show_rates(done: Demo, projections: int) -> None:
    line("")
    rows = done.imported.rows
    line(f"append: {rows:,} rows in {done.append_seconds:.1f} s, {rows / done.append_seconds:,.0f}/s")
    if done.applied:
        line(
            f"apply:  {done.applied:,} events by {projections} projections in {done.apply_seconds:.1f} s, "
            f"{done.applied / done.apply_seconds:,.0f}/s"
        )
    else:
        line("apply:  nothing new; the views stand where they stood")


def _say_next(home: Path | None, stream: str) -> None:
    where = f"AURASTREAM_HOME={shlex.quote(str(home))} " if home else ""
    program = "aurastream" if shutil.which("aurastream") else shlex.quote(sys.argv[0])
    line("\nLook further:", "bold")
    for command in (
        f"view clips --ranking max_velocity --stream {stream}",
        f"report --stream {stream}",
        "status",
    ):
        line(f"  {where}{program} {command}")
