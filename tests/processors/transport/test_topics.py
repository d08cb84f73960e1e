"""A stranger's Faust app and a host on one server: messages are no events, unless somebody asks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aurastream.streams import Keys, Server, Settings, open_stream
from aurastream.streams.keys import STREAMS
from tests.facts import observation
from tests.processors.transport.workers import LEASE_MS, Workers, workers
from tests.servers import until

pytestmark = [pytest.mark.process, pytest.mark.slow]

MESSAGES, EVENTS = 1_000, 300
PLUGIN = """
from pathlib import Path
from aurastream.processors.effects import Processor
from aurastream.streams import ClipViewsObserved

class Outside(Processor):
    name = "outside"
    start = "beginning"
    events = (ClipViewsObserved,)

    def handle(self, event, attempt):
        with Path("calls").open("a") as file:
            file.write(f"{attempt.stream} {event.event_id}\\n")
"""


class Verbs:
    """`aurastream` in a folder of its own, on one server."""

    def __init__(self, url: str, directory: Path) -> None:
        self._directory = directory
        (directory / "beside_app.py").write_text(PLUGIN)
        self._environ = {
            **os.environ,
            "AURASTREAM_REDIS_URL": url,
            "AURASTREAM_LEASE_MS": str(LEASE_MS),
            "AURASTREAM_HOME": str(directory / "home"),
            "AURASTREAM_ARCHIVE": str(directory / "archive"),
        }
        self._program = [str(Path(sys.executable).with_name("aurastream")), "--app", "beside_app"]

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self._directory / "host.log").open("ab") as log:
            return subprocess.Popen(
                [*self._program, *words], env=self._environ, cwd=self._directory, stdout=log, stderr=log
            )

    def run(self, *words: str) -> tuple[int, str]:
        done = subprocess.run(
            [*self._program, *words],
            env=self._environ,
            cwd=self._directory,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def calls(self) -> list[str]:
        file = self._directory / "calls"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def server(valkey_url: str) -> Iterator[Server]:
    server = Server(valkey_url)
    yield server
    server.close()


@pytest.fixture
def verbs(valkey_url: str, tmp_path: Path) -> Verbs:
    (tmp_path / "verbs").mkdir()
    return Verbs(valkey_url, tmp_path / "verbs")


@pytest.fixture
def stranger(server: Server, tmp_path: Path) -> Iterator[Workers]:
    with workers(server.url, tmp_path) as made:
        yield made


def of_topics(server: Server, pattern: str) -> list[bytes]:
    """Keys of the app's topics."""
    client: Any = server.client
    return [
        key
        for topic in ("quoted._4frders", "totals")
        for partition in range(4)
        for key in client.keys(Keys(topic, partition).log.removesuffix("log").replace("{", "[{]") + pattern)
    ]


@pytest.mark.parametrize("are_old", [False, True], ids=["marked", "made by an older build"])
def test_messages_of_a_stranger_are_no_events(
    server: Server, stranger: Workers, verbs: Verbs, are_old: bool
) -> None:
    """Every message was a dead letter of every view and processor; memory grew, and trim refused."""
    stranger.start("a")
    if are_old:
        stranger.command("order", "100")
        until(lambda: len(stranger.reports("total")) == 100, "the first totals")
        rows: Any = server.client.hgetall(STREAMS)
        for name, row in rows.items():
            facts = msgspec.json.decode(row)
            for name_of_today in ("is_topic", "created_ms"):
                facts.pop(name_of_today, None)
            server.client.hset(STREAMS, name, msgspec.json.encode(facts))
    clips = open_stream(server, "clips", create=True, settings=Settings(partitions=4))
    clips.append([observation(n, clip=f"c{n % 9}", event_id=f"e{n}") for n in range(EVENTS)])
    host = verbs.start("run", "--web-port", "off")
    try:
        stranger.command("order", str(MESSAGES), "100")
        until(lambda: len(stranger.reports("total")) >= MESSAGES, "the totals", 60)
        until(lambda: len(verbs.calls()) >= EVENTS, "the events' effects")
        clips.append([observation(n, clip=f"c{n % 9}", event_id=f"e{n}") for n in range(EVENTS, EVENTS + 9)])
        until(lambda: len(verbs.calls()) >= EVENTS + 9, "the last events' effects")
    finally:
        host.send_signal(signal.SIGTERM)
        assert host.wait(30) == 0
        clips.close()

    assert sorted(verbs.calls()) == sorted(f"clips e{n}" for n in range(EVENTS + 9))
    assert of_topics(server, "dead:*") == of_topics(server, "cursor:*") == of_topics(server, "view:*") == []
    code, text = verbs.run("status", "--json")
    streams = json.loads(text)["streams"]
    assert code == 0
    assert {name: item["is_topic"] for name, item in streams.items() if name != "operations"} == {
        "clips": False,
        "quoted._4frders": True,
        "totals": True,
    }
    assert set(streams["totals"]["groups"]) <= {"stranger"}, "of ours none"
    assert verbs.run("check")[0] == 0
    _trim(verbs)


def _trim(verbs: Verbs) -> None:
    """The app's own acknowledgements and the archive are all that trimming waits for."""
    code, text = verbs.run("archive", "--stream", "totals")
    assert code == 0, text
    code, text = verbs.run("trim", "--stream", "totals", "--keep-events", "0")
    assert code == 0, text
    assert "group" not in text, text


def test_a_topic_that_is_named_is_folded(server: Server, stranger: Workers, verbs: Verbs) -> None:
    """A person who names it has decided: what is there is read as events."""
    stranger.start("a")
    stranger.command("order", "20")
    until(lambda: len(stranger.reports("total")) == 20, "20 totals")

    code, text = verbs.run("run", "--until-idle", "--stream", "totals")

    assert code == 0, text
    assert len(of_topics(server, "dead:trail")) > 0
