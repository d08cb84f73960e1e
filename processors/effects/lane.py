"""
One processor's way through one partition, without a socket, a clock or a thread.

    read -> items, by line -> attempt: begin (counted) -> Handle -> append the derived events -> done: the
        cursor moves
                                                    failed -> Again, after a pause;  for good -> park: a dead
                                                        letter, and its line waits

Invariant: every entry of the log is in exactly one place: after the cursor and not done, done, or a dead
letter; and its handler never runs more than attempts_max times without a person's word. effects.lua keeps it;
what is held here only saves questions.

The generators yield ``Ask`` (commands with the key of the node to ask; sent the answers) and ``Handle`` (call
the handler; sent what it returned, or ``Failed``). Everything asked may be asked again after a lost
connection. Lines may be driven at the same time, items of one line only one after the other.

Decision (2026-11): the cursor is the closed prefix of what is done, computed by the script, so finishing in
any order and twice is
harmless. Refused: a cursor computed here, which needs all answers in order; a stream of retries, which loses
the order of a subject.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Generator, Iterable
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

import msgspec

from aurastream.processors.effects import letters
from aurastream.processors.effects.items import UNREAD, Item, item_of
from aurastream.processors.effects.letters import Letter
from aurastream.processors.effects.processor import Attempt, Processor
from aurastream.projections.engine import Fenced
from aurastream.streams import Ask as Routed
from aurastream.streams import (
    Codec,
    DamagedEntry,
    Event,
    InvalidEvent,
    Keys,
    RawEntry,
    Script,
    Stream,
    cursor_of,
    derived_id,
    entry_json,
    field_of,
    join,
    pack_position,
    read_envelope,
    unpack_position,
)

AHEAD_MAX = (
    4_096  # entries between the cursor and the last one read: how far others flow past a subject that waits
)
READ_MAX = 256  # entries a read
PARTS = ("attempts", "done", "dead", "line", "due", "outbox")

_BEGIN = Script(__file__, "begin.lua")
_EFFECTS = Script(__file__, "effects.lua")


class EffectAnswer(IntEnum):
    """What effects.lua says."""

    OK = 0
    STALE = 1
    FENCED = 2
    EXHAUSTED = 3
    WAITING = 4
    GAP = 5


class Ask(msgspec.Struct, frozen=True):
    """Commands, each with a key of the node to ask."""

    routed: list[Routed]


class Handle(msgspec.Struct, frozen=True):
    """Call the handler."""

    event: Event
    attempt: Attempt


class Failed(msgspec.Struct, frozen=True):
    """The handler did not return. reason: in its own words. is_final: no further attempt can help. ours: our
    words before it.
    """

    reason: str
    is_final: bool = False
    ours: str = ""


class Again(msgspec.Struct, frozen=True):
    """The item is to be attempted again, after a pause."""

    after_s: float


class Ended(msgspec.Struct, frozen=True):
    """The item is finished here: done, parked, waiting, or stale. following: position of the dead letter that
    may run next, or ''.
    """

    how: str
    following: str = ""


class Gap(Exception):
    """The log no longer holds what was read (a fail-over): settle anew."""


Steps = Generator[Ask | Handle, Any, Any]


def effect_keys(keys: Keys, group: str, lease: str | None = None) -> dict[str, str]:
    """The keys of a processor in a partition, by what effects.lua calls them. lease: as in EffectLane."""
    named = {part: keys.effects(group, part) for part in PARTS if part != "dead"}
    return {
        "cursor": keys.cursor(group),
        "log": keys.log,
        "lease": keys.lease(lease or group),
        "dead": keys.dead(group),
        **named,
    }


class EffectLane:
    """See the module. epoch: of the lease under which it goes on; None compares none. seen: position read up
    to.
    suspects: positions whose handler was begun by a process before this one, which it may have killed:
    attempt each alone.

    into: the stream of the derived events. operations: that of the audit events. lease: the group whose lease
    has the epoch; default: the processor's. on_step: told each step and its item, for tests: taken, begun,
    handled, appended, and how it ended.
    """

    def __init__(
        self,
        processor: Processor,
        stream: Stream,
        partition: int,
        *,
        into: Stream,
        operations: Stream,
        host: str = "",
        lease: str | None = None,
        dice: random.Random | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_step: Callable[[str, Item], None] = lambda step, item: None,
    ) -> None:
        self.processor, self.stream, self.into, self.operations = processor, stream, into, operations
        self.keys, self.group = stream.keys[partition], processor.name
        self.at = effect_keys(self.keys, self.group, lease)
        self.host, self._dice, self._clock, self.on_step = host, dice or random.Random(), clock, on_step  # noqa: S311 - jitter
        self.epoch: int | None = None
        self.seen = ""
        self._codec, self._audit = processor.codec(), Codec(letters.AUDIT_TYPES)
        self.suspects: set[str] = set()
        self._window: deque[str] = deque()
        self._finished: set[str] = set()
        self._has_joined = False

    @property
    def room(self) -> int:
        """How many entries may be read before one must finish."""
        return AHEAD_MAX - len(self._window)

    def settle(self) -> Steps:
        """Begin at the cursor, and forget what was read."""
        begin = _BEGIN.call((self.at["cursor"], self.keys.meta), ())
        cursor, done, begun = yield from self._ask(
            begin, ("HKEYS", self.at["done"]), ("HKEYS", self.at["attempts"])
        )
        self.suspects = {position.decode() for position in begun}
        self.seen = cursor_of(cursor).position
        self._window.clear()
        self._finished = {position.decode() for position in done}

    def read(self, until: str = "+") -> Generator[Ask | Handle, Any, list[Item] | None]:
        """The next entries as items to attempt, in order; None at the end. What needs no handler is finished
        on the way.
        """
        count = min(READ_MAX, self.room)
        raw: list[RawEntry] = (
            yield from self._ask(("XRANGE", self.keys.log, f"({self.seen or '0-0'}", until, "COUNT", count))
        )[0]
        if not raw:
            yield from self._join()
            return None
        fresh = [entry for entry in raw if entry[0].decode() not in self._finished]
        items = [item_of(entry, self._codec, self.keys.where) for entry in fresh]
        doubles = yield from self._duplicates([item for item in items if item is not None])
        self._window.extend(position.decode() for position, _ in raw)
        self.seen = self._window[-1]
        yield from self._skip(
            "skipped", [entry[0].decode() for entry, item in zip(fresh, items, strict=True) if item is None]
        )
        yield from self._skip("duplicates", doubles)
        yield from self._join()
        return [item for item in items if item is not None and item.position not in doubles]

    def attempt(self, item: Item) -> Generator[Ask | Handle, Any, Again | Ended]:
        """One attempt at an item. Raises Fenced, Gap, and the server's errors."""
        if item.problem:
            return (yield from self._park(item, 0, item.problem[: letters.REASON_MAX]))
        self.on_step("taken", item)
        waiting = self._letter(item, letters.WAITING, 0)
        answer, told = yield from self._call("begin", item, self.processor.attempts_max, waiting.text())
        if answer is EffectAnswer.EXHAUSTED:
            return (
                yield from self._park(
                    item,
                    int(told),
                    f"{int(told)} attempts were begun and the last did not end: the process did",
                )
            )
        if answer is not EffectAnswer.OK:
            return self._ended(item, answer.name.lower())
        number = int(told)
        self.on_step("begun", item)
        event = yield from _asked(self.stream.keyring.opening(item.event))
        outcome: Any = yield Handle(event, self._attempt(item, event, number))
        self.suspects.discard(item.position)
        self.on_step("handled", item)
        if not isinstance(outcome, Failed):
            outcome = yield from self._append(item, outcome)
        if outcome is None:
            self.on_step("appended", item)
            _, following = yield from self._call("done", item)
            return self._ended(item, "done", following.decode())
        if outcome.is_final or number >= self.processor.attempts_max:
            return (yield from self._park(item, number, (yield from self._kept(item.event, event, outcome))))
        return Again(self.processor.pause_s(number, self._dice.random()))

    def due(self) -> Generator[Ask | Handle, Any, list[str]]:
        """The lines a person let run again, after the audit events that a process did not get to append."""
        lines, outbox = yield from self._ask(("HKEYS", self.at["due"]), ("HVALS", self.at["outbox"]))
        for raw in outbox:
            event = self._audit.decode(raw, self.at["outbox"])
            if event is not None:
                yield from self._tell(event)
        return [line.decode() for line in lines]

    def first_letter(self, line: str) -> Generator[Ask | Handle, Any, Item | None]:
        """The first dead letter of a line, ready to attempt; None when there is none."""
        found = (
            yield from self._ask(("ZRANGEBYLEX", self.at["line"], f"[{line} ", f"({line}!", "LIMIT", 0, 1))
        )[0]
        if not found:
            return None
        return (yield from self.letter(line, _unpadded(found[0].decode().rpartition(" ")[2])))

    def letter(self, line: str, position: str) -> Generator[Ask | Handle, Any, Item | None]:
        """The dead letter at a position; None when it is gone."""
        text, raw = yield from self._ask(
            ("HGET", self.at["dead"], position), ("XRANGE", self.keys.log, position, position)
        )
        if text is None or not raw:
            return None
        item = item_of(raw[0], self._codec, self.keys.where)
        if item is None:  # this build no longer handles its type: nothing to do is done
            item = Item(position, line, b"", UNREAD, f"{self.group} no longer handles its type")
        return msgspec.structs.replace(item, line=line, letter=text)

    def is_idle(self) -> Generator[Ask | Handle, Any, bool]:
        """Whether the processor, whoever runs it, has nothing left to do here."""
        cursor, last, due, outbox = yield from self._ask(
            ("HGET", self.at["cursor"], "position"),
            ("XREVRANGE", self.keys.log, "+", "-", "COUNT", 1),
            ("HLEN", self.at["due"]),
            ("HLEN", self.at["outbox"]),
        )
        return bool((not last or last[0][0] == cursor) and due == 0 and outbox == 0)

    def _append(self, item: Item, derived: Any) -> Generator[Ask | Handle, Any, Failed | None]:
        """Put what the handler returned into the log. What is no event, or refused, is a failed attempt."""
        try:
            yield from _asked(self.into.appending(self._identified(item.event, derived)))
        except (InvalidEvent, TypeError) as error:
            return Failed(str(error), ours="what it returned cannot be appended: ")
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
                "source": event.source or self.host,
            }
            events.append(msgspec.structs.replace(event, **changes))
        return events

    def _kept(self, stored: Any, opened: Event, failed: Failed) -> Generator[Ask | Handle, Any, str]:
        """Why it failed, to be kept. A handler that saw personal texts may repeat them in any form: its words
        are sealed whole.
        """
        if opened is stored or not failed.reason:
            return f"{failed.ours}{failed.reason}"[: letters.REASON_MAX]
        sealed: str = yield from _asked(self.stream.keyring.sealing_reason(stored.creator, failed.reason))
        return failed.ours[: letters.OURS_MAX] + sealed

    def _park(self, item: Item, attempts: int, reason: str) -> Generator[Ask | Handle, Any, Ended]:
        """Make it a dead letter, and say so in the audit trail."""
        letter = self._letter(item, reason, attempts)
        event = letters.parked(self.group, self.keys, item.position, letter, self.host)
        answer, _ = yield from self._call(
            "park", item, letter.text(), event.event_id, self._audit.encode(event)
        )
        if answer is EffectAnswer.OK:
            self.on_step("parked", item)
            yield from self._tell(event)
        return self._ended(item, "parked" if answer is EffectAnswer.OK else "stale")

    def _tell(self, event: Event) -> Steps:
        """Append an audit event and take it out of the outbox; whoever comes first, and any number of times."""
        yield from _asked(self.operations.appending([event]))
        yield from self._ask(("HDEL", self.at["outbox"], event.event_id))

    def _letter(self, item: Item, reason: str, attempts: int) -> Letter:
        before = letters.letter_of(item.letter) if item.letter else None
        event = item.event
        return Letter(
            line=item.line,
            reason=reason,
            attempts=attempts,
            at=self._clock(),
            event_id=event.event_id,
            type=str(event.__struct_config__.tag or ""),
            correlation_id=event.correlation_id,
            retries=before.retries if before else 0,
        )

    def _attempt(self, item: Item, event: Event, number: int) -> Attempt:
        key = self.processor.key_of(event.event_id)
        where = (self.stream.name, self.keys.partition, item.position)
        return Attempt(event, number, self.processor.attempts_max, key, *where, self._clock())

    def _call(
        self, verb: str, item: Item, *more: Any
    ) -> Generator[Ask | Handle, Any, tuple[EffectAnswer, Any]]:
        return (yield from self._script(verb, item.position, item.line, item.crc, item.letter, *more))

    def _skip(self, counter: str, positions: list[str]) -> Steps:
        if positions:
            yield from self._script("skip", counter, *positions)
            self._pass(positions)

    def _script(self, verb: str, *args: Any) -> Generator[Ask | Handle, Any, tuple[EffectAnswer, Any]]:
        """Call effects.lua. Raises Fenced and Gap."""
        keys = [self.at[name] for name in ("cursor", "log", "lease", *PARTS)]
        reply = (
            yield from self._ask(_EFFECTS.call(keys, ("" if self.epoch is None else self.epoch, verb, *args)))
        )[0]
        answer = EffectAnswer(reply[0])
        if answer is EffectAnswer.FENCED:
            raise Fenced(
                f"{self.keys.where} of {self.group}: epoch {self.epoch} is older than {int(reply[1])}"
            )
        if answer is EffectAnswer.GAP:
            raise Gap(f"the log of {self.keys.where} does not hold {args[0]} as it was read")
        return answer, reply[1] if len(reply) > 1 else b""

    def _ask(self, *commands: tuple[Any, ...]) -> Generator[Ask | Handle, Any, list[Any]]:
        answers = yield Ask([Routed(self.keys.log, command) for command in commands])
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return list(answers)

    def _duplicates(self, items: list[Item]) -> Generator[Ask | Handle, Any, list[str]]:
        """Positions of entries whose event ID another entry of the log stands for: a raw XADD, an import, a
        mirror.
        """
        items = [item for item in items if item.event.event_id]
        if not items:
            return []
        rows = (
            yield from self._ask(("HMGET", self.keys.ids, *[field_of(item.event.event_id) for item in items]))
        )[0]
        pairs = [
            (item, row)
            for item, row in zip(items, rows, strict=True)
            if row and row != pack_position(item.position.encode())
        ]
        if not pairs:
            return []
        entries = yield from self._ask(
            *[("XRANGE", self.keys.log, unpack_position(row), unpack_position(row)) for _, row in pairs]
        )
        return [
            item.position
            for (item, _), entry in zip(pairs, entries, strict=True)
            if _event_id(entry) == item.event.event_id
        ]

    def _join(self) -> Steps:
        """Once, with the first step that succeeded: from now on producers wait for this processor."""
        if not self._has_joined:
            yield from self._ask(join(self.keys, self.group))
            self._has_joined = True

    def _ended(self, item: Item, how: str, following: str = "") -> Ended:
        self.on_step(how, item)
        if not item.letter:
            self._pass([item.position])
        return Ended(how, following)

    def _pass(self, positions: Iterable[str]) -> None:
        """Finished: the window shrinks with the prefix, as the cursor does."""
        self._finished.update(positions)
        while self._window and self._window[0] in self._finished:
            self._finished.discard(self._window.popleft())


def _event_id(entries: list[RawEntry]) -> str | None:
    try:
        return read_envelope("", entry_json("", entries[0][1])).event_id if entries else None
    except DamagedEntry:
        return None


def _unpadded(position: str) -> str:
    milliseconds, _, sequence = position.partition("-")
    return f"{int(milliseconds)}-{int(sequence)}"


def _asked(appending: Generator[list[Routed], list[Any], Any]) -> Steps:
    """Drive an append, or the keyring, by asking."""
    answers: Any = None
    while True:
        try:
            routed = appending.send(answers)
        except StopIteration as finished:
            return finished.value
        answers = yield Ask(routed)
