"""
Event IDs that are in a log twice, which only others than append.lua can do: the canonical entry goes when the
other one can go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from aurastream.streams import (
    READ_MAX,
    Position,
    RawEntry,
    Stream,
    collided_field_of,
    field_of,
    pack_position,
    unpack_position,
)
from aurastream.streams.retention.look import Double, Look

_PLAIN_ID = re.compile(rb'\{"type":"[^"\\]*","event_id":"([^"\\]*)"')


class _IdAlone(msgspec.Struct):
    event_id: str


_decode_id = msgspec.json.Decoder(_IdAlone, strict=True).decode


def event_id_of(fields: list[bytes]) -> str | None:
    """Of an entry, damaged or not, as far as it can be read."""
    json = dict(zip(fields[::2], fields[1::2], strict=False)).get(b"event", b"")
    plain = _PLAIN_ID.match(json)
    try:
        return plain[1].decode() if plain is not None else _decode_id(json).event_id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def search_doubles(stream: Stream, partition: int, look: Look, going: int | None) -> None:
    """Read the whole log for them, and note them in the look. cost O(log), so only where others than
    append.lua wrote to it.

    going: how many entries are to go, where that is known: the last of them is noted on the way.
    """
    after, count = "0-0", 0
    while raw := stream.read_raw(partition, after, "+", READ_MAX):
        if going is not None and count < going <= count + len(raw):
            look.kept_from = Position.parse(raw[going - count - 1][0])
        count, after = count + len(raw), raw[-1][0].decode()
        look.doubles += _doubles(stream, partition, raw)


def _doubles(stream: Stream, partition: int, raw: list[RawEntry]) -> Iterator[Double]:
    named = [
        (position, event_id) for position, fields in raw if (event_id := event_id_of(fields)) is not None
    ]
    if not named:
        return
    keys = stream.keys[partition]
    fields = [field for _, event_id in named for field in (field_of(event_id), collided_field_of(event_id))]
    (rows,) = stream.ask(partition, ("HMGET", keys.ids, *fields), what=f"look at {keys.where}")
    for (position, _), short, long in zip(named, rows[::2], rows[1::2], strict=True):
        row = long if long is not None else short
        if row is None or pack_position(position) in (short, long):
            continue
        canonical, second = Position.parse(unpack_position(row)), Position.parse(position)
        if canonical < second:
            yield canonical, second
