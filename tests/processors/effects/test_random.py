"""
Random schedules of a processor's life, by seed: failures, kills at any question, lost replies, two owners,
persons who decide.

The lane is generators, so the test itself is the driver: it decides at every question who goes on and what is
lost. The server is real. At the end every event is done, parked, waiting or discarded, exactly one of them;
every derived event is in the log once; no handler began before those of the earlier events of its subject
were through.
"""

from __future__ import annotations

import os
import random
from collections import deque
from typing import Any

import pytest

from aurastream.processors.effects import (
    DeadLetterBehind,
    DeadLetterBusy,
    DeadLetterUnknown,
    LetterPlace,
    discard,
    list_letters,
    resumption,
    retry,
)
from aurastream.processors.effects.items import Item
from aurastream.processors.effects.lane import EffectLane, LaneOptions, LaneStreams
from aurastream.processors.effects.steps import CutOff, Ended, Gap, Handle, HandlerFailed
from aurastream.projections.engine.apply import Fenced
from aurastream.streams import Ask, Server, Stream, open_stream
from tests.facts import observation
from tests.processors.effects.outside import (
    CODEC,
    SETTINGS,
    Noting,
    assert_balanced,
    notes,
    operations,
    state,
)

EVENTS, SUBJECTS, STEPS_MAX = 40, 5, 20_000
FIRST = int(os.environ.get("AURASTREAM_TEST_SEED", "0"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("AURASTREAM_TEST_SEEDS", "12")))


class Owner:
    """A process that runs the lane: its memory is what it holds here, and dies with it."""

    def __init__(self, world: World, epoch: int) -> None:
        self.world = world
        streams = LaneStreams(world.stream, world.into, world.operations)
        self.lane = EffectLane(Noting(), streams, 0, LaneOptions(host=f"w{epoch}"))
        self.lane.epoch = epoch
        self.lines: dict[str, deque[Item]] = {}
        self.steps: dict[tuple[str, str], tuple[Any, Any]] = {}  # what runs, and what it is sent next
        self.steps["read", ""] = (self.read(), None)

    def read(self) -> Any:
        yield from self.lane.settle()
        while True:
            items = yield from self.lane.read()
            for item in items or ():
                self.lines.setdefault(item.line, deque()).append(item)
            for line in self.lines:
                if ("live", line) not in self.steps:
                    self.steps["live", line] = (self.live(line), None)
            for line in (yield from resumption.due(self.lane)):
                if ("due", line) not in self.steps:
                    self.steps["due", line] = (self.due(line), None)

    def live(self, line: str) -> Any:
        while self.lines[line]:
            if isinstance((yield from self.lane.attempt(self.lines[line][0])), Ended):
                self.lines[line].popleft()

    def due(self, line: str) -> Any:
        item = yield from resumption.first_letter(self.lane, line)
        while item is not None:
            ended = yield from self.lane.attempt(item)
            if isinstance(ended, Ended):
                item = (
                    (yield from resumption.letter(self.lane, line, ended.following))
                    if ended.following
                    else None
                )

    def advance(self, name: tuple[str, str]) -> None:
        """One question or one handler call of one line."""
        steps, answer = self.steps.pop(name)
        try:
            wanted = steps.send(answer)
        except StopIteration:
            return
        answer = self.world.handled(wanted) if isinstance(wanted, Handle) else self.world.asked(wanted)
        self.steps[name] = (steps, answer)


class World:
    """The server, the persons, the dice, and what happened outside."""

    def __init__(self, server: Server, stream: Stream, seed: int) -> None:
        self.server, self.stream, self.dice = server, stream, random.Random(seed)
        self.into, self.operations = (
            open_stream(server, name, codec=CODEC, settings=SETTINGS, create=True)
            for name in ("notes", "operations")
        )
        self.through: set[str] = set()  # the handler returned, or a person discarded it
        self.retries: dict[str, int] = {}
        self.calls: dict[str, int] = {}
        self.is_calm = False
        self.poison = {f"e{n}" for n in range(EVENTS) if self.dice.random() < 0.1}

    def asked(self, wanted: list[Ask]) -> list[Any]:
        """The answers; now and then the first ones are lost and the question is asked again."""
        for _ in range(1 if self.is_calm else self.dice.choice((1, 1, 1, 1, 2))):
            answers = []
            for key, command in wanted:
                assert key.startswith(("aura:{", "aura:processors"))
                wire = self.stream.wire(0)
                wire.send([command])
                answers.append(wire.receive())
        return answers

    def handled(self, wanted: Handle) -> Any:
        """The handler's work."""
        name = wanted.event.event_id
        number = int(name[1:])
        assert wanted.attempt.number <= Noting.attempts_max
        assert self.through >= {f"e{n}" for n in range(number % SUBJECTS, number, SUBJECTS)}, (
            f"{name} began before its turn"
        )
        if not self.is_calm and self.dice.random() < 0.1:
            return CutOff()  # by its host: it was no attempt
        self.calls[name] = self.calls.get(name, 0) + 1
        if name in self.poison or (not self.is_calm and self.dice.random() < 0.3):
            return HandlerFailed("no", is_final=self.dice.random() < 0.1)
        self.through.add(name)
        return [wanted.attempt.derive(CODEC.types["test.clip_noted"])]

    def decide(self) -> None:
        """A person looks at the dead letters."""
        found = list(list_letters(self.stream, "noting"))
        if not found:
            return
        letter = self.dice.choice(found)
        try:
            if self.dice.random() < 0.3:
                discard(self.stream, self.operations, LetterPlace("noting", 0, letter.position), "no use")
                self.through.add(letter.event_id)
            elif retry(self.stream, self.operations, LetterPlace("noting", 0, letter.position)):
                self.retries[letter.event_id] = self.retries.get(letter.event_id, 0) + 1
        except (DeadLetterBehind, DeadLetterBusy, DeadLetterUnknown):
            pass  # as a person would be told


