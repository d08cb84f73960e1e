"""
From raw entries to items: what a handler is to be called with, and in which line it stands. Pure.

A line is a subject, whose items run one after the other. An entry that cannot be used stands in its subject's
line all the same, as far as the subject can be read, and is parked when its turn comes: what is behind it
must wait.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from aurastream.processors.effects.letters import line_of_position
from aurastream.streams import (
    IDENTIFIER,
    Ask,
    Asking,
    Codec,
    DamagedEntry,
    Envelope,
    Event,
    Keys,
    RawEntry,
    entry_json,
    field_of,
    pack_position,
    read_envelope,
    sound,
    unpack_position,
)

UNREAD = Event(event_id="", subject="", occurred_at=datetime.fromtimestamp(0, UTC))


class Item(msgspec.Struct, frozen=True):
    """An event to handle. problem: why it cannot be, or "". letter: as stored, of one that runs again."""

    position: str
    line: str
    crc: bytes
    event: Event
    problem: str = ""
    letter: bytes = b""


def item_of(entry: RawEntry, codec: Codec, where: str) -> Item | None:
    """The item, or None where the event is of a type the processor does not handle.

    where: stream/partition. Raises Unread at an event that waits for a better build.
    """
    position, fields = entry[0].decode(), entry[1]
    where = f"{where}/{position}"
    crc = dict(zip(fields[::2], fields[1::2], strict=False)).get(b"crc32", b"")
    envelope: Envelope | None = None
    try:
        raw = entry_json(where, fields)
        envelope = read_envelope(where, raw)
        event = codec.decode(raw, where)
        if event is not None and not IDENTIFIER.fullmatch(event.subject):
            raise DamagedEntry(
                where, f"its subject {event.subject[:40]!r} is not 1 to 128 of A-Z a-z 0-9 _ . : -"
            )
    except DamagedEntry as error:
        event = _as_far_as_known(envelope)
        return Item(position, event.subject or line_of_position(position), crc, event, error.reason)
    return None if event is None else Item(position, event.subject, crc, event)


def _as_far_as_known(envelope: Envelope | None) -> Event:
    """The envelope of an entry that is no whole event."""
    if envelope is None:
        return UNREAD
    subject = envelope.subject if IDENTIFIER.fullmatch(envelope.subject) else ""
    known = {
        "event_id": envelope.event_id,
        "correlation_id": envelope.correlation_id[:1_000],
        "subject": subject,
    }
    return msgspec.structs.replace(UNREAD, **known)


def doubles_of(items: list[Item], keys: Keys) -> Asking[list[str]]:
    """Positions of entries whose event ID another entry stands for: a raw XADD, an import, a mirror."""
    items = [item for item in items if item.event.event_id]
    if not items:
        return []
    fields = [field_of(item.event.event_id) for item in items]
    rows = sound((yield [Ask(keys.log, ("HMGET", keys.ids, *fields))]))[0]
    suspects = [
        (item, unpack_position(row))
        for item, row in zip(items, rows, strict=True)
        if row and row != pack_position(item.position.encode())
    ]
    if not suspects:
        return []
    others = sound((yield [Ask(keys.log, ("XRANGE", keys.log, other, other)) for _, other in suspects]))
    return [
        item.position
        for (item, _), other in zip(suspects, others, strict=True)
        if _event_id(other) == item.event.event_id
    ]


def _event_id(entries: list[RawEntry]) -> str | None:
    try:
        return read_envelope("", entry_json("", entries[0][1])).event_id if entries else None
    except DamagedEntry:
        return None
