"""
Sliding windows: what a key, or a part, gained in the last N minutes, by event time.

    an event at 12:07, grain 5 minutes -> the bucket of 12:05 -> value: the sum over the buckets of the span
    that ends with the row's latest bucket; with a span of an hour, that of 12:05 leaves when 13:05 comes

A row is a ring of buckets, one a grain, the empty ones left out. Its watermark is the latest event time it
has seen: never a clock, and never another row's, so a row that nothing happens to stays as it is.
Rule for order: an event adds to its own bucket as long as that is within the span; one that is older is
counted as late and adds nothing. What left the span is dropped with the event that moved it, so a row has at
most span / grain buckets, and is the same whatever the batches.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from operator import attrgetter
from typing import TypeAlias

import msgspec

from aurastream.projections.tables.reading import Answer, Reader, Rows, State, positions_of, whole
from aurastream.projections.tables.table import (
    Batched,
    Cached,
    Change,
    FoldedEvent,
    Loading,
    ProjectionError,
    Table,
    TableFold,
    TableKind,
)
from aurastream.projections.tables.values import Value, check_field, getter, tuple_getter
from aurastream.streams import EPOCH, MICROSECOND, Cursor, microseconds

BUCKETS_MAX = 1_000  # of a row: it is read and written whole

Counts: TypeAlias = tuple[int, ...]
Instant: TypeAlias = str | Callable[[FoldedEvent], datetime]  # a field of the event, or a pure function of it

_encode = msgspec.json.Encoder().encode


class Slid(msgspec.Struct, frozen=True):
    """A row. latest: event time, microseconds since 1970. late: events that were older than the span.
    buckets: (number of the grain since 1970, a sum per column), the oldest first.
    """

    latest: int
    late: int = 0
    buckets: tuple[tuple[int, Counts], ...] = ()


class Sliding(Table, frozen=True):
    """Sums over the last `span` of event time, per key or per part.

    of: column -> field or function of the state, an integer: what it grew by with an event is what the event
    adds (of a key's first event, all of it); a constant is added by every event that changes the state.
    span: a multiple of grain. at: the field or function of the event that gives its time. by: field or
    function giving the part that is the row; None: the key is.
    """

    of: dict[str, Value | int]
    span: timedelta
    grain: timedelta
    at: Instant = "occurred_at"
    by: Value | None = None

    def check(self, state: type[msgspec.Struct], events: tuple[type, ...]) -> None:
        for value in (*self.of.values(), self.by):
            check_field(self.name, state, value)
        for event in events:
            check_field(self.name, event, self.at)
        if taken := sorted({"at", "late"}.intersection(self.of)):
            raise ProjectionError(
                f"the table {self.name!r} has a column {taken[0]!r} of its own: call yours otherwise."
            )
        self._check_span()

    def _check_span(self) -> None:
        if self.grain <= timedelta(0) or self.span < self.grain or self.span % self.grain:
            raise ProjectionError(
                f"the table {self.name!r} slides over {self.span} in grains of {self.grain}: the span must "
                "be a multiple of the grain."
            )
        if (buckets := self.span // self.grain) > BUCKETS_MAX:
            raise ProjectionError(
                f"the table {self.name!r} has {buckets} buckets a row, and at most {BUCKETS_MAX} are written "
                "with every event. Make the grain coarser."
            )

    def fold(self) -> TableFold:
        return _SlidingFold(self)

    def _one(self, view: Reader, row: str) -> dict[int, tuple[Cursor, dict[str, bytes]]]:
        """As ``whole`` would answer, were that the only row."""
        answers = view.ask({partition: [Rows(self.name, [row])] for partition in view.partitions})
        return {
            partition: (cursor, {} if raw is None else {row: raw})
            for partition, (cursor, ((raw,),)) in answers.items()
        }

    def read(self, view: Reader, row: str | None = None) -> Answer:
        """row -> {column: sum, "at": latest event time, "late": count}; of one row, or of all.

        Parts are added up over the partitions, within the span that ends with the latest event of any.
        """
        decode = view.decoder(Slid)
        tables = whole(view, self.name) if row is None else self._one(view, row)
        held: dict[str, list[Slid]] = {}
        for _, table in tables.values():
            for name, raw in table.items():
                held.setdefault(name, []).append(decode(raw))
        rows = {name: self._summed(parts) for name, parts in sorted(held.items())}
        return Answer(rows, positions_of(tables))

    def value(self, raw: bytes) -> dict[str, int | datetime]:
        return self._summed([msgspec.json.decode(raw, type=Slid)])

    def own_rows(self, key: str, raw: bytes | None) -> list[str] | None:
        return [key] if self.by is None else None

    def _summed(self, parts: list[Slid]) -> dict[str, int | datetime]:
        latest = max(part.latest for part in parts)
        first = first_of(latest, self.span, self.grain)
        buckets = [counts for part in parts for number, counts in part.buckets if number >= first]
        sums = map(sum, zip(*buckets, strict=True)) if buckets else [0] * len(self.of)
        late = sum(part.late for part in parts)
        return {**dict(zip(self.of, sums, strict=True)), "at": EPOCH + latest * MICROSECOND, "late": late}


def first_of(latest: int, span: timedelta, grain: timedelta) -> int:
    """The number of the oldest bucket that is within the span. latest: event time, microseconds."""
    return latest // (grain // MICROSECOND) - span // grain + 1


def slid(row: Slid | None, instant: int, counts: Counts, span: timedelta, grain: timedelta) -> Slid:
    """The row after one more event. Pure. instant: the event's time, microseconds."""
    if row is None:
        row = Slid(instant)
    number, first = instant // (grain // MICROSECOND), first_of(max(row.latest, instant), span, grain)
    if number < first:
        return msgspec.structs.replace(row, late=row.late + 1)
    buckets = {held: sums for held, sums in row.buckets if held >= first}
    held = buckets.get(number)
    sums = counts if held is None else tuple(map(sum, zip(held, counts, strict=True)))
    if any(sums):
        buckets[number] = sums
    else:
        buckets.pop(number, None)
    return Slid(max(row.latest, instant), row.late, tuple(sorted(buckets.items())))


class _SlidingFold(TableFold):
    def __init__(self, spec: Sliding) -> None:
        self._spec = spec
        self._instant = attrgetter(spec.at) if isinstance(spec.at, str) else spec.at
        self._part = None if spec.by is None else getter(spec.by)
        fields = [value for value in spec.of.values() if not isinstance(value, int)]
        self._values = tuple_getter(fields) if fields else lambda state: ()
        self._constants = [value if isinstance(value, int) else None for value in spec.of.values()]
        self._decode = msgspec.json.Decoder(Slid).decode
        self.see = self._see
        self.reset()

    def reset(self) -> None:
        self._held = Cached(self._spec.name, self._decode)
        self.begin()

    def bound(self, most: int) -> None:
        self._held.bound(most)

    def begin(self) -> None:
        self._seen: list[tuple[str, int, Counts]] = []

    def _see(self, key: str, old: State, new: State, event: FoldedEvent, position: str) -> None:
        if new is not old:
            row = key if self._part is None else str(self._part(new))
            self._seen.append((row, microseconds(self._instant(event)), self._added(old, new)))

    def _added(self, old: State, new: State) -> Counts:
        """What the event adds to every column."""
        after = self._values(new)
        before = (0,) * len(after) if old is None else self._values(old)
        grown = iter([now - then for now, then in zip(after, before, strict=True)])
        return tuple([next(grown) if constant is None else constant for constant in self._constants])

    def changes(self, batch: Batched) -> Loading[list[Change]]:
        yield from self._held.load([row for row, _, _ in self._seen])
        rows, spec = self._held.rows, self._spec
        for row, instant, counts in self._seen:
            rows[row] = slid(rows[row], instant, counts, spec.span, spec.grain)
        put = {row: _encode(rows[row]) for row in {row for row, _, _ in self._seen}}
        return [Change(spec.name, TableKind.HASH, put=put)]
