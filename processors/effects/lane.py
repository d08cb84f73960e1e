"""
One processor's way through one partition, without a socket, a clock or a thread.

    read -> items, by line -> attempt: begin (counted) -> Handle -> append what it derived -> done
    failed -> Again, after a pause;  for good -> park: a dead letter, and its line waits
    cut off, by us -> taken back: it was no attempt

Invariant: every entry of the log is in exactly one place: after the cursor and not done, done, or a dead
letter; and its handler never runs more than attempts_max times without a person's word. The scripts keep it;
what is held here only saves questions.

Lines may be driven at the same time, items of one line only one after the other. Dead letters that run again:
resumption.py.

Decision (2026-11): the cursor is the closed prefix of what is done, computed by the script, so finishing in
any order and twice is harmless. Refused: a cursor computed here, which needs all answers in order; a stream
of retries, which loses the order of a subject.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from aurastream.processors import ProcessorError
from aurastream.processors.effects import letters
from aurastream.processors.effects.items import Item, doubles_of, item_of
from aurastream.processors.effects.letters import Letter, LetterAt
from aurastream.processors.effects.meeting import DecisionUnderWay, Met, difference, meet, ms_of
from aurastream.processors.effects.processor import Attempt, Processor
from aurastream.processors.effects.script import Bounds, EffectAnswer, LaneScripts
from aurastream.processors.effects.steps import Again, CutOff, Ended, Handle, HandlerFailed, Steps
from aurastream.processors.effects.window import Window
from aurastream.streams import (
    Ask,
    Asking,
    Command,
    Cursor,
    Event,
    InvalidEvent,
    Keys,
    Logger,
    Position,
    RawEntry,
    Script,
    Stream,
    Unread,
    cursor_of,
    derived_id,
    join,
    sound,
)

READ_MAX = 256  # entries a read
LOOK_THROUGH_MAX = 1_000  # entries after its start that a new processor's first step counts at once

REASON_SAID_MAX = 300  # characters of a reason in the log

log = Logger("aurastream.effects")
_BEGIN = Script(__file__, "begin.lua")
_numbers = itertools.count(1)  # of the attempts of this process


class HoleInLog(ProcessorError):
    """Part of the log was trimmed before a processor handled it, as it had been forgotten."""

    def __init__(self, group: str, keys: Keys, position: str, trimmed: str) -> None:
        super().__init__(
            f"{group} has handled {keys.where} up to {position or 'nothing'}, and the log was trimmed up to "
            f"{trimmed} since: what is between is in the archive alone (`aurastream replay`). Let it go on "
            f"behind that: `aurastream processors accept {group} --stream {keys.stream} --from beginning` "
            "(of what the log has), or --from now."
        )
        self.position = position


class LaneStreams(NamedTuple):
    """What a lane reads, where its derived events go, and where its audit events go."""

    source: Stream
    into: Stream
    operations: Stream


def now() -> datetime:
    """The host's clock."""
    return datetime.now(UTC)


class LaneOptions(msgspec.Struct, frozen=True):
    """host: its name, the source of events. lease: the group whose lease counts; default: the processor's.

    on_step: called with each step and its item, for tests: taken, begun, handled, appended, and how it ended.
    """

    host: str = ""
    lease: str | None = None
    chance: Callable[[], float] = random.random
    clock: Callable[[], datetime] = now
    on_step: Callable[[str, Item], None] = lambda step, item: None


