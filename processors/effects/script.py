"""
The scripts of a lane: where a processor keeps what, and one call for each step of an item.

    skip, begin, done, park  ->  step.lua (fenced?), item.lua (still ours?), the job of each  ->  EffectAnswer
    failed, take_back        ->  close.lua: an attempt that ended otherwise
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import msgspec

from aurastream.processors.effects.items import Item
from aurastream.processors.effects.letters import AUDIT_TYPES, Letter
from aurastream.processors.effects.steps import Gap, MovedOn
from aurastream.projections.engine import Fenced
from aurastream.streams import Ask, Asking, Codec, Command, Event, Keys, Script, align, sound

_STEP = ("lines.lua", "step.lua")
_ITEM = (*_STEP, "item.lua")
_SKIP = Script(__file__, *_STEP, "skip.lua")
_ATTEMPT = Script(__file__, *_ITEM, "attempt.lua")
_DONE = Script(__file__, *_ITEM, "done.lua")
_PARK = Script(__file__, *_ITEM, "park.lua")
_CLOSE = Script(__file__, "close.lua")
_AUDIT = Codec(AUDIT_TYPES)


class EffectAnswer(IntEnum):
    """What step.lua, item.lua and those after them say."""

    OK = 0
    STALE = 1
    FENCED = 2
    EXHAUSTED = 3
    WAITING = 4
    GAP = 5
    MOVED_ON = 6


class EffectKeys(NamedTuple):
    """The keys of a processor in a partition, as step.lua takes them."""

    cursor: str
    log: str
    lease: str
    attempts: str
    done: str
    dead: str
    line: str
    due: str
    outbox: str
    begun: str

    @classmethod
    def of(cls, keys: Keys, group: str, lease: str | None = None) -> EffectKeys:
        """lease: the group whose lease has the epoch; default: the processor's."""
        parts = ("attempts", "done", "line", "due", "outbox", "begun")
        attempts, done, *more = (keys.effects(group, part) for part in parts)
        own = (attempts, done, keys.dead(group), *more)
        return cls(keys.cursor(group), keys.log, keys.lease(lease or group), *own)


class _StepHead(msgspec.Struct, frozen=True):
    """See step.lua."""

    epoch: int | None
    version: int | None
    counter: str = ""
    position: str = ""
    line: str = ""
    is_compared: bool = False
    is_letter: bool = False
    attempts_max: int = 0
    kills_max: int = 0
    token: str = ""


class Bounds(NamedTuple):
    """How often a handler may be begun, and how often not end."""

    attempts: int
    kills: int


class LaneScripts:
    """Their calls, for one lane. epoch: of the lease under which it goes on; None compares none. version: of
    the processor's record; None compares none.
    """

    def __init__(self, keys: Keys, group: str, lease: str | None) -> None:
        self.at = EffectKeys.of(keys, group, lease)
        self.epoch: int | None = None
        self.version: int | None = None
        self.has_moved = True  # whether the cursor may have, since ``follow``
        self._group, self._where = group, keys.where

    def follow(self) -> Asking[None]:
        """Put the server's group where the cursor is, so that every Redis tool shows place and lag."""
        if self.has_moved:
            sound((yield [Ask(self.at.log, align(self.at.log, self.at.cursor, self._group))]))
            self.has_moved = False

    def skip(self, counter: str, positions: list[str]) -> Asking[None]:
        """Finish entries that need no handler. Raises Fenced."""
        head = _StepHead(self.epoch, self.version, counter)
        yield from self._call(positions[0], _SKIP.call(self.at, (msgspec.msgpack.encode(head), *positions)))

    def begin(
        self, item: Item, token: str, most: Bounds, waiting: Letter
    ) -> Asking[tuple[EffectAnswer, int]]:
        """Count an attempt: its number. waiting: what it becomes where it must wait. Raises Fenced, Gap."""
        head = self._head(item)
        bounds = {"attempts_max": most.attempts, "kills_max": most.kills}
        head = msgspec.structs.replace(head, version=self.version, token=token, **bounds)
        answer, number = yield from self._of_item(_ATTEMPT, item, head, waiting.text())
        return answer, number if isinstance(number, int) else 0

    def failed(self, position: str, token: str) -> Asking[None]:
        """An attempt ended, and is counted."""
        yield from self._close(position, token, 0)

    def take_back(self, position: str, token: str) -> Asking[None]:
        """An attempt was ours to cancel, and is not counted. An owner that was fenced may do so too."""
        yield from self._close(position, token, 1)

    def _close(self, position: str, token: str, is_none: int) -> Asking[None]:
        command = _CLOSE.call((self.at.attempts, self.at.begun), (position, token, is_none))
        sound((yield [Ask(self.at.log, command)]))

    def done(self, item: Item) -> Asking[tuple[EffectAnswer, str]]:
        """Finish an item; the position of the line's next dead letter, or "". Raises Fenced, Gap."""
        answer, following = yield from self._of_item(_DONE, item, self._head(item))
        return answer, following.decode()

    def park(self, item: Item, letter: Letter, event: Event) -> Asking[EffectAnswer]:
        """Make it a dead letter, with its audit event. Raises Fenced, Gap."""
        operands = (letter.text(), event.event_id, _AUDIT.encode(event))
        head = self._head(item)
        if not letter.attempts:  # never begun: whether this build may say so is the record's word
            head = msgspec.structs.replace(head, version=self.version)
        answer, _ = yield from self._of_item(_PARK, item, head, *operands)
        return answer

    def _head(self, item: Item) -> _StepHead:
        return _StepHead(
            self.epoch,
            None,
            position=item.position,
            line=item.line,
            is_compared=bool(item.crc),
            is_letter=bool(item.letter),
        )

    def _of_item(
        self, script: Script, item: Item, head: _StepHead, *operands: Any
    ) -> Asking[tuple[EffectAnswer, Any]]:
        args = (msgspec.msgpack.encode(head), item.crc, item.letter, *operands)
        return (yield from self._call(item.position, script.call(self.at, args)))

    def _call(self, position: str, command: Command) -> Asking[tuple[EffectAnswer, Any]]:
        reply = sound((yield [Ask(self.at.log, command)]))[0]
        answer, fact = EffectAnswer(reply[0]), reply[1] if len(reply) > 1 else b""
        if answer is EffectAnswer.FENCED:
            raise Fenced(f"{self._where} of {self._group}: epoch {self.epoch} is older than {int(fact)}")
        if answer is EffectAnswer.GAP:
            raise Gap(f"the log of {self._where} does not hold {position} as it was read")
        if answer is EffectAnswer.MOVED_ON:
            raise MovedOn(f"a person decided about {self._group} at {self._where}")
        self.has_moved = True
        return answer, fact
