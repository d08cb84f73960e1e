"""
Build the host's Faust app: a topic per stream, an agent per projection and stream, lanes behind them, pages
beside them.

    make_app(options) -> App        `aurastream run` starts it; aurastream.processors.host.default holds the
        default one for `faust -A`

Streams are looked for at the start and every LOOK_EVERY_S, so one created later is taken up; so are the
generations of the views, so that a swap is followed and what was kept long enough is retired. The embedded
server is acquired when the app starts, never on import.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import ExitStack
from typing import Any

import faust
import msgspec
from faust.types import TP

from aurastream.processors import Installed, NotConfigured, connected, find_plugins, library_logs
from aurastream.processors.effects import ASKS_MAX, OPERATIONS, LaneOptions, Processor, processors_of
from aurastream.processors.host.effects import HostedEffectLanes
from aurastream.processors.host.lanes import HostedLane, HostedLanes
from aurastream.processors.host.measures import Measures
from aurastream.processors.host.pages import serve_pages
from aurastream.processors.transport import batch_topic, batches
from aurastream.projections import Projection, ProjectionError, View
from aurastream.projections.engine import Record, field_of, now_ms, read_records, retire_due
from aurastream.streams import (
    HERE,
    AsyncWires,
    Cursor,
    EmbeddedServer,
    Logger,
    Settings,
    Stream,
    UnknownOutcome,
    as_pair,
    checked_name,
    home_directory,
    host_name,
    is_passing,
    list_streams,
    open_stream,
)

GROUP = "aurastream"  # the consumer group and the lease group of the hosts
LOOK_EVERY_S = 1.0
STOP_S = 1.0  # how long a lane may finish its batch when it must go

log = Logger("aurastream.host")


class Options(msgspec.Struct, frozen=True):
    """What a host runs. projections: names; empty is all, and all processors. streams: names; empty is all.

    apps: modules beside the installed plugins.
    web_port: of /health, /ready and /metrics on loopback; 0 is any free port; None is no pages.
    """

    projections: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()
    web_port: int | None = 6066


class App(faust.App):
    """The host's app. lanes and measures exist from its start on."""

    options: Options
    installed: Installed
    chosen: list[Projection[Any]]
    lanes: HostedLanes
    measures: Measures

    def prepare(self, options: Options, settings: Settings) -> None:
        """What a constructor would do, had Faust's room for it."""
        self.options, self.settings = options, settings
        self.installed = find_plugins(options.apps)
        self.chosen = self.installed.chosen(options.projections)
        # Processors read the log themselves, so they need it here.
        self.processors = (
            [] if options.projections or settings.broker else list(processors_of(self.installed).values())
        )
        self.streams: dict[str, Stream] = {}
        self.taken_up: set[str] = set()
        self.kafka_topics = kafka_topics_of(settings, options)
        self.is_ready = self.is_prepared = False
        self.web_port = self.conf.web_port if options.web_port is not None else None
        self._held = ExitStack()
        self._one_thread = threading.Lock()  # streams are not for several

    async def on_first_start(self) -> None:
        """Reach the server, and make the agents of all streams there are."""
        found = await asyncio.to_thread(lambda: self._held.enter_context(connected()))
        await super().on_first_start()
        self.server = found.server
        wires = AsyncWires(found.server, ASKS_MAX, found.recover)
        self.lanes = HostedLanes(wires, self.chosen, GROUP, self.settings.batch_max)
        self.measures = Measures(found.server)
        self.lanes.on_lane = self._watch
        options = LaneOptions(host=host_name(), lease=GROUP)
        self.effects = HostedEffectLanes(wires, self.processors, self._opened, options)
        self.is_prepared = True
        await self.look()

    def _create_directories(self) -> None:
        """Faust's, for tables on disk: we have none."""

    async def look(self) -> None:
        """Take up streams and generations that are new; of Kafka, the topics of the settings."""
        await self._look_at_generations()
        if self.kafka_topics:
            for name in self.kafka_topics:
                if name not in self.taken_up:
                    await self._take_up_topic(name)
            return
        wanted = self.options.streams
        for name in await asyncio.to_thread(list_streams, self.server):
            if name not in self.taken_up and (not wanted or name in wanted):
                await self._take_up(name)

    async def _look_at_generations(self) -> None:
        """Keep up what the records say, and retire what was kept long enough."""
        records, at_ms = await asyncio.to_thread(lambda: (read_records(self.server), now_ms(self.server)))
        await self.lanes.follow(records, STOP_S)
        await asyncio.to_thread(self._retire, records, at_ms)

    def _retire(self, records: dict[str, Record], at_ms: int) -> None:
        for stream in list(self.streams.values()):
            for projection in self.chosen:
                record = records.get(field_of(stream.name, projection.name))
                if record is None or not (record.due(at_ms) or record.outbox or record.building):
                    continue
                try:
                    numbers = retire_due(stream, projection.name, GROUP)
                except ProjectionError as error:  # somebody made it live again meanwhile
                    log.warning(
                        "retirement_refused",
                        projection=projection.name,
                        stream=stream.name,
                        reason=str(error),
                    )
                else:
                    if numbers:
                        log.info(
                            "generations_retired",
                            projection=projection.name,
                            stream=stream.name,
                            generations=numbers,
                        )

    async def _take_up_topic(self, name: str) -> None:
        """Of Kafka: how many partitions it has is known once it is assigned."""
        topic = batch_topic(self, name)
        agents = [
            self._folding(projection, name, topic) for projection in self.chosen if projection.folds(name)
        ]
        self.taken_up.add(name)
        log.info("topic_taken_up", topic=name, agents=[agent.name for agent in agents])

    async def resume_at(self, partitions: set[TP]) -> dict[TP, Cursor]:
        """Of each partition the cursor of the view that is furthest behind: what follows it must be handed
        over.
        """
        try:
            return await asyncio.to_thread(self._furthest_behind, partitions)
        except Exception as error:
            if not is_passing(error):
                raise
            return {}  # the group's cursor serves as well: a lane reads for itself what it was not handed

    def _furthest_behind(self, partitions: set[TP]) -> dict[TP, Cursor]:
        found = {}
        for tp in partitions:
            stream = self._opened(
                tp.topic, self.consumer.topic_partitions(tp.topic) if self.kafka_topics else None
            )
            with self._one_thread:
                views = [View(stream, projection) for projection in self.chosen if projection.folds(tp.topic)]
                cursors = [view.cursor(tp.partition) for view in views]
            if cursors:
                found[tp] = min(cursors, key=lambda cursor: as_pair(cursor.position))
        return found

    async def _take_up(self, name: str) -> None:
        stream = await asyncio.to_thread(self._opened, name)
        topic = batch_topic(self, name, partitions=stream.partitions)
        agents = [
            self._folding(projection, name, topic) for projection in self.chosen if projection.folds(name)
        ]
        agents += [
            self._effecting(processor, name, topic)
            for processor in self.processors
            if processor.handles(stream)
        ]
        self.taken_up.add(name)
        if self.started:
            for agent in agents:
                await agent.start()
        log.info(
            "stream_taken_up",
            stream=name,
            partitions=stream.partitions,
            agents=[agent.name for agent in agents],
        )

    def _opened(self, name: str, partitions: int | None = None) -> Stream:
        """A stream, created where it is new. partitions: of a Kafka topic."""
        with self._one_thread:
            if name not in self.streams:
                self.streams[name] = open_stream(
                    self.server,
                    name,
                    codec=self.installed.codec(),
                    settings=self.settings,
                    create=True,
                    partitions=partitions,
                    log=HERE if partitions is None else "kafka",
                )
            return self.streams[name]

    def _effecting(self, processor: Processor, name: str, topic: Any) -> Any:
        async def effect(stream: Any) -> None:
            async for batch in batches(stream):
                self.effects.poke(processor.name, (batch.stream, batch.partition))

        effect.__doc__ = f"Runs {processor.name} on the events of {name}."
        return self.agent(topic, name=f"{processor.name}.{name}")(effect)

    def _folding(self, projection: Projection[Any], name: str, topic: Any) -> Any:
        async def fold(stream: Any) -> None:
            async for batch in batches(stream):
                await self.lanes.feed(projection.name, (batch.stream, batch.partition), batch.entries)

        fold.__doc__ = f"Folds {name} into the view {projection.name}."
        return self.agent(topic, name=f"{projection.name}.{name}")(fold)

    async def assigned(self, partitions: set[TP]) -> None:
        """Start the lanes of what is ours, under the epochs of its leases."""
        epoch_of = getattr(self.consumer, "epoch_of", lambda tp: None)
        if self.kafka_topics:
            await self.resume_at({tp for tp in partitions if tp.topic in self.taken_up})
        for tp in partitions:
            if tp.topic in self.taken_up:
                stream, epoch = self.streams[tp.topic], epoch_of(tp)
                self.lanes.assign(stream, tp.partition, epoch)
        await self._assign_effects()
        self.is_ready = True

    async def _assign_effects(self) -> None:
        """Start the processors' part of what is ours; what a server that is away holds up is tried again at
        the next look.
        """
        try:
            for name in {
                name for processor in self.processors for name in (OPERATIONS, processor.into or OPERATIONS)
            }:
                await asyncio.to_thread(self._opened, name)
        except Exception as error:
            if not is_passing(error) and not isinstance(error, UnknownOutcome):
                raise
            log.warning("effects_wait", reason=f"{type(error).__name__}: {error}"[:300])
            return
        for (name, partition), epoch in self.lanes.owned.items():
            self.effects.assign(self.streams[name], partition, epoch)

    async def revoked(self, partitions: set[TP]) -> None:
        """End the lanes of what must go."""
        places = {(tp.topic, tp.partition) for tp in partitions}
        await asyncio.gather(self.lanes.revoke(places, STOP_S), self.effects.revoke(places, STOP_S))

    def _watch(self, lane: HostedLane) -> None:
        self.measures.watch(lane)
        tp = TP(lane.applier.stream.name, lane.applier.partition)
        lane.highwater = lambda: self.consumer.highwater(tp) or 0
        lane.rewind = lambda offset: self.consumer.seek(tp, offset)

    def read_counts(self) -> dict[str, int]:
        """Entries read by projection since the start."""
        return dict(sorted(self.measures.read.items())) if self.is_prepared else {}

    async def finish(self) -> None:
        """End everything; the embedded server is let go."""
        if self.is_prepared:
            await self.effects.revoke({place for _, place in self.effects.lanes}, STOP_S)
            await self.lanes.close()
        for stream in self.streams.values():
            stream.close()
        await asyncio.to_thread(self._held.close)


