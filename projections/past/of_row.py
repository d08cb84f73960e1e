"""
The steps of any row of any table, by folding all there is: no index names the events behind it.

    whole history of every partition -> folded one by one -> the events after which the row was another
"""

from __future__ import annotations

import msgspec

from aurastream.projections.engine import AdoptingIndex, Change, MemoryView, TableKind, View
from aurastream.projections.past.facts import log_facts, settled
from aurastream.projections.past.inquiry import Inquiry
from aurastream.projections.past.steps import Fields, JsonValue, Why, changes_between, step_of
from aurastream.streams import Event, Position

SPAN = 1_000  # entries read at a time

Rows = dict[int, bytes | None]  # partition -> the row as stored


class OfRow:
    """The steps of one row, partition by partition; the value is one per partition that has the row."""

    def __init__(self, inquiry: Inquiry) -> None:
        self._inquiry, self._stream, self._projection = inquiry, inquiry.stream, inquiry.projection
        self._key, self._table, self._declared = inquiry.key, inquiry.table, inquiry.declared
        self._why = Why([])

    def answer(self) -> Why:
        """All steps up to the view's cursors, or to T."""
        held, self._why.positions = self._held()
        folded: Rows = {}
        for partition, until in self._why.positions.items():
            folded[partition] = self._fold(partition, until) if until else None
        self._why.steps.sort(key=lambda step: (Position.parse(step.position), step.partition))
        self._why.value = self._values(folded)
        if self._inquiry.as_of is None:
            self._why.stored = self._values(held)
            self._why.agrees = self._why.value == self._why.stored
        return self._why

    def _held(self) -> tuple[Rows, dict[int, str]]:
        """The view's rows, and up to which positions to explain them."""
        if self._inquiry.as_of is not None:
            partitions = range(self._stream.partitions)
            return {}, {partition: log_facts(self._stream, partition).last for partition in partitions}
        view = View(self._stream, self._projection)
        if self._declared is not None and self._declared.kind is TableKind.SORTED:
            tables = view.tables(self._table)
            rows = {partition: table.get(self._key) for partition, (_, (table,)) in tables.items()}
            return rows, {partition: cursor.position for partition, (cursor, _) in tables.items()}
        answer = view.rows(self._table, [self._key])
        return {partition: values[0] for partition, values in answer.rows.items()}, answer.positions

    def _fold(self, partition: int, until: str) -> bytes | None:
        """The row after the partition's whole history, each event behind it noted."""
        view = MemoryView(self._projection, self._stream.keys[partition].where)
        index = AdoptingIndex(self._stream, partition)
        for span in self._inquiry.history.spans(partition, "0-0", until, SPAN):
            self._why.read += len(span.raw)
            self._why.scanned += len(span.raw)
            self._inquiry.on_read(len(span.raw))
            for position, event in settled(view, span, index).events:
                if self._inquiry.is_in_time(position, event.occurred_at):
                    self._look(view, partition, position, event)
        return self._row_of(view)

    def _look(self, view: MemoryView, partition: int, position: str, event: Event) -> None:
        """One event; a batch would not do: what comes and goes within it leaves no trace in its changes."""
        before = self._row_of(view)
        if not any(self._touches(change) for change in view.step([(position, event)])):
            return
        after = self._row_of(view)
        if after != before:
            changed = changes_between(self._fields(before), self._fields(after))
            self._why.steps.append(step_of(partition, position, event, changed, ""))

    def _touches(self, change: Change) -> bool:
        is_table = change.table == self._table and change.part is None
        return is_table and (self._key in change.put or self._key in change.drop)

    def _row_of(self, view: MemoryView) -> bytes | None:
        row = view.tables.get(self._table, {}).get(self._key)
        return row.encode() if isinstance(row, str) else row

    def _fields(self, raw: bytes | None) -> Fields:
        if raw is None:
            return {}
        value = self._opened(raw)
        return value if isinstance(value, dict) else {self._table: value}

    def _opened(self, raw: bytes) -> JsonValue:
        """The row as a JSON value."""
        if self._declared is not None and self._declared.kind is TableKind.SORTED:
            return self._declared.value(raw)
        opened = self._stream.keyring.open_json(raw)
        return msgspec.json.decode(opened) if self._declared is None else self._declared.value(opened)

    def _values(self, rows: Rows) -> dict[int, JsonValue] | None:
        """partition -> value; None where no partition has the row."""
        return {partition: self._opened(raw) for partition, raw in rows.items() if raw is not None} or None
