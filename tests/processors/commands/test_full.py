"""A server that a producer has filled: it can be looked at, and freed, with the product's own verbs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from aurastream.streams import (
    OPERATIONS,
    GroupForgotten,
    LogArchived,
    LogTrimmed,
    Server,
    Settings,
    Stream,
    StreamError,
    open_stream,
)
from tests.commands import Done, Home, Running
from tests.facts import observation
from tests.servers import until

pytestmark = pytest.mark.process

ROOM_BYTES = 1_500_000
READ = 2_000  # events that are read before it is full; what they take is more than is missing then


class Shop:
    """Commands against one server, with an archive."""

    def __init__(self, home: Home, url: str, folder: Path) -> None:
        self._home = home
        self.env = {
            "AURASTREAM_REDIS_URL": url,
            "AURASTREAM_ARCHIVE": str(folder / "archive"),
            "AURASTREAM_PARTITIONS": "1",
        }

    def run(self, *words: str) -> Done:
        return self._home.run(*words, env=self.env)

    def start(self, *words: str) -> Running:
        return self._home.start(*words, env={**self.env, "AURASTREAM_SERVER_WAIT_S": "60"})


@pytest.fixture
def shop(home: Home, url: str, tmp_path: Path) -> Shop:
    return Shop(home, url, tmp_path)


@pytest.fixture
def clips(server: Server) -> Iterator[Stream]:
    stream = open_stream(server, "clips", create=True, settings=Settings(partitions=1))
    yield stream
    stream.close()
    server.client.config_set("maxmemory", 0)


def append(stream: Stream, start: int, count: int) -> None:
    stream.append(
        [
            observation(views=n, minute=n / 100, clip=f"clip-{n % 7}", event_id=f"e{n}", title="x" * 400)
            for n in range(start, start + count)
        ]
    )


def is_taken(stream: Stream, start: int) -> bool:
    """Whether the server took the next events."""
    try:
        append(stream, start, 250)
    except (StreamError, redis.ResponseError):
        return False
    return True


def fill(stream: Stream, start: int) -> int:
    """Append until the server refuses; how many events are in the log. Then it is as full as can be: clients
    that leave give nothing back that would be enough.
    """
    client = stream.server.client
    limit = client.info("memory")["used_memory"] + ROOM_BYTES
    client.config_set("maxmemory", limit)
    while is_taken(stream, start):
        start += 250
    client.config_set("maxmemory", limit - ROOM_BYTES // 3)
    return start


def is_full(stream: Stream) -> bool:
    try:
        stream.server.client.set("probe", 1)
    except redis.ResponseError:
        return True
    stream.server.client.delete("probe")
    return False


def trail(stream: Stream) -> list[object]:
    """The audit trail's events."""
    operations = open_stream(stream.server, OPERATIONS)
    try:
        every = range(operations.partitions)
        return [entry.event for partition in every for entry in operations.read(partition)]
    finally:
        operations.close()


def test_a_full_server_can_be_looked_at(shop: Shop, clips: Stream) -> None:
    """The hour in which one looks is the hour in which it is full."""
    append(clips, 0, 250)
    assert shop.run("run", "--until-idle", "--projection", "clips").code == 0
    assert shop.run("archive").code == 0
    count = fill(clips, 250)

    status = shop.run("status", "--json")
    checked = shop.run("check", "--projection", "clips", "--json")
    verified = shop.run("audit", "verify", "--json")
    audited = shop.run("audit", "--json")
    listed = shop.run("groups", "list", "--json")
    planned = shop.run("trim", "--keep-events", "0", "--dry-run", "--json")

    assert is_full(clips)
    assert status.json()["streams"]["clips"]["partitions"][0]["events"] == count
    assert checked.json()["equal"] is True
    assert verified.json()["sound"] is True
    assert audited.code == 0, audited
    assert [(row["group"], row["events"]) for row in listed.json()["groups"]] == [("clips", count - 250)]
    (partition,) = [row for row in json.loads(planned.out)["partitions"] if row["stream"] == "clips"]
    assert partition["removed"] == 250, planned


def test_a_full_server_is_freed_by_archive_and_trim_and_every_step_is_in_the_audit_trail(
    shop: Shop, clips: Stream
) -> None:
    """Nobody has used the audit trail before, so that it is to be made on the full server; and what a person
    decides there is in it as ever.
    """
    append(clips, 0, READ)
    assert shop.run("run", "--until-idle", "--projection", "clips").code == 0
    clips.server.client.hset(clips.keys[0].groups, "gone", "0 0 0")
    count = fill(clips, READ)

    forgotten = shop.run("groups", "forget", "gone", "--stream", "clips", "--why", "full", "--json")
    running = shop.start("run", "--until-idle", "--projection", "clips")
    until(lambda: "maxmemory" in running.err, f"it to say what it waits for, not {running.err!r}")
    archived = shop.run("archive", "--stream", "clips", "--json").json()["segments"]
    was_full = is_full(clips)
    trimmed = shop.run("trim", "--stream", "clips", "--keep-events", "100", "--why", "full", "--json")

    assert forgotten.code == 0, forgotten
    assert sum(item["entries"] for item in archived) == count
    assert was_full
    (partition,) = json.loads(trimmed.out)["partitions"]
    assert (partition["removed"], [holder["name"] for holder in partition["blockers"]]) == (READ, ["clips"])
    assert not is_full(clips)
    assert running.wait() == 0, running.err  # it went on by itself
    assert shop.run("check", "--projection", "clips").code == 0
    assert shop.run("audit", "verify").code == 0
    kinds = [type(event) for event in trail(clips)]
    assert (kinds.count(GroupForgotten), kinds.count(LogTrimmed)) == (1, 1)
    assert kinds.count(LogArchived) == len(archived)
