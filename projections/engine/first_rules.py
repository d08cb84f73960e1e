"""
The first rules of intake (definition.py), for views that were folded by them: which entries were damaged.

An event type was closed then, so a field that it did not have made the entry no event; a part of it that is
closed by hand (``forbid_unknown_fields``) still was. What these exceptions left unread was damage too.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import msgspec

from aurastream.streams import Codec, DamagedEntry, Event, UpcasterFailed, read_envelope

_UPCAST_DAMAGE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, TypeError, ValueError)


@cache
def _closed(kind: type[Event]) -> type[Event]:
    tag = str(kind.__struct_config__.tag)
    options: dict[str, Any] = {"frozen": True, "kw_only": True, "tag_field": "type", "tag": tag}
    made = msgspec.defstruct(kind.__name__, [], bases=(kind,), forbid_unknown_fields=True, **options)
    return cast(type[Event], made)


def decode_by_first_rules(codec: Codec, raw: bytes, where: str) -> Event | None:
    """``codec.decode``, with the verdict and the reason of those rules."""
    envelope = read_envelope(where, raw)
    kind = codec.types.get(envelope.type)
    if kind is None or envelope.version > kind.schema_version:
        return codec.decode(raw, where)
    if envelope.version == kind.schema_version:
        try:
            msgspec.json.decode(raw, type=_closed(kind))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DamagedEntry(where, f"it is no valid {envelope.type} ({error})") from error
        return codec.decode(raw, where)
    try:
        content = msgspec.json.decode(raw)
        for version in range(envelope.version, kind.schema_version):
            content = codec.upcasters[envelope.type, version](content)
        content["version"] = kind.schema_version
        msgspec.convert(content, _closed(kind))
    except _UPCAST_DAMAGE as error:
        reason = f"it cannot be upcast from version {envelope.version} ({type(error).__name__}: {error})"
        raise DamagedEntry(where, reason) from error
    except Exception as error:
        raise UpcasterFailed(where, envelope, envelope.version, error) from error
    return codec.decode(raw, where)
