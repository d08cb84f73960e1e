"""
Which of the entries to be archived are duplicates, by the ids index: the rules by which a live view decides,
and the same answers.

    rows of all event IDs -> a row that names the entry: canonical
                          -> no row (a raw XADD that nobody is canonical for): adopted, the first of an ID;
                              then as below
                          -> a row that names another entry of that ID: duplicate; of another ID, with one
                              digest: its long field says

Always true: views that read the entries later decide as the archive did, as the rows stay. Damaged entries
have no event ID.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aurastream.streams import (
    READ_MAX,
    DamagedEntry,
    Stream,
    collided_field_of,
    entry_json,
    field_of,
    pack_position,
    read_envelope,
    retried,
    unpack_position,
)
from aurastream.streams.archive.segment import Identified

Named = tuple[bytes, str]  # position, event_id


def decide(stream: Stream, partition: int, found: Identified) -> frozenset[bytes]:
    """The positions of the duplicates."""
    named = [
        (position, envelope.event_id)
        for (position, _), envelope in zip(found.raw, found.envelopes, strict=True)
        if envelope is not None
    ]
    duplicates: set[bytes] = set()
    for start in range(0, len(named), READ_MAX):
        collided = _others(stream, partition, named[start : start + READ_MAX], field_of, duplicates)
        # A long field is one ID's alone: whatever entry its row names instead, here or gone, is canonical for
        # it.
        duplicates.update(
            position for position, _ in _others(stream, partition, collided, collided_field_of, duplicates)
        )
    return frozenset(duplicates)


def _others(
    stream: Stream, partition: int, named: list[Named], field: Callable[[str], bytes], duplicates: set[bytes]
) -> list[Named]:
    """Adopt what has no row under its field and add to the duplicates; returns the entries whose row is
    another ID's.
    """
    ids = stream.keys[partition].ids
    if not named:
        return []
    fields = [field(event_id) for _, event_id in named]
    packed = [pack_position(position) for position, _ in named]
    rows: list[bytes | None] = _ask(stream, partition, [("HMGET", ids, *fields)])[0]
    if unknown := [index for index, row in enumerate(rows) if row is None]:
        adoptions = [("HSETNX", ids, fields[index], packed[index]) for index in unknown]
        rows = _ask(stream, partition, [*adoptions, ("HMGET", ids, *fields)])[-1]
    strange = [index for index, row in enumerate(rows) if row != packed[index]]
    holders = _event_ids_at(stream, partition, [unpack_position(rows[index] or b"") for index in strange])
    collided = []
    for index, holder in zip(strange, holders, strict=True):
        if holder == named[index][1]:
            duplicates.add(named[index][0])
        else:
            collided.append(named[index])
    return collided


def _event_ids_at(stream: Stream, partition: int, positions: list[bytes]) -> list[str | None]:
    """The event IDs of these entries of the log; None where there is none."""
    keys, found = stream.keys[partition], []
    for answer in _ask(
        stream, partition, [("XRANGE", keys.log, position, position) for position in positions]
    ):
        try:
            found.append(
                read_envelope(keys.where, entry_json(keys.where, answer[0][1])).event_id if answer else None
            )
        except DamagedEntry:
            found.append(None)
    return found


def _ask(stream: Stream, partition: int, commands: list[tuple[Any, ...]]) -> list[Any]:
    what = f"reading the index of {stream.name}/{partition}"
    return retried(
        what, stream.settings.attempts_max, lambda: stream.wire(partition).ask(*commands), stream.reconnect
    )
