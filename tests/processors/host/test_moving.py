"""Hosts and processors on a cluster whose slots move one by one, and whose nodes fall silent."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aurastream.projections.built_in.trail import Trail
from aurastream.streams import Server, Settings, Stream, open_stream
from tests.cluster import Cluster
from tests.facts import findings
from tests.processors.host.test_host import Host, append, applied
from tests.servers import EVERY_SERVER, binaries, until
from tests.streams.test_drive import move

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.slow]

ANSWER_TIMEOUT_S = 4.0  # the default


@pytest.fixture(params=EVERY_SERVER)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three primaries with a replica each."""
    cluster = Cluster(binaries()[request.param], replicas=True)
    yield cluster
    for node in cluster.nodes:
        node.process.send_signal(signal.SIGCONT)
    cluster.stop()


def made(cluster: Cluster) -> Stream:
    settings = Settings(partitions=6, server_wait_s=60)
    stream = open_stream(Server(cluster.url), "clips-live", create=True, settings=settings)
    append(stream, 0, 600)
    return stream


def test_lanes_of_views_and_processors_go_on_while_slots_move_one_by_one(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands were grouped by node once: a moved key was asked at its old node for ever, its lease lapsed,
    and a dead owner's partitions stood for good.
    """
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    stream = made(cluster)
    words = ("aurastream", "--app", "tests.processors.gossip", "run", "--web-port", "PORT")
    hosts = [Host(cluster.url, tmp_path, *words, lease_ms=3_000) for _ in range(2)]
    try:
        until(lambda: applied(stream) == 600, "the first events")
        until(lambda: all(host.partitions() > 0 for host in hosts), "both to have some of the lanes")
        for number, keys in enumerate(stream.keys, start=1):
            move(cluster, keys.log)
            append(stream, number * 1_000, 120)
            until(lambda wanted=600 + number * 120: applied(stream) == wanted, f"all after move {number}", 20)
        hosts[0].kill()
        append(stream, 10_000, 120)
        until(lambda: applied(stream) == 600 + 7 * 120, "the other to take the moved lanes over", 30)
        assert findings(stream, Trail()) == []
    finally:
        for host in hosts:
            print(host.log())
            host.kill()


def test_a_primary_that_falls_silent_costs_one_time_out(cluster: Cluster, tmp_path: Path) -> None:
    """No reset, no end of the connection: 21 to 41 s until all partitions folded again, as one connection
    after another, and the question for the new primary, met a time-out of 20 s each.
    """
    stream = made(cluster)
    hosts = [Host(cluster.url, tmp_path, lease_ms=3_000) for _ in range(2)]
    try:
        until(lambda: applied(stream) == 600, "the first events")
        until(lambda: [host.partitions() for host in hosts] == [3, 3], "equal shares")
        replicas_have_it = ("WAIT", 1, 5_000)
        for keys in stream.keys:
            stream.wire(keys.partition).ask(("HSET", keys.meta, "seen", 1), replicas_have_it)
        silent = cluster.owner_of(stream.keys[0].log)
        os.kill(silent.process.pid, signal.SIGSTOP)
        began = time.monotonic()

        append(stream, 1_000, 600)
        appended_s = time.monotonic() - began
        until(lambda: applied(stream) == 1_200, "all partitions to fold", 40)
        folded_s = time.monotonic() - began
        print(f"appended after {appended_s:.1f} s, folded after {folded_s:.1f} s")
        assert folded_s < 2 * ANSWER_TIMEOUT_S
    finally:
        for host in hosts:
            print(host.log())
            host.kill()
