"""
Call a processor's handler: in the event loop, or in a thread; what it raises is an answer too.

    call -> a task, or a thread -> it returned, raised, took too long, or was cut off (ours) -> the answer

Whatever comes out of a handler is its own doing, a CancelledError among it, but for what we cancelled. What
does not end when it is cancelled, or cannot be, as a thread, hangs: it is logged, counted and left behind.
"""

from __future__ import annotations

import asyncio
import inspect
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aurastream.processors import ProcessorError
from aurastream.processors.effects.processor import Derived, GiveUp, Processor
from aurastream.processors.effects.steps import CutOff, Handle, HandlerFailed
from aurastream.processors.effects.threads import Threads
from aurastream.processors.effects.watchdog import HandlerCall, Watchdog
from aurastream.streams import Event, Logger, text_of

FULL_S = 2.0  # for so long calls may hang that no further one can begin, before that is trouble
CANCEL_S = 1.0  # how long a handler that is cancelled may take to end
TRACEBACK_MAX = 1_000  # characters kept of one with each letter, its end: a bad build may park 100,000

log = Logger("aurastream.effects")

Outcome = list[Event] | HandlerFailed | CutOff


class HandlersHang(ProcessorError):
    """As many calls of a handler hang as may run at a time: no further one can begin."""

    def __init__(self, call: HandlerCall, hung: int) -> None:
        super().__init__(
            f"{hung} calls of {call.processor} hang, the first since {time.monotonic() - call.since:.0f} s, "
            f"of {call.event_id} at {call.place}; none can begin before one returns. Give what it calls a "
            "time-out, and restart the host."
        )
        self.position, self.event_id = call.position, call.event_id


class Isolation:
    """Attempts of this process: many at a time, or one alone, which goes before those that have not begun.

    watchdog: of its event loop.
    """

    def __init__(self, watchdog: Watchdog | None = None) -> None:
        self.watchdog = watchdog or Watchdog()
        self._running = self._wanting = 0
        self._is_alone = False
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def entered(self, alone: bool) -> AsyncIterator[None]:
        """The length of one attempt."""
        await self._enter(alone)
        try:
            yield
        finally:
            self._running -= 1
            self._is_alone = False
            async with self._changed:
                self._changed.notify_all()

    async def _enter(self, alone: bool) -> None:
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


