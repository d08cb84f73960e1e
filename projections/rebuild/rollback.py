"""
Back to the generation before: live again by the compare-and-set that made it the one before.

A kept generation is kept up by whoever has its definition, so it lags no more than the live one does. Where
it lags and the definition is ours, it is caught up first; where it is another's, the caller decides whether
to go back to older numbers. What is kept and not wanted is dropped before its time (``retire_kept``).
"""

from __future__ import annotations

import msgspec

from aurastream.projections.engine import (
    AnyProjection,
    Generation,
    ProjectionError,
    Record,
    Retired,
    State,
    View,
    as_recorded,
    is_same_definition,
    retire,
    retire_due,
)
from aurastream.projections.rebuild.record import Decision, ViewRecord
from aurastream.projections.rebuild.tasks import BuildTask, perform
from aurastream.streams import History, Stream, generation_group, join


class RolledBack(msgspec.Struct, frozen=True):
    """What is live now, what was, and how many events the first had not read of those that the second had."""

    generation: int
    previous: int
    lag_events: int


def rollback(
    history: History, projection: AnyProjection, decision: Decision, *, keep_ms: int, accept_lag: bool = False
) -> RolledBack:
    """Make the newest kept generation live; the live one is kept for keep_ms.

    Raises ProjectionError where none is kept, or it lags by another definition and accept_lag is not given.
    """
    stream, name = history.stream, projection.name
    record = ViewRecord(stream, projection, decision)
    retire_due(stream, name, decision.by)
    before = record.read()
    kept = _newest_kept(history, projection, before)
    projection = as_recorded(projection, kept)
    is_own = is_same_definition(kept.fingerprint, projection.fingerprint)
    if is_own:
        _catch_up(history, projection, kept.number)
    lag = _lag(history, projection, kept.number, before.live)
    if lag and not is_own and not accept_lag:
        raise ProjectionError(
            f"generation {kept.number} of {name!r} lacks {lag} events that the live one has, and was "
            "folded by another definition than this process has. Run a host with that one to catch it up, or "
            "accept the older numbers with --accept-lag."
        )
    for keys in stream.keys:
        group = generation_group(name, kept.number)
        stream.ask(keys.partition, join(keys, group), what=f"joining of {group}")
    after = record.roll_back(kept.number, before.live, keep_ms)
    record.announce()
    record.leave_alone(after, before.live)
    retire_due(stream, name, decision.by)
    return RolledBack(kept.number, before.live, lag)


def retire_kept(stream: Stream, projection: AnyProjection, number: int, decision: Decision) -> None:
    """Drop a generation that is kept, before its time; there is no rollback to it then. The fact is in the
    record with the change, and in the audit trail from there.

    Raises ProjectionError where the generation is not kept.
    """
    item = ViewRecord(stream, projection, decision).read().find(number)
    if item is None or item.state not in (State.KEPT, State.RETIRED):
        state = "there is none of that number" if item is None else f"it is {item.state.value}"
        raise ProjectionError(
            f"generation {number} of {projection.name!r} of {stream.name!r} is not kept: {state}. "
            "`aurastream status` shows the generations."
        )
    retire(stream, projection.name, number, decision.by, decision.why)


def _newest_kept(history: History, projection: AnyProjection, record: Record) -> Generation:
    kept = next(iter(record.of(State.KEPT)), None)
    if kept is None:
        raise ProjectionError(
            f"no generation of {projection.name!r} of {history.stream.name!r} is kept: there is nothing to "
            f"go back to. `aurastream rebuild {projection.name}` makes a new one."
        )
    return kept


def _catch_up(history: History, projection: AnyProjection, number: int) -> None:
    """Build the generation to the end of the log, beside whoever else does."""
    stream = history.stream
    for partition in range(stream.partitions):
        task = BuildTask(stream.name, projection.name, partition, number, None, is_shared=True)
        try:
            perform(history, projection, task, lambda: False)
        except Retired as error:
            raise ProjectionError(
                f"generation {number} of {projection.name!r} was retired this instant."
            ) from error


def _lag(history: History, projection: AnyProjection, number: int, live: int) -> int:
    """How many events, over all partitions, the generation has not read that the live one has."""
    ours, theirs = (View(history.stream, projection, generation=one).cursors() for one in (number, live))
    return sum(max(0, theirs[partition].read - cursor.read) for partition, cursor in ours.items())
