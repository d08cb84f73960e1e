"""
The lines of a lane in an event loop: many at a time, each in order.

    take(epoch) -> read the log to its end -> every item into its line -> a task per line: attempt, pause ..
    look()      -> lines a person let run again -> a task per line, letter after letter
    stop(s)     -> no attempt begins; those under way have so long -> cut off, taken back

An event that was begun when a process died is attempted alone in this one, so that if it kills again, no
bystander is counted with it. An attempt begins when its handler can be called at once: waiting for a slot, a
thread or to be alone is none. A slot (``parallel`` of them) is held during an attempt and not during the
pause after it, so a subject that waits blocks nobody. After every error that the questions do not get over,
all lines stop, the next call raises it, and the one after that begins anew at the cursor.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from functools import partial
from typing import Any

from aurastream.processors.effects import resumption
from aurastream.processors.effects.handler import Handler, HandlersHang, Isolation
from aurastream.processors.effects.items import Item
from aurastream.processors.effects.lane import EffectLane
from aurastream.processors.effects.steps import Again, CutOff, Ended, Gap, Handle, MovedOn, Steps, T
from aurastream.processors.effects.watchdog import HandlerCall
from aurastream.streams import Ask, AsyncWires, Logger, adrive

ASKS_MAX = 12  # times one question is put to a server that does not answer: five to ten seconds
PATIENCE_S = 5.0  # how long a stop waits for the handlers that are running
CUT_S = 5.0  # after that, for what is to be written of them

log = Logger("aurastream.effects")


class Lines:
    """Those of one lane. For one event loop. isolation: of the process. is_settled: it is at its cursor."""

    def __init__(self, lane: EffectLane, wires: AsyncWires, isolation: Isolation) -> None:
        self.lane, self._wires, self._isolation = lane, wires, isolation
        self._handler = Handler(lane.processor, isolation.watchdog)
        self._slots = asyncio.Semaphore(lane.processor.parallel)
        self._lines: dict[str, deque[Item]] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._attempting: dict[asyncio.Task[object], asyncio.Future[None]] = {}  # done when the attempt is
        self._stopping, self._moved = asyncio.Event(), asyncio.Event()
        self.is_settled = False
        self._trouble: BaseException | None = None
        self.stuck_at: Item | None = None  # what was attempted when something went wrong

    @property
    def is_running(self) -> bool:
        """Whether an item is being attempted or waits for its next attempt."""
        return bool(self._tasks)

    @property
    def hung(self) -> list[HandlerCall]:
        """The calls that took too long and have not ended since."""
        return self._handler.hung

    @property
    def trouble(self) -> HandlersHang | None:
        """Why no attempt can begin: too many calls hang."""
        return self._handler.trouble

    async def take(self, epoch: int | None = None) -> bool:
        """Take in the log up to its end; does not wait for its handlers, but for room. Returns whether there
        was something new.

        epoch: of the lease under which it runs; another one than before begins anew at the cursor. Raises
        what ended a line since the last call: Fenced, when a newer owner has the partition; UnknownOutcome;
        Unread; InvariantBroken.
        """
        await self._settle(epoch)
        has_news = False
        while True:
            await self._room()
            if self._stopping.is_set():
                return has_news
            items = await self._drive(self.lane.read())
            if items is None:
                return has_news
            has_news = True
            for item in items:
                self._lines.setdefault(item.line, deque()).append(item)
                self._start("live", item.line, self._run_line(item.line))

    async def look(self) -> None:
        """Run the dead letters a person let run again; append audit events that were left behind; have the
        server's group follow.
        """
        self._raise_trouble()
        await self.follow()
        for line in await self._drive(resumption.due(self.lane)):
            self._start("due", line, self._run_letters(line))

    async def follow(self) -> None:
        """Have the server's group where the cursor is."""
        await self._drive(self.lane.scripts.follow())

    async def is_idle(self) -> bool:
        """Whether nothing is left to do, whoever runs the processor."""
        self._raise_trouble()
        return not self._tasks and await self._drive(self.lane.is_idle())

    async def until_ended(self, within_s: float) -> None:
        """Until the attempts that are under way now have ended, or so long; others begin meanwhile."""
        if self._attempting:
            await asyncio.wait(list(self._attempting.values()), timeout=within_s)

    def cut(self) -> None:
        """Cut off what is under way, whatever patience a stop was given."""
        self._handler.cut()

    async def stop(self, patience_s: float = PATIENCE_S) -> None:
        """End: no attempt begins any more; one under way has patience_s, then it is cut off, and was none."""
        self._stopping.set()
        self._moved.set()
        tasks = list(self._tasks.values())
        for task in tasks:
            if task not in self._attempting:
                task.cancel()
        await _ended(tasks, patience_s)
        self._handler.cut()
        await _ended(tasks, CUT_S)
        for task in tasks:
            task.cancel()
        await _ended(tasks, None)
        self._tasks.clear()
        self._lines.clear()
        self.is_settled = False
        self._stopping.clear()
        self._handler.close()
        self._handler.reopen()

    async def _settle(self, epoch: int | None) -> None:
        if isinstance(self._trouble, Gap):
            where = {"processor": self.lane.group, "where": self.lane.keys.where}
            log.warning("effects_gap", **where, reason=str(self._trouble))
            patience_s = PATIENCE_S if isinstance(self._trouble, MovedOn) else 0
            self._trouble = None
            await self.stop(patience_s)
        self._raise_trouble()
        if self.is_settled and epoch == self.lane.epoch:
            return
        await self.stop(0)
        self.lane.epoch = epoch
        await self._drive(self.lane.settle())
        self.is_settled = True

    def _raise_trouble(self) -> None:
        """Once; the next call begins anew."""
        if self._trouble is not None:
            trouble, self._trouble, self.is_settled = self._trouble, None, False
            raise trouble

    async def _room(self) -> None:
        """Until an entry may be read, or something went wrong."""
        while self.lane.window.room <= 0 and not self._stopping.is_set():
            self._raise_trouble()
            self._moved.clear()
            await self._moved.wait()
        self._raise_trouble()

    def _start(self, kind: str, line: str, steps: Coroutine[Any, Any, None]) -> None:
        """A task for the line, where none is at work; one that fails is the lane's trouble."""
        name = (kind, line)
        running = self._tasks.get(name)
        if running is not None and not running.done():  # one that has ended may not have been told of yet
            steps.close()
            return
        task = self._tasks[name] = asyncio.create_task(
            steps, name=f"effects {self.lane.group} {self.lane.keys.where} {line}"
        )
        task.add_done_callback(partial(self._ended, name))

    def _ended(self, name: tuple[str, str], task: asyncio.Task[None]) -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]
        if not task.cancelled() and task.exception() is not None:
            self._trouble = self._trouble or task.exception()
        self._moved.set()

    async def _run_line(self, line: str) -> None:
        """Live items, in order."""
        items = self._lines[line]
        while items and not self._stopping.is_set():
            if await self._run(items[0]) is None:
                return
            items.popleft()
            self._moved.set()
        if not items:
            del self._lines[line]

    async def _run_letters(self, line: str) -> None:
        """Dead letters of a line that may run again, in order, until it is empty or one is parked again."""
        item = await self._drive(resumption.first_letter(self.lane, line))
        while item is not None and not self._stopping.is_set():
            ended = await self._run(item)
            if ended is None or not ended.following:
                return
            item = await self._drive(resumption.letter(self.lane, line, ended.following))

    async def _run(self, item: Item) -> Ended | None:
        """Attempts at one item with pauses between them; None when it was stopped in one."""
        while not self._stopping.is_set():
            outcome = await self._attempted(item)
            if not isinstance(outcome, Again):
                return outcome if isinstance(outcome, Ended) else None
            try:
                await asyncio.wait_for(self._stopping.wait(), outcome.after_s)
            except TimeoutError:
                continue
        return None

    async def _attempted(self, item: Item) -> Again | Ended | CutOff | None:
        is_alone = item.position in self.lane.suspects and await self._drive(self.lane.is_suspect(item))
        async with self._slots, self._isolation.entered(is_alone):
            await self._handler.room()
            if self._stopping.is_set():
                return None
            task: Any = asyncio.current_task()
            ended = self._attempting[task] = asyncio.get_running_loop().create_future()
            try:
                return await self._drive(self.lane.attempt(item))
            except Exception:
                self.stuck_at = item
                raise
            finally:
                del self._attempting[task]
                ended.set_result(None)

    async def _drive(self, steps: Steps[T]) -> T:
        return await adrive(steps, self._answer)

    async def _answer(self, wanted: list[Ask] | Handle) -> Any:
        if isinstance(wanted, Handle):
            return await self._handler.call(wanted)
        return await self._wires.answers(wanted, "a step of a processor")


async def _ended(tasks: list[asyncio.Task[None]], within_s: float | None) -> None:
    """Until they have, or so long."""
    left = [task for task in tasks if not task.done()]
    if left:
        await asyncio.wait(left, timeout=within_s)
