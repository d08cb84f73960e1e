"""The crew of a rebuild: its tasks, a partition each, by one process per core where much is left to read."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any

from aurastream.processors import Fanout, Here, WorkFailed, is_worth
from aurastream.projections import Projection
from aurastream.projections.engine import Fenced
from aurastream.projections.rebuild import Alone, BuildTask, Done, perform
from aurastream.streams import History, Stream


class Team:
    """Does tasks in processes beside this one. A context; they start with the first tasks worth it."""

    def __init__(
        self,
        history: History,
        projection: Projection[Any],
        apps: tuple[str, ...] = (),
        processes: int | None = None,
    ) -> None:
        self._stream, self._alone = history.stream, Alone(history, projection)
        self._count = processes or min(os.cpu_count() or 1, history.stream.partitions)
        self._fanout = Fanout(_perform, history.stream.server.url, apps, self._count)

    def do(
        self, tasks: list[BuildTask], tick: Callable[[], None], stopping: Callable[[], bool]
    ) -> list[Done]:
        """All tasks, here where they are small. Raises Fenced, and WorkFailed with what went wrong."""
        is_small = not self._fanout.is_started and not is_worth(_left(self._stream, tasks))
        if self._count < 2 or len(tasks) < 2 or is_small:
            return self._alone.do(tasks, tick, stopping)
        try:
            done = dict(self._fanout.each(tasks, tick, stopping))
        except WorkFailed as failure:
            if failure.kind == Fenced.__name__:
                raise Fenced(str(failure)) from failure
            raise
        return [done[number] for number in range(len(tasks))]

    def __enter__(self) -> Team:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fanout.__exit__(kind, error, trace)


def _left(stream: Stream, tasks: list[BuildTask]) -> int:
    """About how many entries the tasks have to read."""
    total = 0
    for task in tasks:
        keys = stream.keys[task.partition]
        length, trimmed, read = stream.ask(
            task.partition,
            ("XLEN", keys.log),
            ("HGET", keys.meta, "trimmed"),
            ("HGET", keys.cursor(task.group), "read"),
        )
        total += max(0, length + int(trimmed or 0) - int(read or 0))
    return total


def _perform(here: Here, task: BuildTask) -> Done:
    """In a process of its own."""
    projection = here.installed.projection(task.projection)
    return perform(here.history(task.stream), projection, task, here.is_stopped)
