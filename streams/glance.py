"""
One fact of an undecoded entry, by decoding no more than that: whose event it is, or when it happened.

    raw entry -> its value "event" -> one member of the JSON

Nothing is verified (checksum, type, the other members): what counts is decided by who decodes the entry
whole. This only says which entries are worth it. Pure.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from aurastream.streams.entries import UNDECODABLE


class _SubjectAlone(msgspec.Struct):
    subject: str


class _InstantAlone(msgspec.Struct):
    occurred_at: datetime


_USUAL = [b"event", b"crc32"]  # names of the fields that append gives an entry
_decode_subject = msgspec.json.Decoder(_SubjectAlone).decode
_decode_instant = msgspec.json.Decoder(_InstantAlone).decode


def subject_of(fields: list[bytes]) -> str | None:
    """The subject of an entry with these fields; None where there is none to be read."""
    try:
        return _decode_subject(fields[1] if fields[::2] == _USUAL else _event_value(fields)).subject
    except UNDECODABLE:
        return None


def occurred_at_of(fields: list[bytes]) -> datetime | None:
    """The event time of an entry with these fields; None where there is none to be read, or none with an
    offset.
    """
    try:
        at = _decode_instant(fields[1] if fields[::2] == _USUAL else _event_value(fields)).occurred_at
    except UNDECODABLE:
        return None
    return at if at.tzinfo is not None else None


def _event_value(fields: list[bytes]) -> bytes:
    """As ``entry_json`` picks it, of an entry of any shape; b"" where there is none."""
    return dict(zip(fields[::2], fields[1::2], strict=False)).get(b"event", b"")
