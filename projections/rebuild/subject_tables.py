"""
Which tables of a view have rows of one key, and which rows those are: the tables say it themselves.

    states   one row, by the key           declared tables   Table.own_rows, has_left (projections/tables/)
    shared   those whose rows add up several keys, and those whose rows of the key go by another name
"""

from __future__ import annotations

import msgspec

from aurastream.projections.engine import AnyProjection, Table, TableKind


class SubjectTables:
    """The tables of one key. Names are as stored: with a part, and a ranking's ends apart."""

    def __init__(self, projection: AnyProjection, subject: str) -> None:
        self._projection, self._subject, self._declared = projection, subject, projection.declared()

    def kind(self, name: str) -> TableKind:
        """What it is in the server."""
        table = self._table(name)
        return TableKind.HASH if table is None else table.kind

    def may_have_rows(self, name: str) -> bool:
        """Whether rows of the key can be in it."""
        return bool(self.row_names(name, None))

    def row_names(self, name: str, raw: bytes | None) -> list[str]:
        """The key's rows in it. raw: the row under the key."""
        if name == self._projection.table:
            return [self._subject]
        table = self._table(name)
        return [] if table is None else table.own_rows(self._subject, raw) or []

    def is_own(self, name: str, row: str) -> bool:
        """Whether the row is the key's."""
        return self.may_have_rows(name) and row.partition("|")[0] == self._subject

    def has_left(self, name: str, state: bytes | None, watermark: int) -> bool:
        """Whether others' event time has taken the key out of it."""
        table = self._table(name)
        if table is None or state is None:
            return False
        return table.has_left(msgspec.json.decode(state, type=self._projection.state), watermark)

    def shared(self, own: set[str]) -> list[str]:
        """Those whose rows were not looked at. own: those that have a row under the key."""
        return [
            table.name
            for table in self._declared
            if table.own_rows(self._subject, None) is None
            or (table.kind is TableKind.HASH and table.name not in own)
        ]

    def _table(self, name: str) -> Table | None:
        return next((table for table in self._declared if table.stored_as(name)), None)
