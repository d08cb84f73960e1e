"""aurastream rebuild: fold a view anew beside the live one, compare, swap."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line, progress_bar, table
from aurastream.processors.commands.common import Session, json_option, session, stream_option
from aurastream.projections import Projection, ProjectionError
from aurastream.projections.engine import Fenced, Retired
from aurastream.streams import Stream, operator

KEEP_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
KEEP_MAX_S = 10 * 365 * 86_400


class Paused(ProjectionError):
    """Told to stop; nothing is lost."""


def duration_ms(context: click.Context, parameter: click.Parameter, text: str) -> int:
    """24h, 90m, 7d, 30s or 0, in milliseconds. Raises BadParameter."""
    found = re.fullmatch(r"(\d{1,9})\s*([smhd]?)", text.strip())
    if found is None or (not found[2] and int(found[1])):
        raise click.BadParameter(
            f"{text!r} is no time: give a number and s, m, h or d, as in 24h; 0 keeps nothing"
        )
    seconds = int(found[1]) * KEEP_UNITS.get(found[2], 0)
    if seconds > KEEP_MAX_S:
        raise click.BadParameter(f"{text!r} is too long: 10 years at most")
    return seconds * 1000


@click.command()
@click.argument("projection")
@stream_option
@click.option(
    "--accept",
    is_flag=True,
    help="Swap although it differs from the live view; with --subject: put the rows right.",
)
@click.option(
    "--keep",
    "keep_ms",
    default="24h",
    show_default=True,
    callback=duration_ms,
    help="How long the one before is kept.",
)
@click.option("--abandon", "is_abandoned", is_flag=True, help="Give up what was built and is not live.")
@click.option("--subject", metavar="KEY", help="Fold one key of the live view anew instead.")
@click.option("--why", default="", metavar="TEXT", help="For the audit trail.")
@json_option
@click.pass_context
def rebuild(
    context: click.Context,
    projection: str,
    stream_name: str | None,
    accept: bool,
    keep_ms: int,
    is_abandoned: bool,
    subject: str | None,
    why: str,
    as_json: bool,
) -> int:
    """Fold a view anew, from archive and log, beside the live one; swap when the two are equal.

    Killed or stopped, it goes on where it was when started again. Exit code 1 when they differ: the rows are
    listed, and --accept swaps all the same. Readers see the old view or the new one, never a mixture. The old
    one is kept for `aurastream rollback`.
    """
    if subject is not None and is_abandoned:
        raise click.UsageError("--subject and --abandon exclude one another")
    with session(context) as found:
        chosen = found.installed.projection(projection)
        stream = folded_stream(found, chosen, stream_name)
        if not stream.is_log_here:
            raise click.UsageError(
                f"the log of {stream.name!r} is in Kafka: there is nothing here to rebuild from"
            )
        if is_abandoned:
            return _abandon(stream, chosen, why, as_json)
        if subject is not None:
            return _subject(found, stream, chosen, subject, accept, why, as_json)
        try:
            return _rebuild(found, stream, chosen, accept, keep_ms, why, tuple(context.obj or ()), as_json)
        except (Fenced, Retired) as error:
            raise ProjectionError(
                "another process has taken this rebuild over, or given it up, while this one did not "
                f"answer ({error}). The live view "
                "is as it was; `aurastream status` shows the generations."
            ) from error


def folded_stream(found: Session, projection: Projection[Any], name: str | None) -> Stream:
    """The named stream, the one whose view holds something, or, of a view that never was, the only one it
    folds.
    """
    try:
        return found.holding(projection, name)
    except ProjectionError:
        if name is not None:
            raise
        every = found.folded_by(projection)
        if len(every) != 1:
            raise
        return every[0]


def _abandon(stream: Stream, projection: Projection[Any], why: str, as_json: bool) -> int:
    from aurastream.projections.rebuild import Decision, abandon

    number = abandon(stream, projection, Decision(operator(), why))
    if as_json:
        print_json({"abandoned": number})
    else:
        line(f"generation {number} of {projection.name} was given up; the live view is as it was")
    return 0


def _subject(
    found: Session,
    stream: Stream,
    projection: Projection[Any],
    subject: str,
    accept: bool,
    why: str,
    as_json: bool,
) -> int:
    from aurastream.projections.rebuild import Decision, rebuild_subject

    done = rebuild_subject(
        found.history(stream), projection, subject, Decision(operator(), why), accept=accept
    )
    if as_json:
        print_json(msgspec.to_builtins(done))
    else:
        show_differences(
            f"{projection.name} {subject}",
            [(stream.keys[done.partition].where, done.differing, done.differences)],
        )
        verdict = (
            "put right"
            if done.is_written
            else "equal to its events"
            if not done.differing
            else "different; --accept puts them right"
        )
        line(
            f"{harmless(subject)}: {done.events} events folded, {done.rows} rows, {verdict}",
            "" if not done.differing else "bold",
        )
        if done.shared:
            line(
                f"not looked at, as they add up several keys: {', '.join(done.shared)}; `aurastream rebuild "
                f"{projection.name}` does",
                "dim",
            )
    return 0 if done.is_written or not done.differing else 1


def _rebuild(
    found: Session,
    stream: Stream,
    projection: Projection[Any],
    accept: bool,
    keep_ms: int,
    why: str,
    apps: tuple[str, ...],
    as_json: bool,
) -> int:
    from aurastream.processors.history import Team
    from aurastream.processors.host import tune_collector
    from aurastream.projections.rebuild import Decision, Rebuild

    tune_collector()
    history, began = found.history(stream), time.perf_counter()
    with (
        _stopped_by_signals() as stopping,
        progress_bar(projection.name) as bar,
        Team(history, projection, apps) as team,
    ):
        lease_ms = found.settings.lease_ms
        work = Rebuild(history, projection, Decision(operator(), why), lease_ms=lease_ms)
        work.crew, work.stopping = team, stopping
        work.on_progress = lambda at: bar.to(at.read, max(at.total, at.read), f"{at.step} {projection.name}")
        with work:
            work.begin()
            began_at = sum(cursor.read for cursor in work.cursors().values())
            compared = work.compare(accept=accept) if work.build() else None
            if compared is None:
                raise _paused(projection)
            differing = sum(one.differing for one in compared)
            result = {
                "projection": projection.name,
                "stream": stream.name,
                "generation": work.generation,
                "resumed": work.has_resumed,
                "differing": differing,
                "compared": msgspec.to_builtins(compared),
                "swapped": False,
            }
            if not differing or accept:
                if work.swap(keep_ms) is None:
                    raise _paused(projection)
                result |= {"swapped": True, "swap_ms": work.swap_ms}
                work.follow()
            read = sum(cursor.read for cursor in work.cursors().values())
    seconds = time.perf_counter() - began
    result |= {
        "events": read,
        "seconds": round(seconds, 3),
        "events_per_s": round((read - began_at) / seconds),
    }
    if as_json:
        print_json(result)
    else:
        show_differences(
            projection.name,
            [(stream.keys[one.partition].where, one.differing, one.differences) for one in compared],
        )
        _tell(result, keep_ms)
    return 0 if result["swapped"] else 1


def _tell(result: dict[str, Any], keep_ms: int) -> None:
    name, differing = result["projection"], result["differing"]
    line(f"{result['events']:,} events, {result['seconds']:.1f} s, {result['events_per_s']:,} events/s")
    if result["swapped"]:
        rows = (
            f"although {differing:,} rows differ"
            if differing
            else "equal to the one before"
            if result["compared"]
            else "the first"
        )
        line(f"generation {result['generation']} of {name} is live, {rows}", "bold green")
        if keep_ms:
            line(
                f"the one before is kept for {keep_ms / 3_600_000:g} h: `aurastream rollback {name}` goes "
                "back to it",
                "dim",
            )
    else:
        line(
            f"{differing:,} rows differ; the live view is as it was, generation {result['generation']} is "
            "kept as it is",
            "bold red",
        )
        line(
            f"`aurastream rebuild {name} --accept` makes it live all the same, `aurastream rebuild {name} "
            "--abandon` gives it up"
        )


def show_differences(title: str, places: list[tuple[str, int, list[Any]]]) -> None:
    """The rows that differ: what the live view has, and what was folded anew."""
    rows = [
        [
            where,
            item.table,
            harmless(item.key),
            harmless(item.view, 120) or "nothing",
            harmless(item.log, 120) or "nothing",
        ]
        for where, _, differences in places
        for item in differences
    ]
    if rows:
        table(f"{title}: rows that differ", ["partition", "table~", "key~", "live~", "anew~"], rows)
        left = sum(differing for _, differing, _ in places) - len(rows)
        if left:
            line(f"and {left:,} more", "dim")


def _paused(projection: Projection[Any]) -> Paused:
    return Paused(
        "stopped after the commit under way; the live view is as it was. `aurastream rebuild "
        f"{projection.name}` goes on from there, "
        f"`aurastream rebuild {projection.name} --abandon` gives it up."
    )


@contextmanager
def _stopped_by_signals() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came."""
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(stopped)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
