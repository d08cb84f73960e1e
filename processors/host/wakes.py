"""
One waker for all lanes of a host.

    a lane has read all there is -> expect(lane) -> its log is waited for with all the others' -> poke(lane)
    its own look at the log, every few seconds, is beside this: nothing is lost with a poke that never comes

Logs are waited for in one command (streams/news.py). A lane that became idle meanwhile ends the wait, which
costs a command; so after a round of pokes the waker leaves those lanes GRACE_S to come back by themselves: at
a low rate a lane has applied its event by then.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from redis.exceptions import ClusterError, RedisError

from aurastream.streams import AsyncWires, Logger, News, Position, StreamError

WAIT_S = 1.0  # of one command
GRACE_S = 0.002
FAULT_S = 0.25  # after the server did not answer

log = Logger("aurastream.host")


class Expecting(Protocol):
    """A lane that waits. log_key: of its log. position: of the last entry it has read, or ""."""

    @property
    def log_key(self) -> str: ...

    @property
    def position(self) -> str: ...

    def poke(self) -> None:
        """There may be something new."""
        ...


class Wakes:
    """See the module. For one event loop; ``close`` it."""

    def __init__(self, wires: AsyncWires) -> None:
        self._wires, self._news = wires, News(wires)
        self._idle: dict[Expecting, None] = {}
        self._poked: set[Expecting] = set()
        self._came_back = asyncio.Event()  # all that were poked, or somebody at all where nobody was idle
        self._after: dict[str, str] = {}  # what is waited for now
        self._task: asyncio.Task[None] | None = None

    def expect(self, lane: Expecting) -> None:
        """Poke the lane, once, when its log has something after its position."""
        self._idle[lane] = None
        self._poked.discard(lane)
        if not self._poked:
            self._came_back.set()
        after = self._after.get(lane.log_key)
        if after is None or Position.parse(after) > Position.parse(lane.position):
            self._news.interrupt()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="aurastream-wakes")

    def forget(self, lane: Expecting) -> None:
        """It waits no longer."""
        self._idle.pop(lane, None)
        self._poked.discard(lane)

    async def close(self) -> None:
        """End; nobody is poked any more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        await self._news.close()

    async def _run(self) -> None:
        is_cluster = self._wires.server.facts.is_cluster
        while True:
            try:
                self._news.begin()
                self._after = self._awaited()
                fresh = await self._news.wait(self._after, WAIT_S)
                if is_cluster and self._after:
                    fresh = await self._news.look(self._after)
                self._after = {}
                if self._news.has_failed:
                    self._poke(list(self._idle))  # whatever happened meanwhile, each looks for itself
                elif fresh:
                    self._poke([lane for lane in self._idle if _is_behind(lane, fresh)])
                    await self._grace()
            except (RedisError, ClusterError, StreamError, OSError) as error:
                log.warning("wakes_interrupted", reason=f"{type(error).__name__}: {error}"[:300])
                await asyncio.sleep(FAULT_S)

    def _awaited(self) -> dict[str, str]:
        """Of every log that an idle lane has read to its end, where the one furthest behind stands."""
        after: dict[str, str] = {}
        for lane in self._idle:
            held = after.get(lane.log_key)
            if held is None or Position.parse(lane.position) < Position.parse(held):
                after[lane.log_key] = lane.position
        return after

    def _poke(self, lanes: list[Expecting]) -> None:
        for lane in lanes:
            del self._idle[lane]
            self._poked.add(lane)
            lane.poke()

    async def _grace(self) -> None:
        """Until all that were poked wait again, or GRACE_S."""
        if self._poked:
            self._came_back.clear()
            timer = asyncio.get_running_loop().call_later(GRACE_S, self._came_back.set)
            await self._came_back.wait()
            timer.cancel()
        self._poked.clear()


def _is_behind(lane: Expecting, fresh: dict[str, Position]) -> bool:
    first = fresh.get(lane.log_key)
    return first is not None and Position.parse(lane.position) < first
