"""
A person lets a processor go on though its record does not fit: it learned types, or trimmed events went by.

    accept -> the audit event -> the record's next version -> per partition: what was skipped and is wanted
              becomes letters -> the version counts there (lanes settle anew) -> the letters run
           -> per partition with a hole: the cursor passes it

Each step may be repeated, and a repeat of the whole goes on where the last one ended: the record says which
version is meant, each partition's cursor which one it has.

What was skipped runs as dead letters do: each subject in order, before what came later. So an event that was
passed over takes the way of one that was parked, and no second one is needed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import IntEnum
from typing import NamedTuple

import msgspec

from aurastream.processors import ProcessorError
from aurastream.processors.effects.items import Item, doubles_of, item_of
from aurastream.processors.effects.letters import Letter, letter_of
from aurastream.processors.effects.meeting import Met, field_of_meeting, meet, ms_of, type_of, types_of
from aurastream.processors.effects.processor import Processor
from aurastream.processors.effects.script import EffectKeys
from aurastream.streams import (
    PROCESSORS,
    START,
    Command,
    Keys,
    Position,
    ProcessorAccepted,
    RawEntry,
    Reply,
    Script,
    Stream,
    drive,
    named_id,
    operator,
)

TEXT_MAX = 1_000  # characters that an event's text may have
READ_MAX = 500  # entries a call
RECALLED = "passed over before a person decided"  # why such a letter is one
FOR_EVER_MS = 2**53

_RECALL = Script(__file__, "lines.lua", "recall.lua")
_RECORD = Script(__file__, "record.lua")
_PASS = Script(__file__, "lines.lua", "pass.lua")
_DUE = Script(__file__, "lines.lua", "due.lua")


class RecallAnswer(IntEnum):
    """What recall.lua says."""

    OK = 0
    AGAIN = 1
    WHOLE = 2


class Since(NamedTuple):
    """From when on: ms of append time, and as the person said it. None: from the processor's own start."""

    ms: int | None
    said: str

    @property
    def is_now(self) -> bool:
        """Whether nothing that is in the log counts."""
        return self.said == "now"


class Accepted(msgspec.Struct, frozen=True):
    """What a decision came to. recalled: events that were skipped and run now. passed: trimmed ones that
    never will.
    """

    processor: str
    stream: str
    version: int
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    recalled: int
    passed: int

    @property
    def is_change(self) -> bool:
        """Whether there was anything to decide."""
        return bool(self.gained or self.lost or self.recalled or self.passed)


class ArchiveOnly(ProcessorError):
    """Trimmed events cannot be handled from the log."""

    def __init__(self, name: str, stream: str, said: str) -> None:
        super().__init__(
            f"what {name} has not handled of {stream!r} was trimmed and is in the archive alone, so that "
            f"--from {said} cannot be done here. Choose --from beginning (of what the log has) or now; for "
            f"the others: `aurastream replay --stream {stream}`."
        )


class DecidedElsewhere(ProcessorError):
    """Somebody else decided at the same time."""

    def __init__(self, name: str, stream: str) -> None:
        super().__init__(f"somebody else decided about {name} on {stream!r} at the same time. Look again.")


class Hole(NamedTuple):
    """A partition whose log was trimmed up to a position past the cursor. entries: that were not read."""

    keys: Keys
    trimmed_to: str
    entries: int


