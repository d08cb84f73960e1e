"""Which server a process uses: AURASTREAM_REDIS_URL, or the embedded one, started on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from aurastream.streams import EmbeddedServer, Server, Settings


class Connection(msgspec.Struct, frozen=True):
    """A server and how to bring it back. recover: None for a server that is not ours. home: of the embedded
    one.
    """

    server: Server
    settings: Settings
    recover: Callable[[], None] | None
    home: Path | None


@contextmanager
def connected(home: Path | None = None) -> Iterator[Connection]:
    """The server for the length of a with block. Raises ServerUnfit or EmbeddedServerError, saying what to
    do.
    """
    settings = Settings()
    if settings.redis_url is not None:
        server = Server(settings.redis_url.get_secret_value())
        try:
            yield Connection(server, settings, None, None)
        finally:
            server.close()
        return
    with EmbeddedServer.acquire(home) as embedded:
        server = Server(embedded.url)
        try:
            yield Connection(server, settings, embedded.ensure, embedded.home)
        finally:
            server.close()
