"""The host: `aurastream run` and `faust worker` are one thing, share partitions, survive kills, and
say how they are.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aurastream.projections import View
from aurastream.projections.built_in.trail import Trail
from aurastream.streams import Server, Settings, Stream, open_stream
from tests.cluster import free_ports
from tests.facts import findings, observation
from tests.servers import ServerProcess, until

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.any_server]

LEASE_MS = 600
PROGRAMS = Path(sys.executable).parent


def page(port: int, path: str) -> tuple[int, str]:
    """Status and body; 0 while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


class Host:
    """One host process, with its pages."""

    def __init__(self, url: str, directory: Path, *words: str, lease_ms: int = LEASE_MS) -> None:
        (self.port,) = free_ports(1)
        self._log = directory / f"host-{self.port}.log"
        environ = {
            **os.environ,
            "AURASTREAM_REDIS_URL": url,
            "AURASTREAM_LEASE_MS": str(lease_ms),
            "AURASTREAM_HOME": str(directory),
        }
        command = words or ("aurastream", "run", "--projection", "trail", "--web-port", "PORT")
        command = tuple(word.replace("PORT", str(self.port)) for word in command)
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [PROGRAMS / command[0], *command[1:]], env=environ, stdout=log, stderr=log, cwd=directory
            )

    def page(self, path: str) -> tuple[int, str]:
        """Status and body; 0 while nobody answers."""
        return page(self.port, path)

    def partitions(self) -> int:
        status, body = self.page("/ready")
        return json.loads(body)["partitions"] if status == 200 else -1

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


Start = Callable[..., Host]


@pytest.fixture
def start(url: str, server: Server, tmp_path: Path) -> Iterator[Start]:
    """Start hosts that end with the test."""
    hosts: list[Host] = []

    def begin(*words: str, **options: Any) -> Host:
        hosts.append(Host(url, tmp_path, *words, **options))
        return hosts[-1]

    yield begin
    for host in hosts:
        print(host.log())  # shown where the test fails
        host.process.send_signal(signal.SIGCONT)
        host.kill()


@pytest.fixture
def live(server: Server) -> Iterator[Stream]:
    stream = open_stream(server, "clips-live", create=True, settings=Settings(partitions=4))
    yield stream
    stream.close()


def append(stream: Stream, start: int, count: int) -> None:
    stream.append(
        [observation(views=n, minute=n, clip=f"clip-{n % 40}") for n in range(start, start + count)]
    )


def applied(stream: Stream) -> int:
    return sum(cursor.applied for cursor in View(stream, Trail()).cursors().values())


@pytest.mark.parametrize(
    "words",
    [
        ("aurastream", "run", "--projection", "trail", "--web-port", "PORT"),
        ("faust", "-A", "aurastream.processors.host.default", "worker", "--web-port", "PORT", "-l", "warn"),
    ],
    ids=["aurastream run", "faust worker"],
)
def test_both_commands_start_the_same_host(start: Start, live: Stream, words: tuple[str, ...]) -> None:
    """Whoever knows Faust starts it Faust's way and gets the same guarantees."""
    append(live, 0, 1_000)
    host = start(*words)

    until(lambda: applied(live) == 1_000, "the first thousand")
    append(live, 1_000, 500)
    until(lambda: applied(live) == 1_500, "what came later")
    until(lambda: host.page("/ready")[0] == 200, "the pages")
    health = json.loads(host.page("/health")[1])

    assert health["healthy"], health
    assert {lane["partition"] for lane in health["lanes"]} == {0, 1, 2, 3}
    assert host.stop() == 0
    assert "Traceback" not in host.log()
    assert findings(live, Trail()) == []


def test_metrics_are_prometheus_text_and_agree_with_the_views(start: Start, live: Stream) -> None:
    """Alerts are built on these numbers, so they must be the views' own."""
    append(live, 0, 700)
    host = start()
    until(lambda: applied(live) == 700, "everything")
    until(lambda: host.page("/metrics")[0] == 200, "the metrics")

    lines = host.page("/metrics")[1]

    def total(name: str) -> float:
        return sum(
            float(value)
            for value in re.findall(rf"^aurastream_{name}(?:{{[^}}]*}})? (\S+)$", lines, re.MULTILINE)
        )

    assert (
        total("events_applied_total"),
        total("lag_events"),
        total("partitions_owned"),
        total("healthy"),
    ) == (700, 0, 4, 1)
    assert total("commit_milliseconds_count") == total("commits_total") >= 4
    for name in ("events_duplicate_total", "events_dead_total", "takeovers_total", "commits_refused_total"):
        assert re.search(rf"^aurastream_{name}", lines, re.MULTILINE), name


def test_a_view_that_cannot_advance_is_red_for_the_fleet_and_no_reason_to_restart_its_host(
    start: Start, server: Server, live: Stream
) -> None:
    """Silence would be taken for health, one bad view for an outage, and a restart for a remedy."""
    broken = View(live, Trail()).key(2, "subjects")
    server.client.set(broken, "mine")
    append(live, 0, 1_000)
    host = start()

    until(lambda: "is a string" in host.page("/fleet")[1], "the fleet to say so")
    assert host.page("/fleet")[0] == 503
    status, health = host.page("/health")
    assert (status, [lane["partition"] for lane in json.loads(health)["lanes"] if lane["trouble"]]) == (
        200,
        [2],
    )
    until(lambda: applied(live) >= 600, "the other partitions")
    server.client.delete(broken)
    until(lambda: applied(live) == 1_000, "the mended partition")
    until(lambda: host.page("/fleet")[0] == 200, "the fleet to be green")


