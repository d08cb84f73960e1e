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

from aurastream.streams import (
    READ_MAX,
    Command,
    DamagedEntry,
    Stream,
    beyond,
    collided_field_of,
    entry_json,
    field_of,
    pack_position,
    read_envelope,
    unpack_position,
)
from aurastream.streams.archive.segment import Identified

Named = tuple[bytes, str]  # position, event_id


def decide(stream: Stream, partition: int, entries: Identified) -> frozenset[bytes]:
    """The positions of the duplicates."""
    named = [
        (position, envelope.event_id)
        for (position, _), envelope in zip(entries.raw, entries.envelopes, strict=True)
        if envelope is not None
    ]
    deciding = _Deciding(stream, partition)
    for start in range(0, len(named), READ_MAX):
        collided = deciding.others(named[start : start + READ_MAX], field_of)
        # A long field is one ID's alone: whatever entry its row names instead, here or gone, is canonical for
        # it.
        deciding.duplicates.update(position for position, _ in deciding.others(collided, collided_field_of))
    return frozenset(deciding.duplicates)


class _Deciding:
    """One segment's decisions. duplicates: positions, as far as they are decided."""

    def __init__(self, stream: Stream, partition: int) -> None:
        self._stream, self._partition, self._keys = stream, partition, stream.keys[partition]
        self._what = f"reading the index of {stream.name}/{partition}"
        self.duplicates: set[bytes] = set()

    def _adopted(self, fields: list[bytes], packed: list[bytes]) -> list[bytes | None]:
        """The rows of the fields, once those that had none have the position."""
        rows = self._rows(fields)
        unknown = [index for index, row in enumerate(rows) if row is None]
        if not unknown:
            return rows
        adopt = [beyond(self._keys.ids, "HSETNX", fields[index], packed[index]) for index in unknown]
        return self._rows(fields, *adopt)

    def others(self, named: list[Named], field: Callable[[str], bytes]) -> list[Named]:
        """Adopt what has no row, add to the duplicates; the entries whose field holds a row of another ID."""
        if not named:
            return []
        fields = [field(event_id) for _, event_id in named]
        packed = [pack_position(position) for position, _ in named]
        rows = self._adopted(fields, packed)
        elsewhere = [index for index, row in enumerate(rows) if row != packed[index]]
        holders = self._event_ids_at([unpack_position(rows[index] or b"") for index in elsewhere])
        collided = []
        for index, holder in zip(elsewhere, holders, strict=True):
            if holder == named[index][1]:
                self.duplicates.add(named[index][0])
            else:
                collided.append(named[index])
        return collided

    def _rows(self, fields: list[bytes], *adoptions: Command) -> list[bytes | None]:
        """The index's rows, read after these adoptions."""
        question = ("HMGET", self._keys.ids, *fields)
        rows: list[bytes | None] = self._stream.ask(self._partition, *adoptions, question, what=self._what)[
            -1
        ]
        return rows

    def _event_ids_at(self, positions: list[bytes]) -> list[str | None]:
        """The event IDs of these entries of the log; None where there is none."""
        questions = [("XRANGE", self._keys.log, position, position) for position in positions]
        event_ids: list[str | None] = []
        for answer in self._stream.ask(self._partition, *questions, what=self._what):
            try:
                json = entry_json(self._keys.where, answer[0][1]) if answer else None
                event_ids.append(read_envelope(self._keys.where, json).event_id if json is not None else None)
            except DamagedEntry:
                event_ids.append(None)
        return event_ids
