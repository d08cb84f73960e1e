"""Roll-ups: a row per key of one's choice, folded from states and events, in the log's order."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from aurastream.projections.tables.reading import Answer, Reader, State, positions_of, whole
from aurastream.projections.tables.table import (
    Batched,
    Cached,
    Change,
    FoldedEvent,
    Loading,
    Row,
    Table,
    TableFold,
    TableKind,
)

_encode = msgspec.json.Encoder().encode


class Rollup(Table, frozen=True):
    """A second fold, after apply: ``row = apply(row or None, state, event)`` for the row that `key(state,
    event)` names.

    key: None for no row. row: the struct. Returning the row it was given means that nothing changed.
    merge: one row of those that several partitions have under one name, for people; None: they are told
    apart.
    """

    key: Callable[[State, FoldedEvent], str | None]
    row: type[msgspec.Struct]
    apply: Callable[[Row, State, FoldedEvent], Row]
    merge: Callable[[list[Row]], Row] | None = None

    def fold(self) -> TableFold:
        return _RollupFold(self)

    def read(self, view: Reader) -> Answer:
        """row -> one struct per partition that has it."""
        decode, tables = view.decoder(self.row), whole(view, self.name)
        rows: dict[str, list[Row]] = {}
        for _, table in tables.values():
            for row, raw in table.items():
                rows.setdefault(row, []).append(decode(raw))
        return Answer(rows, positions_of(tables))

    def listed(self, view: Reader) -> Answer:
        answer, merge = self.read(view), self.merge
        if merge is None:
            return answer
        return Answer({row: merge(parts) for row, parts in answer.rows.items()}, answer.positions)


class _RollupFold(TableFold):
    def __init__(self, spec: Rollup) -> None:
        self._spec, self._row_of = spec, spec.key
        self._decode = msgspec.json.Decoder(spec.row).decode
        self.see = self._see
        self.reset()

    def reset(self) -> None:
        self._held = Cached(self._spec.name, self._decode)
        self.begin()

    def bound(self, most: int) -> None:
        self._held.bound(most)

    def begin(self) -> None:
        self._seen: list[tuple[str, State, FoldedEvent]] = []

    def _see(self, key: str, old: State, new: State, event: FoldedEvent, position: str) -> None:
        if new is not old and (row := self._row_of(new, event)) is not None:
            self._seen.append((row, new, event))

    def changes(self, batch: Batched) -> Loading[list[Change]]:
        yield from self._held.load([row for row, _, _ in self._seen])
        rows, apply = self._held.rows, self._spec.apply
        changed: set[str] = set()
        for row, state, event in self._seen:
            old = rows[row]
            new = apply(old, state, event)
            if new is not old:
                rows[row] = new
                changed.add(row)
        return [Change(self._spec.name, TableKind.HASH, put={row: _encode(rows[row]) for row in changed})]
