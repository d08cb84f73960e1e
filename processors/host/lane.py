"""
A lane that reads for itself, in an event loop: one projection's way through one partition on Redis.

    GroupLane.steps (projections/engine/consumer.py) driven over the loop's connections
    nothing new -> idle: the host's waker (wakes.py) has the log, or somebody pokes, or LOOK_S passes -> look

Nothing is handed over here: whatever the group, the transport or the waker says, the lane goes on from the
cursor of its view. So a poke that never came, or one too many, changes nothing.

Decision (2026-11): on Redis a lane reads for itself. Refused: batches read by the transport and handed on by
an agent (fed.py, as Kafka needs it): every entry then passes two queues and waits for the slowest lane of its
partition, a batch is cut before anybody knows how much its lane could take, and the position of the transport
is a second cursor to be kept in line with the first. Measured, Pulse, CPU per event of the bare loop over
that of a host process: 1.00 to 1.07 from a backlog, 0.88 to 1.08 woken from a standstill (handed on it was
0.95 and 0.80 to 0.82); an event passes 28 files of ours from the wake-up to the commit, where it was 54.
"""

from __future__ import annotations

import asyncio
from contextlib import closing

from aurastream.processors.host.supervised import SupervisedLane
from aurastream.processors.host.wakes import Wakes
from aurastream.projections.engine import GroupLane
from aurastream.streams import AsyncWires, Reply

# Idle for so long, a lane looks for itself: a fail-over takes the cursor back without a word. 640 idle lanes
# then cost 0.04 s of CPU a second (0.06 with looks twice as often), and the server 0.01.
LOOK_S = 2.0


class HostedLane(SupervisedLane):
    """See the module. wakes: the host's, shared by its lanes."""

    lane: GroupLane

    def __init__(self, lane: GroupLane, wires: AsyncWires, wakes: Wakes) -> None:
        super().__init__(lane, wires)
        self._wakes = wakes
        self._poked = asyncio.Event()

    @property
    def log_key(self) -> str:
        """Of its log, for the waker."""
        return self.lane.keys.log

    @property
    def position(self) -> str:
        """Of the last entry it has read."""
        return self.lane.cursor.position

    def poke(self) -> None:
        """There may be something new."""
        self._poked.set()

    def _interrupt(self) -> None:
        self.lane.is_ending = True
        self._poked.set()

    async def _go_on(self) -> None:
        lane, answers = self.lane, None
        lane.is_ending = False
        with closing(lane.steps()) as steps:
            while True:
                commits = lane.commits
                try:
                    asks = steps.send(answers)
                except StopIteration:
                    return
                if lane.commits > commits:
                    self._has_moved()
                if self.is_stopping:  # between two questions: nothing is under way
                    return
                if asks is None:
                    self._is_well()
                    answers = await self._rest()
                elif asks:
                    answers = await self._answers(asks)
                else:
                    answers = await asyncio.sleep(0, [])

    async def _rest(self) -> Reply:
        """Until there may be something new."""
        timer = asyncio.get_running_loop().call_later(LOOK_S, self._poked.set)
        self.is_idle = True
        self._wakes.expect(self)
        try:
            await self._poked.wait()
        finally:
            timer.cancel()
            self._wakes.forget(self)
        self._poked.clear()
        self.is_idle = False
        return None
