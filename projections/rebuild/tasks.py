"""
What a rebuild does partition by partition, and who does it.

    BuildTask -> perform: a build lane to a position, or a comparison -> Done
    Alone does them here, one after the other

A task is plain data, so that it can be sent to another process (processors/history/rebuilding.py). A passing
fault costs a pause: the cursor says where to go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from aurastream.projections.engine import AnyProjection
from aurastream.projections.rebuild.builder import BuildLane
from aurastream.projections.rebuild.compare import Compared, compare_partition
from aurastream.streams import Cursor, History, generation_group, retried


class BuildTask(msgspec.Struct, frozen=True):
    """What one process does at a time. until: build up to there. compare_with: then compare with that
    generation; 0 does not.

    is_shared: hosts may write the generation too; the rest is theirs where one does.
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
    """What came of it. is_whole: False when it was stopped before."""

    partition: int
    cursor: Cursor
    is_whole: bool = True
    compared: Compared | None = None


class Crew(Protocol):
    """Who does the tasks: this process (``Alone``), or several (processors/history)."""

    def do(
        self, tasks: list[BuildTask], tick: Callable[[], None], stopping: Callable[[], bool]
    ) -> list[Done]:
        """All tasks, in any order. tick: called often meanwhile. Raises what a task raises."""
        ...


def perform(
    history: History, projection: AnyProjection, task: BuildTask, stopping: Callable[[], bool]
) -> Done:
    """One task. A passing fault costs a pause; the cursor says where to go on."""
    stream = history.stream
    lane = BuildLane(projection, history, task.partition, task.generation, epoch=task.epoch)
    lane.stopping, lane.is_shared = stopping, task.is_shared
    what = f"rebuild of {task.projection} at {lane.keys.where}"

    def once() -> Done:
        if task.compare_with:
            compared = compare_partition(lane, projection, task.compare_with)
            return Done(task.partition, lane.cursor, compared is not None, compared)
        return Done(task.partition, lane.build(task.until), not stopping())

    def recover() -> None:
        lane.close()
        stream.reconnect()

    try:
        return retried(what, stream.settings.attempts_max, once, recover)
    finally:
        lane.close()


class Alone:
    """Does one task after the other, here."""

    def __init__(self, history: History, projection: AnyProjection) -> None:
        self._history, self._projection = history, projection

    def do(
        self, tasks: list[BuildTask], tick: Callable[[], None], stopping: Callable[[], bool]
    ) -> list[Done]:
        """In the order given."""

        def is_stopping() -> bool:
            tick()
            return stopping()

        return [perform(self._history, self._projection, task, is_stopping) for task in tasks]
