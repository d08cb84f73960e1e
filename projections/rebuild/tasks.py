"""
What a rebuild does partition by partition, and who does it.

    Task -> perform: a builder to a position, or a comparison -> Done          Alone does them here, one after
        the other

A task is plain data, so that it can be sent to another process (processors/rebuilding.py). A passing fault
costs a pause: the cursor says where to go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from aurastream.projections.engine import Projection
from aurastream.projections.rebuild.builder import BuildLane
from aurastream.projections.rebuild.compare import Compared, compare_partition
from aurastream.streams import Cursor, History, generation_group, retried


class Task(msgspec.Struct, frozen=True):
    """What one process does at a time. until: build up to there. compare_with: then compare with that
    generation; 0 does not.

    is_shared: workers may write the generation too; the rest is theirs where one does.
    """

    stream: str
    projection: str
    partition: int
    generation: int
    epoch: int | None
    until: str = "+"
    compare_with: int = 0
    is_shared: bool = False

    @property
    def group(self) -> str:
        """Whose cursor moves."""
        return generation_group(self.projection, self.generation)


class Done(msgspec.Struct, frozen=True):
    """What came of it. is_whole: False when it was told to stop before."""

    partition: int
    cursor: Cursor
    is_whole: bool = True
    compared: Compared | None = None


class Crew(Protocol):
    """Who does the tasks: this process (``Alone``), or several (processors/rebuilding.py)."""

    def do(self, tasks: list[Task], tick: Callable[[], None], stopping: Callable[[], bool]) -> list[Done]:
        """All tasks, in any order. tick: called often meanwhile. Raises what a task raises."""
        ...


def perform(history: History, projection: Projection[Any], task: Task, stopping: Callable[[], bool]) -> Done:
    """One task. A passing fault costs a pause; the cursor says where to go on."""
    stream = history.stream
    builder = BuildLane(projection, history, task.partition, task.generation, epoch=task.epoch)
    builder.stopping, builder.is_shared = stopping, task.is_shared

    def once() -> Done:
        if task.compare_with:
            found = compare_partition(builder, projection, task.compare_with)
            return Done(task.partition, builder.cursor, found is not None, found)
        return Done(task.partition, builder.build(task.until), not stopping())

    def recover() -> None:
        builder.close()
        stream.reconnect()

    try:
        return retried(
            f"rebuild of {task.projection} at {builder.keys.where}",
            stream.settings.attempts_max,
            once,
            recover,
        )
    finally:
        builder.close()


class Alone:
    """Does one task after the other, here."""

    def __init__(self, history: History, projection: Projection[Any]) -> None:
        self._history, self._projection = history, projection

    def do(self, tasks: list[Task], tick: Callable[[], None], stopping: Callable[[], bool]) -> list[Done]:
        """In the order given."""

        def looked() -> bool:
            tick()
            return stopping()

        return [perform(self._history, self._projection, task, looked) for task in tasks]
