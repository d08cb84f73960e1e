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
from typing import Any, TypeVar, Union
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


UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_ALL_IDENTIFIERS = re.compile(rf"{IDENTIFIER.pattern}(?:\n{IDENTIFIER.pattern})*")
N = TypeVar("N", Event, Envelope)
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


def entries_json(entries: list[list[bytes]]) -> list[bytes] | None:
    """``entry_json`` of many entries; None when one is damaged, so that they must be looked at one by one."""
    try:
        return [entry_json("", fields) for fields in entries]
    except DamagedEntry:
        return None


def read_envelope(where: str, raw: bytes) -> Envelope:
    """Type, ID and subject of any event, known or not. Raises DamagedEntry when it is no event at all."""
    try:
        envelope = _ENVELOPE.decode(raw)
    except UNDECODABLE as error:
        raise DamagedEntry(where, f"it is no event ({error})") from error
    check_names(where, envelope)
    return envelope


def check_names(where: str, event: Event | Envelope) -> None:
    """Raise DamagedEntry for an event_id or subject that append would have refused: a raw XADD may name anything."""
    for field, value in (("event_id", event.event_id), ("subject", event.subject)):
        if not IDENTIFIER.fullmatch(value):
            raise DamagedEntry(where, f"its {field} {value[:40]!r} is not 1 to 128 of A-Z a-z 0-9 _ . : -")


def read_envelopes(raws: list[bytes]) -> list[Envelope | None]:
    """``read_envelope`` of many; None where it raises."""
    envelopes: list[Envelope | None] = []
    for raw in raws:
        try:
            envelopes.append(_ENVELOPE.decode(raw))
        except UNDECODABLE:
            envelopes.append(None)
    return _named_well(envelopes)


def are_identifiers(values: list[str]) -> bool:
    """Whether every one is an identifier. One match for all costs a tenth of one for each."""
    text = "\n".join(values)
    # The breaks are counted, or a value with one in it would pass for two.
    return not values or (text.count("\n") == len(values) - 1 and _ALL_IDENTIFIERS.fullmatch(text) is not None)


def _named_well(found: list[N | None]) -> list[N | None]:
    """The same with None in the place of what has a bad event_id or subject."""
    if are_identifiers([name for item in found if item is not None for name in (item.event_id, item.subject)]):
        return found
    return [item if item is not None and are_identifiers([item.event_id, item.subject]) else None for item in found]


def check_identifiers(events: list[Event]) -> None:
    """Raise InvalidEvent for the first event whose event_id or subject has a character it must not have."""
    if are_identifiers([name for event in events for name in (event.event_id, event.subject)]):
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

    def encode_each(self, events: list[Event]) -> list[bytes] | None:
        """``encode`` of many in half the time; None where one needs a closer look, by ``encode``."""
        encode, decode = self._encoder.encode, self._decoder.decode
        try:
            encoded = [encode(event) for event in events]
            for raw in encoded:
                decode(raw)
        except (*UNDECODABLE, TypeError, ValueError, OverflowError):
            return None
        are_of_today = all(event.version == event.schema_version for event in events)
        if are_of_today and all(len(raw) <= EVENT_BYTES_MAX and b":null" not in raw for raw in encoded):
            return encoded
        return None

    def decode(self, raw: bytes, where: str = "") -> Event | None:
        """The event in today's form, or None when its type is not among this codec's.

        Raises DamagedEntry when the JSON does not fit its type, UnknownEventVersion when a newer build wrote it.
        """
        try:
            event = self._decoder.decode(raw)
        except UNDECODABLE as error:
            return self._decode_old(raw, where, error)
        if event.version != type(event).schema_version:
            return self._decode_old(raw, where, None)
        check_names(where, event)
        return event

    def decode_each(self, raws: list[bytes]) -> list[Event | None]:
        """Many events; None where one needs a closer look, by ``decode``: another type, another version, damage."""
        events: list[Event | None] = []
        decode = self._decoder.decode
        for raw in raws:
            try:
                event = decode(raw)
            except UNDECODABLE:
                events.append(None)
            else:
                events.append(event if event.version == event.schema_version else None)
        return _named_well(events)

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
