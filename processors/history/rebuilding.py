"""
The crew of a rebuild: one process per core, one partition at a time.

    tasks -> processes (spawned, each with a server of its own) -> what came of them, and meanwhile a tick for
        whoever shows progress

A rebuild is as long as the log, and nothing in it is shared between partitions. What a small log needs is
done here, as a process costs half a second to start. A process ends with the one that started it, within
ORPHAN_S: one that was killed leaves nobody who builds on.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from types import TracebackType
from typing import Any

import msgspec

from aurastream.processors import find_plugins
from aurastream.projections import Projection, ProjectionError
from aurastream.projections.engine import Fenced
from aurastream.projections.rebuild import Alone, Done, Task, perform
from aurastream.streams import History, Server, Stream, StreamError, open_stream
from aurastream.streams.archive import history_of

SMALL = 100_000  # entries, below which other processes would cost more than they save
TICK_S = 0.1
ORPHAN_S = 0.5  # between two looks of a process at whether its parent lives


class RebuildFailed(ProjectionError):
    """A process of the crew could not do its part; the text is its error's."""


class Failed(msgspec.Struct, frozen=True):
    """An error of a task, as it can be sent between processes: typed errors take more than a text to make."""

    kind: str
    text: str


class Team:
    """Does tasks in processes beside this one. Use as a context; started with the first tasks that are worth
    it.
    """

    def __init__(
        self,
        history: History,
        projection: Projection[Any],
        apps: tuple[str, ...] = (),
        processes: int | None = None,
    ) -> None:
        self._history, self._projection, self._apps = history, projection, apps
        self._count = processes or min(os.cpu_count() or 1, history.stream.partitions)
        self._alone = Alone(history, projection)
        self._pool: ProcessPoolExecutor | None = None
        self._context = get_context("spawn")
        self._is_told = self._context.Event()

    def do(self, tasks: list[Task], tick: Callable[[], None], stopping: Callable[[], bool]) -> list[Done]:
        """All tasks, here where they are small. Raises Fenced, and RebuildFailed with what went wrong."""
        if (
            self._count < 2
            or len(tasks) < 2
            or (self._pool is None and _left(self._history.stream, tasks) < SMALL)
        ):
            return self._alone.do(tasks, tick, stopping)
        futures = [self._started().submit(_perform, task) for task in tasks]
        waiting: set[Future[Done | Failed]] = set(futures)
        while waiting:
            done, waiting = wait(waiting, TICK_S, FIRST_EXCEPTION)
            tick()
            if stopping() or any(isinstance(future.result(), Failed) for future in done):
                self._is_told.set()  # the others end after the commit under way
        found = [future.result() for future in futures]
        failures = [one for one in found if isinstance(one, Failed)]
        for failure in failures:
            raise Fenced(failure.text) if failure.kind == Fenced.__name__ else RebuildFailed(failure.text)
        return [one for one in found if isinstance(one, Done)]

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            stream = self._history.stream
            begin = (stream.server.url, self._apps, self._is_told, os.getpid())
            self._pool = ProcessPoolExecutor(self._count, self._context, _begin, begin)
        return self._pool

    def __enter__(self) -> Team:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_told.set()
        if self._pool is not None:
            self._pool.shutdown()


def _left(stream: Stream, tasks: list[Task]) -> int:
    """About how many entries the tasks have to read."""
    total = 0
    for task in tasks:
        keys = stream.keys[task.partition]
        length, trimmed, read = stream.wire(task.partition).ask(
            ("XLEN", keys.log), ("HGET", keys.meta, "trimmed"), ("HGET", keys.cursor(task.group), "read")
        )
        total += max(0, length + int(trimmed or 0) - int(read or 0))
    return total


class _Process:
    """What a process holds between two tasks."""

    server: Server
    projections: dict[str, Projection[Any]]
    histories: dict[str, History]
    is_told: Any


def _begin(url: str, apps: tuple[str, ...], is_told: Any, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the one that started us
    gc.freeze()
    gc.disable()  # millions of events come and go, and none is in a cycle: looking for cycles costs a tenth
    _Process.server, _Process.projections, _Process.histories = (
        Server(url),
        find_plugins(apps).projections,
        {},
    )
    _Process.is_told = is_told
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End when the parent has: nobody steers us then. In the middle of anything, as a kill may come at any
    time.
    """
    while os.getppid() == parent:
        time.sleep(ORPHAN_S)
    os._exit(1)


def _stopping() -> bool:
    return bool(_Process.is_told.is_set())


def _perform(task: Task) -> Done | Failed:
    try:
        if task.stream not in _Process.histories:
            _Process.histories[task.stream] = history_of(open_stream(_Process.server, task.stream))
        return perform(
            _Process.histories[task.stream], _Process.projections[task.projection], task, _stopping
        )
    except (Fenced, ProjectionError, StreamError) as error:
        return Failed(type(error).__name__, str(error))
