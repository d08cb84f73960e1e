"""
Totals: integers added up over keys, by part and event-time window; each key counts once a window.

A row is held as a tuple of integers in the order of the columns, and stored as a JSON object of them.
"""

from __future__ import annotations

from collections import defaultdict
from operator import add, sub
from typing import TypeAlias

import msgspec

from aurastream.projections.tables.reading import Answer, Reader, positions_of, whole
from aurastream.projections.tables.table import (
    Batched,
    Cached,
    Change,
    Loading,
    Move,
    Table,
    TableFold,
    TableKind,
)
from aurastream.projections.tables.values import Value, check_field, getter, tuple_getter

Counts: TypeAlias = tuple[int, ...]

_encode = msgspec.json.Encoder().encode


class Totals(Table, frozen=True):
    """Sums of integers over keys, one row per part and window.

    of: column -> field or function giving this key's contribution, an integer; the constant 1 counts keys.
    by: the part (category) the key counts in; when it changes, the contribution moves. window: start of the
    event-time window as text; a key's contribution to an earlier window stays. Row name: ``window|part``,
    ``window`` or ``part``.
    """

    of: dict[str, Value | int]
    by: Value | None = None
    window: Value | None = None

    def check(self, state: type[msgspec.Struct], events: tuple[type, ...]) -> None:
        for value in (*self.of.values(), self.by, self.window):
            check_field(self.name, state, value)

    def fold(self) -> TableFold:
        return _TotalsFold(self)

    def read(self, view: Reader) -> Answer:
        """Added up over the partitions: row -> {column: integer}."""
        tables = whole(view, self.name)
        rows: dict[str, dict[str, int]] = {}
        for _, table in tables.values():
            for row, raw in table.items():
                total = rows.setdefault(row, {})
                for column, count in msgspec.json.decode(raw).items():
                    total[column] = total.get(column, 0) + count
        return Answer(dict(sorted(rows.items())), positions_of(tables))


class _TotalsFold(TableFold):
    def __init__(self, spec: Totals) -> None:
        self._name, self.window = spec.name, spec.window
        fields = {column: value for column, value in spec.of.items() if not isinstance(value, int)}
        constants = {column: value for column, value in spec.of.items() if isinstance(value, int)}
        self._columns = (*fields, *constants)
        self._zeros, self._no_fields = (0,) * len(self._columns), (0,) * len(fields)
        self._constants = tuple(constants.values())
        self._values = tuple_getter(list(fields.values()))
        self._window_of = None if spec.window is None else getter(spec.window)
        self._row = tuple_getter([value for value in (spec.window, spec.by) if value is not None])
        self.reset()

    def reset(self) -> None:
        self._held = Cached(self._name, self._decode)

    def bound(self, most: int) -> None:
        self._held.bound(most)

    def changes(self, batch: Batched) -> Loading[list[Change]]:
        deltas = self._deltas(batch.moves)
        yield from self._held.load(deltas)
        rows, change = self._held.rows, Change(self._name, TableKind.HASH, put={}, drop=[])
        for row, counts in deltas.items():
            total = tuple(map(add, rows[row] or self._zeros, counts))
            if any(total):
                rows[row] = total
                change.put[row] = _encode(dict(zip(self._columns, total, strict=True)))
            else:  # a part that no key counts in any more is absent, as it is to a fresh fold
                rows[row] = None
                change.drop.append(row)
        return [change]

    def _decode(self, raw: bytes) -> Counts:
        held = msgspec.json.decode(raw)
        return tuple([held.get(column, 0) for column in self._columns])

    def _deltas(self, moves: list[Move]) -> dict[str, list[int]]:
        """What the moves from one state to the next add to each row, every key counting once a window."""
        more: dict[Counts, list[Counts]] = defaultdict(list)
        less: dict[Counts, list[Counts]] = defaultdict(list)
        row_of, values, window = self._row, self._values, self._window_of
        news = [new for _, new in moves]
        for (old, _), row, counts in zip(moves, map(row_of, news), map(values, news), strict=True):
            if old is not None and (window is None or window(old) == row[0]):
                old_row, before = row_of(old), values(old)
                if old_row == row and before == counts:
                    continue
                less[old_row].append(before)
            more[row].append(counts)
        return {
            "|".join(map(str, row)): self._sum(more.get(row, []), less.get(row, []))
            for row in more.keys() | less.keys()
        }

    def _sum(self, came: list[Counts], left: list[Counts]) -> list[int]:
        change = _column_sums(came) if came else self._no_fields
        if left:
            change = tuple(map(sub, change, _column_sums(left)))
        return [*change, *[(len(came) - len(left)) * constant for constant in self._constants]]


def _column_sums(rows: list[Counts]) -> Counts:
    return rows[0] if len(rows) == 1 else tuple(map(sum, zip(*rows, strict=True)))
