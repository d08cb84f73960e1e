"""Which server a process uses: AURASTREAM_REDIS_URL, or the embedded one, started on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from aurastream.streams import EmbeddedServer, Pause, Server, Settings, asleep, reach


class Connection(msgspec.Struct, frozen=True):
    """A server and how to bring it back. recover: None for a server that is not ours. home: of the embedded
    one.
    """

    server: Server
    settings: Settings
    recover: Callable[[], None] | None
    home: Path | None


@contextmanager
def connected(
    home: Path | None = None, patience_s: float | None = -1, pause: Pause = asleep
) -> Iterator[Connection]:
    """The server for the length of a with block, once it answers.

    patience_s: how long it is waited for; None: until ``pause`` says to stop; default: as the settings say.
    Raises ServerUnfit, ServerUnreachable, ServerAway or EmbeddedServerError, saying what to do.
    """
    settings = Settings()
    wait_s = settings.server_wait_s if patience_s == -1 else patience_s
    if settings.redis_url is not None:
        url = settings.redis_url.get_secret_value()
        server = reach([url], wait_s, settings.answer_timeout_s, pause)
        try:
            yield Connection(server, settings, None, None)
        finally:
            server.close()
        return
    with EmbeddedServer.acquire(home) as embedded:
        server = reach([embedded.url], wait_s, settings.answer_timeout_s, pause)
        try:
            yield Connection(server, settings, embedded.ensure, embedded.home)
        finally:
            server.close()
