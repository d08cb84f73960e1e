"""
A lane with the task that drives it: what all lanes of an event loop have in common.

    start(epoch) -> settle at the cursor, go on -> what passes by itself is waited for, with backoff
                    -> anything else: kept with its event, place and traceback, tried again ever less often
                    -> a newer owner, or the generation was given up: the end
    stop(patience_s) -> after the commit under way

A lost connection, a fail-over or a restart of the server costs a pause and a settle. Where the entries come
from is the subclass's: lane.py reads them itself, fed.py is handed them.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable

from aurastream.processors.effects import Pauses
from aurastream.projections import ProjectionError
from aurastream.projections.engine import Fenced, Lane, Retired, is_commit
from aurastream.streams import (
    Ask,
    AsyncWires,
    Logger,
    Reply,
    StreamError,
    Trouble,
    is_passing,
    said,
    storable,
    text_of,
)

TRACEBACK_MAX, REASON_MAX = 4_000, 1_000  # characters kept

log = Logger("aurastream.host")


class SupervisedLane(ABC):
    """A lane and its task.

    stuck, error: why it does not advance until somebody mends it; its position is that of the event it cannot
    get past, or, where no single event is to blame, the cursor's. waits_for: the passing fault it waits for,
    or "". moved_at: of its last commit, monotonic seconds. is_fenced, is_retired: it ended by itself.
    is_idle: it has read all there is. on_commit: called with the seconds a commit took.
    """

    def __init__(self, lane: Lane, wires: AsyncWires) -> None:
        self.lane, self._wires = lane, wires
        self.stuck: Trouble | None = None
        self.error: Exception | None = None
        self.waits_for = ""
        self.moved_at = time.monotonic()
        self.is_fenced = self.is_retired = self.is_idle = False
        self.on_commit: Callable[[float], None] = lambda seconds: None
        self._task: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()
        self._pauses = Pauses()

    @property
    def trouble(self) -> str:
        """Why it does not advance, as a sentence; "" when it is well, or waits for what passes."""
        return "" if self.stuck is None else self.stuck.reason

    @property
    def is_running(self) -> bool:
        """Whether there is a task."""
        return self._task is not None and not self._task.done()

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._ending.is_set()

    def start(self, epoch: int | None) -> None:
        """Begin at the cursor; with a new epoch where it runs already."""
        self.lane.epoch = epoch
        if not self.is_running:
            self._ending.clear()
            self.is_fenced = self.is_retired = False
            name = f"lane {self.lane.view.group} {self.lane.keys.where}"
            self._task = asyncio.create_task(self._run(), name=name)

    async def stop(self, patience_s: float) -> None:
        """End after the commit under way, or after patience_s: a commit cut off is known by the cursor."""
        self._ending.set()
        self._interrupt()
        task, self._task = self._task, None
        if task is None:
            return
        done, _ = await asyncio.wait({task}, timeout=patience_s)
        if not done:
            task.cancel()
            await asyncio.wait({task})

    def waiting(self) -> tuple[int, float]:
        """Events that it has not applied, and how long they have waited, where it knows without asking."""
        return 0, 0.0

    @abstractmethod
    async def _go_on(self) -> None:
        """Settle, and apply what comes until told to stop."""

    @abstractmethod
    def _interrupt(self) -> None:
        """Whatever ``_go_on`` waits for, it waits no longer."""

    async def _run(self) -> None:
        while not self.is_stopping:
            try:
                await self._go_on()
                return
            except Fenced as error:
                log.warning("lane_fenced", **self._where(), reason=str(error))
                self.is_fenced = True
                return
            except Retired as error:
                log.info("lane_retired", **self._where(), reason=str(error))
                self.is_retired = True
                self._is_well()
                return
            except Exception as error:
                pause_s = self._troubled(error)
            except (KeyboardInterrupt, SystemExit, GeneratorExit) as error:  # of a plug-in's code
                pause_s = self._troubled(ProjectionError(f"{type(error).__name__}: {text_of(error)}"))
            await self._pause(pause_s)
            await self._wires.renew()

    async def _pause(self, seconds: float) -> None:
        """So long, or until it is to end."""
        try:
            await asyncio.wait_for(self._ending.wait(), seconds)
        except TimeoutError:
            return

    async def _answers(self, asks: list[Ask]) -> list[Reply]:
        if not is_commit(asks[0].command):
            return await self._wires.exchange(asks)
        asked_at = time.perf_counter()
        answers = await self._wires.exchange(asks)
        self.on_commit(time.perf_counter() - asked_at)
        return answers

    def _has_moved(self) -> None:
        self.moved_at = time.monotonic()
        self._is_well()

    def _is_well(self) -> None:
        if self.stuck is not None or self.waits_for:
            log.info("lane_well", **self._where())
        self.stuck, self.error, self.waits_for = None, None, ""
        self._pauses.reset()

    def _troubled(self, error: Exception) -> float:
        """Keep the reason; the next pause."""
        self.lane.reset()
        self.is_idle = False
        text = said(error)
        if is_passing(error):
            if not self.waits_for:
                log.warning("lane_interrupted", **self._where(), reason=text)
            self.waits_for = text
            return self._pauses.next_s(is_passing=True)
        self._keep(error)
        return self._pauses.next_s(is_passing=False)

    def _keep(self, error: Exception) -> None:
        """As what a person must mend; logged where it is another than before."""
        self.error = error
        before, is_ours = self.stuck, isinstance(error, ProjectionError | StreamError)
        text = text_of(error) or type(error).__name__
        reason = (text if is_ours else f"{type(error).__name__}: {text}")[:REASON_MAX]
        self.waits_for = ""
        lane = self.lane
        self.stuck = Trouble(
            lane.view.group,
            lane.stream.name,
            lane.partition,
            reason,
            position=str(getattr(error, "position", lane.cursor.position)),
            event_id=str(getattr(error, "event_id", "")),
            traceback=storable("".join(traceback.format_exception(error)))[-TRACEBACK_MAX:],
            since_ms=int(time.time() * 1000) if before is None else before.since_ms,
        )
        if before is None or before.reason != reason:
            place = {"position": self.stuck.position, "event_id": self.stuck.event_id}
            log.error("lane_stuck", **self._where(), **place, reason=reason[:500], exc_info=error)

    def _where(self) -> dict[str, str]:
        return {"projection": self.lane.projection.name, "where": self.lane.keys.where}
