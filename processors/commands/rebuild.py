"""aurastream rebuild: fold a view anew beside the live one, compare, swap."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line, progress_bar, stopping_by_signal, table
from aurastream.processors.commands.common import Session, opened
from aurastream.processors.commands.options import (
    MILLISECOND,
    into,
    json_option,
    keep_option,
    stream_option,
    why_option,
)
from aurastream.projections import Difference, Projection, ProjectionError
from aurastream.projections.engine import Fenced, Retired
from aurastream.projections.rebuild import Compared, Decision, Rebuild, abandon, rebuild_subject, retire_kept
from aurastream.streams import Stream, operator

HOUR = timedelta(hours=1)


class Paused(ProjectionError):
    """Told to stop; nothing is lost."""

    def __init__(self, projection: str) -> None:
        super().__init__(
            "stopped after the commit under way; the live view is as it was. `aurastream rebuild "
            f"{projection}` goes on from there, `aurastream rebuild {projection} --abandon` gives it up."
        )


class TakenOver(ProjectionError):
    """The rebuild is another process's now, or nobody's."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            "another process has taken this rebuild over, or given it up, while this one did not "
            f"answer ({error}). The live view is as it was; `aurastream status` shows the generations."
        )


class RebuildOptions(msgspec.Struct, frozen=True):
    """The command line."""

    projection: str
    stream_name: str | None
    accept: bool
    keep: timedelta
    is_abandoned: bool
    retired: int | None
    subject: str | None
    why: str
    as_json: bool


class Target(msgspec.Struct, frozen=True):
    """What is rebuilt."""

    session: Session
    stream: Stream
    projection: Projection[Any]


class Rebuilt(msgspec.Struct):
    """What was done. events_per_s: of what this process read."""

    projection: str
    stream: str
    generation: int
    resumed: bool
    differing: int
    compared: list[Any]
    swapped: bool = False
    swap_ms: float | msgspec.UnsetType = msgspec.UNSET
    events: int = 0
    seconds: float = 0.0
    events_per_s: int = 0


@click.command()
@click.argument("projection")
@stream_option
@click.option(
    "--accept",
    is_flag=True,
    help="Swap although it differs from the live view; with --subject: put the rows right.",
)
@keep_option
@click.option("--abandon", "is_abandoned", is_flag=True, help="Give up what was built and is not live.")
@click.option(
    "--retire",
    "retired",
    type=click.IntRange(1),
    metavar="NUMBER",
    help="Drop a generation that is kept for a rollback, now and for good.",
)
@click.option("--subject", metavar="KEY", help="Fold one key of the live view anew instead.")
@why_option
@json_option
@into(RebuildOptions)
def rebuild(context: click.Context, options: RebuildOptions) -> int:
    """Fold a view anew, from archive and log, beside the live one; swap when the two are equal.

    Killed or stopped, it goes on where it was when started again. Exit code 1 when they differ: the rows are
    listed, and --accept swaps all the same. Readers see the old view or the new one, never a mixture. The old
    one is kept for `aurastream rollback`.
    """
    given = (options.subject is not None, options.is_abandoned, options.retired is not None)
    if sum(given) > 1:
        raise click.UsageError("--subject, --abandon and --retire exclude one another")
    with opened(context) as session:
        target = _target(session, options)
        if options.retired is not None:
            return _retire(target, options, options.retired)
        if options.is_abandoned:
            return _abandon(target, options)
        if options.subject is not None:
            return _rebuild_subject(target, options, options.subject)
        return _rebuild(target, options)


def _target(session: Session, options: RebuildOptions) -> Target:
    projection = session.installed.projection(options.projection)
    stream = session.folded_stream(projection, options.stream_name)
    if not stream.is_log_here:
        raise click.UsageError(
            f"the log of {stream.name!r} is in Kafka: there is nothing here to rebuild from"
        )
    return Target(session, stream, projection)


def _abandon(target: Target, options: RebuildOptions) -> int:
    number = abandon(target.stream, target.projection, Decision(operator(), options.why))
    if options.as_json:
        print_json({"abandoned": number})
    else:
        line(f"generation {number} of {target.projection.name} was given up; the live view is as it was")
    return 0


def _retire(target: Target, options: RebuildOptions, number: int) -> int:
    retire_kept(target.stream, target.projection, number, Decision(operator(), options.why))
    if options.as_json:
        print_json({"retired": number})
    else:
        line(f"generation {number} of {target.projection.name} is dropped; the live view is as it was")
    return 0


