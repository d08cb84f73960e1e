"""A server that is away, loading, silent or refuses: a host outlives it, says so, and goes on by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aurastream.projections import View
from aurastream.projections.built_in.trail import Trail
from aurastream.streams import Server, Settings, Stream, open_stream
from tests.commands import Home
from tests.facts import findings, observation
from tests.faults.proxy import MUTE, PASS, Interceptor
from tests.processors.host.test_host import Host
from tests.refusing import REFUSALS, refusing
from tests.servers import ServerProcess, until

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture
def own(valkey: str) -> Iterator[ServerProcess]:
    """A server of the test's own, which it may freeze, kill and start again."""
    process = ServerProcess(valkey, "--appendonly", "yes")
    yield process
    process.process.send_signal(signal.SIGCONT)
    process.stop()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Any]:
    """Start hosts that end with the test."""
    started: list[Host] = []

    def begin(url: str, *words: str, **options: Any) -> Host:
        started.append(Host(url, tmp_path, *words, **options))
        return started[-1]

    yield begin
    for host in started:
        print(host.log())  # shown where the test fails
        host.kill()


def made(url: str) -> Stream:
    stream = open_stream(Server(url), "clips-live", create=True, settings=Settings(partitions=4))
    stream.append([observation(views=n, minute=n, clip=f"clip-{n}") for n in range(100)])
    return stream


def applied(stream: Stream) -> int:
    return sum(cursor.applied for cursor in View(stream, Trail()).cursors().values())


def _says(host: Host, word: str) -> bool:
    """Whether /ready names the refusal, and /metrics counts its seconds."""
    status, body = host.page("/ready")
    refused_s = float(
        host.page("/metrics")[1].partition("\naurastream_server_refuses_seconds ")[2].split()[0]
    )
    return status == 503 and word in body and refused_s > 0


@pytest.mark.parametrize("word", REFUSALS)
def test_a_run_until_idle_gives_up_in_one_sentence_and_goes_on_when_it_is_begun_again(
    server: Server, home: Home, word: str
) -> None:
    """A cron job has an end: it waits as long as the settings say."""
    stream = made(server.url)
    env = {"AURASTREAM_REDIS_URL": server.url, "AURASTREAM_SERVER_WAIT_S": "1"}
    words = ("run", "--until-idle", "--projection", "trail", "--stream", "clips-live")

    with refusing(server.url, word):
        refused = home.run(*words, env=env)
    done = home.run(*words, env=env)

    assert refused.code == 3, refused
    assert word in refused.err.splitlines()[-1]
    assert "Traceback" not in refused.err
    assert done.code == 0, done
    assert applied(stream) == 100


@pytest.mark.parametrize("word", REFUSALS)
def test_two_hosts_outlive_a_server_that_refuses(server: Server, hosts: Any, word: str) -> None:
    """Both ended with exit code 3 when a disk was full for 8 s, and nothing was folded after it healed."""
    stream = made(server.url)
    two = [hosts(server.url) for _ in range(2)]
    until(lambda: all(host.partitions() > 0 for host in two), "both to have some of the lanes")
    until(lambda: applied(stream) == 100, "the first events")
    for host in two:
        host.process.send_signal(signal.SIGSTOP)
    stream.append([observation(minute=n, clip=f"clip-{n}") for n in range(400, 500)])

    with refusing(server.url, word):
        for host in two:
            host.process.send_signal(signal.SIGCONT)
        until(lambda: any(word in host.log() for host in two), "a host to say what the server says")
        until(lambda: any(_says(host, word) for host in two), "the pages to say it")
        assert all(host.page("/health")[0] == 200 for host in two), "a restart would mend nothing"
        assert applied(stream) == 100

    until(lambda: applied(stream) == 200, "what waited")
    until(lambda: not any(_says(host, word) for host in two), "the pages to be well again")
    assert [host.stop() for host in two] == [0, 0]
    assert findings(stream, Trail()) == []


def test_a_host_that_is_started_before_its_server_begins_when_that_is_there(
    own: ServerProcess, hosts: Any
) -> None:
    """It ended with exit code 3, and an AttributeError behind it."""
    stream = made(own.url)
    own.kill()
    host = hosts(own.url)
    until(lambda: "server_away" in host.log(), "the host to say that it waits")

    own.start()

    until(lambda: applied(stream) == 100, "the events")
    assert host.stop() == 0
    assert "Traceback" not in host.log()
    assert host.log().count("server_away") == 1


SLOW = """
import asyncio
from pathlib import Path
from aurastream.processors.effects import Processor
from aurastream.streams import ClipViewsObserved

class Slow(Processor):
    name = "slow"
    events = (ClipViewsObserved,)
    streams = ("clips-live",)
    start = "beginning"

    async def handle(self, event, attempt):
        with Path("slow.txt").open("a") as file:
            file.write(event.event_id + "\\n")
        while not Path("gate").exists():
            await asyncio.sleep(0.01)
"""


