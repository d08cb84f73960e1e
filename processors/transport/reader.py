"""
Read what follows in the partitions a worker owns, and wait where nothing does.

    one XRANGE per partition, one round trip per node -> entries
    nothing anywhere -> one server: XREAD BLOCK over all of them, on a connection of its own; a cluster: look
        again, ever slower
    a partition is added, or has room again -> the wait ends at once (CLIENT UNBLOCK)
"""

from __future__ import annotations

import asyncio
from typing import Any

from redis.exceptions import RedisError

from aurastream.processors.transport.lane import TopicLane
from aurastream.streams import Ask, AsyncWire, AsyncWires, Backoff, RawEntry, wake_up

POLL_FIRST_S, POLL_MAX_S = 0.001, 0.05  # between looks at a cluster: one command cannot wait for all there


class TopicReader:
    """Reads for one consumer, from one task; ``interrupt`` may come from any."""

    def __init__(self, wires: AsyncWires) -> None:
        self._wires = wires
        self._blocking: AsyncWire | None = None
        self._client_id = 0
        self._is_blocked = False
        self._interrupted = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def read(
        self, lanes: list[TopicLane], counts: list[int], timeout_s: float
    ) -> dict[TopicLane, list[RawEntry]]:
        """The next entries of those lanes that have any; empty when there were none for timeout_s, or on an
        interrupt.

        counts: how many entries at most, of each.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        polls = Backoff(POLL_FIRST_S, POLL_MAX_S)
        fresh: dict[TopicLane, list[RawEntry]] = {}
        self._interrupted.clear()
        while not fresh and (left_s := end - loop.time()) > 0 and not self._interrupted.is_set():
            reading = [lane.reading(count) for lane, count in zip(lanes, counts, strict=True)]
            answers = await self._wires.ask(reading)
            fresh = {lane: entries for lane, entries in zip(lanes, answers, strict=True) if entries}
            if fresh or self._interrupted.is_set():
                break
            if lanes and not self._wires.server.facts.is_cluster:
                await self._wait(lanes, left_s)
            else:
                await self._pause(min(polls.next_s(), left_s) if lanes else left_s)
        return fresh

    def interrupt(self) -> None:
        """Read again now: there are other partitions than before."""
        self._interrupted.set()
        if self._is_blocked:
            self._is_blocked = False
            self._beside(self._unblock())

    async def close(self) -> None:
        """Drop the connection that waits."""
        blocking, self._blocking = self._blocking, None
        if blocking is not None:
            await blocking.close()

    async def _wait(self, lanes: list[TopicLane], left_s: float) -> None:
        """Until one of the logs has something new, or left_s."""
        waiting = {lane.keys.log: lane.position for lane in lanes}
        try:
            if self._blocking is None:
                self._blocking = await self._wires.server.async_wire(lanes[0].keys.log)
                (self._client_id,) = await self._blocking.ask(("CLIENT", "ID"))
            if self._interrupted.is_set():
                return
            self._is_blocked = True
            await self._blocking.ask(wake_up(waiting, max(1, int(left_s * 1000))))
        except (RedisError, OSError):
            await self.close()
            await self._pause(POLL_MAX_S)  # the next read finds out what is wrong, and waits for it
        finally:
            self._is_blocked = False

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._interrupted.wait(), seconds)
        except TimeoutError:
            return

    async def _unblock(self) -> None:
        try:
            await self._wires.ask([Ask("", ("CLIENT", "UNBLOCK", self._client_id))])
        except RedisError:
            return  # not allowed here: the wait ends by itself

    def _beside(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
