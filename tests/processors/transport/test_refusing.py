"""Strangers' Faust apps on a server that is away, refuses or moves its slots: nothing ends or is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aurastream.processors.transport import consumer, rebalance
from aurastream.streams import aside
from tests.cluster import Cluster
from tests.processors.transport.members import Broker, Member, eventually, group_on
from tests.processors.transport.workers import SCRIPTS
from tests.refusing import REFUSALS, refusing
from tests.servers import ServerProcess, until
from tests.streams.test_drive import move

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.mark.parametrize("word", REFUSALS)
def test_an_app_outlives_a_server_that_refuses(
    valkey_url: str, tmp_path: Path, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It died of the first tick of its leases, or of a send: a full disk ended every worker at once."""

    async def scenario() -> None:
        async with group_on(Broker("redis", valkey_url), tmp_path) as group:
            members = [await group.join() for _ in range(2)]
            await members[0].send(*range(100))
            await eventually(lambda: len(group.values()) >= 100, "the first events")
            with refusing(valkey_url, word) as mend:
                sending = asyncio.create_task(members[0].send(*range(100, 200)))
                said = ""
                while word not in said:
                    await asyncio.sleep(0.01)
                    said += "".join(capsys.readouterr())
                assert not sending.done()
                await aside(mend)
            await asyncio.wait_for(sending, 20)
            await eventually(lambda: set(group.values()) == set(range(200)), "all events")

            assert not any(member.app.crashed for member in members)
            client = members[0].app.consumer.wires.server.client
            assert (
                sum(client.xlen(lane.keys.log) for one in members for lane in one.app.consumer.lanes.values())
                == 200
            )

    asyncio.run(scenario())


def _environ(broker: str, directory: Path) -> dict[str, str]:
    report = directory / "report"
    report.touch()
    return {**os.environ, "BROKER": broker, "DATADIR": str(directory), "REPORT": str(report)}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Any]:
    """Start a stranger's app that ends with the test; the process and its log."""
    started: list[subprocess.Popen[bytes]] = []

    def start(broker: str) -> tuple[subprocess.Popen[bytes], Path]:
        log = tmp_path / "log"
        with log.open("wb") as file:
            command = [sys.executable, str(SCRIPTS / "stranger.py"), "worker", "-l", "info", "--without-web"]
            started.append(
                subprocess.Popen(command, env=_environ(broker, tmp_path), stdout=file, stderr=file)
            )
        return started[-1], log

    yield start
    for process in started:
        process.kill()
        process.wait()
    print((tmp_path / "log").read_text())


def test_an_app_that_is_started_before_its_server_begins_when_that_is_there(valkey: str, app: Any) -> None:
    """It crashed with ServerUnfit, and with an AttributeError of its consumer behind that."""
    server = ServerProcess(valkey)
    try:
        server.kill()
        process, log = app(server.url)
        until(lambda: "server_away" in log.read_text(), "the app to say that it waits")
        server.start()

        until(lambda: "Worker ready" in log.read_text(), "the app to be ready")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert "Traceback" not in log.read_text()
    finally:
        server.stop()


def test_an_app_that_waits_for_its_server_ends_when_it_is_bidden(tmp_path: Path, app: Any) -> None:
    """Whoever deploys must be able to take it back."""
    process, log = app(f"unix://{tmp_path}/none.sock")
    until(lambda: "server_away" in log.read_text(), "the app to wait")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(30)

    assert time.monotonic() - began < 10
    assert "AttributeError" not in log.read_text()


def test_an_app_whose_start_is_refused_says_why_and_no_more(valkey: str, app: Any) -> None:
    """Behind every refused start stood that a consumer has no attribute '_coordinator'."""
    server = ServerProcess(valkey, "--maxmemory-policy", "allkeys-lru")
    try:
        process, log = app(server.url)
        assert process.wait(30) != 0
        assert "maxmemory-policy is allkeys-lru" in log.read_text()
        assert "AttributeError" not in log.read_text()
    finally:
        server.stop()


def test_an_app_ends_in_time_while_its_server_is_frozen(valkey: str, app: Any) -> None:
    """Every wait for the server is bounded once it stops, in threads as well."""
    server = ServerProcess(valkey)
    try:
        process, log = app(server.url)
        until(lambda: "Worker ready" in log.read_text(), "the app to be ready")
        server.process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        process.wait(60)

        assert time.monotonic() - began < 20
    finally:
        server.process.send_signal(signal.SIGCONT)
        server.stop()


def test_an_agent_that_takes_events_together_is_drained_once(
    valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust asks twice whether all is done, and what ``take`` holds back never is: 62 s instead of 30."""
    for module in (consumer, rebalance):
        monkeypatch.setattr(module, "DRAIN_MAX_S", 1.5)

    async def handle(self: Member, stream: Any) -> None:
        async for events in stream.take(100, within=60):
            self.done.extend(events)

    monkeypatch.setattr(Member, "handle", handle)

    async def scenario() -> float:
        async with group_on(Broker("redis", valkey_url), tmp_path) as group:
            member = await group.join()
            await member.send(*range(10))
            await eventually(lambda: len(member.app.consumer.unacked) == 10, "the events to be handed out")
            began = time.monotonic()
            await group.leave(member)
            return time.monotonic() - began

    assert 1.0 < asyncio.run(scenario()) < 2.7


def test_an_app_goes_on_while_slots_move_one_by_one(valkey: str, tmp_path: Path) -> None:
    """A lane whose slot had moved was asked at its old node for ever, and stood for good."""
    cluster = Cluster(valkey)

    async def scenario() -> None:
        async with group_on(Broker("redis", cluster.url), tmp_path) as group:
            member = await group.join()
            await member.send(*range(40))
            await eventually(lambda: len(member.done) >= 40, "the first events")
            lanes = list(member.app.consumer.lanes.values())
            for number, lane in enumerate(lanes, start=1):
                await aside(lambda key=lane.keys.log: move(cluster, key))
                values = set(range(number * 100, number * 100 + 40))
                await asyncio.wait_for(member.send(*values), 20)
                await eventually(
                    lambda wanted=values: set(member.done) >= wanted, f"all after move {number}", 20
                )
            assert not member.app.crashed
            assert set(member.app.consumer.lanes.values()) == set(lanes), "no lease was lost meanwhile"

    try:
        asyncio.run(scenario())
    finally:
        cluster.stop()
