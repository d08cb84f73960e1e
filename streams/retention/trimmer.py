"""
Retention: remove what is archived and read by all from the live log, entries and their ids rows together.

    look: who may still need an entry, and up to where (holders)    -> the last position that may go
    read up to 500 entries, work out their ids rows                 -> trim.lua verifies all of it and removes
        them
    the run's note, closed by settle.lua                            -> one LogTrimmed a partition and run in
        the audit trail

Always true: what goes is a prefix of the log that is archived, and that no joined group, no worker app, no
foreign group and no letter of a processor needs; ids has a row for every event of the log and for no other;
XLEN + meta.trimmed is what was ever appended. Killed between any two steps, the next run goes on, and tells
the audit trail first what the killed one removed. Of two runs at once each removes what the other has not,
and each entry is told once.

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

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import msgspec

from aurastream.streams import (
    BATCH_MAX,
    ArchiveDamaged,
    Keys,
    LogTrimmed,
    RawEntry,
    Script,
    Stream,
    StreamError,
    as_pair,
    collided_field_of,
    field_of,
    named_id,
    operator,
    pack_position,
    retried,
)
from aurastream.streams.retention.holders import (
    SEQUENCE_MAX,
    Holder,
    Look,
    Looker,
    Pair,
    event_id_of,
    text_of,
)

if TYPE_CHECKING:  # pyarrow takes its time
    from aurastream.streams.archive import StreamArchive

LOOKS_MAX = 100  # times a partition is looked at again because it was not what it had been
PACKED_BYTES = 10

_TRIM = Script(__file__, "trim.lua")
_SETTLE = Script(__file__, "settle.lua")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Answer(IntEnum):
    """What trim.lua says."""

    OK = 0
    MOVED = 1
    REGROUP = 2
    HELD = 3
    UNSETTLED = 4


class Goal(msgspec.Struct, frozen=True):
    """What shall go: entries appended before a time (the server's clock), or all but the newest so many of
    each partition.
    """

    before: datetime | None = None
    keep_events: int | None = None

    def end(self, look: Look) -> Pair:
        """The last position it allows; of a number, the newest there is, unless that was counted out:
        ``wanted`` has the number.
        """
        if self.before is None:
            return look.kept_from or look.newest
        return -((_EPOCH - self.before) // timedelta(milliseconds=1)) - 1, SEQUENCE_MAX

    def wanted(self, look: Look) -> int:
        """How many entries may go at most."""
        return look.entries - (self.keep_events or 0)


class Trimmed(msgspec.Struct, frozen=True):
    """What became of one partition. removed: entries; of a dry run, those that would go. until: position of
    the last of them.

    left: how many entries are in the log now. blockers: who held back what else was asked for, the one that
    needs most first.
    """

    stream: str
    partition: int
    removed: int
    until: str
    left: int
    blockers: list[Holder]


class _Note(msgspec.Struct, frozen=True):
    """Who trims, as the script keeps it until it is in the audit trail. run: no other run has it."""

    run: str
    who: str
    why: str
    at: datetime


class Trimmer:
    """One run over one stream. on_step: told each step and how many entries the partition's run has removed,
    for progress and tests:
    looked, read, removed, closed, told, settled."""

    def __init__(
        self,
        stream: Stream,
        operations: Stream | None,
        goal: Goal,
        *,
        why: str = "",
        archive: StreamArchive | None = None,
        on_step: Callable[[str, int], None] = lambda step, removed: None,
    ) -> None:
        """operations: the audit trail; None for a dry run, which changes nothing. archive: looked at before
        anything is removed.
        """
        if not stream.is_log_here:
            raise StreamError(
                f"the log of stream {stream.name!r} is in Kafka, whose topics keep their own retention. Set "
                "it there."
            )
        if (goal.before is None) == (goal.keep_events is None):
            raise StreamError("say what shall go: before a time, or all but a number of events.")
        self.stream, self._operations, self._goal, self._on_step = stream, operations, goal, on_step
        self._archive, self._vouched = archive, ""
        note = _Note(secrets.token_hex(8), operator(), why, datetime.now(UTC))
        self._note = msgspec.json.encode(note).decode()
        self._looker = Looker(stream)

    def run(self) -> Iterator[Trimmed]:
        """Every partition in turn."""
        for partition in range(self.stream.partitions):
            yield self.partition(partition)

    def partition(self, partition: int) -> Trimmed:
        """Remove what may go of one partition. Raises UnknownOutcome; whatever was removed by then is counted
        and told later.

        Raises ArchiveDamaged where the archive does not have, byte for byte, what it is to be the only one to
        have.
        """
        self._settle(partition)
        removed, until = 0, ""
        self._vouched = ""
        for _ in range(LOOKS_MAX):
            look = self._looker.look(partition, self._goal.keep_events)
            end = self._goal.end(look)
            self._on_step("looked", removed)
            last = look.through(end)
            self._look_at_archive(partition, look, last)
            more, reached, is_done = self._remove(partition, look, last, removed)
            removed, until = removed + more, reached or until
            if is_done:
                self._settle(partition)
                return self._told(partition, look, end, removed, until, self._goal.wanted(look) - more)
        self._settle(partition)
        raise StreamError(
            f"{self.stream.keys[partition].where}: {LOOKS_MAX} looks in a row were outdated when it came to "
            f"removing; {removed:,} "
            "entries are removed and counted. Trim again when its groups change less."
        )

    def _look_at_archive(self, partition: int, look: Look, last: Pair) -> None:
        """The slot is one hash of the server, which a flipped bit can send ahead of the archive; files can be
        lost. So the segments of
        what is to go are read and compared with their hashes: 25 bytes an event, once a run."""
        if self._archive is None or not look.entries or last < look.first or text_of(last) == self._vouched:
            return
        slot, chain = self._archive.slot(partition), self._archive.segments(partition)
        reached = (chain[-1].last, chain[-1].entries_before + chain[-1].entries) if chain else ("", 0)
        if reached != (slot.position, slot.entries):
            told = "the server says that it reaches {} with {:,} entries, its newest manifest {} with {:,}"
            where = self.stream.keys[partition].where
            raise ArchiveDamaged(where, self._archive.url, told.format(slot.position, slot.entries, *reached))
        for segment in chain:
            if as_pair(segment.last) >= look.first and as_pair(segment.first) <= last:
                self._archive.check_file(segment)
        self._vouched = text_of(last)

    def _remove(self, partition: int, look: Look, last: Pair, before: int) -> tuple[int, str, bool]:
        """Chunk by chunk up to a position, as long as the look holds. Returns entries removed, the last one,
        whether all is done.
        """
        wanted, removed, reached, after = self._goal.wanted(look), 0, "", "0-0"
        while removed < wanted and last >= look.first:
            raw = self.stream.read_raw(partition, after, text_of(last), min(BATCH_MAX, wanted - removed))
            if not raw:
                break
            self._on_step("read", before + removed)
            if self._operations is None:
                after = raw[-1][0].decode()
            elif not self._send(partition, look, raw):
                return removed, reached, False
            removed, reached = removed + len(raw), raw[-1][0].decode()
            self._on_step("removed", before + removed)
        return removed, reached, True

    def _send(self, partition: int, look: Look, raw: list[RawEntry]) -> bool:
        """One script call. False where the partition must be looked at again."""
        keys, call = self.stream.keys[partition], self._command(partition, look, raw)
        answer = self._ask(partition, call)
        if answer[0] == _Answer.UNSETTLED:
            self._settle(partition)
            answer = self._ask(partition, call)
        code = _Answer(answer[0])
        if code is _Answer.MOVED:  # or it was done, and the reply was lost
            until, note = self._ask(partition, ("HMGET", keys.meta, "trimmed_to", "trim"))
            return bool(
                until == raw[-1][0] and note is not None and note.partition(b" ")[2].decode() == self._note
            )
        return code is _Answer.OK

    def _command(self, partition: int, look: Look, raw: list[RawEntry]) -> tuple[Any, ...]:
        """The call of trim.lua; its arguments are the script's header."""
        keys = self.stream.keys[partition]
        names = [
            (position, event_id) for position, fields in raw if (event_id := event_id_of(fields)) is not None
        ]
        digests = [field_of(event_id) for _, event_id in names]
        packed = [pack_position(position) for position, _ in names]
        usual = [pair for pair in zip(digests, packed, strict=True) if len(pair[1]) == PACKED_BYTES]
        rows = self._ask(partition, ("HMGET", keys.ids, *digests)) if digests else []
        odd: list[bytes] = []
        for (_, event_id), digest, place, row in zip(names, digests, packed, rows, strict=True):
            if row != place:
                odd += [collided_field_of(event_id), place]
            if len(place) != PACKED_BYTES:
                odd += [digest, place]
        nameless = {
            pack_position(position)
            for position, fields in raw
            if b"event" in fields[::2] and event_id_of(fields) is None
        }
        odd += [part for row in self._rows_of(partition, nameless) for part in row]
        lines = (look.group_lines, look.ours_lines, look.app_lines, look.strange_entries, self._note)
        size = sum([len(fields[1]) for _, fields in raw if len(fields) > 1])
        ends = (raw[0][0], raw[-1][0], raw[-1][1][-1] if raw[-1][1] else b"", size)
        head = (keys.log, keys.ids, keys.meta, keys.groups, keys.archive)
        args = (*ends, b"".join([d for d, _ in usual]), b"".join([p for _, p in usual]), *lines, *odd)
        return _TRIM.call((*head, *look.keys), args)

    def _rows_of(self, partition: int, places: set[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """The rows that name these positions: of entries damaged so badly that their event_id cannot be read.
        cost O(ids)
        """
        cursor = b"0"
        while places:
            cursor, found = self._ask(
                partition, ("HSCAN", self.stream.keys[partition].ids, cursor, "COUNT", 1_000)
            )
            yield from [(found[i], found[i + 1]) for i in range(0, len(found), 2) if found[i + 1] in places]
            if cursor == b"0":
                return

    def _settle(self, partition: int) -> None:
        """Tell the audit trail what was removed under the notes there are: of this run, or of one that was
        killed.
        """
        if self._operations is None:
            return
        keys, told = self.stream.keys[partition], b""
        while told := self._ask(partition, _SETTLE.call((keys.meta,), (told,))):
            self._on_step("closed", 0)
            self._operations.append([_event(keys, told.decode())])
            self._on_step("told", 0)
        self._on_step("settled", 0)

    def _told(self, partition: int, look: Look, end: Pair, removed: int, until: str, wanted: int) -> Trimmed:
        """wanted: how many more would go at most, were it not for the holders."""
        is_dry = self._operations is None
        rest = self.stream.read_raw(partition, until if is_dry and until else "0-0", "+", 1)
        left = int(self._ask(partition, ("XLEN", self.stream.keys[partition].log))) - (
            removed if is_dry else 0
        )
        first = as_pair(rest[0][0].decode()) if rest else None
        is_held = first is not None and wanted > 0 and first <= end
        return Trimmed(
            self.stream.name,
            partition,
            removed,
            until,
            left,
            look.blocking(first, end) if first and is_held else [],
        )

    def _ask(self, partition: int, command: tuple[Any, ...]) -> Any:
        def ask() -> Any:
            return self.stream.wire(partition).ask(command)[0]

        return retried(
            f"trim of {self.stream.keys[partition].where}",
            self.stream.settings.attempts_max,
            ask,
            self.stream.reconnect,
        )


def _event(keys: Keys, closed: str) -> LogTrimmed:
    """The audit event of a closed note: the same, however often it is made."""
    before, after, until, text = closed.split(" ", 3)
    note = msgspec.json.decode(text, type=_Note)
    return LogTrimmed(
        event_id=named_id(keys.stream, keys.partition, "trimmed", until),
        subject=keys.stream,
        occurred_at=note.at,
        source=note.who,
        partition=keys.partition,
        until=until,
        entries=int(after) - int(before),
        why=note.why,
    )
