"""
The last steps around a swap: build lanes that stay, so that the new generation lacks next to nothing.

    come_close  pass after pass until one reads next to nothing       before the swap
    follow      keep the new one up until a host has taken over       after it
"""

from __future__ import annotations

import time
from collections.abc import Callable

from aurastream.projections.engine import AnyProjection
from aurastream.projections.rebuild.builder import BuildLane
from aurastream.streams import Cursor, History

CLOSE = 100  # events a pass may read before the swap: what the new one lacks then, readers see it lack
CLOSE_PASSES_MAX = 200
FOLLOW_S = 5.0  # how long the new generation is kept up after the swap, unless somebody takes over before


class NearLanes:
    """A lane for each partition of a generation. epochs: partition -> of the lease they commit under."""

    def __init__(
        self, history: History, projection: AnyProjection, generation: int, epochs: dict[int, int]
    ) -> None:
        self._lanes = [
            BuildLane(projection, history, partition, generation, epoch=epochs.get(partition))
            for partition in range(history.stream.partitions)
        ]

    def come_close(self) -> None:
        """A pass takes some milliseconds."""
        for _ in range(CLOSE_PASSES_MAX):
            before = sum(lane.cursor.read for lane in self._lanes)
            if sum(lane.build().read for lane in self._lanes) - before < CLOSE:
                return

    def follow(self, cursors: Callable[[], dict[int, Cursor]], stopping: Callable[[], bool]) -> None:
        """Until somebody else moves the generation, until nothing more comes, or for FOLLOW_S."""
        ends = time.monotonic() + FOLLOW_S
        for lane in self._lanes:
            lane.is_shared = True
        while time.monotonic() < ends and not stopping():
            before = cursors()
            after = {lane.partition: lane.build() for lane in self._lanes}
            if after == before or cursors() != after:  # nothing came; or somebody else has moved it
                return

    def close(self) -> None:
        """Drop their connections."""
        for lane in self._lanes:
            lane.close()
