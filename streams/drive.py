"""
Questions to the server, and who puts them.

What decides (an append, a lane, a lease) is a generator: it yields what it wants to know and is sent the answers. It has no socket,
no clock and no thread, so the same code runs over blocking connections, in an event loop and in a simulation.

    steps: yields [Ask(key, command), ..]  ->  drive(steps, answer) or adrive(steps, answer)  ->  the steps' result
    answer: Wires.ask, AsyncWires.ask, or whatever else knows the answers

Every question may be put twice: a lost reply leaves its outcome unknown. So all commands here are idempotent, and a question that met a
passing fault is put again, to the nodes that hold the keys by then: a slot that was moved is found where it is now.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar

from redis.exceptions import ClusterError, RedisError, ResponseError

from aurastream.streams.async_wire import AsyncWire
from aurastream.streams.connection import LOST, Server, Wire, is_passing
from aurastream.streams.errors import ServerAway, StreamError, UnknownOutcome
from aurastream.streams.logs import Logger

ATTEMPTS_MAX = 8  # times a question is put, unless told otherwise
PAUSE_FIRST_S, PAUSE_MAX_S = 0.02, 1.0

Command = tuple[Any, ...]  # as redis takes it: text, bytes and numbers
Q = TypeVar("Q")
T = TypeVar("T")

log = Logger(__name__)


class Ask(NamedTuple):
    """One command, for the node that holds the key."""

    key: str
    command: Command


Asking = Generator[
    list[Ask], list[Any], T
]  # errors of the server are among the answers, as values, unless the driver raises them


class Backoff:
    """Pauses that double from first_s to most_s, each shortened at random by up to half, so that clients do not return in step."""

    def __init__(self, first_s: float = PAUSE_FIRST_S, most_s: float = PAUSE_MAX_S) -> None:
        self._first_s, self._most_s = first_s, most_s
        self._next_s = first_s

    def next_s(self) -> float:
        """How long to pause now, in seconds."""
        pause_s, self._next_s = self._next_s, min(self._most_s, self._next_s * 2)
        return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter

    def reset(self) -> None:
        """It went well: the next pause is a first one."""
        self._next_s = self._first_s


def drive(steps: Generator[Q, Any, T], answer: Callable[[Q], Any]) -> T:
    """Answer what the steps ask until they return; their result."""
    answers: Any = None
    while True:
        try:
            question = steps.send(answers)
        except StopIteration as finished:
            result: T = finished.value
            return result
        answers = answer(question)


async def adrive(steps: Generator[Q, Any, T], answer: Callable[[Q], Awaitable[Any]]) -> T:
    """The same in an event loop."""
    answers: Any = None
    while True:
        try:
            question = steps.send(answers)
        except StopIteration as finished:
            result: T = finished.value
            return result
        answers = await answer(question)


def sound(answers: list[Any]) -> list[Any]:
    """The answers; raises the first error among them."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def retried(
    what: str, attempts_max: int, operation: Callable[[], T], recover: Callable[[], None] | None = None
) -> T:
    """The operation's result, repeating it after a passing fault. Only for idempotent operations.

    recover: called before each repeat; its own passing faults count as a failed attempt. Raises UnknownOutcome.
    """
    backoff = Backoff()
    for attempt in range(1, attempts_max + 1):
        try:
            if attempt > 1 and recover is not None:
                recover()
            return operation()
        except (*LOST, ResponseError, ClusterError) as error:
            if not is_passing(error):
                raise
            if attempt == attempts_max:
                raise UnknownOutcome(what, attempts_max) from error
        time.sleep(backoff.next_s())
    raise StreamError(f"{what}: attempts_max must be at least 1")


class Wires:
    """One thread's connections to a server or cluster, one per node."""

    def __init__(self, server: Server, attempts_max: int = ATTEMPTS_MAX) -> None:
        self.server, self.attempts_max = server, attempts_max
        self._wires: dict[str, Wire] = {}

    def of(self, key: str) -> Wire:
        """The connection to the key's node, made where there is none. Raises one of LOST."""
        node = self.server.node_of(key)
        wire = self._wires.get(node)
        if wire is None:
            wire = self._wires[node] = self.server.wire(key)
        return wire

    def exchange(self, asks: Sequence[Ask]) -> list[Any]:
        """One answer for each, in order; a round trip per node, all at once. Errors of the server are values. Raises one of LOST."""
        wires = [self.of(ask.key) for ask in asks]
        by_wire: dict[int, list[int]] = {}
        for index, wire in enumerate(wires):
            by_wire.setdefault(id(wire), []).append(index)
        for indexes in by_wire.values():
            wires[indexes[0]].send([asks[index].command for index in indexes])
        answers: list[Any] = [None] * len(wires)
        for indexes in by_wire.values():
            for index in indexes:
                answers[index] = wires[index].receive()
        return answers

    def answers(self, asks: Sequence[Ask], what: str = "a question") -> list[Any]:
        """The same, put again after a passing fault. Raises UnknownOutcome after attempts_max."""

        def ask() -> list[Any]:
            answers = self.exchange(asks)
            if passing := next(
                (each for each in answers if isinstance(each, Exception) and is_passing(each)), None
            ):
                raise passing
            return answers

        return retried(what, self.attempts_max, ask, self.renew)

    def ask(self, asks: Sequence[Ask], what: str = "a question") -> list[Any]:
        """The same; raises the first error of the server."""
        return sound(self.answers(asks, what))

    def renew(self) -> None:
        """Drop the connections and learn the cluster's nodes anew; the next use connects."""
        self.close()
        self.server.refresh()

    def close(self) -> None:
        """Drop the connections; answers under way are lost, and their outcome unknown."""
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()