def test_hosts_share_the_partitions_and_give_them_back(start: Start, live: Stream) -> None:
    """Scaling is starting another one, and stopping it again."""
    append(live, 0, 100)
    first = start()
    until(lambda: first.partitions() == 4, "the first to own everything")
    second = start()
    until(lambda: (first.partitions(), second.partitions()) == (2, 2), "equal shares")

    append(live, 100, 400)
    until(lambda: applied(live) == 500, "both to apply")
    assert first.stop() == 0
    until(lambda: second.partitions() == 4, "the second to own everything")
    append(live, 500, 100)
    until(lambda: applied(live) == 600, "the rest")

    assert "aurastream_takeovers_total 0.0" in second.page("/metrics")[1], (
        "what was given back was not taken over"
    )
    assert findings(live, Trail()) == []


def test_a_killed_hosts_partitions_are_applied_again_within_lease_and_a_second(
    start: Start, live: Stream
) -> None:
    """A crash costs a bounded delay, and that is what is promised."""
    append(live, 0, 100)
    dead, living = start(), start()
    until(lambda: (dead.partitions(), living.partitions()) == (2, 2), "equal shares")

    dead.process.kill()
    killed_at = time.monotonic()
    append(live, 100, 400)
    until(lambda: applied(live) == 500, "the living one to apply all")
    took_s = time.monotonic() - killed_at

    assert took_s < LEASE_MS / 1000 + 1, took_s
    assert findings(live, Trail()) == []


def test_a_stopped_host_that_wakes_is_refused(start: Start, live: Stream) -> None:
    """It believes that it still owns its partitions; only the epoch knows better."""
    append(live, 0, 100)
    stopped, living = start(), start()
    until(lambda: (stopped.partitions(), living.partitions()) == (2, 2), "equal shares")

    stopped.process.send_signal(signal.SIGSTOP)
    append(live, 100, 400)
    until(lambda: applied(live) == 500, "the living one to take over")
    stopped.process.send_signal(signal.SIGCONT)
    append(live, 500, 400)
    until(lambda: applied(live) == 900, "both to go on")
    until(lambda: (stopped.partitions(), living.partitions()) == (2, 2), "equal shares again")

    assert findings(live, Trail()) == []


def test_a_stream_created_later_is_taken_up(start: Start, server: Server) -> None:
    """Nobody restarts hosts because a producer began something new."""
    host = start()
    until(lambda: host.page("/ready")[0] == 200, "the host")

    stream = open_stream(server, "later", create=True, settings=Settings(partitions=2))
    append(stream, 0, 300)

    until(lambda: applied(stream) == 300, "the new stream")


def test_a_host_stops_within_two_seconds_with_a_full_pipeline(start: Start, live: Stream) -> None:
    """Deployments wait for it, and supervisors kill what does not stop."""
    append(live, 0, 30_000)
    host = start()
    until(lambda: applied(live) > 1_000, "the pipeline to be full")

    asked_at = time.monotonic()
    code = host.stop()
    took_s = time.monotonic() - asked_at

    assert (code, took_s < 2) == (0, True), took_s
    assert findings(live, Trail()) == []


def test_the_server_restarts_and_the_host_goes_on(valkey: str, tmp_path: Path) -> None:
    """A restart of the server must cost a pause and nothing else."""
    process = ServerProcess(valkey, "--appendonly", "yes", "--appendfsync", "always")
    host = Host(process.url, tmp_path)
    try:
        stream = open_stream(Server(process.url), "clips-live", create=True, settings=Settings(partitions=2))
        append(stream, 0, 500)
        until(lambda: applied(stream) == 500, "the first events")
        process.kill()
        process.start()
        append(stream, 500, 500)
        until(lambda: applied(stream) == 1_000, "the events after the restart")
        assert findings(stream, Trail()) == []
    finally:
        host.kill()
        process.stop()


def test_an_unreachable_server_and_a_taken_port_are_a_sentence(
    tmp_path: Path, url: str, server: Server
) -> None:
    """A trace tells an operator nothing about what to mend."""
    environ = {**os.environ, "AURASTREAM_REDIS_URL": "redis://127.0.0.1:1/0", "AURASTREAM_SERVER_WAIT_S": "0"}
    away = subprocess.run(
        [PROGRAMS / "aurastream", "run", "--until-idle"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (away.returncode, "cannot reach the Redis server" in away.stderr, "Traceback" in away.stderr) == (
        3,
        True,
        False,
    )

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [PROGRAMS / "aurastream", "run", "--web-port", str(taken.getsockname()[1])]
        told = subprocess.run(
            command, env={**environ, "AURASTREAM_REDIS_URL": url}, capture_output=True, text=True, check=False
        )
    assert (told.returncode, "is taken" in told.stderr, "Traceback" in told.stderr) == (2, True, False)
