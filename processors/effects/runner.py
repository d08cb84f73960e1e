"""
Drive a lane in an event loop: many lines at a time, each in order.

    take(entries, epoch)  -> read the log up to there -> every item into its line -> a task per line: attempt,
                          pause, attempt ..
    look()                -> lines a person let run again -> a task per line, letter after letter

An event that was begun when a process died is attempted alone in this one, so that if it kills again, no
bystander is counted with it. A slot (``parallel`` of them) is held during an attempt and not during the pause
after it, so a subject that waits blocks nobody. What is asked of the server is asked again after a lost
connection, ASKS_MAX times; then, as after every other error, the runner stops, says so at the next ``take``,
and begins anew at the cursor when it is called once more.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from aurastream.processors.effects.items import Item
from aurastream.processors.effects.lane import Again, Ask, EffectLane, Ended, Failed, Gap, Handle
from aurastream.processors.effects.processor import GiveUp
from aurastream.streams import LOST, AsyncWires, Logger, RawEntry, UnknownOutcome, as_pair, is_passing
from aurastream.streams import Ask as Routed

ASKS_MAX = 12  # times one question is put to a server that does not answer: about ten seconds
PAUSE_FIRST_S, PAUSE_MAX_S = 0.02, 1.0
PATIENCE_S = 5.0  # how long a stop waits for the handlers that are running

log = Logger("aurastream.effects")


class Isolation:
    """Attempts of this process: many at a time, or one alone, which goes before those that have not begun."""

    def __init__(self) -> None:
        self._running = self._wanting = 0
        self._is_alone = False
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def entered(self, alone: bool) -> AsyncIterator[None]:
        """The length of one attempt."""
        async with self._changed:
            self._wanting += alone
            try:
                await self._changed.wait_for(
                    lambda: not self._running if alone else not (self._is_alone or self._wanting)
                )
            finally:
                self._wanting -= alone
                self._changed.notify_all()
            self._running, self._is_alone = self._running + 1, alone
        try:
            yield
        finally:
            self._running -= 1
            self._is_alone = False
            async with self._changed:
                self._changed.notify_all()


class Asker:
    """What all runners of a process share: puts questions to the servers until they answer, and isolates
    suspects.

    recover: brings an embedded server back; blocking.
    """

    def __init__(self, wires: AsyncWires, recover: Callable[[], None] | None = None) -> None:
        self._wires, self._recover = wires, recover
        self.isolation = Isolation()

    async def ask(self, routed: list[Routed]) -> list[Any]:
        """The answers, in order; errors of the server that do not pass are values among them. Raises
        UnknownOutcome.
        """
        pause_s = PAUSE_FIRST_S
        for attempt in range(1, ASKS_MAX + 1):
            try:
                answers = await self._exchange(routed)
                error: Exception | None = next(
                    (a for a in answers if isinstance(a, Exception) and is_passing(a)), None
                )
            except LOST as lost:
                error = lost
            if error is None:
                return answers
            if attempt == ASKS_MAX:
                raise UnknownOutcome("a step of a processor", ASKS_MAX) from error
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause_s = min(PAUSE_MAX_S, pause_s * 2)
            await self._heal()
        raise UnknownOutcome("a step of a processor", ASKS_MAX)

    async def _exchange(self, routed: list[Routed]) -> list[Any]:
        by_node: dict[int, tuple[Any, list[int]]] = {}
        for index, (key, _) in enumerate(routed):
            wire = await self._wires.of(key)
            by_node.setdefault(id(wire), (wire, []))[1].append(index)
        answers: list[Any] = [None] * len(routed)
        for wire, indexes in by_node.values():
            found = await wire.exchange(*[routed[index][1] for index in indexes])
            for index, answer in zip(indexes, found, strict=True):
                answers[index] = answer
        return answers

    async def _heal(self) -> None:
        try:
            if self._recover is not None:
                await asyncio.to_thread(self._recover)
            await self._wires.renew()
        except Exception as error:
            log.warning("server_away", reason=f"{type(error).__name__}: {error}"[:300])


class LaneRunner:
    """One lane, driven. For one event loop."""

    def __init__(self, lane: EffectLane, asker: Asker) -> None:
        self.lane, self._asker = lane, asker
        self._slots = asyncio.Semaphore(lane.processor.parallel)
        self._threads: ThreadPoolExecutor | None = None
        self._lines: dict[str, deque[Item]] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._stopping, self._moved = asyncio.Event(), asyncio.Event()
        self._is_settled = False
        self._trouble: BaseException | None = None

    @property
    def is_running(self) -> bool:
        """Whether an item is being attempted or waits for its next attempt."""
        return bool(self._tasks)

    async def take(self, entries: list[RawEntry], epoch: int | None = None) -> bool:
        """Take in everything up to the last of these entries ([]: to the end of the log), read from the log
        itself; does not wait for its handlers, but for room. Returns whether there was something new.

        epoch: of the lease under which it runs; another one than before begins anew at the cursor. Raises
        what ended a line since
        the last call: Fenced, when a newer owner has the partition; UnknownOutcome; UnknownEventVersion;
        InvariantBroken.
        """
        await self._settle(epoch)
        until = entries[-1][0].decode() if entries else "+"
        found = False
        while until == "+" or as_pair(self.lane.seen) < as_pair(until):
            await self._room()
            items = await self._drive(self.lane.read(until))
            if items is None:
                break
            found = True
            for item in items:
                self._enqueue(item)
        return found

    async def look(self) -> None:
        """Run the dead letters a person let run again; append audit events that were left behind."""
        self._raise_trouble()
        for line in await self._drive(self.lane.due()):
            self._start("due", line, self._run_letters(line))

    async def is_idle(self) -> bool:
        """Whether nothing is left to do, whoever runs the processor."""
        self._raise_trouble()
        return not self._tasks and bool(await self._drive(self.lane.is_idle()))

    async def stop(self, patience_s: float = PATIENCE_S) -> None:
        """End: no attempt begins any more; those under way get patience_s, then they are cut off and begun
        again by the next owner.
        """
        self._stopping.set()
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=patience_s)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._tasks.clear()
        self._lines.clear()
        self._is_settled = False
        self._stopping.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def _settle(self, epoch: int | None) -> None:
        if isinstance(self._trouble, Gap):
            log.warning(
                "effects_gap",
                processor=self.lane.group,
                where=self.lane.keys.where,
                reason=str(self._trouble),
            )
            self._trouble = None
            await self.stop(0)
        self._raise_trouble()
        if self._is_settled and epoch == self.lane.epoch:
            return
        await self.stop(0)
        self.lane.epoch = epoch
        await self._drive(self.lane.settle())
        self._is_settled = True

    def _raise_trouble(self) -> None:
        """Once; the next call begins anew."""
        if self._trouble is not None:
            trouble, self._trouble, self._is_settled = self._trouble, None, False
            raise trouble

    async def _room(self) -> None:
        """Until an entry may be read, or something went wrong."""
        while self.lane.room <= 0:
            self._raise_trouble()
            self._moved.clear()
            await self._moved.wait()
        self._raise_trouble()

    def _enqueue(self, item: Item) -> None:
        self._lines.setdefault(item.line, deque()).append(item)
        self._start("live", item.line, self._run_line(item.line))

    def _start(self, kind: str, line: str, steps: Any) -> None:
        """A task for the line, where it has none; one that fails is the runner's trouble."""
        name = (kind, line)
        if name in self._tasks:
            steps.close()
            return

        def ended(task: asyncio.Task[None]) -> None:
            if self._tasks.get(name) is task:
                del self._tasks[name]
            if not task.cancelled() and task.exception() is not None:
                self._trouble = self._trouble or task.exception()
            self._moved.set()

        task = self._tasks[name] = asyncio.create_task(
            steps, name=f"effects {self.lane.group} {self.lane.keys.where} {line}"
        )
        task.add_done_callback(ended)

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
        """Dead letters of a line that may run again, the first one first, until the line is empty or one is
        parked again.
        """
        item = await self._drive(self.lane.first_letter(line))
        while item is not None and not self._stopping.is_set():
            ended = await self._run(item)
            if ended is None or not ended.following:
                return
            item = await self._drive(self.lane.letter(line, ended.following))

    async def _run(self, item: Item) -> Ended | None:
        """Attempts at one item with pauses between them; None when it was stopped in one."""
        while not self._stopping.is_set():
            async with self._slots, self._asker.isolation.entered(item.position in self.lane.suspects):
                if self._stopping.is_set():
                    return None
                outcome = await self._drive(self.lane.attempt(item))
            if isinstance(outcome, Ended):
                return outcome
            pause: Again = outcome
            try:
                await asyncio.wait_for(self._stopping.wait(), pause.after_s)
            except TimeoutError:
                continue
        return None

    async def _drive(self, steps: Generator[Ask | Handle, Any, Any]) -> Any:
        answer: Any = None
        try:
            while True:
                wanted = steps.send(answer)
                answer = await (
                    self._handle(wanted) if isinstance(wanted, Handle) else self._asker.ask(wanted.routed)
                )
        except StopIteration as finished:
            return finished.value

    async def _handle(self, wanted: Handle) -> Any:
        """Call the handler; what it raises is an answer too."""
        processor = self.lane.processor
        try:
            async with asyncio.timeout(processor.timeout_s):
                if inspect.iscoroutinefunction(processor.handle):
                    return list(await processor.handle(wanted.event, wanted.attempt) or ())
                return await asyncio.get_running_loop().run_in_executor(self._pool(), self._call, wanted)
        except TimeoutError as error:
            said = str(error)
            return Failed(
                said, ours="" if said else f"it did not return within timeout_s = {processor.timeout_s} s"
            )
        except GiveUp as error:
            said = str(error)
            return Failed(said, is_final=True, ours="" if said else "it gave up")
        except Exception as error:
            return Failed(str(error), ours=f"{type(error).__name__}: ")

    def _call(self, wanted: Handle) -> list[Any]:
        derived: Any = self.lane.processor.handle(wanted.event, wanted.attempt)
        return list(derived or ())

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(
                self.lane.processor.parallel, thread_name_prefix=f"effects-{self.lane.group}"
            )
        return self._threads
