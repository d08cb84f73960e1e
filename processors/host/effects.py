"""
All effect lanes of a host: the counterpart of lanes.py for handlers with effects.

    poke(a batch came) -> the lane's runner reads the log from the cursor, handlers run in their lines

The batch that Faust hands over only wakes a lane up: it reads the log itself, so a lost or repeated hand-over
changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from aurastream.processors.effects import (
    EffectLane,
    EffectStreams,
    Isolation,
    LaneOptions,
    LaneRunner,
    Processor,
)
from aurastream.processors.host.lanes import Place
from aurastream.streams import AsyncWires, Stream

POLLS_S = (0.5, 0.5)  # how late a person's word, or a batch that nobody poked for, may be noticed


class HostedEffectLanes:
    """By processor and place. options: host, its name, and lease, the group whose leases the host holds."""

    def __init__(
        self,
        wires: AsyncWires,
        processors: Iterable[Processor],
        opened: Callable[[str], Stream],
        options: LaneOptions,
    ) -> None:
        self.processors = list(processors)
        self._wires, self._options, self._isolation = wires, options, Isolation()
        self._streams = EffectStreams(list, opened)
        self.lanes: dict[tuple[str, Place], LaneRunner] = {}

    def assign(self, stream: Stream, partition: int, epoch: int | None) -> None:
        """The partition is ours, under this epoch."""
        for processor in self.processors:
            if processor.handles(stream):
                name = (processor.name, (stream.name, partition))
                if name not in self.lanes:
                    lane = EffectLane(
                        processor, self._streams.of(processor, stream), partition, self._options
                    )
                    self.lanes[name] = LaneRunner(lane, self._wires, self._isolation, POLLS_S)
                self.lanes[name].start(epoch)

    def poke(self, processor: str, place: Place) -> None:
        """A batch of the partition came."""
        runner = self.lanes.get((processor, place))
        if runner is not None:
            runner.poke()

    async def revoke(self, places: Iterable[Place], patience_s: float) -> None:
        """The partitions are somebody else's soon."""
        gone = set(places)
        leaving = {name: runner for name, runner in self.lanes.items() if name[1] in gone}
        await asyncio.gather(*[runner.stop(patience_s) for runner in leaving.values()])
        for name in leaving:
            del self.lanes[name]

    def troubles(self) -> list[str]:
        """Why some do not go on, each a sentence."""
        return [
            f"{runner.lane.group} at {runner.lane.keys.where}: {runner.trouble}"
            for runner in self.lanes.values()
            if runner.trouble
        ]