class AsyncWires:
    """An event loop's connections to a server or cluster, one per node, shared by all its tasks.

    attempts_max: times a question is put; None: until there is an answer, or for the patience of ``hurry`` once the loop must end.
    recover: brings an embedded server back; blocking.
    """

    def __init__(
        self, server: Server, attempts_max: int | None = None, recover: Callable[[], None] | None = None
    ) -> None:
        self.server, self.attempts_max, self._recover = server, attempts_max, recover
        self._wires: dict[str, AsyncWire] = {}
        self._opening = asyncio.Lock()
        self._waiting: dict[
            object, float
        ] = {}  # questions that wait for a server, and since when (monotonic seconds)
        self._hurried_at: float | None = None
        self._patience_s = 0.0

    async def of(self, key: str) -> AsyncWire:
        """The connection to the key's node, made anew where it was lost. Raises one of LOST."""
        node = self.server.node_of(key)
        wire = self._wires.get(node)
        if wire is not None and not wire.is_lost:
            return wire
        async with self._opening:
            wire = self._wires.get(node)
            if wire is None or wire.is_lost:
                lost = self._wires.pop(node, None)
                if lost is not None:
                    await lost.close()
                wire = self._wires[node] = await self.server.async_wire(key)
        return wire

    async def exchange(self, asks: Sequence[Ask]) -> list[Any]:
        """One answer for each, in order; a round trip per node, all at once. Errors of the server are values. Raises one of LOST."""
        by_node: dict[str, list[int]] = {}
        for index, ask in enumerate(asks):
            by_node.setdefault(self.server.node_of(ask.key), []).append(index)
        if len(by_node) == 1:
            return await self._of_node(asks, range(len(asks)))
        parts = await asyncio.gather(*[self._of_node(asks, indexes) for indexes in by_node.values()])
        answers: list[Any] = [None] * len(asks)
        for indexes, part in zip(by_node.values(), parts, strict=True):
            for index, answer in zip(indexes, part, strict=True):
                answers[index] = answer
        return answers

    async def _of_node(self, asks: Sequence[Ask], indexes: Sequence[int]) -> list[Any]:
        wire = await self.of(asks[indexes[0]].key)
        answers = await wire.exchange(*[asks[index].command for index in indexes])
        if any(isinstance(answer, Exception) and is_passing(answer) for answer in answers):
            await wire.close()  # one made anew loads the scripts, and finds the primary where it is by then
        return answers

    async def answers(self, asks: Sequence[Ask], what: str = "a question") -> list[Any]:
        """The same, put again after a passing fault.

        Raises UnknownOutcome after attempts_max; ServerAway after ``hurry``.
        """
        backoff, me, attempt = Backoff(), object(), 0
        try:
            while True:
                attempt += 1
                try:
                    answers = await self.exchange(asks)
                    fault = next(
                        (each for each in answers if isinstance(each, Exception) and is_passing(each)), None
                    )
                except (*LOST, ClusterError) as error:
                    fault = error
                if fault is None:
                    return answers
                if attempt == self.attempts_max:
                    raise UnknownOutcome(what, attempt) from fault
                self._wait_for_server(me, fault)
                await asyncio.sleep(backoff.next_s())
                await self.renew()
        finally:
            if (since := self._waiting.pop(me, None)) is not None and not self._waiting:
                log.warning("server_back", away_s=round(time.monotonic() - since, 3))

    async def ask(self, asks: Sequence[Ask], what: str = "a question") -> list[Any]:
        """The same; raises the first error of the server."""
        return sound(await self.answers(asks, what))

    async def renew(self) -> None:
        """After a passing fault: bring an embedded server back, learn anew which node holds what. Passing faults of its own are logged."""
        try:
            if self._recover is not None:
                await asyncio.to_thread(self._recover)
            if self.server.facts.is_cluster:
                await asyncio.to_thread(self.server.refresh)
        except (RedisError, StreamError, OSError) as error:
            log.warning("server_away", reason=f"{type(error).__name__}: {error}"[:300])

    def hurry(self, patience_s: float) -> None:
        """The process stops: wait for a server that is away no longer than this."""
        self._hurried_at, self._patience_s = time.monotonic(), patience_s

    async def close(self) -> None:
        """Drop all; requests under way fail, their outcome unknown."""
        for wire in self._wires.values():
            await wire.close()
        self._wires.clear()

    def _wait_for_server(self, me: object, fault: BaseException) -> None:
        now = time.monotonic()
        if not self._waiting:
            log.warning("server_lost", error=str(fault)[:200])
        since = self._waiting.setdefault(me, now)
        if self._hurried_at is not None and now - max(since, self._hurried_at) > self._patience_s:
            raise ServerAway(now - since) from fault