class EffectLane:
    """See the module. epoch: of the lease under which it goes on; None compares none.

    suspects: positions whose handler was begun by another process and did not end there, so that it may have
    killed it: attempt each alone. A process that hands a lane over, or cuts a handler off, leaves none.
    """

    def __init__(
        self, processor: Processor, streams: LaneStreams, partition: int, options: LaneOptions | None = None
    ) -> None:
        self.processor, self.streams, self.options = processor, streams, options or LaneOptions()
        self.keys, self.group = streams.source.keys[partition], processor.name
        self.scripts = LaneScripts(self.keys, self.group, self.options.lease)
        self.at = self.scripts.at
        self.codec = processor.codec()
        self.suspects: set[str] = set()
        self.window = Window()
        self._called: dict[str, str] = {}  # position -> token, of attempts whose handler has not answered
        self.met: Met | None = None
        self._has_joined = False

    @property
    def epoch(self) -> int | None:
        """Of the lease under which it goes on."""
        return self.scripts.epoch

    @epoch.setter
    def epoch(self, epoch: int | None) -> None:
        self.scripts.epoch = epoch

    def settle(self) -> Asking[None]:
        """Begin at the cursor, and forget what was read.

        Raises ProcessorRedefined, DecisionUnderWay and HoleInLog, which a person mends.
        """
        yield from self._take_back(list(self._called))  # no handler is under way when a lane settles
        self.met = yield from self._fitting()
        begin = _BEGIN.call(
            (self.at.cursor, self.keys.meta, self.keys.log), (self.met.least_ms, LOOK_THROUGH_MAX)
        )
        (raw, trimmed), done, begun = yield from self.ask(
            begin, ("HKEYS", self.at.done), ("HGETALL", self.at.begun)
        )
        cursor = cursor_of(raw)
        self._check_place(cursor, dict(zip(raw[::2], raw[1::2], strict=True)), trimmed)
        tokens = {place.decode(): text.decode() for place, text in zip(begun[::2], begun[1::2], strict=True)}
        yield from self._close_own(tokens)
        self.suspects = {position for position, text in tokens.items() if self._is_suspect(text)}
        self.window.settle(cursor.position, (position.decode() for position in done))

    def _fitting(self) -> Asking[Met]:
        """The record of this processor and stream. Raises ProcessorRedefined where this build differs."""
        met = yield from meet(self.processor, self.streams.source)
        differs = difference(self.processor, self.keys.stream, met)
        if differs is not None:
            raise differs
        self.scripts.version = met.version
        return met

    def _check_place(self, cursor: Cursor, fields: dict[bytes, bytes], trimmed: bytes | None) -> None:
        """Whether the lane may go on from its cursor."""
        if int(fields.get(b"version", 1)) != self.scripts.version:
            raise DecisionUnderWay(self.group, self.keys.stream)
        if trimmed and Position.parse(trimmed) > cursor.at:
            raise HoleInLog(self.group, self.keys, cursor.position, trimmed.decode())

    def is_suspect(self, item: Item) -> Asking[bool]:
        """Whether it is to be attempted alone; a host that lives may have taken its attempt back since."""
        if item.position in self.suspects:
            tokens = (yield from self.ask(("HGET", self.at.begun, item.position)))[0] or b""
            if not self._is_suspect(tokens.decode()):
                self.suspects.discard(item.position)
        return item.position in self.suspects

    def _is_suspect(self, tokens: str) -> bool:
        return any(not self._is_own(token) for token in tokens.split())

    def _is_own(self, token: str) -> bool:
        return token.rsplit(":", 2)[0] == self.options.host

    def _close_own(self, tokens: dict[str, str]) -> Asking[None]:
        """Attempts of this process whose end was not recorded, as the server was away."""
        for position, text in tokens.items():
            for token in filter(self._is_own, text.split()):
                yield from self.scripts.failed(position, token)

    def _take_back(self, positions: Iterable[str]) -> Asking[None]:
        for position in positions:
            yield from self.scripts.take_back(position, self._called[position])
            del self._called[position]

    def read(self) -> Asking[list[Item] | None]:
        """The next entries as items to attempt; None at the end. What needs no handler is finished."""
        count = min(READ_MAX, self.window.room)
        command = ("XRANGE", self.keys.log, f"({self.window.seen or '0-0'}", "+", "COUNT", count)
        raw: list[RawEntry] = (yield from self.ask(command))[0]
        items: list[Item] | None = None
        if raw:
            items = yield from self._sorted(
                [entry for entry in raw if not self.window.is_finished(entry[0].decode())], raw
            )
        yield from self._join()
        return items

    def _sorted(self, fresh: list[RawEntry], raw: list[RawEntry]) -> Asking[list[Item]]:
        read: dict[str, Item | None] = {}
        try:
            for entry in fresh:
                read[entry[0].decode()] = self._item(entry)
        except Unread as error:  # what is before it goes on; the next read begins at it
            raw = [entry for entry in raw if Position.parse(entry[0]) < Position.parse(error.position)]
            if not raw:
                raise
        items = [item for item in read.values() if item is not None]
        doubles = yield from doubles_of(items, self.keys)
        self.window.read(position.decode() for position, _ in raw)
        yield from self.skip("skipped", [position for position, item in read.items() if item is None])
        yield from self.skip("duplicates", doubles)
        return [item for item in items if item.position not in doubles]

    def _item(self, entry: RawEntry) -> Item | None:
        """None where it is not to be handled."""
        item = item_of(entry, self.codec, self.keys.where)
        if item is None or self.met is None:
            return item
        if item.problem:
            return item if ms_of(item.position) >= self.met.least_ms else None
        return item if self.met.handles(item.event, item.position) else None

    def attempt(self, item: Item) -> Steps[Again | Ended | CutOff]:
        """One attempt at an item. Raises Fenced, Gap, and the server's errors."""
        if item.problem:
            return (yield from self._park(item, 0, item.problem[: letters.REASON_MAX]))
        self._step("taken", item)
        token = f"{self.options.host}:{self.epoch or 0}:{next(_numbers)}"
        most = Bounds(self.processor.attempts_max, self.processor.kills_max)
        answer, number = yield from self.scripts.begin(
            item, token, most, self._letter(item, letters.WAITING, 0)
        )
        if answer is EffectAnswer.EXHAUSTED:
            reason = f"{number} attempts were begun and the last did not end: the process did"
            return (yield from self._park(item, number, reason))
        if answer is not EffectAnswer.OK:
            return self._ended(item, answer.name.lower())
        self._step("begun", item)
        return (yield from self._handled(item, number, token))

    def _handled(self, item: Item, number: int, token: str) -> Steps[Again | Ended | CutOff]:
        event = yield from self.streams.source.keyring.opening(item.event)
        self._called[item.position] = token
        outcome: Any = yield Handle(event, self._attempt(item, event, number))
        if isinstance(outcome, CutOff):
            yield from self._take_back([item.position])
            self._step("cut off", item)
            return outcome
        del self._called[item.position]
        self.suspects.discard(item.position)
        self._step("handled", item)
        failed: HandlerFailed | None = (
            outcome if isinstance(outcome, HandlerFailed) else (yield from self._append(item, outcome))
        )
        if failed is None:
            self._step("appended", item)
            _, following = yield from self.scripts.done(item)
            return self._ended(item, "done", following)
        if failed.is_final or number >= self.processor.attempts_max:
            reason = yield from self._kept(item.event, event, failed)
            return (yield from self._park(item, number, reason, failed.traceback))
        yield from self.scripts.failed(item.position, token)
        pause_s = self.processor.pause_s(number, self.options.chance())
        said = failed.reason if event is item.event else "(sealed)"
        reason, most = f"{failed.ours}{said}"[:REASON_SAID_MAX], self.processor.attempts_max
        self._log(
            "attempt_failed", item, reason, attempt=number, attempts_max=most, pause_s=round(pause_s, 3)
        )
        return Again(pause_s)

    def is_idle(self) -> Asking[bool]:
        """Whether the processor, whoever runs it, has nothing left to do here."""
        cursor, last, due, outbox = yield from self.ask(
            ("HGET", self.at.cursor, "position"),
            ("XREVRANGE", self.keys.log, "+", "-", "COUNT", 1),
            ("HLEN", self.at.due),
            ("HLEN", self.at.outbox),
        )
        return bool((not last or last[0][0] == cursor) and due == 0 and outbox == 0)

    def skip(self, counter: str, positions: list[str]) -> Asking[None]:
        """Finish entries that need no handler; they go to this count."""
        if positions:
            yield from self.scripts.skip(counter, positions)
            self.window.finish(positions)

    def record(self, event: Event) -> Asking[None]:
        """Append an audit event and take it out of the outbox; anybody may, any number of times."""
        yield from self.streams.operations.appending([event])
        yield from self.ask(("HDEL", self.at.outbox, event.event_id))

    def ask(self, *commands: Command) -> Asking[list[Any]]:
        """The answers of the partition's node. Raises the server's errors."""
        return sound((yield [Ask(self.keys.log, command) for command in commands]))

    def _append(self, item: Item, derived: Iterable[Event] | None) -> Asking[HandlerFailed | None]:
        """Put what the handler returned into the log. What is no event, or refused, is a failed attempt."""
        try:
            yield from self.streams.into.appending(self._identified(item.event, derived))
        except (InvalidEvent, TypeError) as error:
            return HandlerFailed(str(error), ours="what it returned cannot be appended: ")
        return None

    def _identified(self, source: Event, derived: Iterable[Event] | None) -> list[Event]:
        events = []
        for ordinal, event in enumerate(derived or ()):
            if not isinstance(event, Event):
                raise TypeError(f"number {ordinal + 1} is a {type(event).__name__}, not an Event")
            changes = {
                "event_id": derived_id(source.event_id, self.group, ordinal),
                "causation_id": source.event_id,
                "correlation_id": source.correlation_id or source.event_id,
                "source": event.source or self.options.host,
            }
            events.append(msgspec.structs.replace(event, **changes))
        return events

    def _kept(self, stored: Any, opened: Event, failed: HandlerFailed) -> Asking[str]:
        """Why it failed, to be kept. A handler that saw personal texts may repeat them: they are sealed."""
        if opened is stored or not failed.reason:
            return f"{failed.ours}{failed.reason}"[: letters.REASON_MAX]
        sealed = yield from self.streams.source.keyring.sealing_reason(stored.creator, failed.reason)
        return failed.ours[: letters.OURS_MAX] + sealed

    def _park(self, item: Item, attempts: int, reason: str, traceback: str = "") -> Asking[Ended]:
        """Make it a dead letter, and say so in the audit trail and in the log."""
        letter = msgspec.structs.replace(self._letter(item, reason, attempts), traceback=traceback)
        event = letters.parked(LetterAt(self.group, self.keys, item.position), letter, self.options.host)
        answer = yield from self.scripts.park(item, letter, event)
        if answer is not EffectAnswer.OK:
            return self._ended(item, "stale")
        self._step("parked", item)
        self._log("event_parked", item, reason[:REASON_SAID_MAX], attempts=attempts)
        yield from self.record(event)
        return self._ended(item, "parked")

    def _letter(self, item: Item, reason: str, attempts: int) -> Letter:
        before = letters.letter_of(item.letter) if item.letter else None
        event = item.event
        return Letter(
            line=item.line,
            reason=reason,
            attempts=attempts,
            at=self.options.clock(),
            event_id=event.event_id,
            type=str(event.__struct_config__.tag or ""),
            correlation_id=event.correlation_id,
            retries=before.retries if before else 0,
        )

    def _attempt(self, item: Item, event: Event, number: int) -> Attempt:
        key = self.processor.key_of(event.event_id)
        where = (self.keys.stream, self.keys.partition, item.position)
        return Attempt(event, number, self.processor.attempts_max, key, *where, self.options.clock())

    def _join(self) -> Asking[None]:
        """Once, with the first step that succeeded: from now on producers wait for this processor."""
        if not self._has_joined:
            yield from self.ask(join(self.keys, self.group))
            self._has_joined = True

    def _ended(self, item: Item, how: str, following: str = "") -> Ended:
        self._step(how, item)
        if not item.letter:
            self.window.finish([item.position])
        return Ended(how, following)

    def _log(self, event: str, item: Item, reason: str, **facts: float) -> None:
        """What a person may have to look into: which event, where, and why."""
        place = f"{self.keys.where}/{item.position}"
        say = log.error if event == "event_parked" else log.warning
        say(event, processor=self.group, place=place, event_id=item.event.event_id, reason=reason, **facts)

    def _step(self, step: str, item: Item) -> None:
        self.options.on_step(step, item)