class Acceptance:
    """One decision about a processor and a stream."""

    def __init__(self, processor: Processor, stream: Stream, operations: Stream) -> None:
        self._processor, self._stream, self._operations = processor, stream, operations
        self._codec = processor.codec()

    def decide(self, since: Since, why: str) -> Accepted:
        """Decide, and carry it out. Raises ArchiveOnly, DecidedElsewhere."""
        name, stream = self._processor.name, self._stream.name
        met = drive(meet(self._processor, self._stream), self._stream.wires.ask)
        own = types_of(self._processor)
        gained, lost = tuple(sorted(own - met.since.keys())), tuple(sorted(met.since.keys() - own))
        holes = self._holes()
        if holes and since.said not in ("now", "beginning"):
            raise ArchiveOnly(name, stream, since.said)
        after = self._after(met, since, only_new=bool(gained or holes))
        is_change = bool(gained or lost or after.recall)
        if is_change or holes:
            self._say(Accepted(name, stream, after.version, gained, lost, 0, 0), since, holes, why)
        if is_change:
            self._record(met, after)
        recalled = sum(self._recall(keys, after if is_change else met) for keys in self._stream.keys)
        passed = sum(self._pass(hole.keys, since) for hole in holes)
        for keys in self._stream.keys:
            self._run_letters(keys)
        version = after.version if is_change else met.version
        return Accepted(name, stream, version, gained, lost, recalled, passed)

    def _holes(self) -> list[Hole]:
        holes = []
        for keys in self._stream.keys:
            cursor = keys.cursor(self._processor.name)
            (at, read), (trimmed_to, trimmed) = self._ask(
                keys, ("HMGET", cursor, "position", "read"), ("HMGET", keys.meta, "trimmed_to", "trimmed")
            )
            if at is not None and trimmed_to is not None and Position.parse(at) < Position.parse(trimmed_to):
                holes.append(Hole(keys, trimmed_to.decode(), max(0, int(trimmed or 0) - int(read or 0))))
        return holes

    def _after(self, met: Met, since: Since, *, only_new: bool) -> Met:
        """The next record. New types have the person's instant; where it is about none, all may begin
        earlier.
        """
        seconds, microseconds = self._stream.server.client.time()
        now_ms = seconds * 1_000 + microseconds // 1_000
        start = now_ms if since.is_now else met.least_ms if since.ms is None else since.ms
        instants: dict[str, int] = {}
        recall: dict[str, tuple[int, int]] = {}
        for name in sorted(types_of(self._processor)):
            before = met.since.get(name, FOR_EVER_MS)
            is_meant = name not in met.since if only_new else not since.is_now
            instants[name] = min(before, start) if is_meant else before
            if instants[name] < min(before, now_ms):
                recall[name] = (instants[name], before)
        return msgspec.structs.replace(met, since=instants, version=met.version + 1, recall=recall)

    def _say(self, accepted: Accepted, since: Since, holes: list[Hole], why: str) -> None:
        """The audit event, before anything changes."""
        places = [f"{hole.keys.partition}-{hole.trimmed_to}" for hole in holes]
        event = ProcessorAccepted(
            event_id=named_id(accepted.processor, accepted.stream, "accepted", accepted.version, *places),
            subject=accepted.processor,
            occurred_at=datetime.now(UTC),
            source=operator(),
            stream=accepted.stream,
            record=accepted.version,
            gained=" ".join(accepted.gained)[:TEXT_MAX],
            lost=" ".join(accepted.lost)[:TEXT_MAX],
            since=since.said,
            passed=sum(hole.entries for hole in holes),
            why=why[:TEXT_MAX],
        )
        self._operations.append([event])

    def _record(self, met: Met, after: Met) -> None:
        field = field_of_meeting(self._processor.name, self._stream.name)
        args = (field, msgspec.json.encode(met), msgspec.json.encode(after))
        if not self._stream.server.run(_RECORD, (PROCESSORS,), args):
            raise DecidedElsewhere(self._processor.name, self._stream.name)

    def _recall(self, keys: Keys, met: Met) -> int:
        """Make letters of what was skipped in a partition and is wanted now; then the record counts there."""
        first_ms = min((span[0] for span in met.recall.values()), default=FOR_EVER_MS)
        marks = self._ask(keys, ("HGET", keys.cursor(self._processor.name), "recalled"))
        at: str = (marks[0] or b"").decode()
        recalled = 0
        while True:
            after = at or str(Position(first_ms, 0).before() if first_ms else START)
            raw = self._stream.read_raw(keys.partition, after, count=READ_MAX)
            letters = self._letters(keys, raw, met)
            until = raw[-1][0].decode() if raw else after
            head = _RecallHead(met.version, at, until, len(raw) < READ_MAX)
            answer, fact = self._ask(keys, self._call(keys, head, letters))[0]
            match RecallAnswer(answer):
                case RecallAnswer.WHOLE:
                    return recalled
                case RecallAnswer.AGAIN:
                    at = fact.decode()
                case RecallAnswer.OK:
                    at, recalled = until, recalled + int(fact)
                    if head.is_last:
                        return recalled

    def _letters(self, keys: Keys, raw: list[RawEntry], met: Met) -> list[tuple[str, str, str]]:
        items = [item for item in (item_of(entry, self._codec, keys.where) for entry in raw) if item]
        wanted = [item for item in items if not item.problem and _is_recalled(item, met)]
        doubles = set(drive(doubles_of(wanted, keys), self._stream.wires.ask))
        return [
            (item.position, item.line, _letter(item).text())
            for item in wanted
            if item.position not in doubles
        ]

    def _call(self, keys: Keys, head: _RecallHead, letters: list[tuple[str, str, str]]) -> Command:
        at = EffectKeys.of(keys, self._processor.name)
        args = (msgspec.msgpack.encode(head), msgspec.msgpack.encode(letters))
        return _RECALL.call((at.cursor, at.done, at.dead, at.line, at.due), args)

    def _pass(self, keys: Keys, since: Since) -> int:
        at = EffectKeys.of(keys, self._processor.name)
        names = (at.cursor, at.done, at.attempts, at.begun, at.dead, keys.meta, keys.log)
        passed: int = self._ask(keys, _PASS.call(names, (int(since.is_now),)))[0]
        return passed

    def _run_letters(self, keys: Keys) -> None:
        """Those that the decision made, each where it is the first of its subject."""
        at = EffectKeys.of(keys, self._processor.name)
        stored = self._ask(keys, ("HGETALL", at.dead))[0]
        made = []
        for position, text in zip(stored[::2], stored[1::2], strict=True):
            letter = letter_of(text)
            if letter is not None and letter.reason == RECALLED and not letter.retries:
                made.append((position.decode(), letter.line, text.decode()))
        for begin in range(0, len(made), READ_MAX):
            packed = msgspec.msgpack.encode(made[begin : begin + READ_MAX])
            self._ask(keys, _DUE.call((at.dead, at.line, at.due), (packed,)))

    def _ask(self, keys: Keys, *commands: Command) -> list[Reply]:
        return self._stream.ask(keys.partition, *commands, what=f"a decision about {self._processor.name}")


class _RecallHead(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """See recall.lua."""

    version: int
    from_: str
    until: str
    is_last: bool


def _is_recalled(item: Item, met: Met) -> bool:
    first, until = met.recall.get(type_of(type(item.event)), (0, 0))
    return first <= ms_of(item.position) < until


def _letter(item: Item) -> Letter:
    event = item.event
    return Letter(
        line=item.line,
        reason=RECALLED,
        attempts=0,
        at=datetime.now(UTC),
        event_id=event.event_id,
        type=type_of(type(event)),
        correlation_id=event.correlation_id,
    )
