"""A rolling upgrade of real hosts: the old one says why it waits and serves what it can, the new one takes
over, nothing is lost.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from aurastream.streams import Codec, Server, Settings, Stream, open_stream
from tests.facts import NOON
from tests.faults import build_new, build_old
from tests.faults.upgrade import difference
from tests.invariants import every_partition
from tests.processors.host.test_host import Host, Start, start  # noqa: F401 - fixture
from tests.servers import until

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.any_server]

STREAM, PARTITIONS = "clips", 4

# A module of each build's, as a stranger's package would have it. Their observation has the tag of a built-in
# type, of which there may be one only, so it stays in its own module: a projection brings its types along.
APP = """
from tests.faults import {build}

class Counting({build}.Counting):
    streams = ("clips",)
"""


def write(stream: Stream, first: int, count: int, made: Any) -> None:
    numbers = range(first, first + count)
    stream.append(
        [
            made(event_id=f"e{n}", subject=f"clip-{n % 40}", occurred_at=NOON, views=n % 9, category="chess")
            for n in numbers
        ]
    )


def read(server: Server, group: str) -> int:
    return sum(
        int(server.client.hget(f"aura:{{{STREAM}.{n}}}:cursor:{group}", "read") or 0)
        for n in range(PARTITIONS)
    )


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_an_old_host_waits_with_a_reason_until_a_new_one_takes_over(
    start: Start,  # noqa: F811
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: signal.Signals,
) -> None:
    """Events of a newer build must wait for it, not be skipped by the old one."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    for build in ("build_old", "build_new"):
        (tmp_path / f"{build}_app.py").write_text(APP.format(build=build))
    settings = Settings(partitions=PARTITIONS)
    before = open_stream(server, STREAM, create=True, codec=Codec((build_old.Observed,)), settings=settings)
    after = open_stream(server, STREAM, codec=build_new.CODEC, settings=settings)
    write(before, 0, 400, build_old.Observed)
    command = ("aurastream", "--app", "APP", "run", "--projection", "counting", "--web-port", "PORT")
    old = start(*(word.replace("APP", "build_old_app") for word in command))
    until(lambda: read(server, "counting") == 400, "the old host to have read what it knows")

    write(after, 400, 3, build_new.made)
    until(lambda: old.page("/fleet")[0] == 503, "the fleet to say that it is stuck")
    assert any("Deploy the build that wrote it" in reason for reason in reasons(old))
    assert old.page("/health")[0] == 200, "a restart would not help"
    write(before, 403, 200, build_old.Observed)
    free = [
        n
        for n in range(PARTITIONS)
        if n not in {after.partition_of(f"clip-{n % 40}") for n in range(400, 403)}
    ]
    until(lambda: all(_is_read(server, n) for n in free), "the partitions that have nothing new to be served")

    new = start(*(word.replace("APP", "build_new_app") for word in command))
    until(lambda: new.partitions() > 0, "the new host to own partitions")
    old.process.send_signal(end)
    old.process.wait(20)
    write(after, 603, 100, build_new.made)
    write(before, 703, 100, build_old.Observed)
    until(lambda: read(server, "counting") == 803, "the new host to have read everything")

    for held in every_partition(server.client):
        if held.stream == STREAM:
            assert difference(held) == []
    assert new.page("/health")[0] == 200
    assert new.stop() == 0


def reasons(host: Host) -> list[str]:
    return [reason["text"] for reason in json.loads(host.page("/fleet")[1])["reasons"]]


def _is_read(server: Server, partition: int) -> bool:
    tag = f"aura:{{{STREAM}.{partition}}}"
    last = server.client.xrevrange(f"{tag}:log", count=1)
    return bool(last) and server.client.hget(f"{tag}:cursor:counting", "position") == last[0][0]
