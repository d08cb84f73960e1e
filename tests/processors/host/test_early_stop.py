"""A host that is told to end while it starts, as a roll-out does that is taken back, ends."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from aurastream.streams import Server
from tests.commands import Home
from tests.faults.proxy import PASS, Interceptor
from tests.servers import until

pytestmark = [pytest.mark.process, pytest.mark.any_server]


@pytest.mark.parametrize("command", [0, 3, 6])
def test_sigterm_while_the_server_is_reached_ends_the_host(
    server: Server, home: Home, url: str, command: int
) -> None:
    """Heard by who waits for the server, and forgotten when that answered: the host went on for ever, and a
    second SIGTERM was needed.
    """
    counted: list[bytes] = []
    pid: list[int] = []
    known = threading.Event()

    def decide(words: list[bytes]) -> str:
        counted.append(words[0])
        if len(counted) == command + 1:
            known.wait(30)
            os.kill(pid[0], signal.SIGTERM)
        return PASS

    between = Interceptor(url, decide)
    try:
        host = home.start("run", "--web-port", "off", env={"AURASTREAM_REDIS_URL": between.url})
        pid.append(host.pid)
        known.set()
        until(host._has_ended, f"the host to end, told at its {command + 1}th command: {counted}")
        assert host.wait() in (0, -signal.SIGTERM), host.err
    finally:
        between.close()
