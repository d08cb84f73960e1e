"""
Drive an effect lane in a loop, for as long as its partition is ours.

    take what is new -> look every LOOK_S for what may run again -> wait for a poke, or a while -> ..
    a newer owner -> cut off what is under way, end;  a stop -> wait for it, as long as it is given
    anything else that goes wrong -> say so, pause, begin anew at the cursor

A transport that hands over a batch only pokes: the lane reads the log itself, so a lost or repeated hand-over
changes nothing.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from typing import Protocol

from aurastream.processors.effects.handler import CANCEL_S, Isolation
from aurastream.processors.effects.lane import EffectLane
from aurastream.processors.effects.letters import REASON_MAX
from aurastream.processors.effects.lines import PATIENCE_S, Lines
from aurastream.processors.effects.pauses import Pauses
from aurastream.processors.effects.watchdog import HandlerCall
from aurastream.projections.engine import Fenced
from aurastream.streams import (
    AsyncWires,
    Backoff,
    Logger,
    Trouble,
    UnknownOutcome,
    is_passing,
    storable,
    text_of,
)

TRACEBACK_MAX = 4_000  # characters of one that says why a lane is stuck, its end
LOOK_S = 0.5  # how late a person's word may be noticed
FOLLOW_S = 1.0  # at the end, for the server's group: a hint

log = Logger("aurastream.effects")


class Waker(Protocol):
    """Who waits for logs: pokes a lane, once, when its log has something after its position."""

    def expect(self, lane: LaneRunner) -> None:
        """The lane has read all there is."""
        ...

    def forget(self, lane: LaneRunner) -> None:
        """It waits no longer."""
        ...


class LaneRunner:
    """A lane and the task that runs it.

    polls_s: least and most between two looks at a log without news. is_fenced: a newer owner ended it.
    waker: wakes it before that.
    """

    def __init__(
        self, lane: EffectLane, wires: AsyncWires, isolation: Isolation, polls_s: tuple[float, float]
    ) -> None:
        self.lane, self.lines = lane, Lines(lane, wires, isolation)
        self._error: Exception | None = None
        self._error_since_ms = 0
        self.epoch: int | None = None
        self.is_fenced = False
        self.waker: Waker | None = None
        self._poked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._polls = Backoff(*polls_s)
        self._pauses = Pauses()
        self._look_at = 0.0

    @property
    def error(self) -> Exception | None:
        """What a person must mend before it goes on, or None."""
        return self._error or self.lines.trouble

    @property
    def trouble(self) -> str:
        """The error as a sentence; "" while there is none."""
        error = self.error
        return "" if error is None else text_of(error) or type(error).__name__

    @property
    def trouble_facts(self) -> Trouble | None:
        """The same for whoever mends it: with the event, its position, and the traceback."""
        error, keys = self.error, self.lane.keys
        if error is None:
            return None
        at = self.lines.stuck_at
        position = str(getattr(error, "position", "")) or (at.position if at is not None else "")
        event_id = str(getattr(error, "event_id", "")) or (at.event.event_id if at is not None else "")
        return Trouble(
            self.lane.group,
            keys.stream,
            keys.partition,
            self.trouble[:REASON_MAX],
            position=position,
            event_id=event_id,
            traceback=storable("".join(traceback.format_exception(error)))[-TRACEBACK_MAX:],
            since_ms=self._error_since_ms,
        )

    @property
    def is_settled(self) -> bool:
        """Whether it has looked at its cursor: what a person must mend would be known."""
        return self.lines.is_settled

    @property
    def hung(self) -> list[HandlerCall]:
        """The calls of its handler that took too long and have not ended since."""
        return self.lines.hung

    @property
    def longest_s(self) -> float:
        """How long what is under way may take: the patience with which a lane is given away."""
        return self.lane.processor.timeout_s + CANCEL_S

    def start(self, epoch: int | None) -> None:
        """Begin, or go on under a new epoch."""
        self.epoch = epoch
        if self._task is None or self._task.done():
            self._is_stopping = self.is_fenced = False
            self._task = asyncio.create_task(
                self._run(), name=f"effects {self.lane.group} {self.lane.keys.where}"
            )

    @property
    def log_key(self) -> str:
        """Of its log, for the waker."""
        return self.lane.keys.log

    @property
    def position(self) -> str:
        """Of the last entry it has read."""
        return self.lane.window.seen

    def poke(self) -> None:
        """There is something new."""
        self._poked.set()

    async def ripen(self) -> None:
        """Until what is under way now has ended; the lane goes on meanwhile, so that nobody waits for it.

        To be awaited before a lane is given away: then a stop has only what began since to wait for.
        """
        await self.lines.until_ended(self.longest_s)

    def cut(self) -> None:
        """Cut off what is under way, whatever patience a stop was given: the process ends."""
        self.lines.cut()

    async def stop(self, patience_s: float = PATIENCE_S) -> None:
        """End when the handlers that run are done, or are cut off patience_s later, which makes them none.

        The lease is to be kept until this has returned: then nothing is left that another owner would repeat.
        """
        self._is_stopping = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()  # it reads and skips, which may be done twice
            await asyncio.wait({task})
        await self.lines.stop(patience_s)
        try:
            async with asyncio.timeout(FOLLOW_S):
                await self.lines.follow()
        except Exception as error:  # the next owner's first look does it
            log.info("group_left_behind", **self._where(), reason=f"{type(error).__name__}: {error}"[:300])

    async def _run(self) -> None:
        while not self._is_stopping:
            try:
                await self._go_on()
            except Fenced as error:
                log.warning("effects_fenced", **self._where(), reason=str(error))
                self.is_fenced = True
                await self.lines.stop(0)
                return
            except Exception as error:
                await asyncio.sleep(self._troubled(error))

    async def _go_on(self) -> None:
        loop = asyncio.get_running_loop()
        self._poked.clear()
        has_news = await self.lines.take(self.epoch)
        if loop.time() >= self._look_at:
            await self.lines.look()
            self._look_at = loop.time() + LOOK_S
        self._error = self.lines.stuck_at = None
        self._pauses.reset()
        if has_news:
            self._polls.reset()
            return
        if self.waker is not None:
            self.waker.expect(self)
        try:
            await asyncio.wait_for(self._poked.wait(), self._polls.next_s())
        except TimeoutError:
            return
        finally:
            if self.waker is not None:
                self.waker.forget(self)

    def _troubled(self, error: Exception) -> float:
        """Say so; the pause."""
        reason = f"{type(error).__name__}: {error}"
        if is_passing(error) or isinstance(error, UnknownOutcome):
            log.warning("effects_interrupted", **self._where(), reason=reason[:300])
            return self._pauses.next_s(is_passing=True)
        before, self._error = self._error, error
        if before is None:
            self._error_since_ms = int(time.time() * 1_000)
        if str(before) != str(error):  # once, not at every try
            position = str(getattr(error, "position", ""))
            log.error("effects_stuck", **self._where(), reason=reason[:500], position=position)
        return self._pauses.next_s(is_passing=False)

    def _where(self) -> dict[str, str]:
        return {"processor": self.lane.group, "where": self.lane.keys.where}