def _rebuild_subject(target: Target, options: RebuildOptions, subject: str) -> int:
    projection, history = target.projection, target.session.history(target.stream)
    projection = target.session.recorded(target.stream, projection)
    decision = Decision(operator(), options.why)
    done = rebuild_subject(history, projection, subject, decision, accept=options.accept)
    is_right = done.is_written or not done.differing
    if options.as_json:
        print_json(msgspec.to_builtins(done))
        return 0 if is_right else 1
    where = target.stream.keys[done.partition].where
    show_differences(f"{projection.name} {subject}", [Differing(where, done.differing, done.differences)])
    verdict = (
        "put right"
        if done.is_written
        else "equal to its events"
        if not done.differing
        else "different; --accept puts them right"
    )
    style = "bold" if done.differing else ""
    line(f"{harmless(subject)}: {done.events} events folded, {done.rows} rows, {verdict}", style)
    if done.shared:
        line(
            f"not looked at, as they add up several keys: {', '.join(done.shared)}; `aurastream rebuild "
            f"{projection.name}` does",
            "dim",
        )
    return 0 if is_right else 1


def _rebuild(target: Target, options: RebuildOptions) -> int:
    try:
        rebuilt = _rebuilt(target, options)
    except (Fenced, Retired) as error:
        raise TakenOver(error) from error
    if options.as_json:
        print_json(rebuilt)
    else:
        _show(rebuilt, target.stream, options.keep)
    return 0 if rebuilt.swapped else 1


def _rebuilt(target: Target, options: RebuildOptions) -> Rebuilt:
    from aurastream.processors.history import Team
    from aurastream.processors.host import tune_collector

    tune_collector()
    session, projection = target.session, target.projection
    name, history = projection.name, session.history(target.stream)
    team = Team(history, projection, session.apps)
    with stopping_by_signal() as stop, progress_bar(name) as bar, team:
        decision, lease_ms = Decision(operator(), options.why), session.settings.lease_ms
        work = Rebuild(history, projection, decision, lease_ms=lease_ms)
        work.crew, work.stopping = team, lambda: stop.was_asked
        work.on_progress = lambda at: bar.to(at.read, max(at.total, at.read), f"{at.step} {name}")
        with work:
            return _built(work, options)


def _built(work: Rebuild, options: RebuildOptions) -> Rebuilt:
    """Built, compared and, where it may be, live."""
    name, began = work.projection.name, time.perf_counter()
    work.begin()
    began_at = _read(work)
    compared = _compared(work, accept=options.accept)
    differing = sum(one.differing for one in compared)
    rebuilt = Rebuilt(name, work.stream.name, work.generation, work.has_resumed, differing, list(compared))
    if not differing or options.accept:
        _swap(work, options.keep)
        rebuilt.swapped, rebuilt.swap_ms = True, work.swap_ms
    seconds = time.perf_counter() - began
    rebuilt.events, rebuilt.seconds = _read(work), round(seconds, 3)
    rebuilt.events_per_s = round((rebuilt.events - began_at) / seconds)
    return rebuilt


def _compared(work: Rebuild, *, accept: bool) -> list[Compared]:
    compared = work.compare(accept=accept) if work.build() else None
    if compared is None:
        raise Paused(work.projection.name)
    return compared


def _swap(work: Rebuild, keep: timedelta) -> None:
    if work.swap(keep // MILLISECOND) is None:
        raise Paused(work.projection.name)
    work.follow()


def _read(work: Rebuild) -> int:
    return sum(cursor.read for cursor in work.cursors().values())


def _show(rebuilt: Rebuilt, stream: Stream, keep: timedelta) -> None:
    name, differing = rebuilt.projection, rebuilt.differing
    show_differences(
        name,
        [
            Differing(stream.keys[one.partition].where, one.differing, one.differences)
            for one in rebuilt.compared
        ],
    )
    line(f"{rebuilt.events:,} events, {rebuilt.seconds:.1f} s, {rebuilt.events_per_s:,} events/s")
    if not rebuilt.swapped:
        kept = f"the live view is as it was, generation {rebuilt.generation} is kept as it is"
        line(f"{differing:,} rows differ; {kept}", "bold red")
        line(
            f"`aurastream rebuild {name} --accept` makes it live all the same, `aurastream rebuild {name} "
            "--abandon` gives it up"
        )
        return
    how = f"although {differing:,} rows differ" if differing else "equal to the one before"
    line(
        f"generation {rebuilt.generation} of {name} is live, {how if rebuilt.compared else 'the first'}",
        "bold green",
    )
    if keep:
        hours = f"{keep / HOUR:g} h"
        line(f"the one before is kept for {hours}: `aurastream rollback {name}` goes back to it", "dim")


class Differing(msgspec.Struct, frozen=True):
    """A partition's rows that differ: how many, and the first of them."""

    where: str
    differing: int
    differences: Sequence[Difference]


def show_differences(title: str, parts: list[Differing]) -> None:
    """The rows that differ: what the live view has, and what was folded anew."""
    rows = [[part.where, *_sides(item)] for part in parts for item in part.differences]
    if rows:
        table(f"{title}: rows that differ", ["partition", "table~", "key~", "live~", "anew~"], rows)
        left = sum(part.differing for part in parts) - len(rows)
        if left:
            line(f"and {left:,} more", "dim")


def _sides(item: Difference) -> list[str]:
    view, log = (harmless(text, 120) or "nothing" for text in (item.view, item.log))
    return [item.table, harmless(item.key), view, log]
