"""
The steps of one subject's state, or of its score in a ranking.

    the subject's entries (subject_spans.py) -> folded alone, one by one -> changes of the state
"""

from __future__ import annotations

import msgspec

from aurastream.projections.engine import AdoptingIndex, Batch, MemoryView, View
from aurastream.projections.past.facts import log_facts, settled
from aurastream.projections.past.inquiry import Inquiry
from aurastream.projections.past.steps import (
    NOTHING,
    OTHER_COUNTS,
    Fields,
    JsonValue,
    Step,
    Why,
    changes_between,
    duplicates_of,
    envelope_of,
    step_of,
    step_of_gone,
)
from aurastream.projections.past.subject_spans import spans_of_subject
from aurastream.streams import START, Event, Position, RawEntry


class OfSubject:
    """The steps of one subject's state."""

    def __init__(self, inquiry: Inquiry) -> None:
        self._inquiry, self._history, self._key = inquiry, inquiry.history, inquiry.key
        self._stream, self._projection = inquiry.stream, inquiry.projection
        self._partition = self._stream.partition_of(self._key)
        self._view = MemoryView(self._projection, self._stream.keys[self._partition].where)
        self._state_of = msgspec.json.Decoder(self._projection.state).decode
        self._score = None if inquiry.declared is None else inquiry.declared.of_state()
        self._why = Why([])

    def answer(self) -> Why:
        """All steps up to the view's cursor, or to T."""
        held, until = self._held()
        self._why.positions = {self._partition: until}
        if until:
            self._fold_to(Position.parse(until))
        raw = self._row()
        self._why.value = self._opened(raw)
        if self._inquiry.as_of is None:
            self._why.stored, self._why.agrees = self._opened(held), held == raw
        return self._why

    def _held(self) -> tuple[bytes | None, str]:
        """The view's row, and up to which position to explain it."""
        if self._inquiry.as_of is not None:
            return None, log_facts(self._stream, self._partition).last
        view = View(self._stream, self._projection)
        answer = view.rows(self._projection.table, [self._key], [self._partition])
        return answer.rows[self._partition][0], answer.positions[self._partition]

    def _fold_to(self, until: Position) -> None:
        index = AdoptingIndex(self._stream, self._partition)
        for span in spans_of_subject(self._history, self._key, START, until):
            self._why.read += span.looked_at
            self._why.scanned += 0 if span.is_indexed else span.looked_at
            self._why.steps += [step_of_gone(self._partition, position) for position in span.gone]
            if span.raw:
                batch = settled(self._view, span.entries, index)
                self._fold(batch, span.raw, duplicates_of(span.entries, batch))
            self._inquiry.on_read(span.looked_at)

    def _fold(self, batch: Batch, raw: list[RawEntry], duplicates: frozenset[bytes]) -> None:
        """One event at a time, with what it changed."""
        events = dict(batch.events)
        for place, fields in raw:
            position = place.decode()
            if position in events:
                event = events[position]
                if self._inquiry.is_in_time(position, event.occurred_at):
                    self._why.steps.append(self._step(position, event))
            elif position in batch.dead:
                self._note(position, fields, batch.dead[position])
            elif place in duplicates:
                self._note(position, fields, OTHER_COUNTS)

    def _step(self, position: str, event: Event) -> Step:
        before = self._row()
        self._view.step([(position, event)])
        after = self._row()
        changed = {} if before == after else changes_between(self._fields(before), self._fields(after))
        return step_of(self._partition, position, event, changed, "" if changed else NOTHING)

    def _note(self, position: str, fields: list[bytes], remark: str) -> None:
        """A step of an event that no fold sees."""
        envelope = envelope_of(fields)
        if envelope is not None and self._inquiry.is_in_time(position, envelope.occurred_at):
            self._why.steps.append(step_of(self._partition, position, envelope, {}, remark))

    def _row(self) -> bytes | None:
        row: bytes | None = self._view.tables.get(self._projection.table, {}).get(self._key)
        return row

    def _fields(self, raw: bytes | None) -> Fields:
        """The state's fields, and its score where that is asked for."""
        if raw is None:
            return {}
        state = self._state_of(self._stream.keyring.open_json(raw))
        fields = {name: getattr(state, name) for name in state.__struct_fields__}
        return fields if self._score is None else {self._inquiry.table: self._score(state)} | fields

    def _opened(self, raw: bytes | None) -> JsonValue:
        """The row as a JSON value, or the state's score where that is asked for."""
        if raw is None:
            return None
        if self._score is not None:
            return self._score(self._state_of(raw))
        return msgspec.json.decode(self._stream.keyring.open_json(raw))
