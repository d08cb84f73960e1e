"""
Why a row of a view has its value: the events behind it, and what each of them changed.

    key is a subject:  trail's positions of it -> History.entries ─┐
                       what the trail has not read yet -> scanned ─┴─> folded alone, one by one -> changes of
                           its state -> compared
    any other row:     the whole history of the partition, folded one by one -> the events after which the row
                       was another

Always true: the steps are in the log's order up to the view's cursor (or to T), and lead from nothing to the
value named; whether the view says the same is in ``agrees``. The first way reads the key's entries and what
the trail lags behind, and so takes no longer in a longer log; the second is as long as the log (65 us an
event).
Not here: raw copies of an event that the trail has passed. No view counts them, and no index keeps them.

Decision (2026-11): the index is the trail's list of positions, which the audit needs anyway. Measured: a key
of 100 events takes 10 ms in a log of 10^4, 10^5 and 10^6 events alike; the trail costs 25 bytes of Redis, 3.4
us of the server and 9.7 us of its
consumer per event. Refused: an index per projection and row, as a total is changed by nearly every event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import msgspec

from aurastream.projections.built_in import known_of_subject
from aurastream.projections.engine import (
    AdoptingIndex,
    Batch,
    Change,
    MemoryView,
    Projection,
    ProjectionError,
    View,
)
from aurastream.projections.engine.fold import _getter
from aurastream.projections.past.as_of import AsOf, log_facts, settled
from aurastream.streams import (
    UNDECODABLE,
    DamagedEntry,
    Envelope,
    History,
    RawEntry,
    Span,
    as_pair,
    entry_json,
    read_envelope,
)

if TYPE_CHECKING:  # pyarrow takes its time: who has no archive does not wait for it
    from aurastream.streams.archive import StreamArchive

FETCH = 1_000  # entries fetched by position at a time
NOTHING, OTHER_COUNTS = "it changed nothing", "another entry of this event ID counts"

Changed = dict[str, tuple[Any, Any]]  # field -> before, after


class Step(msgspec.Struct, frozen=True):
    """One event. changed: field -> before and after, None for what was not there. remark: why it changed
    nothing, "" where it did.
    """

    partition: int
    position: str
    occurred_at: datetime | None
    type: str
    event_id: str
    source: str
    changed: Changed = {}
    remark: str = ""


class Why(msgspec.Struct):
    """The whole answer. value: what the steps lead to, None for no row; stored: what the view holds. Both as
    JSON values, opened.

    agrees: whether the two are the same, byte for byte; None as of a past time, which no view is kept of.
    positions: up to which the
    steps go. read: entries looked at; scanned: those of them that no index named.
    """

    steps: list[Step]
    value: Any = None
    stored: Any = None
    agrees: bool | None = None
    positions: dict[int, str] = {}
    read: int = 0
    scanned: int = 0


def why(
    history: History,
    projection: Projection[Any],
    key: str,
    table: str | None = None,
    as_of: AsOf | None = None,
    tell: Callable[[int], None] = lambda entries: None,
) -> Why:
    """The events behind a row. table: default the table of states; of a ranking the key's score. tell: called
    with entries read.

    Raises ProjectionError for a table there is not, and for a log that is elsewhere.
    """
    stream = history.stream
    if not stream.is_log_here:
        raise ProjectionError(
            f"the log of {stream.name!r} is in Kafka: the events behind its views cannot be read from here."
        )
    rankings = {spec.name: spec for spec in projection.rankings}
    chosen = table or projection.table
    declared: list[Any] = [*projection.totals, *projection.rollups, *projection.listings]
    known = [projection.table, *rankings, *(spec.name for spec in declared)]
    if chosen not in known:
        raise ProjectionError(f"{projection.name!r} has no table {chosen!r} (tables: {', '.join(known)}).")
    if has_index(projection, chosen):
        return _OfSubject(history, projection, key, rankings.get(chosen), as_of, tell).answer()
    return _OfRow(history, projection, key, chosen, as_of, tell).answer()


def has_index(projection: Projection[Any], table: str) -> bool:
    """Whether the trail names the events behind the table's rows: states by subject, and their scores."""
    return type(projection).key is Projection.key and table in {
        projection.table,
        *(spec.name for spec in projection.rankings),
    }


