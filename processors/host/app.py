"""
The host's Faust app: a topic per stream, an agent per projection or processor and stream, lanes behind them,
pages beside them.

Streams are looked for at the start and every LOOK_EVERY_S, so one created later is taken up; so are the
generations of the views, so that a swap is followed and what was kept long enough is retired. The embedded
server is acquired when the app starts, never on import.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

import faust
from faust.types import TP, AgentT, StreamT, TopicT

from aurastream.processors import Installed, connected, find_plugins
from aurastream.processors.effects import ASKS_MAX, OPERATIONS, LaneOptions, Processor, processors_of
from aurastream.processors.host.batching import RawBatch, batch_topic, batches
from aurastream.processors.host.effects import HostedEffectLanes
from aurastream.processors.host.fed import FedLane
from aurastream.processors.host.lanes import HostedLanes
from aurastream.processors.host.measures import Measures
from aurastream.processors.host.options import Options, kafka_topics_of
from aurastream.processors.host.sources import Sources
from aurastream.projections import Projection
from aurastream.projections.engine import now_ms, read_records
from aurastream.streams import (
    AsyncWires,
    Cursor,
    Logger,
    Settings,
    UnknownOutcome,
    host_name,
    is_passing,
    list_streams,
)

GROUP = "aurastream"  # the consumer group and the lease group of the hosts
STOP_S = 1.0  # how long a lane may finish its batch when it must go

Agent = AgentT[Any]  # of RawBatch
log = Logger("aurastream.host")


class App(faust.App):
    """The app of a host. server, sources, lanes, effects and measures are there from its start on."""

    options: Options
    installed: Installed
    consumer: Any  # a BatchConsumer besides what Faust asks of one
    chosen: list[Projection[Any]]
    lanes: HostedLanes
    effects: HostedEffectLanes
    measures: Measures
    sources: Sources

    def prepare(self, options: Options, settings: Settings) -> None:
        """What a constructor would do, had Faust's room for it."""
        self.options, self.settings = options, settings
        self.installed = find_plugins(options.apps)
        self.chosen = self.installed.chosen(options.projections)
        # Processors read the log themselves, so they need it here.
        self.processors = (
            [] if options.projections or settings.broker else list(processors_of(self.installed).values())
        )
        self.taken_up: set[str] = set()
        self.kafka_topics = kafka_topics_of(settings, options)
        self.is_ready = self.is_prepared = False
        self.web_port = self.conf.web_port if options.web_port is not None else None
        self._held = ExitStack()

    async def on_first_start(self) -> None:
        """Reach the server, and make the agents of all streams there are."""
        connection = await asyncio.to_thread(lambda: self._held.enter_context(connected()))
        await super().on_first_start()
        self.server = connection.server
        self.sources = Sources(self.server, self.installed, self.settings, self.chosen)
        wires = AsyncWires(self.server, ASKS_MAX, connection.recover)
        self.lanes = HostedLanes(wires, self.chosen, GROUP, self.settings.batch_max)
        self.measures = Measures(self.server)
        self.lanes.on_lane = self._watch
        options = LaneOptions(host=host_name(), lease=GROUP)
        self.effects = HostedEffectLanes(wires, self.processors, self.sources.opened, options)
        self.is_prepared = True
        await self.look()

    def _create_directories(self) -> None:
        """Faust's, for tables on disk: we have none."""

    async def look(self) -> None:
        """Take up streams and generations that are new; of Kafka, the topics of the settings."""
        records, at_ms = await asyncio.to_thread(lambda: (read_records(self.server), now_ms(self.server)))
        await self.lanes.follow(records, STOP_S)
        await asyncio.to_thread(self.sources.retire, records, at_ms, GROUP)
        wanted = self.kafka_topics or self.options.streams
        names = list(self.kafka_topics) or await asyncio.to_thread(self._streams_meant)
        for name in names:
            if name not in self.taken_up and (not wanted or name in wanted):
                await self._take_up(name)

    def _streams_meant(self) -> list[str]:
        """All streams of events, and the topics of Faust apps that are named."""
        named = {*self.options.streams}
        for streams in [each.streams for each in self.chosen] + [each.streams for each in self.processors]:
            named.update(streams or ())
        return [
            name for name, facts in list_streams(self.server).items() if name in named or not facts.is_topic
        ]

    async def _take_up(self, name: str) -> None:
        agents = self._topic_agents(name) if self.kafka_topics else await self._stream_agents(name)
        self.taken_up.add(name)
        if self.started:
            for agent in agents:
                await agent.start()
        log.info("stream_taken_up", stream=name, agents=[agent.name for agent in agents])

    def _topic_agents(self, name: str) -> list[Agent]:
        """Of Kafka: how many partitions it has is known once it is assigned."""
        topic = batch_topic(self, name)
        return [self._fold(projection, name, topic) for projection in self.chosen if projection.folds(name)]

    async def _stream_agents(self, name: str) -> list[Agent]:
        stream = await asyncio.to_thread(self.sources.opened, name)
        if name in self.options.streams:
            stream.as_events()
        topic = batch_topic(self, name, partitions=stream.partitions)
        handling = [processor for processor in self.processors if processor.handles(stream)]
        folding = [
            self._fold(projection, name, topic) for projection in self.chosen if projection.takes(stream)
        ]
        return folding + [self._effect(processor, name, topic) for processor in handling]

    def _fold(self, projection: Projection[Any], name: str, topic: TopicT) -> Agent:
        async def fold(stream: StreamT[RawBatch]) -> None:
            async for batch in batches(stream):
                await self.lanes.feed(projection.name, (batch.stream, batch.partition), batch.entries)

        fold.__doc__ = f"Folds {name} into the view {projection.name}."
        return self.agent(topic, name=f"{projection.name}.{name}")(fold)

    def _effect(self, processor: Processor, name: str, topic: TopicT) -> Agent:
        async def effect(stream: StreamT[RawBatch]) -> None:
            async for batch in batches(stream):
                self.effects.poke(processor.name, (batch.stream, batch.partition))

        effect.__doc__ = f"Runs {processor.name} on the events of {name}."
        return self.agent(topic, name=f"{processor.name}.{name}")(effect)

    async def resume_at(self, partitions: set[TP]) -> dict[TP, Cursor]:
        """Of each partition the cursor of the view that is furthest behind; what follows is needed."""
        try:
            return await asyncio.to_thread(self._furthest_behind, partitions)
        except Exception as error:
            if not is_passing(error):
                raise
            return {}  # the group's cursor serves as well: a lane reads for itself what it was not handed

    def _furthest_behind(self, partitions: set[TP]) -> dict[TP, Cursor]:
        cursors = {}
        for tp in partitions:
            count = self.consumer.topic_partitions(tp.topic) if self.kafka_topics else None
            cursor = self.sources.furthest_behind(self.sources.opened(tp.topic, count), tp.partition)
            if cursor is not None:
                cursors[tp] = cursor
        return cursors

    async def assigned(self, partitions: set[TP]) -> None:
        """Start the lanes of what is ours, under the epochs of its leases."""
        ours = {tp for tp in partitions if tp.topic in self.taken_up}
        if self.kafka_topics:
            await self.resume_at(ours)
        for tp in ours:
            self.lanes.assign(self.sources.streams[tp.topic], tp.partition, self.consumer.epoch_of(tp))
        await self.assign_effects()
        self.is_ready = True

    async def assign_effects(self) -> None:
        """Start the processors' part of what is ours; at the next look, when the server is away."""
        try:
            for name in {name for each in self.processors for name in (OPERATIONS, each.into or OPERATIONS)}:
                await asyncio.to_thread(self.sources.opened, name)
        except Exception as error:
            if not is_passing(error) and not isinstance(error, UnknownOutcome):
                raise
            log.warning("effects_wait", reason=f"{type(error).__name__}: {error}"[:300])
            return
        for (name, partition), epoch in self.lanes.owned.items():
            self.effects.assign(self.sources.streams[name], partition, epoch)

    async def revoked(self, partitions: set[TP]) -> None:
        """End the lanes of what must go."""
        places = {(tp.topic, tp.partition) for tp in partitions}
        await asyncio.gather(self.lanes.revoke(places, STOP_S), self.effects.revoke(places, STOP_S))

    def _watch(self, hosted: FedLane) -> None:
        self.measures.watch(hosted)
        tp = TP(hosted.lane.stream.name, hosted.lane.partition)
        hosted.highwater = lambda: self.consumer.highwater(tp) or 0
        hosted.rewind = lambda offset: self.consumer.seek(tp, offset)

    def read_counts(self) -> dict[str, int]:
        """Entries read by projection since the start."""
        return dict(sorted(self.measures.read.items())) if self.is_prepared else {}

    async def finish(self) -> None:
        """End everything; the embedded server is let go."""
        if self.is_prepared:
            await self.effects.revoke({place for _, place in self.effects.lanes}, STOP_S)
            await self.lanes.close()
            self.sources.close()
        await asyncio.to_thread(self._held.close)
