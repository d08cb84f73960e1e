"""
Which entry of an event ID counts: the verdicts, and the ids index they are by.

    Batch.judge -> Index.rows, row -> packed positions;  Index.event_id_at -> is it that event, or another of
    one digest?

``Index`` is what a batch asks: a partition's own (ServerIndex), that with what is adopted on the way
(AdoptingIndex), or answers that were fetched beforehand (KnownIndex, NamedIndex).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from aurastream.streams import (
    DIGEST_BYTES,
    DamagedEntry,
    RawEntry,
    Stream,
    entry_json,
    pack_position,
    read_envelope,
)


class Verdict(StrEnum):
    """What an entry is whose index row is not simply its own position."""

    DUPLICATE = "duplicate"  # another entry is canonical
    ADOPTED = "adopted"  # none was: this one becomes it
    CANONICAL = "canonical"  # this one is, under the long field


class Judged(msgspec.Struct, frozen=True):
    """The verdict on one entry, and the index field it is by."""

    verdict: Verdict
    field: bytes
    position: bytes

    def args(self) -> tuple[str, bytes, bytes, bytes]:
        """As commit.lua takes it."""
        return self.verdict.value, self.field, pack_position(self.position), self.position


class Index:
    """The ids index and the log, as ``Batch.judge`` asks them."""

    def rows(self, fields: list[bytes]) -> list[bytes | None]:
        """The packed positions that many fields hold."""
        return [self.row(field) for field in fields]

    def row(self, field: bytes) -> bytes | None:
        """The packed position the field holds."""
        raise NotImplementedError

    def event_id_at(self, position: bytes) -> str | None:
        """The event ID of the entry at the position; None when there is no such entry."""
        raise NotImplementedError

    def adopt(self, adopted: Iterable[Judged]) -> None:
        """These entries were judged canonical by nobody's row."""


class ServerIndex(Index):
    """The index of a partition, asked directly."""

    def __init__(self, stream: Stream, partition: int) -> None:
        self._stream, self._partition, self._keys = stream, partition, stream.keys[partition]

    def rows(self, fields: list[bytes]) -> list[bytes | None]:
        rows: list[bytes | None] = self._stream.ask(self._partition, ("HMGET", self._keys.ids, *fields))[0]
        return rows

    def row(self, field: bytes) -> bytes | None:
        row: bytes | None = self._stream.ask(self._partition, ("HGET", self._keys.ids, field))[0]
        return row

    def event_id_at(self, position: bytes) -> str | None:
        entries = self._stream.ask(self._partition, ("XRANGE", self._keys.log, position, position))[0]
        return event_id_of(self._keys.where, entries[0]) if entries else None


class AdoptingIndex(ServerIndex):
    """The same as it will be: of entries that no row names (a raw XADD) the first of an event ID counts, as
    to a projection that adopts it.
    """

    def __init__(self, stream: Stream, partition: int) -> None:
        super().__init__(stream, partition)
        self._adopted: dict[bytes, bytes] = {}

    def rows(self, fields: list[bytes]) -> list[bytes | None]:
        rows = super().rows(fields)
        if not self._adopted:
            return rows
        return [row or self._adopted.get(field) for row, field in zip(rows, fields, strict=True)]

    def row(self, field: bytes) -> bytes | None:
        return super().row(field) or self._adopted.get(field)

    def adopt(self, adopted: Iterable[Judged]) -> None:
        self._adopted |= {item.field: pack_position(item.position) for item in adopted}


class NamedIndex(Index):
    """Index rows by full names; a digest always belongs to somebody else, which sends ``resolve`` to the
    name.
    """

    def __init__(self, rows: dict[bytes, bytes | None]) -> None:
        self._rows = rows

    def row(self, field: bytes) -> bytes | None:
        return self._rows.get(field, b"") if len(field) != DIGEST_BYTES else b""

    def event_id_at(self, position: bytes) -> str | None:
        return None


class KnownIndex(Index):
    """Index rows and event IDs that were asked for beforehand."""

    def __init__(self, rows: dict[bytes, bytes | None], event_ids: dict[bytes, str | None]) -> None:
        self._rows, self._event_ids = rows, event_ids

    def row(self, field: bytes) -> bytes | None:
        return self._rows[field]

    def event_id_at(self, position: bytes) -> str | None:
        return self._event_ids[position]


def event_id_of(where: str, entry: RawEntry) -> str | None:
    """The entry's event ID; None where it is damaged."""
    try:
        return read_envelope(where, entry_json(where, entry[1])).event_id
    except DamagedEntry:
        return None
