"""
All lanes of a host: one for every generation of a view, and partition, that is this process's to keep up.

The live generation has lanes, and so has one that is kept for a rollback, where they were folded by the same
definition. ``follow`` takes the records, and starts and ends lanes by them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aurastream.processors.host.fed import FedLane
from aurastream.projections import Projection
from aurastream.projections.engine import NEVER_REBUILT, Lane, Record, field_of
from aurastream.streams import AsyncWires, RawEntry, Stream

Place = tuple[str, int]  # stream, partition
LaneName = tuple[str, Place, int]  # projection, place, generation


class HostedLanes:
    """All lanes of this process, by projection, place and generation."""

    def __init__(
        self, wires: AsyncWires, projections: Iterable[Projection[Any]], group: str, batch_max: int
    ) -> None:
        self.projections = list(projections)
        self.wires, self._group, self._batch_max = wires, group, batch_max
        self.lanes: dict[LaneName, FedLane] = {}
        self.owned: dict[Place, int | None] = {}  # place -> epoch
        self.records: Mapping[str, Record] = {}
        self.on_lane: Callable[[FedLane], None] = lambda lane: None
        self._streams: dict[str, Stream] = {}

    def assign(self, stream: Stream, partition: int, epoch: int | None) -> None:
        """The partition is ours, under this epoch: start its lanes."""
        place = (stream.name, partition)
        self.owned[place], self._streams[stream.name] = epoch, stream
        for name in self._wanted(place):
            lane = self.lanes.get(name)
            if lane is None:
                lane = self.lanes[name] = self._lane(name)
            lane.start(epoch)

    async def follow(self, records: Mapping[str, Record], patience_s: float = 1.0) -> None:
        """The views have these generations now: start lanes that are new, end those that are not ours."""
        self.records = records
        wanted = {name for place in self.owned for name in self._wanted(place)}
        for name in sorted(wanted.difference(self.lanes)):
            lane = self.lanes[name] = self._lane(name)
            lane.start(self.owned[name[1]])
        await self._end(
            [name for name in self.lanes if name not in wanted and name[1] in self.owned], patience_s
        )

    def _wanted(self, place: Place) -> list[LaneName]:
        wanted = []
        for projection in self.projections:
            if projection.takes(self._streams[place[0]]):
                record = self.records.get(field_of(place[0], projection.name), NEVER_REBUILT)
                wanted += [
                    (projection.name, place, number) for number in record.followed(projection.fingerprint)
                ]
        return wanted

    def _lane(self, name: LaneName) -> FedLane:
        projection = next(item for item in self.projections if item.name == name[0])
        stream, (_, partition), generation = self._streams[name[1][0]], name[1], name[2]
        lane = Lane(projection, stream, partition, generation=generation, batch_max=self._batch_max)
        lane.group = self._group
        hosted = FedLane(lane, self.wires)
        self.on_lane(hosted)
        return hosted

    async def feed(self, projection: str, place: Place, entries: list[RawEntry]) -> None:
        """Hand a batch to the lanes of a projection; ignored where the partition is not ours."""
        for lane in [lane for name, lane in self.lanes.items() if name[:2] == (projection, place)]:
            await lane.put(entries)

    async def revoke(self, places: Iterable[Place], patience_s: float = 1.0) -> None:
        """The partitions are somebody else's soon: end their lanes after the commit under way."""
        gone = set(places)
        for place in gone:
            self.owned.pop(place, None)
        await self._end([name for name in self.lanes if name[1] in gone], patience_s)

    async def _end(self, names: list[LaneName], patience_s: float) -> None:
        leaving = {name: self.lanes[name] for name in names}
        await asyncio.gather(*[lane.stop(patience_s) for lane in leaving.values()])
        for name, lane in leaving.items():
            if self.lanes.get(name) is lane:
                del self.lanes[name]

    async def close(self) -> None:
        """End all lanes."""
        await self.revoke({place for _, place, _ in self.lanes})
        await self.wires.close()
