"""
What a host sees of the server: its own lanes, and the fleet. In threads, and each look bounded.

    who asks waits for the look under way, or begins one -> after WAIT_S: the server does not answer (yet)
    a fleet seen less than FRESH_S ago is seen as it was

Connections of its own: a look tells whether the server answers, whatever the lanes' connections are at.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from redis.exceptions import RedisError

from aurastream.processors.fleet import (
    Fleet,
    FleetFacts,
    FleetReader,
    FleetWatch,
    LaneLook,
    Line,
    judged,
    unreachable,
)
from aurastream.streams import LOST, Claim, Server, StreamError, aside

WAIT_S = 0.8  # for an answer: probes give up after a second
FRESH_S = 1.0

T = TypeVar("T")


class Away(Exception):
    """The server does not answer, or refuses."""


class _Glimpse(Generic[T]):
    """One look at a time, in a thread; who asks meanwhile gets its answer."""

    def __init__(self) -> None:
        self._task: asyncio.Task[T] | None = None

    async def answer(self, look: Callable[[], T], wait_s: float) -> T:
        """Raises Away."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(aside(look))
            self._task.add_done_callback(_retrieved)
        done, _ = await asyncio.wait({self._task}, timeout=wait_s)
        if not done:
            raise Away(f"no answer within {wait_s} s")
        try:
            return self._task.result()
        except (*LOST, RedisError, StreamError) as error:
            raise Away(f"{type(error).__name__}: {error}"[:300]) from error

    async def end(self) -> bool:
        """Whether nobody looks any more; a look under way is waited for a moment only."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=WAIT_S)
        return self._task is None or self._task.done()


def _retrieved(task: asyncio.Task[T]) -> None:
    """Nobody may be left to hear of its error."""
    if not task.cancelled():
        task.exception()


class Sight:
    """See the module. For one event loop."""

    def __init__(self, server: Server) -> None:
        self._own, self._all = FleetReader(server), FleetReader(server)
        self._watch = FleetWatch(server)
        self._lanes: _Glimpse[dict[Claim, LaneLook]] = _Glimpse()
        self._fleet: _Glimpse[tuple[FleetFacts, Fleet]] = _Glimpse()
        self._last: tuple[float, Fleet] | None = None

    async def lanes(self, claims: Iterable[Claim]) -> dict[Claim, LaneLook]:
        """Where these are. Raises Away."""
        asked = list(claims)
        return await self._lanes.answer(lambda: self._own.lanes(asked), WAIT_S)

    async def fleet(self, wait_s: float = WAIT_S) -> Fleet:
        """The fleet; one of which nothing is known while the server does not answer."""
        if self._last is not None and time.monotonic() - self._last[0] < FRESH_S:
            return self._last[1]
        try:
            return (await self._looked(wait_s))[1]
        except Away as error:
            return unreachable(str(error))

    async def watch(self, wait_s: float) -> list[Line]:
        """As the leader: look, and log what became of lanes. Raises Away."""
        facts, fleet = await self._looked(wait_s)
        return await aside(lambda: self._watch.notice(fleet, facts.said, facts.now_ms))

    async def _looked(self, wait_s: float) -> tuple[FleetFacts, Fleet]:
        facts, fleet = await self._fleet.answer(self._look, wait_s)
        self._last = time.monotonic(), fleet
        return facts, fleet

    def _look(self) -> tuple[FleetFacts, Fleet]:
        """In a thread, the judgement too: of hundreds of lanes it takes its time."""
        facts = self._all.seen()
        return facts, judged(facts)

    async def close(self) -> None:
        """Drop the connections that nobody uses; a thread that waits for its server holds up no exit."""
        ends = await asyncio.gather(self._lanes.end(), self._fleet.end())
        for reader, has_ended in zip((self._own, self._all), ends, strict=True):
            if has_ended:
                reader.close()
