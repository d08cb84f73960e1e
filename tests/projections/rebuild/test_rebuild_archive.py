"""Rebuilding from the archive: what was trimmed is read there, without a seam, its duplicates counted once as
they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aurastream.projections import View, check
from aurastream.projections.built_in.clips import Clips
from aurastream.projections.built_in.trail import Trail
from aurastream.projections.engine.generations import read_record
from aurastream.projections.rebuild import Compared, Decision, Rebuild, rebuild_subject
from aurastream.streams import OPERATIONS, Server, Settings, Stream, open_stream
from aurastream.streams.archive import history_of
from aurastream.streams.archive.archiver import Archiver
from aurastream.streams.archive.reading import StreamArchive
from aurastream.streams.retention.trimmer import Goal, Trimmer
from tests.facts import consume, raw_append
from tests.projections.counting import Counting
from tests.projections.engine.test_generations import states
from tests.projections.rebuild.test_rebuild import DAY_MS, crowd, tables


@pytest.fixture
def stream(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    """Two partitions, and an archive in small segments."""
    monkeypatch.setenv("AURASTREAM_ARCHIVE", str(tmp_path / "archive"))
    monkeypatch.setenv("AURASTREAM_SEGMENT_EVENTS", "100")
    stream = open_stream(server, "clips-kept", create=True, settings=Settings(partitions=2))
    yield stream
    stream.close()


def archive_and_trim(stream: Stream, *, keep: int = 0) -> int:
    """How many entries left the log."""
    operations = open_stream(stream.server, OPERATIONS, create=True, settings=Settings(partitions=1))
    archive = history_of(stream).archive
    assert isinstance(archive, StreamArchive)
    for partition in range(stream.partitions):
        assert list(Archiver(archive, operations).run(partition))
    trimmed = sum(done.removed for done in Trimmer(stream, operations, Goal(keep_events=keep)).run())
    operations.close()
    return trimmed


def fill(server: Server, stream: Stream) -> None:
    """A thousand events; some entries damaged, some doubled, within what is archived and across its end."""
    events = crowd(1_000)
    stream.append(events[:600])
    for event in events[100:140]:
        raw_append(server, stream, event)
    for keys in stream.keys:
        server.client.xadd(keys.log, {"event": "no event", "crc32": 1})
    stream.append(events[600:])


def rebuilt(stream: Stream, projection: Any) -> list[Compared]:
    with Rebuild(history_of(stream), projection, Decision("ada@host")) as work:
        work.begin()
        assert work.build()
        parts = work.compare()
        assert parts is not None
        work.swap(DAY_MS)
        work.follow()
        return parts


@pytest.mark.parametrize("projection", [Counting, Clips, Trail])
@pytest.mark.slow
def test_a_view_is_rebuilt_from_archive_and_log_as_it_was_folded_live(
    server: Server, stream: Stream, projection: Any
) -> None:
    """What was trimmed is read from elsewhere, in other batches, and must fold alike."""
    fill(server, stream)
    consume(server, stream, projection())
    before = tables(stream, projection(), 1)
    assert archive_and_trim(stream, keep=200) > 400
    stream.append(crowd(50, first=1_000))

    parts = rebuilt(stream, projection())

    assert [one.differing for one in parts] == [0, 0]
    consume(server, stream, projection())
    assert tables(stream, projection(), 1) == tables(stream, projection(), 2) != before
    assert all(result.is_equal for result in check(stream, [projection()], history=history_of(stream)))


def test_a_new_projection_on_a_log_that_was_trimmed_away_has_the_whole_past(
    server: Server, stream: Stream
) -> None:
    """Trimming must not make a question impossible that nobody had thought of yet."""
    fill(server, stream)
    consume(server, stream, Counting())
    before = tables(stream, Counting(), 1)
    archive_and_trim(stream)
    assert sum(server.client.xlen(keys.log) for keys in stream.keys) == 0

    class Newcomer(Counting):
        name = "newcomer"

    assert rebuilt(stream, Newcomer()) == []

    assert [stored["states"] for _, stored in tables(stream, Newcomer(), 2)] == [
        stored["states"] for _, stored in before
    ]
    stream.append(crowd(30, first=1_000))
    consume(server, stream, Newcomer(), Counting())
    assert sum(state.applied for state in View(stream, Newcomer()).states().rows.values()) == 1_030
    assert all(
        result.is_equal for result in check(stream, [Newcomer(), Counting()], history=history_of(stream))
    )


def test_a_view_that_fell_behind_what_was_trimmed_is_mended_and_not_kept(
    server: Server, stream: Stream
) -> None:
    """Somebody forgot its group and trimmed: it can never go on, and says so until it is rebuilt."""
    stream.append(crowd(300))
    consume(server, stream, Counting())
    stream.append(crowd(300, first=300))
    for keys in stream.keys:
        server.client.hdel(keys.groups, "counting")
        server.client.xgroup_destroy(keys.log, "counting")
        server.client.rename(keys.cursor("counting"), keys.cursor("aside"))
    archive_and_trim(stream)
    for keys in stream.keys:
        server.client.rename(keys.cursor("aside"), keys.cursor("counting"))
    stream.append(crowd(10, first=600))

    parts = rebuilt(stream, Counting())

    assert sum(one.events for one in parts) == 300
    assert [one.differing for one in parts] == [0, 0]
    assert states(read_record(server, stream.name, "counting")) == {2: "live"}
    assert sum(state.applied for state in View(stream, Counting()).states().rows.values()) == 610


def test_a_rebuild_that_was_paused_reads_on_in_the_archive_what_was_trimmed_meanwhile(
    server: Server, stream: Stream
) -> None:
    """Nobody waits for a paused one, so the log moves on without it."""
    fill(server, stream)
    consume(server, stream, Counting())
    stops: list[int] = []

    def stopping() -> bool:
        stops.append(1)
        return len(stops) > 1

    with Rebuild(history_of(stream), Counting(), Decision("ada@host")) as first:
        first.stopping = stopping
        first.begin()
        assert first.build() is False
    assert archive_and_trim(stream) > 900

    assert [one.differing for one in rebuilt(stream, Counting())] == [0, 0]


def test_the_trimmer_passes_no_rebuild_that_is_under_way(server: Server, stream: Stream) -> None:
    """It reads the log as any group does, and is waited for like one."""
    fill(server, stream)
    consume(server, stream, Counting())

    with Rebuild(history_of(stream), Counting(), Decision("ada@host")) as work:
        work.begin()
        assert archive_and_trim(stream) == 0
        work.build()
        assert archive_free(stream) > 900
        assert [one.differing for one in work.compare() or []] == [0, 0]


def archive_free(stream: Stream) -> int:
    """Trim what is archived already."""
    operations = open_stream(stream.server, OPERATIONS, create=True, settings=Settings(partitions=1))
    trimmed = sum(done.removed for done in Trimmer(stream, operations, Goal(keep_events=0)).run())
    operations.close()
    return trimmed


def test_one_key_is_folded_anew_over_the_archive(server: Server, stream: Stream) -> None:
    """Repairing one key must work for keys older than the log."""
    fill(server, stream)
    consume(server, stream, Counting(), Trail())
    archive_and_trim(stream, keep=100)

    for number in range(0, 40, 7):
        done = rebuild_subject(
            history_of(stream), Counting(), f"clip-{number}", Decision("ada@host"), accept=False
        )
        assert (done.differences, done.rows > 0) == ([], True)
