"""
A lane that is handed its entries, in an event loop: for a log that is elsewhere (Kafka), which nobody here
can read back.

    put(batch) -> bounded queue -> take: fold, commit -> the next
    a batch begins after what follows the cursor -> the transport is asked for that

The transport's position is a hint, the cursor the truth: a batch may be old, overlapping or ahead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aurastream.processors.host.supervised import SupervisedLane
from aurastream.projections.engine import Lane, is_commit
from aurastream.streams import Ask, Asking, AsyncWires, InvariantBroken, Position, RawEntry, Reply, adrive

IDLE_S = 1.0  # without a batch, after which a lane is well
QUEUED_MAX = (
    2  # batches a lane holds besides the one it applies: bounds memory, and what a revoke throws away
)

T = TypeVar("T")


class _Stopped(Exception):
    """The lane must stop, and a commit has just ended."""


async def _cannot_rewind(offset: int) -> None:
    raise InvariantBroken(f"nobody can hand over offset {offset} again: the lane has no transport.")


class FedLane(SupervisedLane):
    """A lane and what waits for it.

    Of a log elsewhere: highwater, the offset after its last entry; rewind, to an offset.
    """

    def __init__(self, lane: Lane, wires: AsyncWires) -> None:
        super().__init__(lane, wires)
        self.highwater: Callable[[], int] = lambda: 0
        self.rewind: Callable[[int], Awaitable[None]] = _cannot_rewind
        self._current: list[RawEntry] = []
        self._asked_back = (-1, -1)
        self._queue: asyncio.Queue[list[RawEntry]] = asyncio.Queue(QUEUED_MAX)
        self._has_committed = False

    async def put(self, entries: list[RawEntry]) -> None:
        """Hand over a batch; waits while the lane is behind. One that ended drops it."""
        task = self._task
        if task is None or task.done() or self.is_stopping:
            return
        putting = asyncio.ensure_future(self._queue.put(entries))
        await asyncio.wait({putting, task}, return_when=asyncio.FIRST_COMPLETED)
        putting.cancel()

    def poke(self) -> None:
        """Nothing: it is handed what there is."""

    def waiting(self) -> tuple[int, float]:
        """By what the transport knows of the log's end."""
        waiting = max(0, self.highwater() - self._expected())
        return waiting, time.monotonic() - self.moved_at if waiting else 0.0

    def _interrupt(self) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait([])

    async def _go_on(self) -> None:
        await self._apply(self.lane.settle())
        while not self.is_stopping:
            self._current = self._current or await self._handed()
            if self._current and not await self._is_early(self._current):
                await self._apply(self.lane.take(self._current))
            self._current = []  # only now: a log elsewhere hands it over once

    async def _handed(self) -> list[RawEntry]:
        """The next batch; none after IDLE_S."""
        self.is_idle = True
        try:
            return await asyncio.wait_for(self._queue.get(), IDLE_S)
        except TimeoutError:
            self._is_well()
            return []
        finally:
            self.is_idle = False

    async def _is_early(self, entries: list[RawEntry]) -> bool:
        """Whether a batch leaves out what follows the cursor; then asks for that.

        Asked twice and answered with the same batch, there is nothing in between: such a log may have holes
        (compaction, retention).
        """
        expected, first = self._expected(), Position.parse(entries[0][0]).ms
        if first <= expected or self._asked_back == (expected, first):
            return False
        self._asked_back = (expected, first)
        await self.rewind(expected)
        return True

    def _expected(self) -> int:
        """The offset after the cursor, of a log elsewhere."""
        return self.lane.cursor.at.ms + 1 if self.lane.cursor.position else 0

    async def _apply(self, steps: Asking[T]) -> T | None:
        """Drive the steps to their end, or, when the lane must stop, to that of the commit under way."""
        before, self._has_committed, result = self.lane.commits, False, None
        try:
            result = await adrive(steps, self._answers)
        except _Stopped:
            steps.close()
        if self.lane.commits > before:
            self._has_moved()
        return result

    async def _answers(self, asks: list[Ask]) -> list[Reply]:
        if self._has_committed and self.is_stopping:
            raise _Stopped
        answers = await super()._answers(asks)
        self._has_committed = is_commit(asks[0].command)
        return answers
