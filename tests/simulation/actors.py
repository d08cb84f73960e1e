"""
Who lives in the simulated world: workers and producers, each driving the product's generators as its real
driver does.

    reader     consumer.GroupLane.steps, by consumer group, without a lease         as projections/consumer.py
               drives it
    owner      streams.leases.Leases and Lane.catch_up / take, with epochs  as the worker of processors/
               drives it
    producer   streams.Stream.appending, and the rule of connection.retried: passing faults repeat the same
               command

A connection that is lost ends the request; whoever asked connects again, loads the scripts, and starts from
the cursor.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import Any

from redis.exceptions import ResponseError

from aurastream.projections.engine.apply import Fenced, Lane
from aurastream.projections.engine.consumer import GroupLane
from aurastream.streams import LOST, Codec, Event, Script, Settings, Stream, StreamFacts, is_passing, relay
from aurastream.streams.leases import LEASE_MS_MIN, Claim, Leases
from aurastream.streams.positions import Position
from tests.projections.counting import Counting
from tests.simulation.world import Ask, Life, Sleep

STREAM = "sim"
ATTEMPTS_MAX = 5
POLL_MS = 25.0


def stream_of(partitions: int) -> Stream:
    """A stream that never connects: for its keys, its codec and its append command."""
    server: Any = None
    return Stream(
        server, STREAM, StreamFacts(partitions), Codec(), Settings(partitions=partitions, redis_url=None)
    )


def greeting() -> list[tuple[Any, ...]]:
    """What a new connection asks first; looked up at the time, so that a test may change a script."""
    return [("SCRIPT", "LOAD", script.text) for script in Script.every.values()]


def ask(steps: Any) -> Life:
    """Answer what the steps ask until they end: there is one node."""
    return relay(steps, _answered)


def _answered(asks: Any) -> Life:
    return (yield Ask([command for _, command in asks])) if asks else []


def reader(stream: Stream, partition: int, batch_max: int, dice: random.Random) -> Life:
    """One flow of the first group, for ever."""
    flow = GroupLane(Counting(), stream, partition, batch_max=batch_max)
    while True:
        try:
            yield Ask(greeting())
            steps = flow.steps()
            answers: Any = None
            while True:
                asks = steps.send(answers)
                if asks is None:
                    yield Sleep(POLL_MS * dice.uniform(0.5, 1.5))
                    answers = None
                else:
                    answers = yield Ask([command for _, command in asks])
        except (*LOST, ResponseError) as error:
            if not is_passing(error):
                raise
        yield Sleep(dice.uniform(1, 40))


class Second(Counting):
    """The same fold for another group."""

    name = "second"


class Third(Counting):
    """And another."""

    name = "third"


GROUPS: dict[str, type[Counting]] = {kind.name: kind for kind in (Counting, Second, Third)}


class Owner:
    """A host that owns lanes by lease. groups: what it can run."""

    def __init__(
        self, stream: Stream, name: str, batch_max: int, dice: random.Random, groups: tuple[str, ...]
    ) -> None:
        self._now: Callable[[], float] = lambda: 0.0
        self.leases = Leases(name, LEASE_MS_MIN, clock=lambda: self._now() / 1000)
        self.groups, self.is_leaving = groups, False
        self._stream, self._dice = stream, dice
        self._claims = [
            Claim(group, stream.name, partition) for group in groups for partition in range(stream.partitions)
        ]
        self._lanes = {
            claim: Lane(GROUPS[claim.group](), stream, claim.partition, batch_max=batch_max)
            for claim in self._claims
        }
        self._read_to: dict[Claim, str] = {}  # where the transport believes to be; a hint

    def life(self, now: Callable[[], float]) -> Life:
        tick_at = 0.0
        self._now = now
        while True:
            try:
                yield Ask(greeting())
                while True:
                    if self.is_leaving:  # SIGTERM: once, as the process ends whatever the server does
                        yield from ask(self.leases.leave())
                        return
                    if now() >= tick_at:
                        yield from ask(self.leases.tick(self._claims))
                        tick_at = now() + self.leases.period_s * 1000
                    for claim in sorted(self.leases.held):
                        yield from self._work(claim)
                    yield from ask(self.leases.release(sorted(self.leases.surplus)))
                    yield Sleep(POLL_MS * self._dice.uniform(0.5, 1.5))
            except (*LOST, ResponseError) as error:
                if not is_passing(error):
                    raise
                if self.is_leaving:
                    return
                for lane in self._lanes.values():
                    lane.reset()
                    lane.epoch = None  # catch up from the cursor, which a fail-over may have set back
            yield Sleep(self._dice.uniform(1, 40))

    def _work(self, claim: Claim) -> Life:
        """Continue at the cursor when newly claimed, else take what the transport brings, overlapping as it
        may be.
        """
        if claim not in self.leases.held:
            return
        lane, epoch = self._lanes[claim], self.leases.held[claim]
        try:
            if lane.epoch != epoch:
                lane.epoch = epoch
                lane.reset()
                yield from ask(lane.catch_up())
                self._read_to[claim] = lane.cursor.position
            after = self._read_to.get(claim) or "0-0"
            if self._dice.random() < 0.05:
                after = "0-0"
            (raw,) = yield Ask([("XRANGE", lane.keys.log, f"({after}", "+", "COUNT", lane.batch_max)])
            if isinstance(raw, Exception):
                raise raw
            if raw:
                raw = raw[self._dice.randrange(len(raw)) :] if self._dice.random() < 0.05 else raw
                yield from ask(lane.take([(place, fields) for place, fields in raw]))
                self._read_to[claim] = max(
                    self._read_to.get(claim, ""), raw[-1][0].decode(), key=Position.parse
                )
        except Fenced:
            self.leases.lost(claim)
            lane.reset()


def producer(
    stream: Stream, batches: list[list[Event]], dice: random.Random, heard: Callable[[str, str], None]
) -> Life:
    """Append the batches one after the other, repeating each until it is answered or given up; heard: event
    ID, outcome.
    """
    for batch in batches:
        # One call may be of several partitions; each is whole or absent, and the answer is to all of them.
        outcome = yield from _append(stream, batch, dice)
        for event in batch:
            heard(event.event_id, outcome)
        yield Sleep(dice.uniform(0, 60))


def _append(stream: Stream, batch: list[Event], dice: random.Random) -> Generator[Ask | Sleep, Any, str]:
    for attempt in range(ATTEMPTS_MAX):
        try:
            if attempt or dice.random() < 0.1:
                yield Ask(greeting())
            yield from ask(stream.appending(batch))
        except (*LOST, ResponseError) as error:
            if not is_passing(error):
                raise
        else:
            return "acked"
        yield Sleep(dice.uniform(1, 40))
    return "unknown"
