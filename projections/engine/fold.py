"""
The fold: events and the states they touch in, the changes to the view out. Pure; all I/O is the caller's.

    keys of the batch -> [load states] -> apply, event by event, shown to the tables that want each -> [load
    their rows] -> changes

``Fold.batch`` is steps (streams/drive.py): it yields a Need, is sent what is stored, and returns Changes. A
large batch can yield a PAUSE now and then: a lane that catches up by 16,000 events shares its thread with
lanes whose events are to be visible within milliseconds. So
the same code runs live (apply.py, over HMGET), in ``check`` (everything in memory) and in a test, without a
server or a thread. Which kinds of tables there are is not known here (projections/tables/).

Invariant: after the caller has stored a batch's Changes, the tables are those of fold(log[.. batch]),
whatever the sizes of the batches. States and rows are cached between batches up to CACHE_MAX; ``reset``
drops them when the log moved without us.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from aurastream.projections.engine.errors import FoldFailed
from aurastream.projections.engine.projection import Projection
from aurastream.projections.tables import (
    Batched,
    Cached,
    Change,
    FoldedEvent,
    Loading,
    Need,
    ProjectionError,
    Rows,
    TableKind,
    Value,
    getter,
    tuple_getter,
)
from aurastream.streams import microseconds

# states and rows kept per fold, unless told otherwise; beyond it the cache starts anew with the last batch's
CACHE_MAX = 100_000
SLICE = 1_000  # events folded in one go, where others are to have their turn in between
PAUSE: Need = Rows("", [])  # nothing is needed; who shares a thread lets others go on

S = TypeVar("S", bound=msgspec.Struct)
Placed = tuple[str, FoldedEvent]  # position, event
Keyed = list[tuple[str, str, FoldedEvent]]  # key, position, event

_encode = msgspec.json.Encoder().encode


class Fold(Generic[S]):
    """The fold of one partition by one projection. pauses: whether it yields a PAUSE after every SLICE."""

    def __init__(self, projection: Projection[S], where: str = "memory", states_max: int = CACHE_MAX) -> None:
        projection.check()
        self.projection, self.where, self._states_max = projection, where, states_max
        self.watermark, self.pauses = 0, False
        self._tables = [table.fold() for table in projection.declared()]
        self._sees = [table.see for table in self._tables if table.see is not None]
        self._windows = _windows_of([table.window for table in self._tables if table.window is not None])
        self._is_by_subject = type(projection).key is Projection.key
        self._expires_at = (
            projection.expires_at if type(projection).expires_at is not Projection.expires_at else None
        )
        self._decode = msgspec.json.Decoder(projection.state).decode
        self.reset(0)

    def reset(self, watermark: int) -> None:
        """Forget everything cached, and continue at the stored watermark."""
        self.watermark = watermark
        self._states = Cached(self.projection.table, self._decode)
        for table in self._tables:
            table.reset()

    def batch(self, events: list[Placed]) -> Loading[list[Change]]:
        """Fold (position, event) pairs into changes. Raises FoldFailed where the projection raises."""
        keyed = self._keyed(events)
        yield from self._states.load({key for key, _, _ in keyed})
        before, moves = yield from self._apply(keyed)
        if keyed:
            latest = max([event.occurred_at for _, _, event in keyed])
            self.watermark = max(self.watermark, microseconds(latest))
        states = self._states.rows
        touched = [(key, old, states[key]) for key, old in before.items()]
        batch = Batched(touched, moves, self.watermark, self._states)
        try:
            changes = yield from self._changes(batch)
        except (ProjectionError, GeneratorExit):  # the latter by whoever drives these steps
            raise
        # Of a score, a total or a row, which belong to the batch and to no event alone.
        except BaseException as error:
            if not keyed:
                raise
            failed = self._failed(keyed[-1][1], keyed[-1][2], error)
            failed.is_exact = False
            raise failed from error
        self._states.bound(self._states_max, before)
        for table in self._tables:
            table.bound(self._states_max)
        return [change for change in changes if change.put or change.drop]

    def _failed(self, position: str, event: FoldedEvent, error: BaseException) -> FoldFailed:
        """Whatever the projection's code raised, an exit among it: no event may end who folds it."""
        if isinstance(error, KeyboardInterrupt | GeneratorExit):  # a person's, or whoever drives these steps
            raise error
        return FoldFailed(self.projection.name, self.where, (position, event.event_id), error)

    def _keyed(self, events: list[Placed]) -> Keyed:
        if self._is_by_subject:
            return [(event.subject, position, event) for position, event in events]
        key_of = self.projection.key
        keyed: Keyed = []
        for position, event in events:
            try:
                key = key_of(event)
            except BaseException as error:
                raise self._failed(position, event, error) from error
            if key is not None:
                keyed.append((key, position, event))
        return keyed

    def _changes(self, batch: Batched) -> Loading[list[Change]]:
        """What follows from the events for every table."""
        states = {key: _encode(new) for key, _, new in batch.touched}
        changes = [Change(self.projection.table, TableKind.HASH, put=states)]
        for table in self._tables:
            if self.pauses and len(batch.touched) > SLICE:
                yield PAUSE
            changes += yield from table.changes(batch)
        return changes

    def _apply(self, keyed: Keyed) -> Loading[tuple[dict[str, S | None], list[tuple[S | None, S]]]]:
        """Every event in order. Returns the touched keys' states before the batch, and the moves between
        states, one per key and window.
        """
        apply, expires_at = self.projection.apply, self._expires_at
        states, windows_of, sees = self._states.rows, self._windows, self._sees
        for table in self._tables:
            table.begin()
        before: dict[str, S | None] = {}
        base: dict[str, S | None] = {}  # what a key's next move begins at, if not at its state before
        moves: list[tuple[S | None, S]] = []
        for first in range(0, len(keyed), SLICE):
            if first and self.pauses:
                yield PAUSE
            for key, position, event in keyed[first : first + SLICE]:
                old = held = states[key]  # old: as the fold sees it; held: as its tables do, expired or not
                try:
                    if expires_at is not None and old is not None:
                        end = expires_at(old)
                        old = None if end is not None and end <= event.occurred_at else old
                    new = apply(old, event)
                    for see in sees:
                        see(key, old, new, event, position)
                    if new is old:
                        continue
                    if key not in before:
                        before[key] = held
                    if windows_of is not None and held is not None and windows_of(held) != windows_of(new):
                        start = base[key] if key in base else before[key]
                        if start is not held:
                            moves.append((start, held))
                        moves.append((held, new))
                        base[key] = new
                    states[key] = new
                except BaseException as error:
                    raise self._failed(position, event, error) from error
        starts = before | base if base else before
        moves += [(start, states[key]) for key, start in starts.items() if start is not states[key]]
        return before, moves


def _windows_of(windows: list[Value]) -> Callable[[Any], Any] | None:
    """All windows of a state at once, to see whether one of them is another."""
    distinct = list(dict.fromkeys(windows))
    if not distinct:
        return None
    return getter(distinct[0]) if len(distinct) == 1 else tuple_getter(distinct)
