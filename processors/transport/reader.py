"""
Read what follows in the partitions a worker owns, and wait where nothing does.

    one XRANGE per partition, one round trip per node -> entries
    nothing anywhere -> streams/news.py waits: on one server for all of them at once; a cluster is looked at
        again, ever slower
    a partition is added, or has room again -> the wait ends at once
"""

from __future__ import annotations

import asyncio

from aurastream.processors.transport.lane import TopicLane
from aurastream.streams import AsyncWires, News, RawEntry


class TopicReader:
    """Reads for one consumer, from one task; ``interrupt`` may come from any."""

    def __init__(self, wires: AsyncWires) -> None:
        self._wires, self._news = wires, News(wires)

    async def read(
        self, lanes: list[TopicLane], counts: list[int], timeout_s: float
    ) -> dict[TopicLane, list[RawEntry]]:
        """The next entries of those lanes that have any; empty when there were none for timeout_s, or on an
        interrupt.

        counts: how many entries at most, of each.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        fresh: dict[TopicLane, list[RawEntry]] = {}
        self._news.begin()
        while not fresh and (left_s := end - loop.time()) > 0 and not self._news.is_interrupted:
            reading = [lane.reading(count) for lane, count in zip(lanes, counts, strict=True)]
            answers = await self._wires.ask(reading)
            fresh = {lane: entries for lane, entries in zip(lanes, answers, strict=True) if entries}
            if not fresh:
                await self._news.wait({lane.keys.log: lane.position for lane in lanes}, left_s)
        if fresh:
            self._news.came()
        return fresh

    def interrupt(self) -> None:
        """Read again now: there are other partitions than before."""
        self._news.interrupt()

    async def close(self) -> None:
        """Drop the connection that waits."""
        await self._news.close()
