"""
One process per core for work as long as the log: folding it again, checking it, building a view of it.

    tasks -> processes (spawned, each with a server and plugins of its own: Here) -> what came of them, as
        they are done, and meanwhile a tick for whoever shows progress

The fold is Python, and partitions share nothing. What a small log needs is done in this process, as another
one costs half a second to start (is_worth). The processes read their settings from the environment, as this
one did. Ctrl-C is for the process that started them: it tells them to stop after the step under way. They end
with it, within ORPHAN_S: one that was killed leaves nobody who works on.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from types import TracebackType
from typing import Generic, TypeVar

import msgspec

from aurastream.processors.errors import ProcessorError
from aurastream.processors.plugins import Installed, find_plugins
from aurastream.projections import ProjectionError
from aurastream.streams import History, Server, StreamError, open_stream
from aurastream.streams.archive import history_of

SMALL = 100_000  # entries, below which other processes would cost more than they save
TICK_S = 0.1
ORPHAN_S = 0.5  # between two looks of a process at whether its parent lives

Task = TypeVar("Task")
Result = TypeVar("Result")


class WorkFailed(ProjectionError):
    """A process could not do its part. kind: the name of its error's class; the text is its text."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind

    def __reduce__(self) -> tuple[type[WorkFailed], tuple[str, str]]:
        return WorkFailed, (self.kind, str(self))


class Here:
    """What a process holds between two tasks."""

    def __init__(self, url: str, installed: Installed, is_stopped: Callable[[], bool]) -> None:
        self.server, self.installed, self.is_stopped = Server(url), installed, is_stopped
        self._histories: dict[str, History] = {}

    def history(self, stream: str) -> History:
        """The stream's past, opened once."""
        if stream not in self._histories:
            self._histories[stream] = history_of(open_stream(self.server, stream))
        return self._histories[stream]


class Orders(msgspec.Struct, frozen=True):
    """What every process is started with; and how it is steered."""

    url: str
    apps: tuple[str, ...]
    stop: Event  # after the step under way
    leave: Event  # at once
    parent: int


class _Failed(msgspec.Struct, frozen=True):
    """An error, as it can be sent between processes: typed errors take more than a text to make."""

    kind: str
    text: str


def is_worth(entries: int) -> bool:
    """Whether so much work is done sooner by several processes."""
    return entries >= SMALL and (os.cpu_count() or 1) > 1


class Fanout(Generic[Task, Result]):
    """Does tasks of one kind in processes beside this one. A context; they are started with the first tasks.

    work: a function of a module, called in a process with what it holds and a task.
    """

    def __init__(
        self, work: Callable[[Here, Task], Result], url: str, apps: tuple[str, ...] = (), count: int = 0
    ) -> None:
        self._work, self._count = work, count or os.cpu_count() or 1
        self._context = get_context("spawn")
        self._orders = Orders(url, apps, self._context.Event(), self._context.Event(), os.getpid())
        self._pool: ProcessPoolExecutor | None = None

    @property
    def is_started(self) -> bool:
        """Whether the processes are there, and so cost nothing more."""
        return self._pool is not None

    def each(
        self,
        tasks: Sequence[Task],
        tick: Callable[[], None] = lambda: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, Result]]:
        """A task's number and what came of it, as they are done. stopping: asked at every tick, and heard by
        the tasks. Raises WorkFailed with the first failure, when the tasks under way have ended.
        """
        waiting = {self._started().submit(_perform, self._work, task): n for n, task in enumerate(tasks)}
        failure: _Failed | None = None
        while waiting:
            done, _ = wait(waiting, TICK_S, FIRST_COMPLETED)
            tick()
            results = [(waiting.pop(future), future.result()) for future in done if not future.cancelled()]
            for number, result in results:
                if isinstance(result, _Failed):
                    failure = failure or result
                else:
                    yield number, result
            if failure is not None or stopping():
                self._orders.stop.set()
            if failure is not None:
                waiting = {future: number for future, number in waiting.items() if not future.cancel()}
        if failure is not None:
            raise WorkFailed(failure.kind, failure.text)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._count, self._context, _begin, (self._orders,))
        return self._pool

    def __enter__(self) -> Fanout[Task, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._orders.stop.set()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._orders.leave.set()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


_here: Here | None = None  # of this process, which is one of a team


def _begin(orders: Orders) -> None:
    global _here  # noqa: PLW0603 - an initializer has no other way to leave something for the tasks
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the one that started us
    gc.freeze()
    gc.disable()  # millions of events come and go, and none is in a cycle: looking for cycles costs a tenth
    threading.Thread(target=_leave_with, args=(orders,), daemon=True).start()
    _here = Here(orders.url, find_plugins(orders.apps), orders.stop.is_set)


def _leave_with(orders: Orders) -> None:
    """End when the parent has, as nobody steers us then, or when it says so. In the middle of anything, as a
    kill may come at any time.
    """
    while os.getppid() == orders.parent:
        if orders.leave.wait(ORPHAN_S):
            break
    os._exit(1)


def _perform(work: Callable[[Here, Task], Result], task: Task) -> Result | _Failed:
    if _here is None:
        raise RuntimeError("this process is none of a team")
    try:
        return work(_here, task)
    except (ProjectionError, StreamError, ProcessorError) as error:
        return _Failed(type(error).__name__, str(error))