def test_a_server_that_is_away_for_long_has_no_handler_called_again(
    own: ServerProcess, hosts: Any, tmp_path: Path
) -> None:
    """What a handler did is recorded once the server is back, however long that takes: a host that gave up
    asking began anew at the cursor, and called it again.
    """
    made(own.url)
    Server(own.url).client.config_set("appendfsync", "always")
    (tmp_path / "slow_app.py").write_text(SLOW)
    words = ("aurastream", "--app", "slow_app", "run", "--web-port", "off")
    host = hosts(own.url, *words, lease_ms=60_000)
    calls = tmp_path / "slow.txt"
    until(lambda: calls.exists() and len(calls.read_text().split()) >= 16, "handlers under way")

    own.kill()
    (tmp_path / "gate").touch()
    until(lambda: "server_away" in host.log() or "server_refuses" in host.log(), "the host to notice")
    away_until = time.monotonic() + 7.0  # longer than a question was put at most
    until(lambda: time.monotonic() > away_until, "the outage to be long", 10)
    own.start()

    until(lambda: len(set(calls.read_text().split())) == 100, "all to be handled")
    assert len(calls.read_text().split()) == 100
    assert host.stop() == 0


def test_a_host_that_is_started_while_its_server_loads_begins_when_that_has_loaded(
    valkey: str, hosts: Any
) -> None:
    """LOADING answers some commands and refuses others: it is said, and waited for."""
    process = ServerProcess(
        valkey, "--key-load-delay", "100", "--loading-process-events-interval-bytes", "1024"
    )
    try:
        stream = made(process.url)
        client = stream.server.client
        client.mset({f"filler:{number}": number for number in range(20_000)})
        client.save()
        process.kill()
        process.process = subprocess.Popen(process._command, stdout=subprocess.DEVNULL)
        host = hosts(process.url)

        until(lambda: "LOADING" in host.log(), "the host to say what the server says")
        until(lambda: applied(stream) == 100, "the events")
        assert host.stop() == 0
        assert "Traceback" not in host.log()
    finally:
        process.stop()


def test_a_host_outlives_connections_that_are_accepted_and_never_answered(
    own: ServerProcess, hosts: Any
) -> None:
    """The handshake had no bound: a host folded nothing until somebody restarted it. At its start, and
    later.
    """
    stream, fate = made(own.url), [MUTE]
    proxy = Interceptor(own.url, lambda command: fate[0])
    try:
        host = hosts(proxy.url)
        until(lambda: "server_away" in host.log(), "the host to say that it waits")
        fate[0] = PASS
        until(lambda: applied(stream) == 100 and host.partitions() > 0, "the first events")

        fate[0] = MUTE
        stream.append([observation(minute=n, clip=f"clip-{n}") for n in range(200, 300)])
        until(lambda: "no answer" in host.log(), "the host to say that there is no answer")
        fate[0] = PASS
        began = time.monotonic()
        until(lambda: applied(stream) == 200, "the next")
        assert time.monotonic() - began < 6, "one try of a new connection, and a pause"
        assert host.stop() == 0
    finally:
        proxy.close()


def test_a_host_ends_in_time_while_its_server_is_frozen(own: ServerProcess, hosts: Any) -> None:
    """It was alive 280 s after SIGTERM."""
    stream = made(own.url)
    host = hosts(own.url)
    until(lambda: applied(stream) == 100 and host.partitions() > 0, "the events")
    os.kill(own.process.pid, signal.SIGSTOP)
    host.process.send_signal(signal.SIGTERM)
    began = time.monotonic()

    host.process.wait(60)

    assert time.monotonic() - began < 15


def test_a_host_that_waits_for_its_server_ends_at_once_when_it_is_bidden(hosts: Any, tmp_path: Path) -> None:
    """Whoever deploys must be able to take it back. Meanwhile its pages say that it lives and takes no
    lanes.
    """
    host = hosts(f"unix://{tmp_path}/none.sock")
    until(lambda: "server_away" in host.log(), "the host to wait")
    until(lambda: host.page("/health")[0] == 200, "its pages")
    assert host.page("/ready")[0] == host.page("/fleet")[0] == 503
    began = time.monotonic()
    host.process.send_signal(signal.SIGTERM)

    assert host.process.wait(20) == 0
    assert time.monotonic() - began < 5
    assert "Traceback" not in host.log()


def test_a_real_refusal_is_one_sentence_and_no_traceback(own: ServerProcess, hosts: Any) -> None:
    """A server that evicts keys, and one that wants a password, are a person's to mend; at once."""
    made(own.url).server.client.config_set("maxmemory-policy", "allkeys-lru")
    evicting = hosts(own.url, "aurastream", "run", "--stream", "clips-live", "--web-port", "off")
    assert evicting.process.wait(30) == 3
    client = Server(own.url).client
    client.config_set("maxmemory-policy", "noeviction", "requirepass", "right")
    locked = hosts(own.url)
    assert locked.process.wait(30) == 3
    client.config_set("requirepass", "")

    for host, words in ((evicting, "maxmemory-policy is allkeys-lru"), (locked, "does not let us in")):
        assert words in host.log()
        assert "Traceback" not in host.log()
        assert "AttributeError" not in host.log()


def test_a_verb_waits_for_a_server_that_comes_back_and_gives_up_in_a_sentence(
    own: ServerProcess, home: Home
) -> None:
    """A restart of a few seconds is no reason for a failed cron job; one that lasts is, in one line."""
    made(own.url)
    own.kill()
    env = {"AURASTREAM_REDIS_URL": own.url, "AURASTREAM_SERVER_WAIT_S": "60"}
    waiting = home.start("status", "--json", env=env)
    until(lambda: "server_away" in waiting.err, "it to say that it waits")
    own.start()

    assert waiting.wait() == 0
    own.kill()
    done = home.run("status", "--json", env={**env, "AURASTREAM_SERVER_WAIT_S": "0.3"})
    assert done.code == 3
    assert "cannot reach" in json.loads(done.err.splitlines()[-1])["error"]["message"]