class Handler:
    """A processor's handler, and its threads where it is a plain function. For one event loop."""

    def __init__(self, processor: Processor, watchdog: Watchdog) -> None:
        self._processor, self._watchdog = processor, watchdog
        self._is_async = inspect.iscoroutinefunction(processor.handle)
        self._threads: Threads[Outcome] = Threads(f"effects-{processor.name}")
        self._cut: asyncio.Future[Outcome] | None = None  # done: no call is wanted any more
        self._hung: dict[asyncio.Future[Outcome], HandlerCall] = {}
        self._has_returned = asyncio.Event()
        self._full_since = 0.0

    @property
    def hung(self) -> list[HandlerCall]:
        """The calls that took too long and have not ended since, the oldest first."""
        return list(self._hung.values())

    @property
    def trouble(self) -> HandlersHang | None:
        """Why no call can begin."""
        is_lasting = self._is_full and time.monotonic() - self._full_since > FULL_S
        return HandlersHang(self.hung[0], len(self._hung)) if is_lasting else None

    @property
    def _is_full(self) -> bool:
        return len(self._hung) >= self._processor.parallel

    async def room(self) -> None:
        """Until a call can begin: until fewer hang than may run at a time."""
        while self._is_full:
            self._has_returned.clear()
            await self._has_returned.wait()

    async def call(self, wanted: Handle) -> Outcome:
        """What it returned, how it failed, or that we cut it off."""
        attempt = wanted.attempt
        facts = HandlerCall(
            self._processor.name,
            attempt.stream,
            attempt.partition,
            attempt.position,
            wanted.event.event_id,
            time.monotonic(),
        )
        cut = self._cut = self._cut or asyncio.get_running_loop().create_future()
        if cut.done():
            return CutOff()
        outcome = self._begun(wanted, facts)
        try:
            await self._waited(outcome, cut)
        except asyncio.CancelledError:
            await self._ended(outcome, facts)
            raise
        if outcome.done():
            return outcome.result()
        await self._ended(outcome, facts)
        if outcome.done() and not outcome.cancelled() and isinstance(outcome.result(), list):
            return outcome.result()  # at the last moment
        return CutOff() if cut.done() else self._late()

    def cut(self) -> None:
        """Cancel the calls under way: each is answered with CutOff, unless it returns all the same; so is
        every further one, until it is reopened.
        """
        self._cut = self._cut or asyncio.get_running_loop().create_future()
        if not self._cut.done():
            self._cut.set_result(CutOff())

    def reopen(self) -> None:
        """Calls may begin again."""
        self._cut = None

    def close(self) -> None:
        """Let the threads go; what runs in them goes on unheard."""
        self._threads.close()

    def _begun(self, wanted: Handle, facts: HandlerCall) -> asyncio.Future[Outcome]:
        if not self._is_async:
            return self._threads.run(lambda: self._in_thread(wanted))
        task = asyncio.create_task(self._in_loop(wanted), name=f"{facts.processor} at {facts.place}")
        self._watchdog.watch(task, facts)
        return task

    async def _waited(self, outcome: asyncio.Future[Outcome], cut: asyncio.Future[Outcome]) -> None:
        """Until it is there, timeout_s are over (of a loop that lived), or it is cut off."""
        ends, either = self._watchdog.lived_s + self._processor.timeout_s, [outcome, cut]
        while not (outcome.done() or cut.done()):
            left_s = ends - self._watchdog.lived_s
            if left_s <= 0:
                return
            await asyncio.wait(either, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)

    async def _ended(self, outcome: asyncio.Future[Outcome], facts: HandlerCall) -> None:
        """End a call that is not wanted any more; one that does not end hangs."""
        if self._is_async:
            outcome.cancel()
            await asyncio.wait({outcome}, timeout=CANCEL_S)
        if outcome.done():
            return
        if not self._is_full:
            self._full_since = time.monotonic()
        self._hung[outcome] = facts
        self._threads.abandon(outcome)
        outcome.add_done_callback(self._returned)
        log.error("handler_hangs", **facts.facts(), hung=len(self._hung))

    def _returned(self, outcome: asyncio.Future[Outcome]) -> None:
        facts = self._hung.pop(outcome, None)
        if facts is not None:
            log.warning("handler_returned_late", **facts.facts(), hung=len(self._hung))
            self._has_returned.set()

    def _late(self) -> HandlerFailed:
        return HandlerFailed("", ours=f"it did not return within timeout_s = {self._processor.timeout_s} s")

    async def _in_loop(self, wanted: Handle) -> Outcome:
        try:
            derived = self._processor.handle(wanted.event, wanted.attempt)
            return list((await derived if inspect.isawaitable(derived) else derived) or ())
        except BaseException as error:  # any would end the loop, or the lane; a signal is none of them
            return _failed(error)  # where we cancelled it, nobody asks

    def _in_thread(self, wanted: Handle) -> Outcome:
        try:
            derived: Derived = self._processor.handle(wanted.event, wanted.attempt)  # type: ignore[assignment]
            return list(derived or ())
        except BaseException as error:  # in a thread of ours: it would end that and nothing else
            return _failed(error)


def _failed(error: BaseException) -> HandlerFailed:
    """What it raised, as an answer."""
    frames, text = frames_of(error)[-TRACEBACK_MAX:], text_of(error)
    if isinstance(error, GiveUp):
        return HandlerFailed(text, is_final=True, ours="" if text else "it gave up", traceback=frames)
    return HandlerFailed(text, ours=f"{type(error).__name__}: ", traceback=frames)


def frames_of(error: BaseException) -> str:
    """Where it and what led to it were raised: code and the kinds of errors, never their texts, which may
    repeat an event's.
    """
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    before = "" if cause is None else frames_of(cause)
    return before + "".join(traceback.format_tb(error.__traceback__)) + f"{type(error).__name__}\n"
