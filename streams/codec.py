"""
Between events and the bytes in the log.

    event -> JSON (checked by decoding it again) -> {event: JSON, crc32: decimal} -> JSON -> upcast if older -> event

JSON because the log is the audit trail: it reads in redis-cli, and msgspec encodes it as fast as msgpack. The checksum is the
CRC-32 (ISO 3309, zlib's) of the JSON bytes: the AOF has none of its own, and CRC-32 finds every burst of up to 32 bits.

Invariant: what ``encode`` accepts, ``decode`` returns equal. Nothing here does I/O or reads a clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Union
from zlib import crc32

import msgspec

from aurastream.streams.errors import DamagedEntry, InvalidEvent, StreamError, UnknownEventVersion
from aurastream.streams.events import BUILT_IN, IDENTIFIER, Event, Instant

EVENT_BYTES_MAX = 256 * 1024  # before sending and before decoding: an oversized value resets the connection on old servers

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
RawEntry = tuple[bytes, list[bytes]]  # as the server answers: position, [field, value, field, value ..]


class Envelope(msgspec.Struct, frozen=True):
    """What can be read of an event whose type this process does not know."""

    event_id: str
    type: str
    subject: str
    occurred_at: Instant
    source: str = ""
    correlation_id: str = ""
    causation_id: str = ""
    version: int = 1


_ALL_IDENTIFIERS = re.compile(rf"{IDENTIFIER.pattern}(?:\n{IDENTIFIER.pattern})*")
_ENVELOPE = msgspec.json.Decoder(Envelope)


def entry_json(where: str, fields: list[bytes]) -> bytes:
    """The event's JSON from an entry's fields, once its size and checksum hold.

    Raises DamagedEntry naming what is wrong. `where` is stream/partition/position, for the sentence.
    """
    if len(fields) == 4 and fields[0] == b"event" and fields[2] == b"crc32":
        raw, stated = fields[1], fields[3]
    else:
        found = dict(zip(fields[::2], fields[1::2], strict=False))
        if b"event" not in found or b"crc32" not in found:
            raise DamagedEntry(where, f"it has the fields {sorted(found)}, not event and crc32")
        raw, stated = found[b"event"], found[b"crc32"]
    if len(raw) > EVENT_BYTES_MAX:
        raise DamagedEntry(where, f"the event has {len(raw)} bytes, the limit is {EVENT_BYTES_MAX}")
    if stated != b"%d" % crc32(raw):
        raise DamagedEntry(where, f"its checksum is {crc32(raw)}, the entry says {stated[:20].decode(errors='replace')}")
    return raw


def read_envelope(where: str, raw: bytes) -> Envelope:
    """Type, ID and subject of any event, known or not. Raises DamagedEntry when it is no event at all."""
    try:
        envelope = _ENVELOPE.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedEntry(where, f"it is no event ({error})") from error
    if not IDENTIFIER.fullmatch(envelope.event_id):
        raise DamagedEntry(where, f"its event_id {envelope.event_id[:40]!r} is not 1 to 128 of A-Z a-z 0-9 _ . : -")
    return envelope


def check_identifiers(events: list[Event]) -> None:
    """Raise InvalidEvent for the first event whose event_id or subject has a character it must not have."""
    # One match for the whole batch costs a tenth of one per event; the slow look is only for the sentence.
    if _ALL_IDENTIFIERS.fullmatch("\n".join([f"{event.event_id}\n{event.subject}" for event in events])):
        return
    for index, event in enumerate(events):
        for field, value in (("event_id", event.event_id), ("subject", event.subject)):
            if not IDENTIFIER.fullmatch(value):
                raise InvalidEvent(event.event_id[:80], f"{field} {value[:80]!r} is not 1 to 128 of A-Z a-z 0-9 _ . : -", index)


class Codec:
    """Encodes and decodes a set of event types.

    types: the event classes, one per tag. upcasters: (tag, version) -> a pure function from the decoded JSON of that
    version to the JSON of the next; applied one after the other until the class's ``schema_version``.
    Raises StreamError when two classes share a tag or an upcaster is missing in a class's history.
    """

    def __init__(
        self,
        types: Iterable[type[Event]] = BUILT_IN,
        upcasters: Mapping[tuple[str, int], Upcaster] | None = None,
    ) -> None:
        self.types: dict[str, type[Event]] = {}
        for kind in types:
            tag = str(kind.__struct_config__.tag)
            if self.types.setdefault(tag, kind) is not kind:
                raise StreamError(f"two event classes share the tag {tag!r}: {self.types[tag]} and {kind}. Rename one tag.")
        self.upcasters = dict(upcasters or {})
        for tag, kind in self.types.items():
            missing = [v for v in range(1, kind.schema_version) if (tag, v) not in self.upcasters]
            if missing:
                raise StreamError(f"{tag!r} is at version {kind.schema_version} but has no upcaster from {missing}. Add it.")
        self._encoder = msgspec.json.Encoder()
        union: Any = Union[tuple(self.types.values())] if self.types else Event  # noqa: UP007 - built at run time
        self._decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(union)

    def encode(self, event: Event) -> bytes:
        """The event as compact JSON, type and event_id first. Raises InvalidEvent: wrong types, bounds, NaN, size."""
        kind = type(event)
        if kind.schema_version != event.version:
            event = msgspec.structs.replace(event, version=kind.schema_version)
        try:
            raw = self._encoder.encode(event)
            if len(raw) > EVENT_BYTES_MAX:
                raise InvalidEvent(event.event_id, f"{len(raw)} bytes encoded, the limit is {EVENT_BYTES_MAX}")
            back = self._decoder.decode(raw)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidEvent(str(event.event_id)[:128], str(error) or type(error).__name__) from error
        # NaN and infinity become null: the one silent change JSON makes, so only then is equality worth its price.
        if b":null" in raw and back != event:
            raise InvalidEvent(event.event_id, "a value changes when encoded (NaN or infinity)")
        return raw

    def decode(self, raw: bytes, where: str = "") -> Event | None:
        """The event in today's form, or None when its type is not among this codec's.

        Raises DamagedEntry when the JSON does not fit its type, UnknownEventVersion when a newer build wrote it.
        """
        try:
            event = self._decoder.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return self._decode_old(raw, where, error)
        if event.version != type(event).schema_version:
            return self._decode_old(raw, where, None)
        return event

    def _decode_old(self, raw: bytes, where: str, cause: Exception | None) -> Event | None:
        """The slow path: another type, an older version (upcast), a newer one, or damage."""
        envelope = read_envelope(where, raw)
        kind = self.types.get(envelope.type)
        if kind is None:
            return None
        if envelope.version > kind.schema_version:
            raise UnknownEventVersion(envelope.type, envelope.version, kind.schema_version)
        if envelope.version == kind.schema_version:
            raise DamagedEntry(where, f"it is no valid {envelope.type} ({cause})") from cause
        try:
            content: dict[str, Any] = msgspec.json.decode(raw)
            for version in range(envelope.version, kind.schema_version):
                content = self.upcasters[envelope.type, version](content)
            content["version"] = kind.schema_version
            return msgspec.convert(content, kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, TypeError, ValueError) as error:
            reason = f"it cannot be upcast from version {envelope.version} ({type(error).__name__}: {error})"
            raise DamagedEntry(where, reason) from error
