"""
The first rules of intake (definition.py), for views that were folded by them: which entries were damaged.

An event type was closed then, so a field that it did not have made the entry no event; a part of it that is
closed by hand (``forbid_unknown_fields``) still was. What these exceptions left unread was damage too.
"""

from __future__ import annotations

import msgspec

from aurastream.streams import Codec, DamagedEntry, Event, UpcasterFailed

_UPCAST_DAMAGE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, TypeError, ValueError)


def read_by_first_rules(codec: Codec, raw: bytes, where: str) -> Event | None:
    """``codec.read``, with the verdict and the reason of those rules."""
    try:
        read = codec.read(raw, where)
    except UpcasterFailed as error:
        if not isinstance(error.__cause__, _UPCAST_DAMAGE):
            raise
        reason = f"it cannot be upcast from version {error.version} ({error.reason})"
        raise DamagedEntry(where, reason) from error
    if read.misfit:
        raise DamagedEntry(where, read.misfit)
    return read.event
