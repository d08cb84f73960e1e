"""
From raw entries to what a fold may see: verify, decode, and decide which entry of an event ID counts.

    raw entries -> checksum, type -> (position, event)   and the evidence commit.lua verifies (digests, positions)

Every entry of the log ends in exactly one class: applied, duplicate (another entry is canonical), skipped (a type the projection
does not fold), dead (damaged: listed with the reason), quarantined (occurred_at more than 24 h after the server received it: a
broken clock must not move event time). Pure; which entry is canonical is asked of the index by the caller (``Odd``).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

import msgspec

from aurastream.projections.fold import EPOCH, MICROSECOND, microseconds
from aurastream.streams import Codec, DamagedEntry
from aurastream.streams.codec import RawEntry, entries_json, entry_json, read_envelope, read_envelopes
from aurastream.streams.groups import Cursor, as_pair
from aurastream.streams.index import collided_field_of, field_of, pack_position, pack_positions, unpack_position
from aurastream.streams.log import AHEAD_MAX

RECEIVED = b"received_ms"  # the first field of an entry whose position says no time
_AHEAD_US = int(AHEAD_MAX.total_seconds() * 1e6)
PACKED_BYTES, NO_POSITION = 10, bytes(10)
_LATEST_US = microseconds(datetime(9999, 1, 1, tzinfo=UTC))  # a raw XADD may carry any position


def _received_ms(raw: list[RawEntry]) -> int:
    """When the first of these was received: by its position, or, of a log elsewhere, the least that is said."""
    if raw and raw[0][1][:1] == [RECEIVED]:
        return min(int(fields[1]) for _, fields in raw if fields[:1] == [RECEIVED])
    return as_pair(raw[0][0].decode())[0] if raw else 0


class Odd(msgspec.Struct, frozen=True):
    """An event whose index row is not simply its own position. See commit.lua for the classes."""

    kind: str  # D, A or C
    field: bytes
    position: bytes

    def args(self) -> tuple[str, bytes, bytes, bytes]:
        """As commit.lua takes it."""
        return self.kind, self.field, pack_position(self.position), self.position


class Batch:
    """One read of a partition, decoded. ``events`` is what the fold sees, in order."""

    def __init__(self, raw: list[RawEntry], codec: Codec, where: str, any_type: bool) -> None:
        self.where = where
        self.positions: list[bytes] = [position for position, _ in raw]
        self.dead: dict[str, str] = {}
        self.skipped = 0
        self.quarantined = 0
        self.checksum_parts = [part for position, fields in raw for part in (position, fields[-1] if fields else b"")]
        self._identified: list[tuple[bytes, str]] = []  # position, event_id of every entry that has one
        self._events: list[tuple[str, Any]] = []
        self._resolved: dict[bytes, Odd] = {}
        self._any_type, self._codec = any_type, codec
        # Positions only grow, so what the first entry's clock allows, the others' allow as well.
        limit = EPOCH + min(_received_ms(raw) * 1000 + _AHEAD_US, _LATEST_US) * MICROSECOND
        for (position, fields), event in zip(raw, self._usual(raw), strict=True):
            if event is not None and event.occurred_at <= limit:
                self._identified.append((position, event.event_id))
                self._events.append((position.decode(), event))
                continue
            try:
                self._take(position, fields, limit)
            except DamagedEntry as error:
                self.dead[position.decode()] = error.reason
        self._settle()

    def _usual(self, raw: list[RawEntry]) -> Sequence[Any]:
        """The events, as far as they are undamaged, of a type to fold and of today's version; None for those to look at closely."""
        jsons = entries_json([fields for _, fields in raw])
        if jsons is None:
            return [None] * len(raw)
        return read_envelopes(jsons) if self._any_type else self._codec.decode_each(jsons)

    def _take(self, position: bytes, fields: list[bytes], limit: datetime) -> None:
        """The close look at one entry."""
        raw = entry_json(self.where, fields)
        event = read_envelope(self.where, raw) if self._any_type else self._codec.decode(raw, self.where)
        if event is None:
            self._identified.append((position, read_envelope(self.where, raw).event_id))
            self.skipped += 1
            return
        self._identified.append((position, event.event_id))
        text = position.decode()
        if event.occurred_at > limit and microseconds(event.occurred_at) > _received_ms([(position, fields)]) * 1000 + _AHEAD_US:
            self.dead[text] = f"quarantined: occurred_at {event.occurred_at} is more than 24 h after it was appended"
            self.quarantined += 1
        else:
            self._events.append((text, event))

    def _settle(self) -> None:
        """Work out what the fold sees and the evidence, from what is resolved so far."""
        odd = self._resolved
        plain = [(position, event_id) for position, event_id in self._identified if position not in odd] if odd else self._identified
        self._plain = plain
        duplicates = {item.position.decode() for item in odd.values() if item.kind == "D"}
        self.duplicates = len(duplicates)
        self.events = [pair for pair in self._events if pair[0] not in duplicates] if duplicates else self._events
        self.digests = b"".join([field_of(event_id) for _, event_id in plain])
        # A position beyond the packed form (a raw XADD with an explicit one) is never found as it is: commit.lua calls it odd.
        packed = pack_positions([position for position, _ in plain])
        self.packed = b"".join([item if len(item) == PACKED_BYTES else NO_POSITION for item in packed])

    @property
    def odd(self) -> list[Odd]:
        """The events the caller resolved, in order."""
        return list(self._resolved.values())

    @property
    def fields(self) -> list[bytes]:
        """The index fields of the plain events, to look them up without a commit."""
        return [field_of(event_id) for _, event_id in self._plain]

    def event_ids(self, places: list[int]) -> list[str]:
        """The event IDs of the plain events at these places (from 0)."""
        return [self._plain[place][1] for place in places]

    def strangers(self, rows: list[bytes | None]) -> list[int]:
        """Which plain events (from 0) the index, as read for ``fields``, does not name."""
        return [i for i, row in enumerate(rows) if row != self.packed[i * 10 : i * 10 + 10]]

    def resolve(self, strange: list[int], index: Index) -> None:
        """Decide for the plain events at these places (from 0) whether each is duplicate, to be adopted, or canonical by a long
        field. Raises InvariantBroken when the index answers what it cannot."""
        taken: set[bytes] = {item.field for item in self._resolved.values() if item.kind == "A"}
        for place in strange:
            position, event_id = self._plain[place]
            field = field_of(event_id)
            holder = index.row(field)
            if holder is not None and index.event_id_at(unpack_position(holder)) != event_id:
                field = collided_field_of(event_id)
                holder = index.row(field)
            if holder is None:
                kind = "D" if field in taken else "A"
                taken.add(field)
            else:
                kind = "C" if unpack_position(holder) == position else "D"
            self._resolved[position] = Odd(kind, field, position)
        self._settle()

    def advance(self, cursor: Cursor, fingerprint: str, watermark: int) -> Cursor:
        """The cursor after this batch."""
        return Cursor(
            position=self.positions[-1].decode(),
            read=cursor.read + len(self.positions),
            applied=cursor.applied + len(self.events),
            duplicates=cursor.duplicates + len(self._events) - len(self.events),
            skipped=cursor.skipped + self.skipped,
            dead=cursor.dead + len(self.dead) - self.quarantined,
            quarantined=cursor.quarantined + self.quarantined,
            checksum=crc32(b" ".join([*self.checksum_parts, b""]), cursor.checksum),
            fingerprint=fingerprint,
            watermark=watermark,
        )


class Index:
    """The ids index and the log, as ``Batch.resolve`` asks them."""

    def row(self, field: bytes) -> bytes | None:
        """The packed position the field holds."""
        raise NotImplementedError

    def event_id_at(self, position: bytes) -> str | None:
        """The event ID of the entry at the position; None when there is no such entry."""
        raise NotImplementedError
