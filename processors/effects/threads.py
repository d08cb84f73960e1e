"""
Threads for handlers that are plain functions. None is waited for at the end of the process.

    run(work) -> an idle thread, or a new one -> the answer, in the event loop
    abandon   -> its thread hangs: it is no longer counted on, and another takes its place

A thread cannot be stopped, so what hangs in one stays. It is counted for as long as it does, and ends by
itself when its call returns after all.

Decision (2026-11): daemon threads of our own, a queue each, reused so that what a handler keeps in its thread
(a session, a connection) lives on. Refused: ThreadPoolExecutor, which joins its threads when the interpreter
ends (a call that hangs would keep the process for ever) and cannot give up one of them; anyio's and
janus's threads, daemons too, whose limiter counts a thread that hangs as taken for good; processes, to which
most handlers cannot be sent.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Generic, TypeVar

R = TypeVar("R")
Work = Callable[[], R]


class _Thread(Generic[R]):
    """One thread: its queue, and the answer it owes."""

    def __init__(self, name: str, done: Callable[[_Thread[R], R], None]) -> None:
        self.queue: SimpleQueue[Work[R] | None] = SimpleQueue()
        self.answer: asyncio.Future[R] | None = None
        self._loop, self._done = asyncio.get_running_loop(), done
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        while (work := self.queue.get()) is not None:
            answer = work()
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                self._loop.call_soon_threadsafe(self._done, self, answer)
                continue
            return


class Threads(Generic[R]):
    """Those of one handler, for one event loop. Work must not raise; who runs it bounds their number."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: list[_Thread[R]] = []
        self._busy: dict[asyncio.Future[R], _Thread[R]] = {}
        self._hung: set[_Thread[R]] = set()

    def run(self, work: Work[R]) -> asyncio.Future[R]:
        """Do it in a thread; the future is not to be cancelled."""
        thread = self._idle.pop() if self._idle else _Thread(self._name, self._ended)
        thread.answer = asyncio.get_running_loop().create_future()
        self._busy[thread.answer] = thread
        thread.queue.put(work)
        return thread.answer

    def abandon(self, answer: asyncio.Future[R]) -> None:
        """Count on this call no longer; its answer comes when it does."""
        thread = self._busy.pop(answer, None)
        if thread is not None:
            self._hung.add(thread)

    def close(self) -> None:
        """Let them go; what runs in them goes on unheard."""
        for thread in [*self._idle, *self._busy.values()]:
            thread.queue.put(None)
        self._idle.clear()
        self._busy.clear()

    def _ended(self, thread: _Thread[R], answer: R) -> None:
        """In the event loop: a call returned."""
        future = thread.answer
        if future is None:
            return
        thread.answer = None
        if thread in self._hung:
            self._hung.discard(thread)
            thread.queue.put(None)
        elif self._busy.pop(future, None) is not None:
            self._idle.append(thread)
        if not future.done():
            future.set_result(answer)