class _OfSubject:
    """The steps of one subject's state."""

    def __init__(
        self,
        history: History,
        projection: Projection[Any],
        key: str,
        ranking: Any,
        as_of: AsOf | None,
        tell: Callable[[int], None],
    ) -> None:
        self._history, self._projection, self._key, self._as_of, self._tell = (
            history,
            projection,
            key,
            as_of,
            tell,
        )
        self._partition = history.stream.partition_of(key)
        self._view = MemoryView(projection, history.stream.keys[self._partition].where)
        self._state_of = msgspec.json.Decoder(projection.state).decode
        self._score = None if ranking is None else _getter(ranking.score)
        self._score_name = "" if ranking is None else ranking.name
        self._why = Why([])

    def answer(self) -> Why:
        stream, partition = self._history.stream, self._partition
        held, until = self._held()
        self._why.positions = {partition: until}
        if until:
            known = known_of_subject(stream, self._key)
            self._fold_known(
                [position for position in known.positions if as_pair(position) <= as_pair(until)]
            )
            if as_pair(known.until) < as_pair(until):
                self._fold_rest(known.until or "0-0", until)
        raw = self._row()
        self._why.value = self._opened(raw)
        if self._as_of is None:
            self._why.stored, self._why.agrees = self._opened(held), held == raw
        return self._why

    def _held(self) -> tuple[bytes | None, str]:
        """The view's row, and up to which position to explain it."""
        if self._as_of is not None:
            return None, log_facts(self._history.stream, self._partition).last
        found = View(self._history.stream, self._projection).rows(
            self._projection.table, [self._key], [self._partition]
        )
        return found.rows[self._partition][0], found.positions[self._partition]

    def _fold_known(self, positions: list[str]) -> None:
        """What the trail names: events that count, each once."""
        for start in range(0, len(positions), FETCH):
            part = positions[start : start + FETCH]
            entries = self._history.entries(self._partition, part)
            self._why.read += len(entries)
            gone = [position for position in part if position not in entries]
            self._why.steps += [
                Step(self._partition, position, None, "", "", "", {}, "the entry is gone from the log")
                for position in gone
            ]
            if entries:
                raw = [entries[position] for position in part if position in entries]
                self._fold(self._view.decode(raw, frozenset()), raw, frozenset())
            self._tell(len(part))

    def _fold_rest(self, after: str, until: str) -> None:
        """What the trail has not read yet."""
        index = AdoptingIndex(self._history.stream, self._partition)
        for span in self._spans(after, until):
            raw = [entry for entry in span.raw if _subject_of(entry[1]) == self._key]
            self._why.read += len(span.raw)
            self._why.scanned += len(span.raw)
            self._tell(len(span.raw))
            if raw:
                batch = settled(self._view, Span(raw, span.duplicates), index)
                self._fold(batch, raw, duplicates_of(span, batch))

    def _spans(self, after: str, until: str) -> Iterator[Span]:
        archive = cast("StreamArchive | None", self._history.archive)
        if archive is not None and as_pair(end := archive.until(self._partition)) > as_pair(after):
            yield from archive.scan(
                self._partition, after=after, until=min(end, until, key=as_pair), subject=self._key
            )
            after = end
        if as_pair(after) < as_pair(until):
            yield from self._history.spans(self._partition, after, until)

    def _fold(self, batch: Batch, raw: list[RawEntry], duplicates: frozenset[bytes]) -> None:
        """One event at a time, with what it changed."""
        events = dict(batch.events)
        for position, fields in raw:
            place = position.decode()
            if place in events:
                event = events[place]
                if self._is_in_time(place, event.occurred_at):
                    self._why.steps.append(self._step(place, event))
            elif place in batch.dead:
                self._note(place, fields, batch.dead[place])
            elif position in duplicates:
                self._note(place, fields, OTHER_COUNTS)

    def _step(self, place: str, event: Any) -> Step:
        before = self._row()
        self._view.step([(place, event)])
        after = self._row()
        changed = {} if before == after else changes_between(self._fields(before), self._fields(after))
        return step_of(self._partition, place, event, changed, "" if changed else NOTHING)

    def _note(self, place: str, fields: list[bytes], remark: str) -> None:
        found = envelope_of(fields)
        if found is not None and self._is_in_time(place, found.occurred_at):
            self._why.steps.append(step_of(self._partition, place, found, {}, remark))

    def _is_in_time(self, place: str, occurred_at: datetime) -> bool:
        return self._as_of is None or self._as_of.has(place, occurred_at)

    def _row(self) -> bytes | None:
        found: bytes | None = self._view.tables.get(self._projection.table, {}).get(self._key)
        return found

    def _fields(self, raw: bytes | None) -> dict[str, Any]:
        """The state's fields, and its score where that is asked for."""
        if raw is None:
            return {}
        state = self._state_of(self._history.stream.keyring.open_json(raw))
        fields = {name: getattr(state, name) for name in state.__struct_fields__}
        return fields if self._score is None else {self._score_name: self._score(state)} | fields

    def _opened(self, raw: bytes | None) -> Any:
        if raw is None:
            return None
        if self._score is not None:
            return self._score(self._state_of(raw))
        return msgspec.json.decode(self._history.stream.keyring.open_json(raw))


