"""
One projection's way through one partition, in an event loop.

    put(batch) -> bounded queue -> take: fold, commit -> the next
    no batch for IDLE_S -> look at the log: the transport's position is a hint, the cursor the truth

A lane starts when its partition is assigned and ends when it is revoked, after the commit that is under way.
A lost connection, a fail-over or a restart of the server costs a pause and a settle; an error that a person
must mend is kept for /health and tried again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aurastream.processors.effects import Pauses
from aurastream.projections import ProjectionError
from aurastream.projections.engine import Fenced, Lane, Retired, is_commit
from aurastream.streams import (
    Ask,
    Asking,
    AsyncWires,
    InvariantBroken,
    Lag,
    Logger,
    Position,
    RawEntry,
    Reply,
    Server,
    StreamError,
    adrive,
    is_passing,
    lag_of,
)

IDLE_S = 1.0  # without a batch, after which a lane looks for itself
QUEUED_MAX = (
    2  # batches a lane holds besides the one it applies: bounds memory, and what a revoke throws away
)

T = TypeVar("T")
log = Logger("aurastream.host")


class _Stopped(Exception):
    """The lane must stop, and a commit has just ended."""


async def _cannot_rewind(offset: int) -> None:
    raise InvariantBroken(f"nobody can hand over offset {offset} again: the lane has no transport.")


class HostedLane:
    """A lane and what waits for it. trouble: why it does not advance, or "". moved_at: monotonic seconds.

    on_commit: called with the seconds a commit took. Of a log elsewhere: highwater, the offset after its last
    entry; rewind, to an offset.
    """

    def __init__(self, lane: Lane, wires: AsyncWires) -> None:
        self.lane, self._wires = lane, wires
        self.trouble = ""
        self.moved_at = time.monotonic()
        self.on_commit: Callable[[float], None] = lambda seconds: None
        self.highwater: Callable[[], int] = lambda: 0
        self.rewind: Callable[[int], Awaitable[None]] = _cannot_rewind
        self._current: list[RawEntry] = []
        self._asked_back = (-1, -1)
        self._queue: asyncio.Queue[list[RawEntry]] = asyncio.Queue(QUEUED_MAX)
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = self._has_committed = False
        self._pauses = Pauses()

    def start(self, epoch: int | None) -> None:
        """Begin at the cursor; with a new epoch where it runs already."""
        self.lane.epoch = epoch
        if self._task is None or self._task.done():
            self._is_stopping = False
            name = f"lane {self.lane.projection.name} {self.lane.keys.where}"
            self._task = asyncio.create_task(self._run(), name=name)

    async def put(self, entries: list[RawEntry]) -> None:
        """Hand over a batch; waits while the lane is behind. One that ended drops it."""
        task = self._task
        if task is None or task.done() or self._is_stopping:
            return
        putting = asyncio.ensure_future(self._queue.put(entries))
        await asyncio.wait({putting, task}, return_when=asyncio.FIRST_COMPLETED)
        putting.cancel()

    async def stop(self, patience_s: float) -> None:
        """End after the batch under way, or after patience_s: a commit cut off is known by the cursor."""
        self._is_stopping = True
        if self._task is None:
            return
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait([])
        done, _ = await asyncio.wait({self._task}, timeout=patience_s)
        if not done:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._task = None

    def lag(self, server: Server) -> Lag:
        """What the lane has not applied. Blocking, for a log that is here."""
        if self.lane.is_log_here:
            return lag_of(server, self.lane.keys, self.lane.cursor)
        waiting = max(0, self.highwater() - self._expected())
        return Lag(waiting, time.monotonic() - self.moved_at if waiting else 0.0, 0, rewound=False)

    async def _run(self) -> None:
        while not self._is_stopping:
            try:
                await self._apply(self.lane.settle())
                await self._follow()
                return
            except Fenced as error:
                log.warning("lane_fenced", **self._where(), reason=str(error))
                return
            except Retired as error:
                log.info("lane_retired", **self._where(), reason=str(error))
                self._is_well()
                return
            except Exception as error:
                await asyncio.sleep(self._troubled(error))
            await self._wires.renew()

    async def _follow(self) -> None:
        while not self._is_stopping:
            self._current = self._current or await self._handed()
            if self._current and not await self._is_early(self._current):
                await self._apply(self.lane.take(self._current))
            self._current = []  # only now: a log elsewhere hands it over once

    async def _handed(self) -> list[RawEntry]:
        """The next batch. While none comes, look whether there should have been one: the transport's position
        is a hint, and a fail-over takes the cursor back without a word.
        """
        try:
            return await asyncio.wait_for(self._queue.get(), IDLE_S)
        except TimeoutError:
            if self.lane.is_log_here and await self._apply(self.lane.look()):
                await self._apply(self.lane.catch_up())
            self._is_well()
            return []

    async def _is_early(self, entries: list[RawEntry]) -> bool:
        """Whether a batch of a log elsewhere leaves out what follows the cursor; then asks for that.

        Asked twice and answered with the same batch, there is nothing in between: such a log may have holes
        (compaction, retention).
        """
        if self.lane.is_log_here:
            return False
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
            self.moved_at = time.monotonic()
            self._is_well()
        return result

    async def _answers(self, asks: list[Ask]) -> list[Reply]:
        if self._has_committed and self._is_stopping:
            raise _Stopped
        asked_at = time.perf_counter()
        answers = await self._wires.exchange(asks)
        self._has_committed = is_commit(asks[0].command)
        if self._has_committed:
            self.on_commit(time.perf_counter() - asked_at)
        return answers

    def _is_well(self) -> None:
        self.trouble = ""
        self._pauses.reset()

    def _troubled(self, error: Exception) -> float:
        """Keep the reason; the next pause."""
        self.lane.reset()
        if is_passing(error):
            log.warning("lane_interrupted", **self._where(), reason=f"{type(error).__name__}: {error}"[:300])
            return self._pauses.next_s(is_passing=True)
        self.trouble = str(error) or type(error).__name__
        is_ours = isinstance(error, ProjectionError | StreamError)
        log.error("lane_stuck", **self._where(), reason=self.trouble[:500], exc_info=not is_ours)
        return self._pauses.next_s(is_passing=False)

    def _where(self) -> dict[str, str]:
        return {"projection": self.lane.projection.name, "where": self.lane.keys.where}
