"""
Events of a log passed on to another one: the stored bytes, and not what this build understands of them.

    stored JSON -> event (checked as any other) -> sealed, where a text was not -> the same JSON again

So the fields of a newer producer, the version an event was written in and its sealed texts survive whoever
passes them on. What must change, and no more, is changed in the JSON: a personal text that a raw XADD left in
plain is sealed. Of an older version, whose fields are not today's, today's form is passed on then.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from aurastream.streams.codec import Codec
from aurastream.streams.events import Event


class StoredEvent(NamedTuple):
    """An entry's JSON, and the event it is today (``Codec.decode``)."""

    raw: bytes
    event: Event


def as_passed_on(codec: Codec, stored: list[StoredEvent], sealed: list[Event]) -> list[bytes]:
    """The JSON to append. sealed: the events as the keyring wants them stored."""
    return [
        raw if is_sealed is event or is_sealed == event else _resealed(codec, raw, is_sealed)
        for (raw, event), is_sealed in zip(stored, sealed, strict=True)
    ]


def _resealed(codec: Codec, raw: bytes, sealed: Event) -> bytes:
    content = msgspec.json.decode(raw)
    if content.get("version", 1) != sealed.schema_version:
        return codec.encode(sealed)
    changes = {name: getattr(sealed, name) for name in ("creator", *sealed.personal) if name in content}
    return msgspec.json.encode({**content, **changes})
