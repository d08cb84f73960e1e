"""
What a Faust message looks like in the log, and what any entry looks like to Faust.

    key, value, headers, timestamp  <->  fields of the same names; an absent one is an absent field
    event, crc32                     ->  key is the subject, value the event's JSON: a stranger may consume
                                     our streams

headers: a JSON list of [name, text], or [name, {"base64": ..}] where the bytes are no UTF-8. timestamp:
milliseconds since 1970.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from aurastream.streams import DamagedEntry, RawEntry, entry_json, read_envelope

Headers = Mapping[str, bytes] | list[tuple[str, bytes]] | None  # as Faust hands them over
_HEADERS = msgspec.json.Decoder(list[tuple[str, str | dict[str, str] | None]])


class Content(NamedTuple):
    """A message's content as Faust wants it. timestamp: seconds since 1970."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] | None
    timestamp: float


def fields_of(
    key: bytes | None, value: bytes | None, headers: Headers, timestamp: float | None
) -> list[bytes]:
    """The entry's fields: name, value, name, value .."""
    fields: list[bytes] = []
    if key is not None:
        fields += (b"key", key)
    if value is not None or key is None:
        fields += (b"value", value or b"")
    if headers:
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        fields += (b"headers", msgspec.json.encode([(name, _legible(text)) for name, text in pairs]))
    if timestamp:
        fields += (b"timestamp", b"%d" % int(timestamp * 1000))
    return fields


def content_of(where: str, entry: RawEntry) -> Content:
    """What Faust is given. where: stream/partition, for the sentence. Raises DamagedEntry."""
    position, fields = entry
    if b"event" in fields[::2]:
        at = f"{where}/{position.decode()}"
        raw = entry_json(at, fields)
        return Content(read_envelope(at, raw).subject.encode(), raw, None, _seconds_of(position))
    named = dict(zip(fields[::2], fields[1::2], strict=False))
    try:
        headers = (
            [(name, _bytes(text)) for name, text in _HEADERS.decode(named[b"headers"])]
            if b"headers" in named
            else None
        )
        timestamp = int(named[b"timestamp"]) / 1000 if b"timestamp" in named else _seconds_of(position)
    except (msgspec.MsgspecError, ValueError) as error:
        raise DamagedEntry(
            f"{where}/{position.decode()}", f"its headers or timestamp cannot be read ({error})"
        ) from error
    return Content(named.get(b"key"), named.get(b"value"), headers, timestamp)


def _seconds_of(position: bytes) -> float:
    return int(position[: position.index(b"-")]) / 1000


def _legible(text: str | bytes | None) -> Any:
    if not isinstance(text, bytes):
        return text
    try:
        return text.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(text).decode()}


def _bytes(text: str | dict[str, str] | None) -> bytes:
    if isinstance(text, dict):
        return b64decode(text.get("base64", ""))
    return (text or "").encode()
