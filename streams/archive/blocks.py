"""
Which entry of a block with a wrong hash was changed, as exactly as can be told. Pure.

    by count and the XOR of positions  the entry that is missing, or was added
    by order                           the entry that was moved
    by the live log, or its checksum   the entry that was changed
    by trying                          a mark that was changed, two that were exchanged
    else                               the block's first and last position
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import msgspec

from aurastream.streams import DamagedEntry, Position, RawEntry, entry_json
from aurastream.streams.archive.manifest import (
    Block,
    Manifest,
    block_of,
    digest_of,
    marks_of,
    mixed,
    position_of,
)
from aurastream.streams.archive.segment import is_plain

TRIED_MAX = 3  # blocks of a segment whose entries are exchanged by trial: each takes a second or two

Clue = tuple[str, str, str]  # what is wrong, first position, last position or ""


class Suspect(msgspec.Struct, frozen=True):
    """A segment's entries as its file has them.

    duplicates: those marked so. live: entries of it that the live log still has.
    """

    raw: list[RawEntry]
    duplicates: frozenset[bytes]
    live: dict[bytes, list[bytes]]


def is_sound(fields: list[bytes]) -> bool:
    """Whether they are an event whose checksum holds."""
    try:
        return entry_json("", fields) is not None
    except DamagedEntry:
        return False


class Blocks:
    """One segment's blocks against their hashes.

    lost: ranges of positions that could not be decoded, and are named already.
    """

    def __init__(self, manifest: Manifest, suspect: Suspect, lost: list[tuple[Position, Position]]) -> None:
        self._blocks, self._last = manifest.blocks, manifest.last
        self._suspect, self._lost = suspect, lost
        self._tried = 0

    def clues(self) -> Iterator[Clue]:
        """What is wrong, block by block."""
        ends = [*[block.first for block in self._blocks[1:]], self._last]
        for block, part, until in zip(self._blocks, self._parts(), ends, strict=True):
            first = Position.parse(block.first)
            if not part and any(low <= first <= high for low, high in self._lost):
                continue
            if not part or block_of(part, self._suspect.duplicates) != block:
                yield from self._clues(block, part, until)

    def _parts(self) -> list[list[RawEntry]]:
        """The entries by block, each where its position belongs."""
        starts = [Position.parse(block.first) for block in self._blocks]
        parts: list[list[RawEntry]] = [[] for _ in starts]
        place = 0
        for entry in self._suspect.raw:
            position = Position.parse(entry[0])
            while place + 1 < len(starts) and position >= starts[place + 1]:
                place += 1
            while place and position < starts[place]:
                place -= 1
            parts[place].append(entry)
        return parts

    def _clues(self, block: Block, part: list[RawEntry], until: str) -> Iterator[Clue]:
        if len(part) == block.entries:
            yield from self._of_same_length(block, part, until)
            return
        extra = position_of(int(block.positions, 16) ^ mixed(position for position, _ in part))
        if len(part) == block.entries - 1:
            yield "the entry is missing, or its position was changed", str(extra), ""
        elif len(part) == block.entries + 1:
            yield "the entry was added, or its position was changed", str(extra), ""
        else:
            yield f"there are {len(part)} entries where {block.entries} were written", block.first, until

    def _of_same_length(self, block: Block, part: list[RawEntry], until: str) -> Iterator[Clue]:
        positions = [Position.parse(position) for position, _ in part]
        moved = next((at for at in range(1, len(part)) if positions[at] <= positions[at - 1]), 0)
        changed = list(self._changed(part))
        if moved:
            problem = "the entry was moved: its position is before that of the entry before it"
            yield problem, _text(part[moved]), _text(part[moved - 1])
        elif changed:
            for position, reason in changed:
                yield f"the entry was changed: {reason}", position, ""
        elif (marked := self._mark(block, part)) is not None:
            yield "the mark whether the entry is a duplicate was changed", marked, ""
        elif (pair := self._exchanged(block, part)) is not None:
            yield f"the contents of the entries {pair[0]} and {pair[1]} were exchanged", *pair
        else:
            yield f"an entry of these {block.entries} was changed", block.first, until

    def _changed(self, part: list[RawEntry]) -> Iterator[tuple[str, str]]:
        """Entries that are not the live log's, or whose checksum does not hold though they were archived as
        sound.
        """
        live = self._suspect.live
        for position, fields in part:
            if position in live and live[position] != fields:
                yield position.decode(), "the live log has another"
            elif position not in live and not is_sound(fields) and is_plain(fields):
                yield position.decode(), "its checksum does not hold"

    def _exchanged(self, block: Block, part: list[RawEntry]) -> tuple[str, str] | None:
        if self._tried == TRIED_MAX:
            return None
        self._tried += 1
        marks = marks_of(part, self._suspect.duplicates)  # of positions, which stay where they are
        for one, other in combinations(range(len(part)), 2):
            tried = list(part)
            tried[one], tried[other] = (part[one][0], part[other][1]), (part[other][0], part[one][1])
            if digest_of(tried, marks) == block.sha256:
                return _text(part[one]), _text(part[other])
        return None

    def _mark(self, block: Block, part: list[RawEntry]) -> str | None:
        marked = self._suspect.duplicates
        return next(
            (_text(entry) for entry in part if block_of(part, marked ^ {entry[0]}).sha256 == block.sha256),
            None,
        )


def _text(entry: RawEntry) -> str:
    return entry[0].decode()
