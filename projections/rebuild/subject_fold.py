"""
The fold of one key's events alone, and the rows that come of it.

    the key's entries (past/subject_spans.py) -> fold -> rows, as others' event time lets them be
"""

from __future__ import annotations

from aurastream.projections.engine import AdoptingIndex, AnyProjection, MemoryView, flat
from aurastream.projections.past import spans_of_subject
from aurastream.projections.rebuild.subject_tables import SubjectTables
from aurastream.streams import START, History, Position

Rows = dict[str, dict[str, str]]  # table as stored -> row -> value as text


class SubjectFold:
    """One key's rows as they should be. events: that were folded so far."""

    def __init__(self, history: History, projection: AnyProjection, subject: str) -> None:
        self._history, self._projection, self._subject = history, projection, subject
        self._partition = history.stream.partition_of(subject)
        self._tables = SubjectTables(projection, subject)
        self._folded = MemoryView(projection, history.stream.keys[self._partition].where)
        self._index = AdoptingIndex(history.stream, self._partition)
        self._read_to = START
        self.events = 0

    def fold_to(self, position: str, set_aside: frozenset[str]) -> None:
        """The key's events up to the position, those that were folded before left out. set_aside: positions
        that the view lists.
        """
        until = Position.parse(position)
        self._folded.obeying(set_aside)
        if until <= self._read_to:
            return
        for span in spans_of_subject(self._history, self._subject, self._read_to, until):
            if not span.raw:
                continue
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
