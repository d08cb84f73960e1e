"""
Between events and the bytes in the log.

    event -> JSON (checked by decoding it again) -> {event: JSON, crc32: decimal}
    {event, crc32} -> JSON (entries.py) -> upcast if older (upcasting.py) -> event; unknown fields passed over
    JSON from outside -> the same, unknown fields refused -> event to append

JSON because the log is the audit trail: it reads in redis-cli, and msgspec encodes it as fast as msgpack.

Invariant: what ``encode`` accepts, ``decode`` returns equal. Nothing here does I/O or reads a clock.

Decision (2026-11): an entry of this very version that does not fit its type is damaged, even where a wider
type would take it: another build's new member of an enum, tag of a union, or wider bound under the same
version. Append refuses such an event, so it was written around append, or by a build whose type was widened
without raising ``schema_version``, of which `schema check` warns. It is named, counted and shown as set
aside, and `rebuild` or `dead retry` takes it up once a build reads it. Refused: to wait there, as at a newer
version: any raw XADD that misspells a number would stop every lane of its partition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple, Union, cast

import msgspec

from aurastream.streams.entries import EVENT_BYTES_MAX, UNDECODABLE, check_names, named_well, read_envelope
from aurastream.streams.errors import (
    DamagedEntry,
    InvalidEvent,
    StreamError,
    UnknownEventVersion,
    UpcasterFailed,
)
from aurastream.streams.events import BUILT_IN, Event, Json, Upcaster
from aurastream.streams.personal_fields import Personal, are_texts_fit, check_declared, check_personal
from aurastream.streams.unknown_fields import may_hide_fields, unknown_fields, without_unknown_fields
from aurastream.streams.upcasting import steps_of, upcast

__all__ = ["Codec", "Json", "ReadEvent", "Upcaster"]

_NOT_UPCAST = "it cannot be upcast from version %d (%s)"


class Codec:
    """Encodes and decodes a set of event types.

    types: the event classes, one per tag, with their upcasters. upcasters: more of them, (tag, version) ->
    as in ``Event.upcasters``, for types that do not declare their own.
    Raises StreamError when two classes share a tag, an upcaster is missing in a class's history or there
    twice, or personal fields cannot be sealed.
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
        self.upcasters = steps_of(self.types.values(), upcasters or {})
        self.meets_newer = False  # whether fields were passed over: then ``decode_open`` is worth a try
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
        if back.personal:
            check_personal(cast(Personal, back))
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
        return encoded if are_texts_fit(events, longest) else None

    def decode(self, raw: bytes, where: str = "") -> Event | None:
        """The event in today's form, or None when its type is not among this codec's.

        Raises DamagedEntry when the JSON does not fit its type; Unread at a sound event that a better build
        reads: UnknownEventVersion, UpcasterFailed.
        """
        return self.read(raw, where).event

    def read(self, raw: bytes, where: str = "") -> ReadEvent:
        """``decode``, and whether fields were passed over."""
        try:
            event = self._decoder.decode(raw)
        except UNDECODABLE as error:
            return self._read_closely(raw, where, error)
        if event.version != type(event).schema_version:
            return self._read_closely(raw, where, None)
        check_names(where, event)
        return ReadEvent(event)

    def admit(self, raw: bytes, where: str) -> Event | None:
        """``decode`` of what is to be appended: it has no field that its type does not have. Raises
        InvalidEvent, naming the field and the nearest there is.
        """
        event, misfit = self.read(raw, where)
        if event is None or not (misfit or may_hide_fields(type(event))):
            return event
        kind = type(event)
        envelope, content = read_envelope(where, raw), _content_of(where, raw)
        unknown = unknown_fields(kind, upcast(self.upcasters, where, envelope, content, kind.schema_version))
        if unknown:
            is_old = envelope.version < kind.schema_version
            left = f", and its upcaster from version {envelope.version} leaves it in" if is_old else ""
            raise InvalidEvent(event.event_id, f"{unknown[0].sentence(envelope.type)}{left}")
        return event

    def today(self, raw: bytes, where: str = "") -> bytes:
        """The JSON of an event as it reads today, for who has no upcasters: fields that its type does not
        have stay. As it is, where it is of today's version or of a type not known here. Raises as decode.
        """
        event = self.decode(raw, where)
        if event is None:
            return raw
        envelope, known = read_envelope(where, raw), type(event).schema_version
        if envelope.version == known:
            return raw
        return self._encoder.encode(upcast(self.upcasters, where, envelope, _content_of(where, raw), known))

    def decode_each(self, raws: list[bytes]) -> list[Event | None]:
        """Many events; None where one needs a closer look, by ``decode``: another type, another version,
        damage.
        """
        decode = self._decoder.decode
        try:
            events: list[Event | None] = [decode(raw) for raw in raws]
        except UNDECODABLE:  # by one of them: by which?
            events = [self._decoded(raw) for raw in raws]
        if not all([event is not None and event.version == event.schema_version for event in events]):  # noqa: C419 - faster so
            events = [
                event if event is not None and event.version == event.schema_version else None
                for event in events
            ]
        return named_well(events)

    def decode_open(self, raw: bytes) -> Event | None:
        """An event of today's version that has fields unknown to its type; None for what needs a closer look.
        A third of what ``read`` takes, for a host behind its producers.
        """
        try:
            event = self._open_decoder.decode(raw)
        except UNDECODABLE:
            return None
        if event.version != event.schema_version or named_well([event]) == [None]:
            return None
        return self.types[str(event.__struct_config__.tag)](**msgspec.structs.asdict(event))

    @cached_property
    def _open_decoder(self) -> msgspec.json.Decoder[Event]:
        union: Any = Union[tuple(map(_opened, self.types.values()))] if self.types else Event  # noqa: UP007
        return msgspec.json.Decoder(union)

    def _decoded(self, raw: bytes) -> Event | None:
        try:
            return self._decoder.decode(raw)
        except UNDECODABLE:
            return None

    def _read_closely(self, raw: bytes, where: str, cause: Exception | None) -> ReadEvent:
        """The slow path: another type, fields to pass over, another version, or damage."""
        envelope = read_envelope(where, raw)
        kind, version = self.types.get(envelope.type), envelope.version
        if kind is None:
            return ReadEvent(None)
        known = kind.schema_version
        if version > known:
            raise UnknownEventVersion(envelope.type, version, known, where, envelope.event_id)
        if version < 1:  # as a missing upcaster was named, which views have listed
            raise DamagedEntry(where, _NOT_UPCAST % (version, f"KeyError: {(envelope.type, version)!r}"))
        content = _content_of(where, raw)
        try:
            if version == known:
                read = _fitted(kind, content, f"it is no valid {envelope.type} (%s)", cause)
                self.meets_newer = True
                return read
            content = upcast(self.upcasters, where, envelope, content, known)
            return _fitted(kind, content, _NOT_UPCAST % (version, "ValidationError: %s"))
        except (*UNDECODABLE, TypeError, ValueError) as error:
            if version == known:
                raise DamagedEntry(where, f"it is no valid {envelope.type} ({cause})") from cause
            raise UpcasterFailed(where, envelope, known - 1, error) from error


