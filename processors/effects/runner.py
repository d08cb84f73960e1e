"""
Drive an effect lane in a loop, for as long as its partition is ours.

    take what is new -> look every LOOK_S for what may run again -> wait for a poke, or a while -> ..
    a newer owner -> end;  anything else that goes wrong -> say so, pause, begin anew at the cursor

A transport that hands over a batch only pokes: the lane reads the log itself, so a lost or repeated hand-over
changes nothing.
"""

from __future__ import annotations

import asyncio

from aurastream.processors.effects.handler import Isolation
from aurastream.processors.effects.lane import EffectLane
from aurastream.processors.effects.lines import PATIENCE_S, Lines
from aurastream.processors.effects.pauses import Pauses
from aurastream.projections.engine import Fenced
from aurastream.streams import AsyncWires, Backoff, Logger, UnknownOutcome, is_passing

LOOK_S = 0.5  # how late a person's word may be noticed

log = Logger("aurastream.effects")


class LaneRunner:
    """A lane and the task that runs it. error: what a person must mend before it goes on, or None.

    polls_s: least and most between two looks at a log without news. is_fenced: a newer owner ended it.

    """

    def __init__(
        self, lane: EffectLane, wires: AsyncWires, isolation: Isolation, polls_s: tuple[float, float]
    ) -> None:
        self.lane, self.lines = lane, Lines(lane, wires, isolation)
        self.error: Exception | None = None
        self.epoch: int | None = None
        self.is_fenced = False
        self._poked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._polls = Backoff(*polls_s)
        self._pauses = Pauses()
        self._look_at = 0.0

    @property
    def trouble(self) -> str:
        """The error as a sentence; "" while there is none."""
        return "" if self.error is None else str(self.error) or type(self.error).__name__

    def start(self, epoch: int | None) -> None:
        """Begin, or go on under a new epoch."""
        self.epoch = epoch
        if self._task is None or self._task.done():
            self._is_stopping = self.is_fenced = False
            self._task = asyncio.create_task(
                self._run(), name=f"effects {self.lane.group} {self.lane.keys.where}"
            )

    def poke(self) -> None:
        """There is something new."""
        self._poked.set()

    async def stop(self, patience_s: float = PATIENCE_S) -> None:
        """End when the handlers that run are done, at most patience_s later."""
        self._is_stopping = True
        self.poke()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=patience_s)
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    async def _run(self) -> None:
        try:
            while not self._is_stopping:
                try:
                    await self._go_on()
                except Fenced as error:
                    log.warning("effects_fenced", **self._where(), reason=str(error))
                    self.is_fenced = True
                    return
                except Exception as error:
                    await asyncio.sleep(self._troubled(error))
        finally:
            await self.lines.stop()

    async def _go_on(self) -> None:
        loop = asyncio.get_running_loop()
        self._poked.clear()
        has_news = await self.lines.take(self.epoch)
        if loop.time() >= self._look_at:
            await self.lines.look()
            self._look_at = loop.time() + LOOK_S
        self.error = None
        self._pauses.reset()
        if has_news:
            self._polls.reset()
            return
        try:
            await asyncio.wait_for(self._poked.wait(), self._polls.next_s())
        except TimeoutError:
            return

    def _troubled(self, error: Exception) -> float:
        """Say so; the pause."""
        reason = f"{type(error).__name__}: {error}"
        if is_passing(error) or isinstance(error, UnknownOutcome):
            log.warning("effects_interrupted", **self._where(), reason=reason[:300])
            return self._pauses.next_s(is_passing=True)
        self.error = error
        log.error("effects_stuck", **self._where(), reason=reason[:500])
        return self._pauses.next_s(is_passing=False)

    def _where(self) -> dict[str, str]:
        return {"processor": self.lane.group, "where": self.lane.keys.where}
