"""Call a processor's handler: in the event loop, or in a thread; what it raises is an answer too."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from aurastream.processors.effects.processor import Derived, GiveUp, Processor
from aurastream.processors.effects.steps import Handle, HandlerFailed
from aurastream.streams import Event


class Isolation:
    """Attempts of this process: many at a time, or one alone, which goes before those that have not begun."""

    def __init__(self) -> None:
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
    """A processor's handler, and its threads where it is a plain function."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self._is_async = inspect.iscoroutinefunction(processor.handle)
        self._threads: ThreadPoolExecutor | None = None

    async def call(self, wanted: Handle) -> list[Event] | HandlerFailed:
        """What it returned, or how it failed."""
        try:
            async with asyncio.timeout(self._processor.timeout_s):
                return await self._called(wanted)
        except TimeoutError as error:
            ours = f"it did not return within timeout_s = {self._processor.timeout_s} s"
            return HandlerFailed(str(error), ours="" if str(error) else ours)
        except GiveUp as error:
            return HandlerFailed(str(error), is_final=True, ours="" if str(error) else "it gave up")
        except Exception as error:
            return HandlerFailed(str(error), ours=f"{type(error).__name__}: ")

    def close(self) -> None:
        """Let the threads go; what runs in them goes on unheard."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def _called(self, wanted: Handle) -> list[Event]:
        if not self._is_async:
            return await asyncio.get_running_loop().run_in_executor(self._pool(), self._in_thread, wanted)
        derived = self._processor.handle(wanted.event, wanted.attempt)
        return list((await derived if inspect.isawaitable(derived) else derived) or ())

    def _in_thread(self, wanted: Handle) -> list[Event]:
        derived: Derived = self._processor.handle(wanted.event, wanted.attempt)  # type: ignore[assignment]
        return list(derived or ())

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(
                self._processor.parallel, thread_name_prefix=f"effects-{self._processor.name}"
            )
        return self._threads