def make_app(options: Options | None = None) -> App:
    """The app, not started. Raises the typed errors of settings and plugins."""
    settings, options = Settings(), options or Options()
    address = (
        str(settings.redis_url.get_secret_value())
        if settings.redis_url
        else EmbeddedServer(home_directory()).url
    )
    if settings.broker is not None:
        address = settings.broker.get_secret_value().replace("kafka://", "kafka+batch://", 1)
    app = App(
        GROUP,
        broker=address,
        autodiscover=False,
        web_enabled=options.web_port is not None,
        web_host="127.0.0.1",
        web_bind="127.0.0.1",
        web_port=free_port(options.web_port),
        topic_disable_leader=True,
        topic_partitions=settings.partitions,
        topic_allow_declare=settings.broker is None,  # a Kafka topic is its owner's to make
        stream_wait_empty=False,  # the cursor is the truth: a batch handed to a lane needs no ack to be safe
        broker_commit_interval=0.5,
        cython_optimizations=True,
        logging_config=library_logs(),
        worker_redirect_stdouts=False,
        Worker="aurastream.processors.host.process:HostProcess",
    )
    app.prepare(options, settings)
    app.transport.resume_at = app.resume_at  # type: ignore[attr-defined]
    hooks: list[tuple[Any, Any]] = [
        (app.on_partitions_assigned, _assigned),
        (app.on_partitions_revoked, _revoked),
        (app.on_before_shutdown, _finish),
    ]
    for signal, hook in hooks:
        signal.connect(hook)
    app.timer(LOOK_EVERY_S)(_looking(app))
    serve_pages(app)
    return app


