"""
A host whose log is in Kafka: a topic per stream of the settings, an agent per projection and topic, lanes
that are handed their batches.

Kafka's own group says which partitions are this process's; there are no leases. Processors need the log here
and are not run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from faust.types import TP, AgentT, StreamT, TopicT

from aurastream.processors import Connection
from aurastream.processors.effects import ASKS_MAX, LaneRunner
from aurastream.processors.host.app import GROUP, App
from aurastream.processors.host.batching import RawBatch, batch_topic, batches
from aurastream.processors.host.fed import FedLane
from aurastream.processors.host.health import AllLanes
from aurastream.processors.host.lanes import HostedLanes
from aurastream.processors.host.options import kafka_topics_of
from aurastream.projections import Projection
from aurastream.projections.engine import now_ms, read_records
from aurastream.streams import AsyncWires, Cursor, Logger, aside, is_passing

STOP_S = 1.0  # how long a lane may finish its batch when it must go

Agent = AgentT[Any]  # of RawBatch
log = Logger("aurastream.host")


class FedLanes(NamedTuple):
    """The lanes as measures and pages see them."""

    hosted: HostedLanes

    @property
    def view_lanes(self) -> Sequence[FedLane]:
        """Those of views."""
        return list(self.hosted.lanes.values())

    @property
    def effect_lanes(self) -> Sequence[LaneRunner]:
        """There are none."""
        return []

    @property
    def owned(self) -> int:
        """Partitions that Kafka gave us."""
        return len(self.hosted.owned)

    @property
    def takeovers(self) -> int:
        """Kafka does not say."""
        return 0

    @property
    def waits_for(self) -> str:
        """There are no leases to be kept."""
        return self.hosted.wires.trouble

    @property
    def waits_since_ms(self) -> int | None:
        """Since when the server does not take the views."""
        return self.hosted.wires.trouble_since_ms


class KafkaApp(App):
    """See the module."""

    consumer: Any  # a BatchConsumer besides what Faust asks of one
    hosted: HostedLanes

    async def on_first_start(self) -> None:
        """Reach the server before Kafka: an agent needs its lanes."""
        await self.reach()
        await super().on_first_start()

    async def prepare_lanes(self, connection: Connection) -> None:
        """The agents of all topics."""
        self.topics_named = kafka_topics_of(self.settings, self.options)
        self.taken_up: set[str] = set()
        self._has_been_assigned = False
        wires = AsyncWires(self.server, ASKS_MAX, connection.recover)
        self.hosted = HostedLanes(wires, self.chosen, GROUP, self.settings.batch_max)
        self.hosted.on_lane = self._watch
        await self.look()

    @property
    def is_ready(self) -> bool:
        """Whether partitions were assigned."""
        return self.is_prepared and self._has_been_assigned

    @property
    def lanes(self) -> AllLanes:
        """What it runs."""
        return FedLanes(self.hosted)

    async def look(self) -> None:
        """Take up generations that are new; and the topics, once."""
        records, at_ms = await aside(lambda: (read_records(self.server), now_ms(self.server)))
        await self.hosted.follow(records, STOP_S)
        await aside(lambda: self.sources.retire(records, at_ms, GROUP))
        for name in self.topics_named:
            if name not in self.taken_up:
                topic = batch_topic(self, name)  # how many partitions it has is known once it is assigned
                agents = [self._fold(item, name, topic) for item in self.chosen if item.folds(name)]
                self.taken_up.add(name)
                log.info("stream_taken_up", stream=name, agents=[agent.name for agent in agents])

    def _fold(self, projection: Projection[Any], name: str, topic: TopicT) -> Agent:
        async def fold(stream: StreamT[RawBatch]) -> None:
            async for batch in batches(stream):
                await self.hosted.feed(projection.name, (batch.stream, batch.partition), batch.entries)

        fold.__doc__ = f"Folds {name} into the view {projection.name}."
        return self.agent(topic, name=f"{projection.name}.{name}")(fold)

    async def resume_at(self, partitions: set[TP]) -> dict[TP, Cursor]:
        """Of each partition the cursor of the view that is furthest behind; what follows is needed."""
        try:
            return await aside(lambda: self._furthest_behind(partitions))
        except Exception as error:
            if not is_passing(error):
                raise
            return {}  # the group's cursor serves as well: a lane asks back for what it was not handed

    def _furthest_behind(self, partitions: set[TP]) -> dict[TP, Cursor]:
        cursors = {}
        for tp in partitions:
            stream = self.sources.opened(tp.topic, self.consumer.topic_partitions(tp.topic))
            cursor = self.sources.furthest_behind(stream, tp.partition)
            if cursor is not None:
                cursors[tp] = cursor
        return cursors

    async def assigned(self, partitions: set[TP]) -> None:
        """Start the lanes of what is ours."""
        ours = {tp for tp in partitions if tp.topic in self.taken_up}
        await self.resume_at(ours)
        for tp in ours:
            self.hosted.assign(self.sources.streams[tp.topic], tp.partition, self.consumer.epoch_of(tp))
        self._has_been_assigned = True

    async def revoked(self, partitions: set[TP]) -> None:
        """End the lanes of what must go."""
        await self.hosted.revoke({(tp.topic, tp.partition) for tp in partitions}, STOP_S)

    def _watch(self, hosted: FedLane) -> None:
        self.measures.watch(hosted)
        tp = TP(hosted.lane.stream.name, hosted.lane.partition)
        hosted.highwater = lambda: self.consumer.highwater(tp) or 0
        hosted.rewind = lambda offset: self.consumer.seek(tp, offset)

    async def finish_lanes(self) -> None:
        """End all lanes."""
        await self.hosted.close()
