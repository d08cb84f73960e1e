"""The archive of a cluster's stream: slots on several nodes, one archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aurastream.streams import OPERATIONS, Server, Settings, open_stream
from aurastream.streams.archive import history_of, open_archive
from aurastream.streams.archive.archiver import Archiver
from aurastream.streams.archive.verify import audited_by, verify_partition
from aurastream.streams.retention.trimmer import Goal, Trimmer
from tests.cluster import Cluster
from tests.facts import observation
from tests.servers import EVERY_SERVER, binaries
from tests.streams.archive.kept import plain

pytestmark = pytest.mark.cluster

EVENTS = [observation(views=n % 7, minute=n, clip=f"clip-{n % 40}") for n in range(2_000)]


@pytest.fixture(scope="module", params=EVERY_SERVER)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    cluster = Cluster(binaries()[request.param])
    yield cluster
    cluster.stop()


def test_a_clusters_stream_is_archived_trimmed_read_and_verified(cluster: Cluster, tmp_path: Path) -> None:
    """A partition may be on any node, and its slot with it."""
    server = Server(cluster.url)
    settings = Settings(partitions=6, archive=str(tmp_path / "archive"), segment_events=200)
    stream = open_stream(server, "clips", create=True, settings=settings)
    operations = open_stream(server, OPERATIONS, create=True, settings=settings)
    archive = open_archive(settings, stream)
    assert archive is not None
    stream.append(EVENTS)
    before = [plain(stream.read_raw(keys.partition, count=10_000)) for keys in stream.keys]

    archiver = Archiver(archive, operations)
    made = [manifest for keys in stream.keys for manifest in archiver.run(keys.partition)]
    list(Trimmer(stream, operations, Goal(keep_events=20)).run())

    assert len({server.node_of(keys.log) for keys in stream.keys}) > 1
    assert sum(manifest.entries for manifest in made) == len(EVENTS)
    assert sum(len(stream.read_raw(keys.partition, count=10_000)) for keys in stream.keys) <= 20 * 6
    history = history_of(stream)
    assert [
        plain(entry for span in history.spans(keys.partition) for entry in span.raw) for keys in stream.keys
    ] == before
    audited = audited_by(history_of(operations))
    assert [verify_partition(stream, keys.partition, archive, audited).findings for keys in stream.keys] == [
        []
    ] * 6
