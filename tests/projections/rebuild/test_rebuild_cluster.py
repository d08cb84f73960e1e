"""A swap on a cluster, whose slots no script can change together: all partitions or none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aurastream.projections import View
from aurastream.projections.engine.generations import change, read_record, swapped
from aurastream.projections.engine.retirement import retire_due
from aurastream.projections.rebuild import Decision, rollback
from aurastream.streams import Server, open_stream
from aurastream.streams.history import History
from tests.cluster import Cluster
from tests.facts import consume, findings
from tests.projections.counting import Counting
from tests.projections.engine.test_generations import states
from tests.projections.rebuild.test_rebuild import DAY_MS, Second, crowd, rebuild, rebuilt
from tests.projections.rebuild.test_rebuild_crash import Watcher
from tests.servers import until

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster(valkey: str) -> Iterator[Cluster]:
    cluster = Cluster(valkey)
    yield cluster
    cluster.stop()


def test_a_swap_on_a_cluster_is_seen_whole_and_rolled_back_whole(cluster: Cluster) -> None:
    """No script can change several slots at once: a reader between two would see a mixture."""
    server = Server(cluster.url)
    stream = open_stream(server, "clips", create=True, partitions=6)
    stream.append(crowd(900))
    consume(server, stream, Counting())
    totals = [View(stream, Counting()).totals("all").rows]
    with rebuild(stream, Second()) as work:
        work.begin()
        work.build()
        work.compare(accept=True)
        totals.append(View(stream, Second(), generation=2).totals("all").rows)
        watcher = Watcher(cluster.url, stream.name, lambda view: view.totals("all").rows, totals.__contains__)
        watcher.start()
        until(lambda: watcher.reads > 20, "a reader")
        work.swap(DAY_MS)
    for _ in range(4):
        rollback(History(stream), Second(), Decision("ada@host"), keep_ms=DAY_MS)
        seen = watcher.reads
        until(lambda seen=seen: watcher.reads > seen + 10, "reads between two swaps")
    watcher.ends.set()
    watcher.join()

    assert totals[0] != totals[1]
    assert watcher.wrong == []
    assert read_record(server, stream.name, "counting").live == 2
    change(server, stream.name, "counting", lambda record: swapped(swapped(record, 1, 1, DAY_MS), 2, 2, 1))
    assert retire_due(stream, "counting", "ada@host") == [1]
    assert states(read_record(server, stream.name, "counting")) == {2: "live"}
    assert findings(stream, Second()) == []


def test_a_rebuild_on_a_cluster_equals_the_live_view(cluster: Cluster) -> None:
    """Partitions are on several nodes, and the record of generations on yet another."""
    server = Server(cluster.url)
    stream = open_stream(server, "others", create=True, partitions=4)
    stream.append(crowd(400))
    consume(server, stream, Counting())

    assert [one.differing for one in rebuilt(stream, Counting())] == [0, 0, 0, 0]
    assert findings(stream, Counting()) == []
