"""
Between events and the bytes in the log.

    event -> JSON (checked by decoding it again) -> {event: JSON, crc32: decimal} -> JSON -> upcast if older
        -> event

JSON because the log is the audit trail: it reads in redis-cli, and msgspec encodes it as fast as msgpack. The
checksum is the CRC-32 (ISO 3309, zlib's) of the JSON bytes: the AOF has none of its own, and CRC-32 finds
every burst of up to 32 bits.

Invariant: what ``encode`` accepts, ``decode`` returns equal. Nothing here does I/O or reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, TypeVar, Union
from zlib import crc32

import msgspec

from aurastream.streams.errors import DamagedEntry, InvalidEvent, StreamError, UnknownEventVersion
from aurastream.streams.events import BUILT_IN, IDENTIFIER, SEALED_MAX, TEXT_MAX, Event, Instant
from aurastream.streams.sealing import RESERVED, is_reserved

EVENT_BYTES_MAX = (
    256 * 1024
)  # before sending and before decoding: an oversized value resets the connection on old servers

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
_IDENTIFIER_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-"
IDENTIFIER_MAX = 128
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
        raise DamagedEntry(
            where, f"its checksum is {crc32(raw)}, the entry says {stated[:20].decode(errors='replace')}"
        )
    return raw


def entries_json(entries: list[list[bytes]]) -> list[bytes] | None:
    """``entry_json`` of many entries; None when one is damaged, so that they must be looked at one by one.

    The usual ones are checked together: a third of the time of one by one, with the same verdict.
    """
    if entries and {len(fields) for fields in entries} == {4}:
        first, jsons, second, stated = zip(*entries, strict=True)
        if set(first) == {b"event"} and set(second) == {b"crc32"} and max(map(len, jsons)) <= EVENT_BYTES_MAX:
            # As many numbers as entries, so a stated one with a blank in it cannot pass for two.
            return (
                list(jsons) if " ".join(map(str, map(crc32, jsons))).encode() == b" ".join(stated) else None
            )
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
    """Raise DamagedEntry for an event_id or subject that append would have refused: a raw XADD may name
    anything.
    """
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
    """Whether every one is an identifier (``events.IDENTIFIER``). All together cost a fiftieth of one match
    for each.
    """
    if not values:
        return True
    text = "\n".join(values)
    # What is left without the characters allowed are the breaks, as many as were put in: a value with one in
    # it would be one more.
    is_spelled = text.isascii() and text.encode().translate(None, _IDENTIFIER_CHARACTERS) == b"\n" * (
        len(values) - 1
    )
    return is_spelled and min(map(len, values)) >= 1 and max(map(len, values)) <= IDENTIFIER_MAX


def _named_well(found: list[N | None]) -> list[N | None]:
    """The same with None in the place of what has a bad event_id or subject."""
    named = [item for item in found if item is not None] if None in found else found
    event_ids = [item.event_id for item in named]  # type: ignore[union-attr]
    subjects = [item.subject for item in named]  # type: ignore[union-attr]
    if are_identifiers(event_ids) and are_identifiers(subjects):
        return found
    return [
        item if item is not None and are_identifiers([item.event_id, item.subject]) else None
        for item in found
    ]


def check_identifiers(events: list[Event]) -> None:
    """Raise InvalidEvent for the first event whose event_id or subject has a character it must not have."""
    if are_identifiers([name for event in events for name in (event.event_id, event.subject)]):
        return
    for index, event in enumerate(events):
        for field, value in (("event_id", event.event_id), ("subject", event.subject)):
            if not IDENTIFIER.fullmatch(value):
                raise InvalidEvent(
                    event.event_id[:80],
                    f"{field} {value[:80]!r} is not 1 to 128 of A-Z a-z 0-9 _ . : -",
                    index,
                )


def check_personal(event: Any) -> None:
    """Raise InvalidEvent for a personal text that is too long, or that looks sealed and has no creator whose
    key could open it.
    """
    for field in event.personal:
        text: str = getattr(event, field)
        if not is_reserved(text):
            if len(text) > TEXT_MAX:
                raise InvalidEvent(
                    event.event_id, f"Expected `str` of length <= {TEXT_MAX} - at `$.{field}`"
                )  # as of other texts
        elif not event.creator:
            raise InvalidEvent(
                event.event_id,
                f"{field} begins as a sealed text does ({text[:12]}..), and no creator is named",
            )


def check_declared(kind: type[Event]) -> None:
    """Raise StreamError when a class declares personal fields that cannot be sealed."""
    if not kind.personal:
        return
    described: Any = msgspec.inspect.type_info(kind)
    fields = {
        field.name: field.type for field in described.fields if field.name not in Event.__struct_fields__
    }
    for name in (*kind.personal, "creator"):
        found = fields.get(name)
        if not isinstance(found, msgspec.inspect.StrType):
            raise StreamError(
                f"{kind.__name__} has personal fields and no text field {name!r} of its own. "
                'Declare each of them as PersonalText, and `creator: ShortText = ""`, which says whose they '
                "are."
            )
        if name != "creator" and (
            found.pattern or found.min_length or (found.max_length or SEALED_MAX) < SEALED_MAX
        ):
            raise StreamError(
                f"a sealed text does not fit the bounds of {kind.__name__}.{name}. Declare it as "
                "PersonalText."
            )


def _are_texts_fit(events: list[Any], longest: int) -> bool:
    """``check_personal`` of those without a creator; of others the keyring made the texts. Usually nothing
    needs to be looked at.

    longest: bytes of the longest one encoded.
    """
    kinds: set[Any] = set(map(type, events))
    for kind in [kind for kind in kinds if kind.personal]:
        own: list[Any] = events if len(kinds) == 1 else [event for event in events if type(event) is kind]
        if longest <= TEXT_MAX and not any(
            RESERVED in "".join(map(attrgetter(field), own)) for field in kind.personal
        ):
            continue
        try:
            for event in own:
                if not event.creator:
                    check_personal(event)
        except InvalidEvent:
            return False
    return True


class Codec:
    """Encodes and decodes a set of event types.

    types: the event classes, one per tag. upcasters: (tag, version) -> a pure function from the decoded JSON
        of that
    version to the JSON of the next; applied one after the other until the class's ``schema_version``.
    Raises StreamError when two classes share a tag, an upcaster is missing in a class's history, or personal
    fields cannot be sealed.
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
                raise StreamError(
                    f"two event classes share the tag {tag!r}: {self.types[tag]} and {kind}. Rename one tag."
                )
            check_declared(kind)
        self.upcasters = dict(upcasters or {})
        for tag, kind in self.types.items():
            missing = [v for v in range(1, kind.schema_version) if (tag, v) not in self.upcasters]
            if missing:
                raise StreamError(
                    f"{tag!r} is at version {kind.schema_version} but has no upcaster from {missing}. Add it."
                )
        self._encoder = msgspec.json.Encoder()
        union: Any = Union[tuple(self.types.values())] if self.types else Event  # noqa: UP007 - built at run time
        self._decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(union)

    def encode(self, event: Event) -> bytes:
        """The event as compact JSON, type and event_id first. Raises InvalidEvent: wrong types, bounds, NaN,
        size.
        """
        kind = type(event)
        if kind.schema_version != event.version:
            event = msgspec.structs.replace(event, version=kind.schema_version)
        try:
            raw = self._encoder.encode(event)
            if len(raw) > EVENT_BYTES_MAX:
                raise InvalidEvent(
                    event.event_id, f"{len(raw)} bytes encoded, the limit is {EVENT_BYTES_MAX}"
                )
            back = self._decoder.decode(raw)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidEvent(str(event.event_id)[:128], str(error) or type(error).__name__) from error
        check_personal(back)
        # NaN and infinity become null: the one silent change JSON makes, so only then is equality worth its
        # price.
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
        longest, joined = max(map(len, encoded), default=0), b"".join(encoded)
        if (
            longest > EVENT_BYTES_MAX
            or b":null" in joined
            or not all(event.version == event.schema_version for event in events)
        ):
            return None
        return encoded if _are_texts_fit(events, longest) else None

    def decode(self, raw: bytes, where: str = "") -> Event | None:
        """The event in today's form, or None when its type is not among this codec's.

        Raises DamagedEntry when the JSON does not fit its type, UnknownEventVersion when a newer build wrote
        it.
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
        """Many events; None where one needs a closer look, by ``decode``: another type, another version,
        damage.
        """
        decode = self._decoder.decode
        try:
            events: list[Event | None] = [decode(raw) for raw in raws]
        except UNDECODABLE:  # one of them is odd: find out which
            events = [self._decoded(raw) for raw in raws]
        if not all([event is not None and event.version == event.schema_version for event in events]):  # noqa: C419 - faster so
            events = [
                event if event is not None and event.version == event.schema_version else None
                for event in events
            ]
        return _named_well(events)

    def _decoded(self, raw: bytes) -> Event | None:
        try:
            return self._decoder.decode(raw)
        except UNDECODABLE:
            return None

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
        except (
            msgspec.MsgspecError,
            UnicodeDecodeError,
            RecursionError,
            KeyError,
            TypeError,
            ValueError,
        ) as error:
            reason = f"it cannot be upcast from version {envelope.version} ({type(error).__name__}: {error})"
            raise DamagedEntry(where, reason) from error