def _opened(kind: type[Event]) -> type[Event]:
    """The type without its ban on unknown fields."""
    options: dict[str, Any] = {"frozen": True, "kw_only": True, "tag_field": "type"}
    tag = kind.__struct_config__.tag
    made = msgspec.defstruct(
        kind.__name__, [], bases=(kind,), tag=str(tag), forbid_unknown_fields=False, **options
    )
    return cast(type[Event], made)


class ReadEvent(NamedTuple):
    """What an entry holds. misfit: why it would be damage, were its unknown fields not passed over; or ""."""

    event: Event | None
    misfit: str = ""


def _content_of(where: str, raw: bytes) -> Json:
    """The JSON object. Raises DamagedEntry."""
    try:
        return msgspec.json.decode(raw, type=Json)
    except UNDECODABLE as error:
        raise DamagedEntry(where, f"it is no event ({error})") from error


def _fitted(kind: type[Event], content: Json, reason: str, cause: Exception | None = None) -> ReadEvent:
    """The event of the content, its unknown fields passed over where the type is closed to them. Raises what
    msgspec raises where it does not fit either way. cause: where it is known not to fit as it is.
    """
    if cause is None:
        try:
            return ReadEvent(msgspec.convert(content, kind))
        except msgspec.ValidationError as error:
            cause = error
    fit = without_unknown_fields(kind, content)
    if fit is None:
        raise cause
    return ReadEvent(msgspec.convert(fit, kind), reason % cause)