class _OfRow:
    """The steps of any row of any table, by folding all there is."""

    def __init__(
        self,
        history: History,
        projection: Projection[Any],
        key: str,
        table: str,
        as_of: AsOf | None,
        tell: Callable[[int], None],
    ) -> None:
        self._history, self._projection, self._key, self._table, self._as_of, self._tell = (
            history,
            projection,
            key,
            table,
            as_of,
            tell,
        )
        self._is_score = table in {spec.name for spec in projection.rankings}
        self._why = Why([])

    def answer(self) -> Why:
        """Partition by partition; the value is one per partition that has the row."""
        held, self._why.positions = self._held()
        values: dict[int, bytes | None] = {}
        for partition, until in self._why.positions.items():
            values[partition] = self._fold(partition, until) if until else None
        self._why.steps.sort(key=lambda step: (*as_pair(step.position), step.partition))
        self._why.value = self._told(values)
        if self._as_of is None:
            self._why.stored = self._told(held)
            self._why.agrees = self._why.value == self._why.stored
        return self._why

    def _held(self) -> tuple[dict[int, bytes | None], dict[int, str]]:
        """The view's rows, and up to which positions to explain them."""
        stream = self._history.stream
        if self._as_of is not None:
            return {}, {
                partition: log_facts(stream, partition).last for partition in range(stream.partitions)
            }
        view = View(stream, self._projection)
        if self._is_score:
            found = view.tables(self._table)
            rows = {partition: table.get(self._key) for partition, (_, (table,)) in found.items()}
            return rows, {partition: cursor.position for partition, (cursor, _) in found.items()}
        answer = view.rows(self._table, [self._key])
        return {partition: values[0] for partition, values in answer.rows.items()}, answer.positions

    def _fold(self, partition: int, until: str) -> bytes | None:
        """The row after the partition's whole history, each event behind it noted."""
        view, index = (
            MemoryView(self._projection, self._history.stream.keys[partition].where),
            AdoptingIndex(self._history.stream, partition),
        )
        for span in self._history.spans(partition, "0-0", until, FETCH):
            self._why.read += len(span.raw)
            self._why.scanned += len(span.raw)
            self._tell(len(span.raw))
            for place, event in settled(view, span, index).events:
                if self._as_of is None or self._as_of.has(place, event.occurred_at):
                    self._look(view, partition, place, event)
        return self._row_of(view)

    def _look(self, view: MemoryView, partition: int, place: str, event: Any) -> None:
        """One event; a batch would not do, as what comes and goes within it leaves no trace in its changes."""
        before = self._row_of(view)
        if (
            any(self._touches(change) for change in view.step([(place, event)]))
            and (after := self._row_of(view)) != before
        ):
            changed = changes_between(self._fields(before), self._fields(after))
            self._why.steps.append(step_of(partition, place, event, changed, ""))

    def _touches(self, change: Change) -> bool:
        return (
            change.table == self._table
            and change.part is None
            and (self._key in change.put or self._key in change.drop)
        )

    def _row_of(self, view: MemoryView) -> bytes | None:
        found = view.tables.get(self._table, {}).get(self._key)
        return found.encode() if isinstance(found, str) else found

    def _fields(self, raw: bytes | None) -> dict[str, Any]:
        if raw is None:
            return {}
        value = self._opened(raw)
        return value if isinstance(value, dict) else {self._table: value}

    def _opened(self, raw: bytes) -> Any:
        if self._is_score:
            return 0.0 - float(raw)  # stored with the sign turned
        return msgspec.json.decode(self._history.stream.keyring.open_json(raw))

    def _told(self, rows: dict[int, bytes | None]) -> Any:
        """partition -> value; None where no partition has the row."""
        return {partition: self._opened(raw) for partition, raw in rows.items() if raw is not None} or None


def step_of(partition: int, place: str, event: Any, changed: Changed, remark: str) -> Step:
    """A step by its event, which may be no more than an envelope."""
    kind = event.type if isinstance(event, Envelope) else str(type(event).__struct_config__.tag)
    return Step(partition, place, event.occurred_at, kind, event.event_id, event.source, changed, remark)


def changes_between(before: dict[str, Any], after: dict[str, Any]) -> Changed:
    """The fields that are not the same."""
    names = dict.fromkeys([*before, *after])
    return {
        name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)
    }


def duplicates_of(span: Span, batch: Batch) -> frozenset[bytes]:
    """The positions of a batch whose event ID another entry is canonical for."""
    return span.duplicates if span.duplicates is not None else batch.duplicates


def envelope_of(fields: list[bytes]) -> Envelope | None:
    """What can be read of an entry; None where that is nothing."""
    try:
        return read_envelope("", entry_json("", fields))
    except DamagedEntry:
        return None


class _Subject(msgspec.Struct):
    subject: str


_subject = msgspec.json.Decoder(_Subject).decode


def _subject_of(fields: list[bytes]) -> str | None:
    """An entry's subject, by decoding no more than that."""
    try:
        return _subject(fields[fields[::2].index(b"event") * 2 + 1]).subject
    except (*UNDECODABLE, ValueError, IndexError):
        return None
