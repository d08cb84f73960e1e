"""
Back to the generation before: live again by the compare-and-set that made it the one before.

A kept generation is kept up by whoever has its definition, so it lags no more than the live one does. Where
it lags and the definition is ours, it is caught up first; where it is another's, the caller decides whether
to go back to older numbers.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from aurastream.projections.engine import (
    Projection,
    ProjectionError,
    Record,
    Retired,
    State,
    View,
    announce,
    announcing,
    change,
    now_ms,
    read_record,
    retire_due,
    swapped,
)
from aurastream.projections.rebuild.rebuild import leave_alone
from aurastream.projections.rebuild.tasks import Task, perform
from aurastream.streams import History, ViewRolledBack, generation_group, join, named_id


class RolledBack(msgspec.Struct, frozen=True):
    """What is live now, what was, and how many events the first had not read of those that the second had."""

    generation: int
    previous: int
    lag_events: int


def rollback(
    history: History,
    projection: Projection[Any],
    *,
    by: str,
    keep_ms: int,
    why: str = "",
    accept_lag: bool = False,
) -> RolledBack:
    """Make the newest kept generation live; the live one is kept for keep_ms.

    Raises ProjectionError where none is kept, or it lags by another definition and accept_lag is not given.
    """
    stream = history.stream
    retire_due(stream, projection.name, by)
    record = read_record(stream.server, stream.name, projection.name)
    item = next(iter(record.of(State.KEPT)), None)
    if item is None:
        raise ProjectionError(
            f"no generation of {projection.name!r} of {stream.name!r} is kept: there is nothing to go back "
            "to. "
            f"`aurastream rebuild {projection.name}` makes a new one."
        )
    is_own = item.fingerprint in ("", projection.fingerprint)
    for partition in range(stream.partitions if is_own else 0):
        task = Task(stream.name, projection.name, partition, item.number, None, is_shared=True)
        try:
            perform(history, projection, task, lambda: False)
        except Retired as error:
            raise ProjectionError(
                f"generation {item.number} of {projection.name!r} was retired this instant."
            ) from error
    lag = _lag(history, projection, item.number, record.live)
    if lag and not is_own and not accept_lag:
        raise ProjectionError(
            f"generation {item.number} of {projection.name!r} lacks {lag} events that the live one has, and "
            "was folded by another "
            "definition than this process has. Run that one's worker to catch it up, or accept the older "
            "numbers with --accept-lag."
        )
    at_ms = now_ms(stream.server)

    def flipped(held: Record) -> Record:
        if held.live == item.number:
            return held
        if held.live != record.live:
            raise ProjectionError(
                f"generation {held.live} of {projection.name!r} became the live one meanwhile. Look, and "
                "try again."
            )
        event = ViewRolledBack(
            event_id=named_id(
                "rebuild", stream.name, projection.name, item.number, "rolled_back", held.changes
            ),
            subject=projection.name,
            source=by,
            occurred_at=datetime.fromtimestamp(at_ms / 1000, UTC),
            stream=stream.name,
            generation=item.number,
            previous=held.live,
            why=why,
        )
        return announcing(swapped(held, item.number, at_ms, keep_ms), event)

    for keys in stream.keys:
        stream.wire(keys.partition).ask(join(keys, generation_group(projection.name, item.number)))
    after = change(stream.server, stream.name, projection.name, flipped)
    announce(stream, projection.name)
    leave_alone(stream, projection, after, record.live)
    retire_due(stream, projection.name, by)
    return RolledBack(item.number, record.live, lag)


def _lag(history: History, projection: Projection[Any], number: int, live: int) -> int:
    """How many events, over all partitions, the generation has not read that the live one has."""
    ours, theirs = (View(history.stream, projection, generation=one).cursors() for one in (number, live))
    return sum(max(0, theirs[partition].read - cursor.read) for partition, cursor in ours.items())
