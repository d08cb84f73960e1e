"""What no view's check can see: keys of the stream itself that do not fit its entries."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aurastream.streams import OPERATIONS, Server, Settings, Stream, open_stream
from aurastream.streams.archive import history_of, open_archive
from aurastream.streams.archive.archiver import Archiver
from aurastream.streams.errors import RegistryDamaged
from aurastream.streams.facts import StreamFacts
from aurastream.streams.keys import STREAMS
from aurastream.streams.retention.trimmer import Goal, Trimmer
from aurastream.streams.soundness import NAMED_MAX, unsound
from tests.facts import observation, raw_append


@pytest.fixture
def jobs(server: Server, tmp_path: Path) -> Iterator[Stream]:
    """A stream that keeps versions, long enough for several rows of its index."""
    settings = Settings(partitions=2, archive=str(tmp_path / "archive"))
    stream = open_stream(server, "jobs", create=True, versioned=True, settings=settings)
    fill(stream, 0, 300)
    yield stream
    stream.close()


def fill(stream: Stream, first: int, count: int) -> None:
    stream.append(
        [observation(views=n % 9, clip=f"job-{n % 4}", event_id=f"e{n}") for n in range(first, first + count)]
    )


def told(stream: Stream) -> list[str]:
    return list(unsound(history_of(stream)))


def test_a_sound_stream_is_silent_trimmed_or_not(jobs: Stream) -> None:
    """A check that cries wolf is switched off."""
    assert told(jobs) == []
    operations = open_stream(jobs.server, OPERATIONS, create=True, settings=Settings(partitions=1))
    archive = open_archive(jobs.settings, jobs)
    assert archive is not None
    for partition in range(2):
        list(Archiver(archive, operations).run(partition))
    list(Trimmer(jobs, operations, Goal(keep_events=10)).run())
    fill(jobs, 300, 50)
    assert told(jobs) == []


def test_producers_at_work_are_no_finding(jobs: Stream, url: str) -> None:
    """Versions and entries are not read at one instant; both only grow."""
    over = threading.Event()

    def produce() -> None:
        server = Server(url)
        stream = open_stream(server, "jobs")
        number = 1_000
        while not over.is_set():
            fill(stream, number, 7)
            number += 7
        server.close()

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        for _ in range(4):
            assert told(jobs) == []
    finally:
        over.set()
        thread.join()


def some_row(client: Any, stream: Stream) -> tuple[str, bytes, bytes]:
    key = next(keys.entities for keys in stream.keys if client.exists(keys.entities))
    field = sorted(client.hkeys(key))[-1]
    return key, field, client.hget(key, field)


def alter_row(client: Any, stream: Stream) -> None:
    key, field, row = some_row(client, stream)
    client.hset(key, field, row[:9] + bytes([row[9] ^ 1]) + row[10:])


def rename_row(client: Any, stream: Stream) -> None:
    key, field, row = some_row(client, stream)
    client.hdel(key, field)
    client.hset(key, b"jab" + field[3:], row)


def versions_of(stream: Stream, subject: str) -> str:
    return stream.keys[stream.partition_of(subject)].versions


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (
            lambda client, stream: client.hincrby(versions_of(stream, "job-1"), "job-1", 1),
            "'job-1' is stated to be at version 76, and has 75",
        ),
        (
            lambda client, stream: client.hincrby(versions_of(stream, "job-1"), "job-1", -2),
            "'job-1' is stated to be at version 73, and has 75",
        ),
        (
            lambda client, stream: client.hset(versions_of(stream, "job-1"), "job-1", "7x"),
            "'job-1' is stated",
        ),
        (
            lambda client, stream: client.hdel(versions_of(stream, "job-1"), "job-1"),
            "'job-1' is stated to be at version 0",
        ),
        (
            lambda client, stream: client.hset(versions_of(stream, "job-1"), b"\xff", 3),
            "is stated to be at version 3, and has 0",
        ),
        (alter_row, "does not name the places"),
        (rename_row, "which has no events"),
    ],
)
def test_what_was_changed_is_named(jobs: Stream, tamper: Callable[[Any, Stream], Any], said: str) -> None:
    """A flipped bit in a version refuses every decision, or lets a stale one through."""
    tamper(jobs.server.client, jobs)
    assert any(said in sentence for sentence in told(jobs)), told(jobs)


def test_another_number_of_partitions_is_named_by_the_subjects_that_lie_elsewhere(jobs: Stream) -> None:
    """The next append of such a subject would go to its new partition, and its order would be lost."""
    client = jobs.server.client
    client.hset(STREAMS, "jobs", client.hget(STREAMS, "jobs").replace(b'"partitions":2', b'"partitions":3'))
    with_three = open_stream(jobs.server, "jobs", settings=jobs.settings)

    sentences = told(with_three)

    assert any("belongs to partition" in sentence and "of 3" in sentence for sentence in sentences)
    assert sum("belongs to partition" in sentence for sentence in sentences) <= 2 * NAMED_MAX
    assert any("more of the kind" in sentence for sentence in sentences)


def test_where_entries_were_added_by_hand_versions_are_not_judged(jobs: Stream, server: Server) -> None:
    """A raw XADD has no version: it is other tools' business, and no damage."""
    raw_append(server, jobs, observation(clip="job-1", event_id="by-hand"))
    assert told(jobs) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"log":"here"', b'"log":"hire"'),
        (b'"versioned":true', b'"wersioned":true'),
        (b'"partitions":2', b'"partitions":0'),
        (b'"partitions":2', b'"qartitions":2'),
    ],
)
def test_a_registry_that_denies_what_there_is_is_named(jobs: Stream, before: bytes, after: bytes) -> None:
    """A stream whose log is said to be elsewhere would be checked as equal: there is nothing to fold."""
    client = jobs.server.client
    client.hset(STREAMS, "jobs", client.hget(STREAMS, "jobs").replace(before, after))

    try:
        sentences = told(open_stream(jobs.server, "jobs", settings=jobs.settings))
    except RegistryDamaged as error:  # where it cannot be what was written
        assert after != b'"wersioned":true'
        sentences = [str(error)]

    assert "aura:streams" in sentences[0]


def test_a_name_that_was_changed_in_the_registry_s_row_is_found(jobs: Stream) -> None:
    """Who reads the row passes over names it does not know, so the value would be lost without a word."""
    client = jobs.server.client
    row: bytes = client.hget(STREAMS, "jobs")  # type: ignore[assignment]
    for name in StreamFacts.__struct_fields__:
        client.hset(STREAMS, "jobs", row.replace(name.encode(), b"x" + name.encode()[1:]))
        assert any("a name was changed" in sentence for sentence in told(jobs)), name
    client.hset(STREAMS, "jobs", row)


def test_rows_of_older_and_newer_builds_are_no_finding(jobs: Stream) -> None:
    """The registry outlives builds: an older one's row lacks names at its end, a newer one's has more."""
    client = jobs.server.client
    row: bytes = client.hget(STREAMS, "jobs")  # type: ignore[assignment]
    for sound in (row.partition(b',"is_topic"')[0] + b"}", row[:-1] + b',"newer":1}'):
        client.hset(STREAMS, "jobs", sound)
        assert told(jobs) == []
    client.hset(STREAMS, "jobs", row)