async def _assigned(app: Any, *arguments: Any, **_: Any) -> None:
    await app.assigned(arguments[0])


async def _revoked(app: Any, *arguments: Any, **_: Any) -> None:
    await app.revoked(arguments[0])


async def _finish(app: Any, *arguments: Any, **_: Any) -> None:
    await app.finish()


def _looking(app: App) -> Any:
    async def look_for_streams() -> None:
        try:
            await app.look()
            await app._assign_effects()
        except Exception as error:  # a timer that raises stops the host
            if not is_passing(error):
                log.error("streams_unknown", reason=f"{type(error).__name__}: {error}"[:300])

    return look_for_streams


def kafka_topics_of(settings: Settings, options: Options) -> tuple[str, ...]:
    """The Kafka topics to consume; none without a broker. Raises NotConfigured when there is a broker and no topic."""
    if settings.broker is None:
        return ()
    named = options.streams or tuple(name.strip() for name in settings.topics.split(",") if name.strip())
    if not named:
        raise NotConfigured(
            "AURASTREAM_BROKER is set and no topic: name them in AURASTREAM_TOPICS, separated by commas."
        )
    return tuple(checked_name("stream", name) for name in named)


def free_port(wanted: int | None) -> int:
    """The port, or for 0 one that is free now."""
    if wanted:
        return wanted
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
