"""
The fold of one key's events alone, and the rows that come of it.

    positions of the key's events by the trail, as far as it has come -> then the partition read on -> fold
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aurastream.projections.built_in import known_of_subject
from aurastream.projections.engine import AdoptingIndex, MemoryView, Projection, flat
from aurastream.projections.rebuild.subject_tables import SubjectTables
from aurastream.streams import History, Position, Span, subject_of

FETCH = 1_000  # entries fetched by position at once

Rows = dict[str, dict[str, str]]  # table as stored -> row -> value as text


class SubjectFold:
    """One key's rows as they should be. events: that were folded so far."""

    def __init__(self, history: History, projection: Projection[Any], subject: str) -> None:
        self._history, self._projection, self._subject = history, projection, subject
        self._partition = history.stream.partition_of(subject)
        self._tables = SubjectTables(projection, subject)
        self._folded = MemoryView(projection, history.stream.keys[self._partition].where)
        self._index = AdoptingIndex(history.stream, self._partition)
        self._read_to = Position.parse("")
        self.events = 0

    def fold_to(self, position: str) -> None:
        """The key's events up to the position, those that were folded before left out."""
        until = Position.parse(position)
        if until <= self._read_to:
            return
        for span in self._spans(until):
            batch = self._folded.decode(span.raw, span.duplicates)
            batch.judge(self._index)
            self.events += len(batch.events)
            self._folded.fold(batch)
        self._read_to = until

    def rows(self, watermark: int) -> Rows:
        """The key's rows when the partition's event time is the watermark (microseconds): that is what
        others' events say of it.
        """
        state, rows = self._folded.tables.get(self._projection.table, {}).get(self._subject), Rows()
        for name, table in flat(self._folded).items():
            own = {row: value for row, value in table.items() if self._tables.is_own(name, row)}
            if own and not self._tables.has_left(name, state, watermark):
                rows[name] = own
        return rows

    def shared(self) -> list[str]:
        """The tables that add up several keys."""
        tables = self._folded.tables
        return self._tables.shared({name for name, table in tables.items() if self._subject in table})

    def _spans(self, until: Position) -> Iterator[Span]:
        """The key's entries after those that were read: those the trail knows by position, the rest by
        reading the partition.
        """
        known, after = known_of_subject(self._history.stream, self._subject), self._read_to
        high = min(Position.parse(known.until), until)
        if high > after:
            yield from self._known([p for p in known.positions if after < Position.parse(p) <= high])
            after = high
        if after < until:
            for span in self._history.spans(self._partition, str(after), str(until)):
                if raw := [entry for entry in span.raw if subject_of(entry[1]) == self._subject]:
                    yield Span(raw, span.duplicates)

    def _known(self, positions: list[str]) -> Iterator[Span]:
        """Entries by position: the trail names the ones that count and leaves duplicates out."""
        for first in range(0, len(positions), FETCH):
            part = positions[first : first + FETCH]
            entries = self._history.entries(self._partition, part)
            if raw := [entries[position] for position in part if position in entries]:
                yield Span(raw, frozenset())
