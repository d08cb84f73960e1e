"""A cluster in the place of one server: the same log, the same views, nothing to configure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from aurastream.projections import View
from aurastream.streams import Outcome, Server, open_stream
from tests.cluster import Cluster
from tests.facts import consume, findings, observation
from tests.projections.counting import Counting
from tests.servers import EVERY_SERVER, binaries

pytestmark = pytest.mark.cluster

EVENTS = [
    observation(views=n % 7, minute=n, clip=f"clip-{n % 40}", category=f"c{n % 3}") for n in range(3_000)
]


@pytest.fixture(scope="module", params=EVERY_SERVER)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    cluster = Cluster(binaries()[request.param])
    yield cluster
    cluster.stop()


def test_log_and_views_hold_on_a_cluster(cluster: Cluster) -> None:
    """Partitions lie on several nodes there, and nothing of ours may care."""
    server = Server(cluster.url)
    stream = open_stream(server, "clips", create=True, partitions=8)
    assert len({server.node_of(keys.log) for keys in stream.keys}) > 1, "partitions lie on several nodes"

    stream.append(EVENTS)
    again = stream.append(EVENTS)
    consume(server, stream, Counting())

    assert {item.outcome for item in again} == {Outcome.DUPLICATE}
    assert sum(state.applied for state in View(stream, Counting()).states().rows.values()) == len(EVENTS)
    assert findings(stream, Counting()) == []


def test_the_command_line_works_on_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    """Who outgrows one server changes an address and nothing else."""
    environ = {**os.environ, "AURASTREAM_REDIS_URL": cluster.url, "AURASTREAM_PARTITIONS": "6"}
    program = Path(sys.executable).with_name("aurastream")
    line = '{"type":"clip.views_observed","event_id":"e1","subject":"clip-1",'
    line += '"occurred_at":"2026-04-15T12:00:00Z","views":7}\n'

    def aurastream(*words: str, stdin: str = "") -> str:
        done = subprocess.run(
            [program, *words],
            env=environ,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    aurastream("append", "--stream", "typed", stdin=line)
    aurastream("run", "--until-idle", "--projection", "clips", "--stream", "typed")
    state = json.loads(aurastream("view", "clips", "clip-1", "--stream", "typed", "--json"))
    told = json.loads(aurastream("status", "--json"))

    assert state["state"]["views"] == 7
    assert told["server"]["cluster"] is True
    assert aurastream("check", "--projection", "clips", "--stream", "typed", "--json")


def test_a_commit_in_a_slot_that_is_moving_is_whole(cluster: Cluster) -> None:
    """A cluster refuses to make a key in a slot that is leaving: a ranking emptied and filled again by one
    commit left half of it.
    """
    server = Server(cluster.url)
    stream = open_stream(server, "moving", create=True, partitions=1)
    stream.append(
        [
            observation(minute=1, clip="clip-1", category="chess"),
            observation(minute=1, clip="clip-2", category="music"),
        ]
    )
    consume(server, stream, Counting())
    # Every key that the script names must be there, or the cluster puts the whole script off until the slot
    # has moved.
    server.client.hset(stream.keys[0].lease("counting"), "epoch", 0)
    source = cluster.owner_of(stream.keys[0].log)
    target = next(node for node in cluster.nodes if node is not source)
    slot = key_slot(stream.keys[0].log.encode())
    stream.append(
        [
            observation(minute=2, clip="clip-1", category="music"),
            observation(minute=2, clip="clip-2", category="chess"),
        ]
    )

    source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
    consume(server, stream, Counting())
    source.client.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")

    assert {key: state.applied for key, state in View(stream, Counting()).states().rows.items()} == {
        "clip-1": 2,
        "clip-2": 2,
    }
    assert findings(stream, Counting()) == []
