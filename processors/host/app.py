"""
The host's Faust app: what a host on Redis and one on Kafka have in common, and the first of them.

    RedisApp   lanes read the log for themselves (lane_host.py); Faust gives them supervision, timers, pages,
               sensors, leader and command line, and no topic, agent or consumer of its own
    KafkaApp   a topic per stream, an agent per projection, batches handed on (kafka_app.py)

The server is reached when the app starts, never on import.

Decision (2026-11): on Redis there is no consumer of Faust's in a host. Refused: agents fed by the transport,
which costs a queue, a second cursor and the wait for the slowest lane of a partition (0.82 of a bare loop
where reading for itself is 0.94), and one assignment for lanes that are shared one by one.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from typing import Any

import faust
from faust.app.base import BootStrategy
from mode import Service

from aurastream.processors import Connection, Installed, connected, find_plugins
from aurastream.processors.effects import Processor, processors_of
from aurastream.processors.host.health import AllLanes
from aurastream.processors.host.lane_host import HostOptions, LaneHost
from aurastream.processors.host.measures import Measures
from aurastream.processors.host.options import Options
from aurastream.processors.host.roster import HostWork, Roster
from aurastream.processors.host.sight import Sight
from aurastream.processors.host.sources import Sources
from aurastream.projections import Projection
from aurastream.projections.engine import now_ms
from aurastream.streams import AsyncWires, Server, Settings, StreamUnknown, aside, list_streams

WATCH_WAIT_S = 5.0  # for a look at the fleet
GROUP = "aurastream"  # Faust's name for the app


class App(faust.App):
    """The app of a host. server, sources, measures and sight are there once it is_prepared."""

    options: Options
    settings: Settings
    installed: Installed
    chosen: list[Projection[Any]]
    server: Server
    sources: Sources
    measures: Measures
    sight: Sight

    def prepare(self, options: Options, settings: Settings) -> None:
        """What a constructor would do, had Faust's room for it."""
        self.options, self.settings = options, settings
        self.installed = find_plugins(options.apps)
        self.chosen = self.installed.chosen(options.projections)
        self.is_prepared = False
        self.web_port = self.conf.web_port if options.web_port is not None else None
        self._held = ExitStack()

    @property
    def is_ready(self) -> bool:
        """Whether it takes lanes."""
        raise NotImplementedError

    @property
    def lanes(self) -> AllLanes:
        """What it runs."""
        raise NotImplementedError

    async def reach(self) -> None:
        """Reach the server, however long it is away, and be ready for lanes."""
        reached = connected(patience_s=None, pause=self._paused)
        connection = await aside(lambda: self._held.enter_context(reached))
        self.server = connection.server
        self.sources = Sources(self.server, self.installed.codec(), self.settings, self.chosen)
        self.measures, self.sight = Measures(), Sight(self.server)
        await self.prepare_lanes(connection)
        self.is_prepared = True

    def _paused(self, seconds: float) -> bool:
        """Between two looks for the server; whether to give up."""
        time.sleep(seconds)
        return bool(self.should_stop)

    async def prepare_lanes(self, connection: Connection) -> None:
        """Make what is needed for lanes, on a server that was reached."""
        raise NotImplementedError

    def _create_directories(self) -> None:
        """Faust's, for tables on disk: we have none."""

    async def look(self) -> None:
        """Every second: what came or went."""
        raise NotImplementedError

    async def watch(self) -> None:
        """Every WATCH_EVERY_S: what became of the fleet's lanes."""

    async def finish_lanes(self) -> None:
        """End everything that was begun."""
        raise NotImplementedError

    def read_counts(self) -> dict[str, int]:
        """Entries read by projection since the start."""
        return dict(sorted(self.measures.read.items())) if self.is_prepared else {}

    async def finish(self) -> None:
        """End everything; the embedded server is let go."""
        if self.is_prepared:
            await self.finish_lanes()
            await self.sight.close()
            self.sources.close()
        await aside(self._held.close)


class WithoutTopics(BootStrategy):
    """Sensors, pages and timers; no producer, consumer, conductor or tables."""

    enable_kafka = False


class LaneService(Service):
    """The lanes as a service of Faust's: begun with the app, ended before it; its crash is the app's.

    The server is reached in here, while the pages are served already: a host that waits for its server is
    alive, and says so to whoever probes it.
    """

    host_app: RedisApp

    @Service.task
    async def _mind(self) -> None:
        app = self.host_app
        await app.reach()
        app.host.start()
        await app.host.failed()

    async def on_stop(self) -> None:
        """End all lanes within their patience."""
        if self.host_app.is_prepared:
            await self.host_app.host.stop()


class RedisApp(App):
    """A host whose lanes read for themselves."""

    BootStrategy = WithoutTopics
    host: LaneHost

    @property
    def is_ready(self) -> bool:
        """Whether it is a member, and so gets its share of the lanes."""
        return self.is_prepared and self.host.is_member

    @property
    def lanes(self) -> AllLanes:
        """What it runs."""
        return self.host

    def is_leader(self) -> bool:
        """Whether timers of the leader run here: by a lease like any other."""
        return self.is_prepared and self.host.is_leader

    async def prepare_lanes(self, connection: Connection) -> None:
        """The roster of what this host can run, and its lanes. Raises StreamUnknown, ServerUnfit."""
        known = list(await aside(lambda: list_streams(self.server))) if self.options.streams else []
        for name in self.options.streams:
            if name not in known:
                raise StreamUnknown(name, known)
            await aside(partial(self.sources.opened, name))
        processors: list[Processor] = []
        if not self.options.projections:  # who names projections wants those alone
            processors = list(processors_of(self.installed).values())
        work = HostWork(self.chosen, processors, self.options.streams)
        settings, roster = self.settings, Roster(self.server, self.sources, work)
        # Without end: a handler's outcome that is not recorded would be a handler called again.
        wires = AsyncWires(self.server, None, connection.recover)
        options = HostOptions("run", settings.lease_ms or 0, settings.patience_s, settings.batch_max)
        self.host = LaneHost(wires, roster, options)
        self.host.on_lane = self.measures.watch

    async def on_started_init_extra_services(self) -> None:
        """The lanes, before the services of others."""
        service: Any = LaneService
        lanes: LaneService = self._prepare_subservice(service)  # type: ignore[assignment]
        lanes.host_app = self
        await self.add_runtime_dependency(lanes)
        await super().on_started_init_extra_services()

    async def watch(self) -> None:
        """As the leader: what became of lanes, for the log."""
        if self.is_prepared and self.is_leader():
            await self.sight.watch(WATCH_WAIT_S)

    async def look(self) -> None:
        """Retire generations that were kept long enough."""
        if not self.is_prepared:
            return
        at_ms = await aside(lambda: now_ms(self.server))
        await aside(lambda: self.sources.retire(self.host.roster.records, at_ms, GROUP))

    async def finish_lanes(self) -> None:
        """They have ended with their service, where that was begun."""
        await self.host.stop()
