"""
What a consumer knows of its partitions: which it owns, how far each was handed out, how far it is
acknowledged.

    lanes <- _new_offset <- Faust's acks  -> _commit: acknowledge.lua

Acknowledged is only the prefix of what the agents are done with. Offsets, and moving back to one, are in
here; reading is consumer.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from faust.transport import base
from faust.types import TP

from aurastream.processors.transport.coordinator import Coordinator
from aurastream.processors.transport.lane import Acknowledged, TopicLane
from aurastream.processors.transport.queues import purge
from aurastream.processors.transport.reader import TopicReader
from aurastream.processors.transport.seeking import bounds, place_of
from aurastream.streams import AsyncWires, Cursor, Logger, ServerAway

log = Logger(__name__)


class Partitions(base.Consumer):
    """The part of a consumer that counts. lanes: what is owned. alone: the leader topic's, without a log."""

    wires: AsyncWires
    reader: TopicReader
    _coordinator: Coordinator

    def __post_init__(self) -> None:
        self.lanes: dict[TP, TopicLane] = {}
        self.alone: set[TP] = set()
        self._driver: Any = self.transport

    def _new_offset(self, tp: TP) -> int | None:
        self._acked[tp].clear()  # the index has them too
        lane = self.lanes.get(tp)
        return None if lane is None else lane.passed(self._acked_index[tp])

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """There are none."""

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        lanes = [lane for tp in offsets if (lane := self.lanes.get(tp)) is not None]
        if not lanes:
            return False
        try:
            answers = await self.wires.ask([lane.acknowledging() for lane in lanes])
        except ServerAway as error:
            log.warning("not_acknowledged", reason=str(error))
            return False
        outcomes = zip(lanes, map(Acknowledged, answers), strict=True)
        fenced = {lane.claim for lane, outcome in outcomes if outcome is Acknowledged.FENCED}
        if fenced:
            self._coordinator.lost(fenced)
        return not fenced

    async def commit_now(self, tps: set[TP]) -> None:
        """Acknowledge what is done of these, after a commit that may be under way."""
        while await self.maybe_wait_for_commit_to_finish():
            continue
        await self._commit_tps(tps, start_new_transaction=False)

    def assignment(self) -> set[TP]:
        """What this worker owns."""
        return {*self.lanes, *self.alone}

    def epoch_of(self, tp: TP) -> int | None:
        """Of the lease under which this worker owns the partition; None where it does not."""
        lane = self.lanes.get(tp)
        return None if lane is None else lane.epoch

    @property
    def takeovers(self) -> int:
        """Partitions taken over from workers that did not give them back."""
        return self._coordinator.leases.takeovers

    async def resume_at(self, tps: set[TP]) -> dict[TP, Cursor]:
        """Where an app with cursors of its own wants to begin, instead of at the group's."""
        batched = {tp for tp in tps if tp.topic in self._driver.batch_topics}
        return {} if self._driver.resume_at is None or not batched else await self._driver.resume_at(batched)

    async def rewind(self, topics: set[str]) -> None:
        """Hand out again what was handed out of these topics and not acknowledged."""
        tps = {tp for tp, lane in self.lanes.items() if tp.topic in topics and lane.unacked}
        purge(self.app.topics, tps)
        for tp in tps:
            self._return_to(tp, self.lanes[tp].rewind)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Hand out again everything that is not acknowledged."""
        for tp, lane in self.lanes.items():
            self._return_to(tp, lane.rewind)
        return {tp: lane.offset for tp, lane in self.lanes.items()}

    async def _seek(self, partition: TP, offset: int) -> None:
        lane = self.lanes[partition]
        position, at = await place_of(self.wires, lane, offset)
        self._return_to(partition, lambda: lane.go(position, at))

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Continue with the entries of these offsets."""
        for tp, offset in partitions.items():
            await self.seek(tp, offset)

    def _return_to(self, tp: TP, move: Callable[[], None]) -> None:
        move()
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        self.reader.interrupt()

    async def position(self, tp: TP) -> int | None:
        """The offset of what is handed out next."""
        return self.lanes[tp].offset if tp in self.lanes else None

    def highwater(self, tp: TP) -> int:
        """The offset after the log's last entry, as of a second ago."""
        return self.lanes[tp].highwater if tp in self.lanes else 0

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """The offsets of the logs' first entries."""
        return await self._bounds(partitions, 0)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """The offsets after the logs' last entries, as of now."""
        return await self._bounds(partitions, 1)

    async def _bounds(self, tps: Iterable[TP], end: int) -> dict[TP, int]:
        known = {tp: self.lanes[tp] for tp in tps if tp in self.lanes}
        return {
            tp: edges[end]
            for tp, edges in zip(known, await bounds(self.wires, list(known.values())), strict=True)
        }

    def begin(self, lanes: Mapping[TP, TopicLane]) -> None:
        """Count from the cursors of new lanes."""
        for tp, lane in lanes.items():
            self._committed_offset[tp] = lane.offset or None

    def forget(self, tps: set[TP]) -> None:
        """Drop what Faust keeps of partitions that went."""
        for kept in (self._gap, self._acked, self._acked_index, self._read_offset, self._committed_offset):
            for tp in tps:
                kept.pop(tp, None)
        for group in (self._active_partitions, self._paused_partitions, self._buffered_partitions):
            group.difference_update(tps)

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)
