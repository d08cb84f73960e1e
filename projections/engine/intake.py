"""
From raw entries to what a fold may see: verify, decode, and decide which entry of an event ID counts.

    raw entries -> checksum, type -> (position, event)   and the evidence commit.lua verifies (digests,
        positions)

Every entry of the log ends in exactly one class: applied, duplicate (another entry is canonical), skipped (a
type the projection does not fold), dead (damaged: listed with the reason), quarantined (occurred_at more than
24 h after the server received it: a broken clock must not move event time). Pure but for ``Batch.judge``,
which asks the ids index, and the log by it, which entry of an event ID is canonical (evidence.py).
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

from aurastream.projections.engine.evidence import Index, Judged, Verdict
from aurastream.projections.engine.first_rules import read_by_first_rules
from aurastream.streams import (
    AHEAD_MAX,
    EPOCH,
    MICROSECOND,
    Codec,
    Cursor,
    DamagedEntry,
    Event,
    Position,
    RawEntry,
    Span,
    collided_field_of,
    entries_json,
    entry_json,
    field_of,
    microseconds,
    pack_positions,
    read_envelope,
    read_envelopes,
    unpack_position,
)

RECEIVED = b"received_ms"  # the first field of an entry whose position says no time
_AHEAD_US = int(AHEAD_MAX.total_seconds() * 1e6)
PACKED_BYTES, NO_POSITION = 10, bytes(10)
_LATEST_US = microseconds(datetime(9999, 1, 1, tzinfo=UTC))  # a raw XADD may carry any position


def _received_ms(raw: list[RawEntry]) -> int:
    """When the first was received: by its position, or, of a log elsewhere, the least that is said."""
    if raw and raw[0][1][:1] == [RECEIVED]:
        return min(int(fields[1]) for _, fields in raw if fields[:1] == [RECEIVED])
    return Position.parse(raw[0][0]).ms if raw else 0


def json_bytes(raw: list[RawEntry]) -> int:
    """What append.lua counts as the bytes of these entries; of a foreign entry, its first value."""
    return sum([len(fields[1]) for _, fields in raw if len(fields) > 1])


class Batch:
    """One read of a partition, decoded. ``events`` is what the fold sees, in order.

    Of archived entries (span.duplicates is not None) the index knows nothing any more, so there is no
    evidence and nothing to judge: the archive says which of them are duplicates.
    """

    def __init__(
        self, span: Span, codec: Codec, where: str, any_type: bool, set_aside: Container[str] = ()
    ) -> None:
        """where: stream/partition. set_aside: positions that the view folded anew lists (definition.py), of
        which the first rules hold. Raises Unread at an event that
        waits for a better build.
        """
        raw = span.raw
        self._set_aside = set_aside
        self.where, self.is_archived = where, span.is_archived
        positions, every = zip(*raw, strict=True) if raw else ((), ())
        self.positions: list[bytes] = list(positions)
        self.dead: dict[str, str] = {}
        self.skipped = 0
        self.quarantined = 0
        self.differs = False  # whether the first rules say another thing of any
        self.checksum_parts = [b""] * (2 * len(raw))  # position, checksum, position, ..
        self.checksum_parts[::2] = positions
        self.checksum_parts[1::2] = [fields[-1] if fields else b"" for fields in every]
        # position, event_id of every entry that has one; None: of every event
        self._identified: list[tuple[bytes, str]] | None = []
        self._events: list[tuple[str, Any]] = []
        self._judged: dict[bytes, Judged] = {}
        self._known = {position.decode() for position in span.duplicates or ()}
        self._any_type, self._codec = any_type, codec
        # Positions only grow, so what the first entry's clock allows, the others' allow as well.
        limit = EPOCH + min(_received_ms(raw) * 1000 + _AHEAD_US, _LATEST_US) * MICROSECOND
        usual = self._usual(raw, list(every), span.is_sound)
        if all([event is not None and event.occurred_at <= limit for event in usual]):  # noqa: C419 - a third faster than asking one by one
            self._identified = None
            places = b"\n".join(self.positions).decode().split("\n") if usual else []
            self._events = list(zip(places, usual, strict=True))
        else:
            self._look(raw, usual, limit)
        self._settle()

    def _look(self, raw: list[RawEntry], usual: Sequence[Any], limit: datetime) -> None:
        """Entry by entry, closely where it is not what nearly all are."""
        identified: list[tuple[bytes, str]] = []
        for (position, fields), event in zip(raw, usual, strict=True):
            if event is not None and event.occurred_at <= limit:
                identified.append((position, event.event_id))
                self._events.append((position.decode(), event))
                continue
            try:
                self._take(position, fields, limit, identified)
            except DamagedEntry as error:
                self.dead[position.decode()] = error.reason
        self._identified = identified

    def _usual(self, raw: list[RawEntry], every: list[list[bytes]], is_sound: bool) -> Sequence[Any]:
        """The events, as far as they are undamaged, of a type to fold and of today's version; None for those
        to look at closely.
        """
        jsons = [fields[1] for fields in every] if is_sound else entries_json(every)
        self.read_bytes = json_bytes(raw) if jsons is None else sum(map(len, jsons))
        if jsons is None:
            return [None] * len(raw)
        if self._any_type:
            return read_envelopes(jsons)
        events = self._codec.decode_each(jsons)
        return self._opened(jsons, events) if self._codec.meets_newer and None in events else events

    def _opened(self, jsons: list[bytes], events: list[Event | None]) -> list[Event | None]:
        """The events, those of a newer producer among them."""
        opened = list(events)
        for index, event in enumerate(events):
            if event is None and self.positions[index].decode() not in self._set_aside:
                opened[index] = self._codec.decode_open(jsons[index])
                self.differs = self.differs or opened[index] is not None
        return opened

    def _take(
        self, position: bytes, fields: list[bytes], limit: datetime, identified: list[tuple[bytes, str]]
    ) -> None:
        """The close look at one entry."""
        raw, where = entry_json(self.where, fields), f"{self.where}/{position.decode()}"
        event = read_envelope(where, raw) if self._any_type else self._decoded(position, raw, where)
        if event is None:
            identified.append((position, read_envelope(self.where, raw).event_id))
            self.skipped += 1
            return
        identified.append((position, event.event_id))
        text = position.decode()
        if (
            event.occurred_at > limit
            and microseconds(event.occurred_at) > _received_ms([(position, fields)]) * 1000 + _AHEAD_US
        ):
            self.dead[text] = (
                f"quarantined: occurred_at {event.occurred_at} is more than 24 h after it was appended"
            )
            self.quarantined += 1
        else:
            self._events.append((text, event))

    def _decoded(self, position: bytes, raw: bytes, where: str) -> Event | None:
        if position.decode() in self._set_aside:
            return read_by_first_rules(self._codec, raw, where)
        read = self._codec.read(raw, where)
        self.differs = self.differs or bool(read.misfit)
        return read.event

    def _settle(self) -> None:
        """Work out what the fold sees, from what is resolved so far."""
        duplicates = {
            item.position.decode() for item in self.judged if item.verdict is Verdict.DUPLICATE
        } | self._known
        self.events = (
            [pair for pair in self._events if pair[0] not in duplicates] if duplicates else self._events
        )
        self._plain_named: list[tuple[bytes, str]] | None = None
        self._packed: bytes | None = None

    @property
    def _plain(self) -> list[tuple[bytes, str]]:
        """Position and event_id of what the index is to name as it is; put together when asked, as not every
        commit needs it.
        """
        if self._plain_named is None:
            named, judged = self._identified, self._judged
            if named is None:
                named = [
                    (position, event.event_id)
                    for position, (_, event) in zip(self.positions, self._events, strict=True)
                ]
            named = [] if self.is_archived else named
            self._plain_named = [pair for pair in named if pair[0] not in judged] if judged else named
        return self._plain_named

    @property
    def digests(self) -> bytes:
        """Of the plain events' IDs, 8 bytes each: the evidence, with ``packed``. Worked out when asked, as
        not every commit does.
        """
        return b"".join([field_of(event_id) for _, event_id in self._plain])

    @property
    def packed(self) -> bytes:
        """The plain events' positions, 10 bytes each."""
        if self._packed is None:
            # A position beyond the packed form (a raw XADD with an explicit one) is in no row as it is:
            # commit.lua answers ODD.
            packed = pack_positions([position for position, _ in self._plain])
            self._packed = b"".join([item if len(item) == PACKED_BYTES else NO_POSITION for item in packed])
        return self._packed

    @property
    def judged(self) -> list[Judged]:
        """The verdicts, in order."""
        return list(self._judged.values())

    @property
    def adopted(self) -> list[Judged]:
        """The entries that become canonical with this batch."""
        return [item for item in self.judged if item.verdict is Verdict.ADOPTED]

    @property
    def duplicates(self) -> frozenset[bytes]:
        """The positions of entries whose event ID another one is canonical for."""
        judged = {item.position for item in self.judged if item.verdict is Verdict.DUPLICATE}
        return frozenset(judged | {position.encode() for position in self._known})

    @property
    def event_ids(self) -> list[str]:
        """Of the plain events, in order: those that are not judged."""
        return [event_id for _, event_id in self._plain]

    def judge(self, index: Index) -> None:
        """Decide which events count, until the index names all others as they are: it may move meanwhile.
        What the archive says of its entries is asked of nobody.
        """
        while unnamed := self._unnamed(index):
            self.resolve(unnamed, index)
        index.adopt(self.adopted)

    def _unnamed(self, index: Index) -> list[int]:
        """The plain events (from 0) that the index does not name."""
        packed, fields = self.packed, [field_of(event_id) for _, event_id in self._plain]
        rows = index.rows(fields) if fields else []
        return [i for i, row in enumerate(rows) if row != packed[i * PACKED_BYTES : (i + 1) * PACKED_BYTES]]

    def resolve(self, places: list[int], index: Index) -> None:
        """The verdict on the plain events at these places (from 0)."""
        taken: set[bytes] = {item.field for item in self.adopted}
        plain = self._plain
        for place in places:
            position, event_id = plain[place]
            field = field_of(event_id)
            holder = index.row(field)
            if holder is not None and index.event_id_at(unpack_position(holder)) != event_id:
                field = collided_field_of(event_id)
                holder = index.row(field)
            if holder is None:
                verdict = Verdict.DUPLICATE if field in taken else Verdict.ADOPTED
                taken.add(field)
            else:
                is_own = unpack_position(holder) == position
                verdict = Verdict.CANONICAL if is_own else Verdict.DUPLICATE
            self._judged[position] = Judged(verdict, field, position)
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
            read_bytes=cursor.read_bytes + self.read_bytes,
            repairs=cursor.repairs,
        )
