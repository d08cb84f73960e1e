"""On a cluster, source, derived events and audit trail lie on different nodes; back-pressure counts per
partition as on one server.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aurastream.processors.effects import LetterPlace, list_letters, retry
from aurastream.streams import BacklogFull, Pressure, Server, Settings, open_stream
from aurastream.streams.pressure import backlogs
from tests.cluster import Cluster
from tests.facts import observation
from tests.processors.effects.outside import CODEC, Noting, assert_balanced, failing, work
from tests.servers import binaries

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(binaries()["valkey"])
    yield cluster
    cluster.stop()


def test_effects_and_pressure_hold_on_a_cluster(cluster: Cluster) -> None:
    """All keys of a step lie in one slot, and producers wait for processors there too."""
    server = Server(cluster.url)
    spread = Settings(partitions=6, lease_ms=200)
    stream = open_stream(server, "clips", codec=CODEC, settings=spread, create=True)
    assert len({server.node_of(keys.log) for keys in stream.keys}) > 1, "partitions lie on several nodes"
    stream.append([observation(event_id=f"e{n}", clip=f"clip-{n % 20}", minute=n) for n in range(200)])

    work(server, Noting(failing("e3")), streams=lambda: [stream], partitions=6)
    parked = [letter for letter in list_letters(stream, "noting") if letter.state == "parked"]
    assert [letter.event_id for letter in parked] == ["e3"]
    trail = open_stream(server, "operations", codec=CODEC)
    retry(stream, trail, LetterPlace("noting", parked[0].partition, parked[0].position))
    work(server, Noting(), streams=lambda: [stream], partitions=6)

    notes = open_stream(server, "notes", codec=CODEC)
    derived = [
        entry.event.causation_id for partition in range(notes.partitions) for entry in notes.read(partition)
    ]
    assert sorted(derived) == sorted(f"e{n}" for n in range(200))
    assert_balanced(server, stream)
    assert all(backlogs(server, keys)[0].events == 0 for keys in stream.keys)
    ahead = open_stream(
        server, "clips", settings=spread.model_copy(update={"budget_events": 1, "pressure": Pressure.REFUSE})
    )
    ahead.append([observation(event_id="first", clip="clip-1")])
    with pytest.raises(BacklogFull, match="'noting'"):
        ahead.append([observation(event_id="second", clip="clip-1")])
