"""The transport of redis://, rediss:// and unix:// brokers: the entry point of the group faust.transports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, ClassVar

from faust.transport import base
from faust.types import AppT
from yarl import URL

from aurastream.processors.host import ResumeAt
from aurastream.processors.transport.catalog import Catalog
from aurastream.processors.transport.conductor import Conductor
from aurastream.processors.transport.consumer import RedisConsumer
from aurastream.processors.transport.producer import Producer
from aurastream.processors.transport.refusals import refuse_transactions, take_places
from aurastream.streams import AsyncWires, Server, Settings, aside, reach


class RedisTransport(base.Transport):
    """Faust over Redis Streams. The consumer and the producer share one server."""

    Conductor: ClassVar[Any] = Conductor
    Consumer: ClassVar[Any] = RedisConsumer
    Producer: ClassVar[Any] = Producer

    default_port = 6379
    driver_version = f"redis-py={version('redis')}"

    def __init__(self, url: list[URL], app: AppT, loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(url, app, loop)
        refuse_transactions(app)
        take_places(app)
        self.batch_topics: set[str] = set()
        self.resume_at: ResumeAt | None = None  # set by an app with cursors of its own
        self.catalog: Catalog
        self._server: Server | None = None
        self._users = 0
        self._opening = asyncio.Lock()

    async def open(self, is_over: Callable[[], bool] = lambda: False) -> AsyncWires:
        """Connections of the caller's own, once a broker of the list answers; waits for one until is_over.

        Raises ServerUnfit where one will never do, ServerAway where it was over.
        """
        urls, answer_timeout_s = [address(url) for url in self.url], Settings().answer_timeout_s

        def pause(seconds: float) -> bool:
            time.sleep(seconds)
            return is_over()

        async with self._opening:
            if self._server is None:
                self._server = await aside(lambda: reach(urls, None, answer_timeout_s, pause))
                conf = self.app.conf
                self.catalog = Catalog(self._server, conf.topic_partitions, conf.topic_allow_declare)
            self._users += 1
            return AsyncWires(self._server)

    async def close(self, wires: AsyncWires) -> None:
        """Give them back; the last one closes the server's client."""
        await wires.close()
        self._users -= 1
        if self._users == 0 and self._server is not None:
            self._server.close()
            self._server = None


Transport = RedisTransport  # as the entry points of faust.transports name it


def address(url: URL) -> str:
    """The URL as redis-py wants it: yarl writes unix:/path."""
    text = str(url)
    return (
        text.replace("unix:/", "unix:///", 1)
        if text.startswith("unix:/") and not text.startswith("unix://")
        else text
    )