def live(world: World) -> None:
    """Owners come and go until all is settled."""
    dice, lease = world.dice, world.stream.keys[0].lease("noting")
    events = [
        observation(views=n, event_id=f"e{n}", clip=f"clip-{n % SUBJECTS}", minute=n) for n in range(EVENTS)
    ]
    owners = [Owner(world, 1)]
    world.server.client.hset(lease, mapping={"epoch": 1})
    for step in range(STEPS_MAX):
        world.is_calm = step > 1_500
        if events and dice.random() < 0.1:
            world.stream.append([events.pop(0) for _ in range(min(len(events), dice.randrange(1, 6)))])
        if (
            not world.is_calm and dice.random() < 0.01
        ):  # the last owner dies, or is stopped and wakes up later as a zombie
            epoch = owners[-1].lane.epoch + 1
            owners = [*owners[: dice.randrange(2)], Owner(world, epoch)]
            world.server.client.hset(lease, mapping={"epoch": epoch})
        if not world.is_calm and dice.random() < 0.02:
            world.decide()
        owner = dice.choice(owners)
        try:
            owner.advance(dice.choice(list(owner.steps)))
        except Fenced:
            owners.remove(owner)
        if world.is_calm and not events and step % 50 == 0 and _is_idle(world, owners[-1]):
            return
    raise AssertionError("it never came to an end")


def _is_idle(world: World, owner: Owner) -> bool:
    steps, answer = owner.lane.is_idle(), None
    try:
        while True:
            answer = world.asked(steps.send(answer))
    except StopIteration as finished:
        return bool(finished.value) and set(owner.steps) == {("read", "")}


@pytest.mark.parametrize("seed", SEEDS)
def test_every_event_ends_in_exactly_one_place_and_no_subject_is_out_of_order(
    server: Server, stream: Stream, seed: int
) -> None:
    """No list of cases covers the interleavings of kills, owners and persons; a seed does, and repeats it."""
    world = World(server, stream, seed)

    live(world)

    letters = {letter.event_id: letter.state for letter in list_letters(stream, "noting")}
    done = [note.causation_id for note in notes(server)]
    dropped = [
        event.causation_id for event in operations(server) if type(event).__name__ == "EffectDiscarded"
    ]
    assert len(done) == len(set(done)), "a derived event is in the log once"
    assert set(letters.values()) <= {"parked", "waiting"}
    assert sorted({*done, *dropped, *letters}) == sorted(f"e{n}" for n in range(EVENTS))
    assert not set(letters) & set(dropped)
    held = state(server, stream)
    assert (held["attempts"], held["done"], held["due"], held["cursor"]["read"]) == ([], [], [], str(EVENTS))
    assert held["begun"] == [], "none is a suspect for ever"
    assert int(held["cursor"]["applied"]) + len(dropped) + len(letters) == EVENTS
    for event_id, count in world.calls.items():
        assert count <= Noting.attempts_max * (1 + world.retries.get(event_id, 0)), (
            f"{event_id} was called {count} times"
        )
    assert_balanced(server, stream)
    parked = [event for event in operations(server) if type(event).__name__ == "EffectParked"]
    assert len(parked) == len({event.event_id for event in parked})


def test_a_gap_is_told_and_the_flow_begins_anew(server: Server, stream: Stream) -> None:
    """The log was restored from an older copy under the owner's hands."""
    world = World(server, stream, 0)
    world.is_calm, world.poison = True, set()
    stream.append([observation(event_id="e0")])
    owner = Owner(world, 1)
    while ("live", "clip-1") not in owner.steps:
        owner.advance(("read", ""))
    server.client.delete(stream.keys[0].log, stream.keys[0].ids)
    owner.advance(("live", "clip-1"))
    with pytest.raises(Gap):
        owner.advance(("live", "clip-1"))
