"""aurastream check: view == fold(log), or the keys that differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line, table
from aurastream.processors.commands.common import Session, opened
from aurastream.processors.commands.options import json_option, projection_option, stream_option_all
from aurastream.processors.history import check_all
from aurastream.projections import Checked
from aurastream.streams import generation_group, unsound

COUNTED = ("events", "applied", "duplicates", "dead", "rows", "differing")


@click.command()
@projection_option
@stream_option_all
@json_option
@click.pass_context
def check(
    context: click.Context, names: tuple[str, ...], stream_names: tuple[str, ...], as_json: bool
) -> int:
    """Compare every view with a new fold of the log.

    Every table of every view and every count, and what a stream's own keys say of its entries (partitions,
    versions). Exit code 1 when they differ. Generations that are kept for a rollback are compared as well and
    shown apart: nobody reads them, so they do not decide.
    """
    with opened(context) as session:
        done, keys_wrong = _checked(session, names, stream_names)
    equal = all(result.is_equal for result in done if result.is_live) and not keys_wrong
    if as_json:
        live, kept = ([_plain(one) for one in done if one.is_live == is_live] for is_live in (True, False))
        print_json({"equal": equal, "checked": live, "kept": kept, "streams": keys_wrong})
    else:
        show_checked(done, keys_wrong)
    return 0 if equal else 1


def _checked(
    session: Session, names: tuple[str, ...], stream_names: tuple[str, ...]
) -> tuple[list[Checked], list[str]]:
    """What each view's comparison gave, in order; and the complaints about the streams' keys."""
    projections, streams = session.installed.chosen(names), session.streams(stream_names)
    for stream in streams:
        for projection in projections:
            if projection.takes(stream):
                session.recorded(stream, projection)  # says where it goes by other settings than these
    done = sorted(check_all(streams, projections, session.apps), key=place_of)
    return done, [sentence for stream in streams for sentence in unsound(session.history(stream))]


def _plain(result: Checked) -> dict[str, object]:
    return {**msgspec.to_builtins(result), "is_equal": result.is_equal}


def place_of(result: Checked) -> tuple[str, str, int]:
    """The order in which results are shown."""
    return result.stream, result.projection, result.partition


def show_checked(done: list[Checked], keys_wrong: Iterable[str] = ()) -> None:
    """A row per stream and projection, then the verdict, by what is live. keys_wrong: complaints about the
    streams' keys.
    """
    _show_kept([result for result in done if not result.is_live])
    live = [result for result in done if result.is_live]
    wrong = [*map(harmless, keys_wrong), *_all_findings(live)]
    _show_rows("Check", live)
    for sentence in wrong:
        line(sentence, "red")
    _show_verdict(len(wrong), sum(one.events for one in live), sum(one.rows for one in live))


def _show_kept(kept: list[Checked]) -> None:
    """What a rollback would go back to."""
    if not kept:
        return
    _show_rows("Kept for a rollback, read by nobody", kept)
    for sentence in _all_findings(kept):
        line(sentence, "yellow")
    wrong = {(one.stream, one.projection, one.generation) for one in kept if not one.is_equal}
    for stream, view, number in sorted(wrong):
        command = f"aurastream rebuild {view} --stream {stream} --retire {number}"
        line(f"generation {number} of {view} is not what its log says; `{command}` drops it", "yellow")


def _show_rows(title: str, done: list[Checked]) -> None:
    rows: dict[tuple[str, str], list[int]] = {}
    for result in done:
        view = generation_group(result.projection, result.generation)
        held = rows.setdefault((result.stream, view), [0] * len(COUNTED))
        counts = [getattr(result, name) for name in COUNTED]
        rows[result.stream, view] = [a + b for a, b in zip(held, counts, strict=True)]
    columns = ["stream~", "projection~", "events", "applied", "dupl.", "dead", "rows compared", "differ"]
    table(title, columns, [[*names, *counts] for names, counts in rows.items()])


def _all_findings(done: list[Checked]) -> Iterator[str]:
    for result in done:
        view = generation_group(result.projection, result.generation)
        yield from _findings(result, f"{result.stream}/{result.partition} {view}")


def _show_verdict(findings: int, events: int, compared: int) -> None:
    if findings:
        many = f"{findings} finding{'s' if findings > 1 else ''}"
        line(f"check: view != fold(log): {many} in {events:,} events and {compared:,} rows", "bold red")
    else:
        counts_told = f"{events:,} events folded again, {compared:,} rows equal"
        line(f"check: view == fold(log)  ({counts_told})", "bold green")


def _findings(result: Checked, where: str) -> Iterator[str]:
    yield from (f"{where}: {complaint}" for complaint in result.complaints)
    for item in result.differences:
        view, log = (harmless(text, 120) or "nothing" for text in (item.view, item.log))
        yield f"{where}: {item.table} {harmless(item.key)}: the view has {view}, the log says {log}"
