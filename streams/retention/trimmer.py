"""
Retention: remove what is archived and read by all from the live log, entries and their ids rows together.

    look: who may still need an entry, and up to where (holders.py)   -> the last position that may go
    read up to 500 entries, work out their ids rows (chunk.py)
        -> trim.lua verifies all of it and removes them
    the run's note, closed by settle.lua (notes.py)
        -> one LogTrimmed a partition and run in the audit trail

Always true: what goes is a prefix of the log that is archived, and that no joined group, no worker app, no
foreign group and no letter of a processor needs; ids has a row for every event of the log and for no other;
XLEN + meta.trimmed is what was ever appended. Killed between any two steps, the next run goes on, and first
puts into the audit trail what the killed one removed. Of two runs at once each removes what the other has
not, and each entry is counted once.

An event ID is known as long as its entry is in the live log: appended again after the trim, it is a new fact.
So of an ID that is in the log twice (a raw XADD) the canonical entry stays as long as the other one stays, or
that would count as new as well.

Decision (2026-11): XTRIM MINID of the entry after the last one looked at, in the script that has compared the
first and the last: exact, and whole nodes at a time. Measured in calls of 500: 0.8 us of server time an event
on Valkey 9.1, 0.6 on Redis 7.0, under 0.5 ms a call; 1.1 us with the reads, 205,000 events/s. Refused: XDEL,
which marks entry by entry.
Decision (2026-11): ids rows never outlive their entries, as nothing could tell a collision of digests any
more. What remains: of two live IDs with one 64-bit digest, the younger is not known any more when the older
was trimmed, and counts again if it is appended again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from aurastream.streams import (
    BATCH_MAX,
    EPOCH,
    ArchiveDamaged,
    Command,
    Position,
    RawEntry,
    Reply,
    Stream,
    StreamError,
)
from aurastream.streams.retention.chunk import TrimAnswer, trim_call
from aurastream.streams.retention.holders import Looker
from aurastream.streams.retention.look import Holder, Look
from aurastream.streams.retention.notes import new_note, settle

if TYPE_CHECKING:  # pyarrow takes its time
    from aurastream.streams.archive import Manifest, StreamArchive

LOOKS_MAX = 100  # times a partition is looked at again because it was not what it had been


class Goal(msgspec.Struct, frozen=True):
    """What shall go, and why: entries appended before a time (the server's clock), or all but the newest so
    many of each partition.
    """

    before: datetime | None = None
    keep_events: int | None = None
    why: str = ""

    def end(self, look: Look) -> Position:
        """The last position it allows; of a number, the newest there is, unless that was counted out:
        ``wanted`` has the number.
        """
        if self.before is None:
            return look.kept_from or look.newest
        first_to_stay = -((EPOCH - self.before) // timedelta(milliseconds=1))
        return Position(first_to_stay, 0).before()

    def wanted(self, look: Look) -> int:
        """How many entries may go at most."""
        return look.entries - (self.keep_events or 0)


class Trimmed(msgspec.Struct, frozen=True):
    """What became of one partition. removed: entries; of a dry run, those that would go. until: position of
    the last of them.

    left: how many entries are in the log now. blockers: who held back what else was to go, the one that needs
    most first.
    """

    stream: str
    partition: int
    removed: int
    until: str
    left: int
    blockers: list[Holder]


class _TrimProgress(msgspec.Struct):
    """What a run has removed of a partition. vouched: up to where the archive was read and compared."""

    removed: int = 0
    until: str = ""
    vouched: Position | None = None


def _check_goal(stream: Stream, goal: Goal) -> None:
    """Raise StreamError where the log is not ours to trim, or the goal says too little or too much."""
    if not stream.is_log_here:
        raise StreamError(
            f"the log of stream {stream.name!r} is in Kafka, whose topics keep their own retention. Set "
            "it there."
        )
    if (goal.before is None) == (goal.keep_events is None):
        raise StreamError("say what shall go: before a time, or all but a number of events.")


class Trimmer:
    """One run over one stream. on_step: called with each step and how many entries the partition's run has
    removed, for progress and tests: looked, read, removed, closed, audited, settled.
    """

    def __init__(
        self,
        stream: Stream,
        operations: Stream | None,
        goal: Goal,
        *,
        archive: StreamArchive | None = None,
        on_step: Callable[[str, int], None] = lambda step, removed: None,
    ) -> None:
        """operations: the audit trail; None for a dry run, which changes nothing.

        archive: compared before anything is removed.
        """
        _check_goal(stream, goal)
        self.stream, self._operations, self._goal, self._on_step = stream, operations, goal, on_step
        self._archive, self._note, self._looker = archive, new_note(goal.why), Looker(stream)

    def run(self) -> Iterator[Trimmed]:
        """Every partition in turn."""
        for partition in range(self.stream.partitions):
            yield self.partition(partition)

    def partition(self, partition: int) -> Trimmed:
        """Remove what may go of one partition. Raises UnknownOutcome; whatever was removed by then is in the
        audit trail later.

        Raises ArchiveDamaged where the archive does not have, byte for byte, what it is to be the only one to
        have.
        """
        self._settle(partition)
        progress = _TrimProgress()
        for _ in range(LOOKS_MAX):
            look = self._looker.look(partition, self._goal.keep_events)
            self._on_step("looked", progress.removed)
            last = look.through(self._goal.end(look))
            if look.entries and last >= look.first:
                self._check_archive(partition, look, last, progress)
            before = progress.removed
            is_done = self._remove(partition, look, last, progress)
            if is_done:
                self._settle(partition)
                wanted = self._goal.wanted(look) - (progress.removed - before)
                return self._result(partition, look, progress, wanted)
        self._settle(partition)
        raise StreamError(
            f"{self.stream.keys[partition].where}: {LOOKS_MAX} looks in a row were outdated when it came to "
            "removing; "
            f"{progress.removed:,} entries are removed and counted. Trim again when its groups change less."
        )

    def _chain(self, archive: StreamArchive, partition: int) -> list[Manifest]:
        """The archive's segments. Raises ArchiveDamaged where they do not reach as far as the slot says."""
        slot, chain = archive.slot(partition), archive.segments(partition)
        reached = (chain[-1].last, chain[-1].entries_through) if chain else ("", 0)
        if reached != (slot.position, slot.entries):
            problem = (
                f"the server says that it reaches {slot.position} with {slot.entries:,} entries, its newest "
                f"manifest {reached[0]} with {reached[1]:,}"
            )
            raise ArchiveDamaged(self.stream.keys[partition].where, archive.url, problem)
        return chain

    def _check_archive(self, partition: int, look: Look, last: Position, progress: _TrimProgress) -> None:
        """Read the segments of what is to go and compare their hashes, once a run: 25 bytes an event.

        The slot is one hash of the server, which a flipped bit can send ahead; files can be lost.
        """
        if self._archive is None or progress.vouched == last:
            return
        for segment in self._chain(self._archive, partition):
            if segment.range[1] >= look.first and segment.range[0] <= last:
                self._archive.check_file(segment)
        progress.vouched = last

    def _remove(self, partition: int, look: Look, last: Position, progress: _TrimProgress) -> bool:
        """Chunk by chunk up to a position, as long as the look holds. Returns whether all is done."""
        left, after = self._goal.wanted(look), "0-0"
        while left > 0 and last >= look.first:
            raw = self.stream.read_raw(partition, after, str(last), min(BATCH_MAX, left))
            if not raw:
                break
            self._on_step("read", progress.removed)
            if self._operations is None:
                after = raw[-1][0].decode()
            elif not self._send(partition, look, raw):
                return False
            left -= len(raw)
            progress.removed, progress.until = progress.removed + len(raw), raw[-1][0].decode()
            self._on_step("removed", progress.removed)
        return True

    def _send(self, partition: int, look: Look, raw: list[RawEntry]) -> bool:
        """One script call. False where the partition must be looked at again."""
        keys, call = self.stream.keys[partition], trim_call(self.stream, partition, look, raw, self._note)
        code = TrimAnswer(self._ask(partition, call)[0])
        if code is TrimAnswer.UNSETTLED:
            self._settle(partition)
            code = TrimAnswer(self._ask(partition, call)[0])
        if code is TrimAnswer.MOVED:  # or it was done, and the reply was lost
            until, note = self._ask(partition, ("HMGET", keys.meta, "trimmed_to", "trim"))
            is_ours = note is not None and note.partition(b" ")[2].decode() == self._note
            return is_ours and until == raw[-1][0]
        return code is TrimAnswer.OK

    def _settle(self, partition: int) -> None:
        """Put into the audit trail what was removed under the notes there are: of this run, or of one that
        was killed.
        """
        if self._operations is not None:
            for step in settle(self.stream, partition, self._operations):
                self._on_step(step, 0)

    def _result(self, partition: int, look: Look, progress: _TrimProgress, wanted: int) -> Trimmed:
        """wanted: how many more would go at most, were it not for the holders."""
        is_dry, end = self._operations is None, self._goal.end(look)
        rest = self.stream.read_raw(partition, progress.until if is_dry and progress.until else "0-0", "+", 1)
        left = int(self._ask(partition, ("XLEN", self.stream.keys[partition].log)))
        first = Position.parse(rest[0][0]) if rest else None
        is_held = first is not None and wanted > 0 and first <= end
        return Trimmed(
            stream=self.stream.name,
            partition=partition,
            removed=progress.removed,
            until=progress.until,
            left=left - (progress.removed if is_dry else 0),
            blockers=look.blocking(first, end) if first is not None and is_held else [],
        )

    def _ask(self, partition: int, command: Command) -> Reply:
        return self.stream.ask(partition, command, what=f"trim of {self.stream.keys[partition].where}")[0]
