"""
The live log beside the archive: what both have is equal, nothing is gone but by the trimmer, checksums hold,
counts add up.

Safe beside producers, archiver and trimmer: whatever may move is read in the order in which it can only have
grown.
"""

from __future__ import annotations

from collections.abc import Iterator

from aurastream.streams import (
    READ_MAX,
    START,
    Cursor,
    DamagedEntry,
    Position,
    RawEntry,
    Stream,
    entry_json,
    lag_of,
)
from aurastream.streams.archive.finding import Finding, finding_in
from aurastream.streams.archive.manifest import Manifest
from aurastream.streams.archive.slot import Slot, slot_of, trimmed_to

DAMAGED_MAX = 20  # named per partition; all are counted


def live_entries(stream: Stream, manifest: Manifest) -> dict[bytes, list[bytes]]:
    """The segment's entries that the live log still has, by position."""
    live: dict[bytes, list[bytes]] = {}
    after = str(manifest.range[0].before())
    while part := stream.read_raw(manifest.partition, after, manifest.last, READ_MAX):
        live |= {position: list(fields) for position, fields in part}
        after = part[-1][0].decode()
    return live


def _unlike(
    manifest: Manifest, archived: dict[bytes, list[bytes]], live: dict[bytes, list[bytes]]
) -> Iterator[Finding]:
    """The live entries that are not in the segment, or are others there."""
    for position, fields in live.items():
        if position not in archived:
            problem = f"the live log has an entry that segment {manifest.number} has not"
            yield finding_in(manifest, problem, position.decode())
        elif archived[position] != fields:
            problem = f"the live log's entry is not the one in segment {manifest.number}"
            yield finding_in(manifest, problem, position.decode())


def overlap(
    stream: Stream, manifest: Manifest, entries: list[RawEntry], live: dict[bytes, list[bytes]]
) -> Iterator[Finding]:
    """The live log's entries are the archived ones; those that are in the archive alone were trimmed."""
    yield from _unlike(manifest, dict(entries), live)
    trimmed = trimmed_to(stream, manifest.partition)
    gone = [
        position.decode()
        for position, _ in entries
        if position not in live and Position.parse(position) > trimmed
    ]
    if gone:
        problem = f"{len(gone)} entries are in the archive, but gone from the live log without the trimmer"
        yield finding_in(manifest, problem, gone[0], gone[-1])


class LiveLog:
    """One partition's log by itself.

    slot: as it was before the log is read. entries: how many it has, once it was checked.
    """

    def __init__(self, stream: Stream, partition: int, slot: Slot) -> None:
        self._stream, self._partition, self._slot = stream, partition, slot
        self.entries = 0

    def check(self) -> Iterator[Finding]:
        """What is wrong with it; an archived entry may be damaged, for the archive has it as it is."""
        last = START
        damaged = 0
        for position, fields in self._read():
            self.entries, last = self.entries + 1, position
            if (reason := _damage(fields)) and position > self._slot.end:
                damaged += 1
                if damaged <= DAMAGED_MAX:
                    yield self._finding(f"the live log's entry is damaged: {reason}", str(position))
        if damaged > DAMAGED_MAX:
            problem = f"{damaged - DAMAGED_MAX} more entries of the live log are damaged"
            yield self._finding(problem, str(self._slot.end), str(last))
        yield from self._ends(last)

    def _ends(self, last: Position) -> Iterator[Finding]:
        """Counts, and how log, trimmer and archive meet. last: the newest entry of the log."""
        stream, partition, before = self._stream, self._partition, self._slot.end
        if missing := lag_of(stream.server, stream.keys[partition], Cursor()).missing:
            yield self._finding(
                f"{missing} entries of the live log are gone without the trimmer: XDEL, XTRIM or DEL by hand"
            )
        trimmed, end = trimmed_to(stream, partition), slot_of(stream, partition).end
        if last < before and trimmed < before:
            problem = "the archive is ahead of the live log, which was deleted or restored from an older copy"
            yield self._finding(problem, str(before))
        if trimmed > end:
            problem = f"the live log was trimmed up to {trimmed}, past the end of the archive"
            yield self._finding(problem, str(end), str(trimmed))

    def _read(self) -> Iterator[tuple[Position, list[bytes]]]:
        after = "0-0"
        while part := self._stream.read_raw(self._partition, after, "+", READ_MAX):
            for position, fields in part:
                yield Position.parse(position), fields
            after = part[-1][0].decode()

    def _finding(self, problem: str, position: str = "", until: str = "") -> Finding:
        return Finding(self._stream.name, self._partition, position, until or position, 0, problem)


def _damage(fields: list[bytes]) -> str:
    """Why an entry that claims to be one of ours is none; "" for a sound one."""
    if b"crc32" not in fields[::2] or b"event" not in fields[::2]:
        return ""  # somebody else's entry, whole for all we know
    try:
        entry_json("", fields)
    except DamagedEntry as error:
        return error.reason
    return ""
