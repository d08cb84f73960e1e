"""
Between events and the bytes in the log.

    event -> JSON (checked by decoding it again) -> {event: JSON, crc32: decimal}
    {event, crc32} -> JSON (entries.py) -> upcast if older -> event

JSON because the log is the audit trail: it reads in redis-cli, and msgspec encodes it as fast as msgpack.

Invariant: what ``encode`` accepts, ``decode`` returns equal. Nothing here does I/O or reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, Union, cast

import msgspec

from aurastream.streams.entries import EVENT_BYTES_MAX, UNDECODABLE, check_names, named_well, read_envelope
from aurastream.streams.errors import DamagedEntry, InvalidEvent, StreamError, UnknownEventVersion
from aurastream.streams.events import BUILT_IN, Event
from aurastream.streams.personal_fields import Personal, are_texts_fit, check_declared, check_personal

Json: TypeAlias = dict[str, Any]  # a JSON object, decoded
Upcaster = Callable[[Json], Json]


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
        except UNDECODABLE:  # by one of them: by which?
            events = [self._decoded(raw) for raw in raws]
        if not all([event is not None and event.version == event.schema_version for event in events]):  # noqa: C419 - faster so
            events = [
                event if event is not None and event.version == event.schema_version else None
                for event in events
            ]
        return named_well(events)

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
            content: Json = msgspec.json.decode(raw)
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
