"""
A call of trim.lua: the first entries of a log, and the ids rows that name them.

    up to 500 entries -> event IDs
        -> digests and packed positions, those of the usual length together; the others row by row
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import msgspec

from aurastream.streams import (
    PLACE_BYTES,
    Command,
    RawEntry,
    Script,
    Stream,
    collided_field_of,
    field_of,
    pack_position,
)
from aurastream.streams.retention.doubles import event_id_of
from aurastream.streams.retention.look import Look

_TRIM = Script(__file__, "trim.lua")


class TrimAnswer(IntEnum):
    """What trim.lua says."""

    OK = 0
    MOVED = 1
    REGROUP = 2
    HELD = 3
    UNSETTLED = 4


class _Row(NamedTuple):
    """A row of the ids index: field -> packed position."""

    field: bytes
    place: bytes


def trim_call(stream: Stream, partition: int, look: Look, raw: list[RawEntry], note: str) -> Command:
    """The call that removes these entries, the log's first, as long as the look holds."""
    keys = stream.keys[partition]
    named = [
        (event_id, pack_position(position))
        for position, fields in raw
        if (event_id := event_id_of(fields)) is not None
    ]
    short = [_Row(field_of(event_id), place) for event_id, place in named]
    usual = [row for row in short if len(row.place) == PLACE_BYTES]
    long = [*_long_rows(stream, partition, named, short), *_nameless_rows(stream, partition, raw)]
    head = {
        "first": raw[0][0].decode(),
        "last": raw[-1][0].decode(),
        "bytes": sum(len(fields[1]) for _, fields in raw if len(fields) > 1),
        "groups": list(look.groups.items()),
        "ours": sorted(look.ours),
        "apps": look.apps,
        "raw": look.raw_entries,
        "note": note,
    }
    checksum = raw[-1][1][-1] if raw[-1][1] else b""
    digests, places = (b"".join([row[part] for row in usual]) for part in (0, 1))
    args = (msgspec.msgpack.encode(head), checksum, digests, places, *[part for row in long for part in row])
    return _TRIM.call((keys.log, keys.ids, keys.meta, keys.groups, keys.archive, *look.keys), args)


def _long_rows(
    stream: Stream, partition: int, named: list[tuple[str, bytes]], short: list[_Row]
) -> Iterator[_Row]:
    """Of entries whose short row is another's, the long one; of positions that do not pack, the short one."""
    if not short:
        return
    keys = stream.keys[partition]
    question = ("HMGET", keys.ids, *[row.field for row in short])
    places: list[bytes | None] = stream.ask(partition, question, what=f"trim of {keys.where}")[0]
    for (event_id, place), row, held in zip(named, short, places, strict=True):
        if held != place:
            yield _Row(collided_field_of(event_id), place)
        if len(place) != PLACE_BYTES:
            yield row


def _nameless_rows(stream: Stream, partition: int, raw: list[RawEntry]) -> Iterator[_Row]:
    """The rows of entries too damaged for their event_id to be read. cost O(ids) where there is one."""
    places = {
        pack_position(position)
        for position, fields in raw
        if b"event" in fields[::2] and event_id_of(fields) is None
    }
    keys, cursor = stream.keys[partition], b"0"
    while places:
        question = ("HSCAN", keys.ids, cursor, "COUNT", 1_000)
        cursor, flat = stream.ask(partition, question, what=f"trim of {keys.where}")[0]
        rows = map(_Row, flat[::2], flat[1::2])
        yield from (row for row in rows if row.place in places)
        if cursor == b"0":
            return
