"""The host on a cluster of three primaries with a replica each: a primary is killed under load, and nothing
is lost or doubled.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aurastream.streams import Server, Settings, open_stream
from tests.cluster import Cluster
from tests.facts import findings
from tests.processors.host.test_host import Host, Trail, append, applied
from tests.servers import EVERY_SERVER, binaries, until

pytestmark = [pytest.mark.cluster, pytest.mark.process, pytest.mark.slow]


@pytest.fixture(params=EVERY_SERVER)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    cluster = Cluster(binaries()[request.param], replicas=True)
    yield cluster
    cluster.stop()


@pytest.mark.slow
def test_two_hosts_go_on_when_a_primary_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    """A fail-over is an ordinary day: nothing is lost, nothing counted twice, nobody restarts anything."""
    stream = open_stream(
        Server(cluster.url), "clips-live", create=True, settings=Settings(partitions=6, attempts_max=40)
    )
    append(stream, 0, 2_000)
    hosts = [Host(cluster.url, tmp_path) for _ in range(2)]
    try:
        until(lambda: applied(stream) == 2_000, "the first events")
        until(lambda: [host.partitions() for host in hosts] == [3, 3], "equal shares")
        replicas_have_it = ("WAIT", 1, 5_000)
        for keys in (
            stream.keys
        ):  # what no replica has is lost with its primary, log and view together; here nothing is to be lost
            stream.wire(keys.partition).ask(("HSET", keys.meta, "seen", 1), replicas_have_it)

        cluster.owner_of(stream.keys[0].log).kill()
        append(stream, 2_000, 1_000)  # goes on as soon as the replica is promoted

        until(lambda: applied(stream) == 3_000, "the events after the fail-over", 60)
        assert findings(stream, Trail()) == []
    finally:
        for host in hosts:
            print(host.log())
            host.kill()
