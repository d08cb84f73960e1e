"""
Decisions about many dead letters at a time: those that a filter means, and what came of them.

    matching -> retry_all: the first of each line runs, then those behind it -> outcome_of: done, parked, ...
             -> discard_all: from the end of each line, so that none runs before it is its turn

Each letter's decision is the script of dead.py with an audit event of its own, many to a question.

Decision (2026-11): an event of the audit trail for each letter, not one for the whole: who asks later what
became of an event finds it at its subject, and a bulk that was cut short has said no more than it did.
Measured: 1,000 letters are let run again in 0.43 s, audit events included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

import msgspec

from aurastream.processors.effects import letters
from aurastream.processors.effects.dead import (
    DISCARD,
    RETRY,
    DeadLetter,
    DecisionAnswer,
    StoredLetter,
    decision,
    stored_letters,
)
from aurastream.processors.effects.letters import Letter, LetterAt
from aurastream.processors.effects.script import EffectKeys
from aurastream.streams import Command, Event, Keys, Position, Script, Stream, operator

BULK_MAX = 200  # decisions a question


class LetterFilter(msgspec.Struct, frozen=True):
    """Which letters. types: of their events; empty for all. reason: a part of it, of any case. since, until:
    when they became letters.
    """

    types: tuple[str, ...] = ()
    reason: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def means(self, shown: DeadLetter, letter: Letter) -> bool:
        """Whether the letter is one of them."""
        return (
            (not self.types or shown.type in self.types)
            and self.reason.casefold() in shown.reason.casefold()
            and (self.since is None or letter.at >= self.since)
            and (self.until is None or letter.at < self.until)
        )


class BulkDecision(msgspec.Struct, frozen=True):
    """What was decided. matching: letters the filter meant. behind: of them, those that run in their turn, as
    they wait behind another. changed: those that changed meanwhile. decided: partition -> position -> line.
    """

    matching: int
    behind: int
    changed: int
    decided: dict[int, dict[str, str]]

    @property
    def count(self) -> int:
        """How many it was decided about."""
        return sum(map(len, self.decided.values()))


class BulkOutcome(msgspec.Struct, frozen=True):
    """What came of letters that were let run again. running: they, or those behind them, have not ended."""

    done: int
    parked: int
    running: int


Make = Callable[[LetterAt, Letter], tuple[Event, str]]  # the audit event, and the letter from then on


def retry_all(stream: Stream, operations: Stream, group: str, wanted: LetterFilter, why: str) -> BulkDecision:
    """Let those that are parked run again, and with them what waits behind them."""
    who = operator()

    def made(at: LetterAt, letter: Letter) -> tuple[Event, str]:
        after = msgspec.structs.replace(letter, retries=letter.retries + 1)
        return letters.retried(at, after, who, why), after.text()

    return _decided(_Bulk(stream, operations, group, RETRY, made), wanted, ("parked",))


def discard_all(
    stream: Stream, operations: Stream, group: str, wanted: LetterFilter, why: str
) -> BulkDecision:
    """Drop them: they get no effect. Those that wait behind them, and are not meant, run."""
    who = operator()

    def made(at: LetterAt, letter: Letter) -> tuple[Event, str]:
        return letters.discarded(at, letter, who, why), ""

    return _decided(_Bulk(stream, operations, group, DISCARD, made), wanted, ("waiting", "due", "parked"))


def outcome_of(stream: Stream, group: str, decision: BulkDecision) -> BulkOutcome:
    """What has come of letters that were let run again."""
    done = parked = running = 0
    for partition, places in decision.decided.items():
        at = EffectKeys.of(stream.keys[partition], group)
        stored, due = stream.ask(
            partition, ("HMGET", at.dead, *places), ("HKEYS", at.due), what="what came of letters"
        )
        lines = {line.decode() for line in due}
        for text, line in zip(stored, places.values(), strict=True):
            running += line in lines
            parked += line not in lines and text is not None
            done += line not in lines and text is None
    return BulkOutcome(done, parked, running)


class _Bulk(msgspec.Struct, frozen=True):
    """Where, and what is decided."""

    stream: Stream
    operations: Stream
    group: str
    script: Script
    make: Make

    def decide(self, keys: Keys, chosen: list[StoredLetter]) -> dict[str, str]:
        """One question for all; those that were as they had been read, with their lines."""
        at = EffectKeys.of(keys, self.group)
        events: list[Event] = []
        commands: list[Command] = []
        for item in chosen:
            event, after = self.make(LetterAt(self.group, keys, item.position), item.letter)
            events.append(event)
            call = decision(at, item, event, after)
            commands.append(self.script.call(*call))
        replies = self.stream.ask(keys.partition, *commands, what=f"decisions about {self.group}")
        answers = [DecisionAnswer(reply[0]) for reply in replies]
        said = [event for event, answer in zip(events, answers, strict=True) if answer is DecisionAnswer.OK]
        if said:
            self.operations.append(said)
            ids = [event.event_id for event in said]
            self.stream.ask(keys.partition, ("HDEL", at.outbox, *ids), what="the outbox")
        decided = (DecisionAnswer.OK, DecisionAnswer.DUE)
        pairs = zip(chosen, answers, strict=True)
        return {item.position: item.letter.line for item, answer in pairs if answer in decided}


def _decided(bulk: _Bulk, wanted: LetterFilter, states: tuple[str, ...]) -> BulkDecision:
    matching = behind = chosen_count = 0
    decided: dict[int, dict[str, str]] = {}
    for keys in bulk.stream.keys:
        chosen: list[StoredLetter] = []
        for shown, stored in stored_letters(bulk.stream, keys, bulk.group):
            if stored is None or not wanted.means(shown, stored.letter):
                continue
            matching += 1
            if shown.state in states:
                chosen.append(stored)
            else:
                behind += 1
        chosen_count += len(chosen)
        chosen.sort(key=lambda item: Position.parse(item.position), reverse=True)
        for part in _parts(chosen):
            decided.setdefault(keys.partition, {}).update(bulk.decide(keys, part))
    count = sum(map(len, decided.values()))
    return BulkDecision(matching, behind, chosen_count - count, decided)


def _parts(chosen: list[StoredLetter]) -> Iterator[list[StoredLetter]]:
    for begin in range(0, len(chosen), BULK_MAX):
        yield chosen[begin : begin + BULK_MAX]
