"""
Listings: an append-only list per key.

The open end of a list is the row of its key: how many full rows there are, and the items after them. Full
rows are ``key|0``, ``key|1`` .., of LISTING_CHUNK items each, and never change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from aurastream.projections.tables.reading import Answer, Reader, Rows, State, positions_of, whole
from aurastream.projections.tables.table import (
    Batched,
    Cached,
    Change,
    FoldedEvent,
    Loading,
    Table,
    TableFold,
    TableKind,
)

LISTING_CHUNK = 16  # items a full row of a listing has
ROWS_MORE = 64  # full rows that may come between two looks at a list

_encode = msgspec.json.Encoder().encode


class ListRow(msgspec.Struct, frozen=True):
    """The open end of a list. stored: its full rows. tail: the items after them."""

    stored: int = 0
    tail: tuple[Any, ...] = ()


class Listing(Table, frozen=True):
    """An append-only list per key. item(before, after, event, position): a JSON value to add, or None."""

    key: Callable[[FoldedEvent], str]
    item: Callable[[State | None, State, FoldedEvent, str], Any]

    def fold(self) -> TableFold:
        return _ListingFold(self)

    def read(self, view: Reader, key: str, partitions: Iterable[int] | None = None) -> Answer:
        """A list's items: partition -> list in log order. Full rows never change, so two reads agree."""
        decode, decode_full = view.decoder(ListRow), view.decoder(list)
        chosen = view.partitions if partitions is None else partitions
        answers = view.ask({partition: [Rows(self.name, [key])] for partition in chosen})
        items: dict[int, list[Any]] = {}
        for partition, (_, ((raw,),)) in answers.items():
            if raw is None:
                continue
            head, full = decode(raw), []
            if head.stored:
                names = [f"{key}|{number}" for number in range(head.stored)]
                (full,) = view.ask({partition: [Rows(self.name, names)]}, goes_on=True)[partition][1]
            items[partition] = [*(item for row in full for item in decode_full(row)), *head.tail]
        return Answer(items, positions_of(answers))

    def listed(self, view: Reader) -> Answer:
        """The open ends."""
        tables = whole(view, self.name)
        rows = {
            row: msgspec.json.decode(raw)
            for _, table in tables.values()
            for row, raw in sorted(table.items())
            if "|" not in row
        }
        return Answer(rows, positions_of(tables))

    def own_rows(self, key: str, raw: bytes | None) -> list[str]:
        """Its open end and the full rows, with room for what comes meanwhile."""
        stored = 0 if raw is None else msgspec.json.decode(raw, type=ListRow).stored
        return [key, *(f"{key}|{number}" for number in range(stored + ROWS_MORE))]


class _ListingFold(TableFold):
    def __init__(self, spec: Listing) -> None:
        self._name, self._list_of, self._item_of = spec.name, spec.key, spec.item
        self._decode = msgspec.json.Decoder(ListRow).decode
        self.see = self._see
        self.reset()

    def reset(self) -> None:
        self._held = Cached(self._name, self._decode)
        self.begin()

    def bound(self, most: int) -> None:
        self._held.bound(most)

    def begin(self) -> None:
        self._lists: dict[str, list[Any]] = {}

    def _see(self, key: str, old: State, new: State, event: FoldedEvent, position: str) -> None:
        if (item := self._item_of(old, new, event, position)) is not None:
            self._lists.setdefault(self._list_of(event), []).append(item)

    def changes(self, batch: Batched) -> Loading[list[Change]]:
        yield from self._held.load(self._lists)
        rows, put = self._held.rows, dict[str, bytes]()
        for key, items in self._lists.items():
            held = rows[key]
            stored, tail = (held.stored, (*held.tail, *items)) if held is not None else (0, tuple(items))
            while len(tail) >= LISTING_CHUNK:
                put[f"{key}|{stored}"] = _encode(tail[:LISTING_CHUNK])
                tail, stored = tail[LISTING_CHUNK:], stored + 1
            rows[key] = row = ListRow(stored, tail)
            put[key] = _encode(row)
        return [Change(self._name, TableKind.HASH, put=put)]
