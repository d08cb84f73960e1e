"""Streams, start-up checks, lag, and the direction of imports."""

from __future__ import annotations

import ast
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aurastream.projections import View
from aurastream.projections.built_in.clips import Clips
from aurastream.streams import (
    DamagedEntry,
    PartitionMismatch,
    Server,
    ServerUnfit,
    Settings,
    Stream,
    StreamError,
    StreamUnknown,
    open_stream,
)
from aurastream.streams.groups import Cursor, lag_of
from tests.facts import consume, observation, raw_append

ROOT = Path(__file__).parent.parent.parent
ROOMS = ("streams", "projections", "processors")


def test_the_number_of_partitions_is_fixed_at_creation(server: Server) -> None:
    """Order per subject rests on it: another number sends a subject's next events elsewhere."""
    open_stream(server, "clips", create=True, partitions=2)

    assert open_stream(server, "clips", create=True, settings=Settings(partitions=8)).partitions == 2
    with pytest.raises(PartitionMismatch, match="create a new stream"):
        open_stream(server, "clips", partitions=8)


def test_an_unknown_stream_names_the_known_ones(server: Server) -> None:
    """Mostly it is a typing error."""
    open_stream(server, "clips", create=True)
    with pytest.raises(StreamUnknown, match="streams: clips"):
        open_stream(server, "clibs")
    with pytest.raises(StreamError, match="stream name"):
        open_stream(server, "{clips}", create=True)


def test_a_server_that_evicts_is_refused_with_the_remedy(url: str, server: Server) -> None:
    """Eviction deletes views and event IDs."""
    server.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(ServerUnfit, match="noeviction"):
            open_stream(Server(url), "clips", create=True)
    finally:
        server.client.config_set("maxmemory-policy", "noeviction")


def test_a_database_of_someone_else_is_refused(server: Server) -> None:
    """Two programs in one database overwrite each other."""
    server.client.set("aura:streams", "mine")
    with pytest.raises(ServerUnfit, match="database of its own"):
        open_stream(server, "clips", create=True)


def test_an_unreachable_server_is_named_without_its_password() -> None:
    """The sentence ends in logs."""
    with pytest.raises(ServerUnfit) as told:
        Server("redis://:secret@127.0.0.1:1/0")
    assert "127.0.0.1:1" in str(told.value)
    assert "secret" not in str(told.value)


def test_lag_is_exact_in_events_and_seconds(server: Server, stream: Stream) -> None:
    """XINFO's own is null after an XDEL and absent before 7.0."""
    keys = stream.keys[0]
    assert lag_of(server, keys, Cursor()).events == 0

    stream.append([observation(minute=n) for n in range(7)])
    behind = lag_of(server, keys, Cursor())
    consume(server, stream, Clips())
    cursor = View(stream, Clips()).cursors()[0]

    assert (behind.events, behind.seconds >= 0) == (7, True)
    assert (lag_of(server, keys, cursor).events, lag_of(server, keys, cursor).seconds) == (0, 0.0)


def test_entries_deleted_by_hand_and_a_log_created_anew_are_reported(server: Server, stream: Stream) -> None:
    """A view over a hole must not call itself current."""
    positions = [item.position for item in stream.append([observation(minute=n) for n in range(7)])]
    consume(server, stream, Clips())
    cursor = View(stream, Clips()).cursors()[0]

    server.client.xdel(stream.keys[0].log, *positions[:3])
    assert lag_of(server, stream.keys[0], cursor).missing == 3
    server.client.delete(stream.keys[0].log)
    assert lag_of(server, stream.keys[0], cursor).rewound


def test_reading_by_position_and_by_time_takes_what_it_says(server: Server, stream: Stream) -> None:
    """Bounds decide whether an event is read twice, or never."""
    base = datetime(2026, 4, 15, 12, tzinfo=UTC)
    for n in range(4):
        raw_append(server, stream, observation(minute=n), f"{int(base.timestamp() * 1000) + n * 1000}-0")

    read = stream.read(0)
    between = list(stream.read_between(0, base + timedelta(seconds=1), base + timedelta(seconds=3)))

    assert [entry.event.occurred_at.minute for entry in read] == [0, 1, 2, 3]
    assert between == read[1:3]
    assert stream.read(0, after=read[2].position) == read[3:]


def test_an_entry_that_is_no_event_is_named_with_its_place(server: Server, stream: Stream) -> None:
    """Whoever must mend it needs to find it."""
    server.client.xadd(stream.keys[0].log, {"hello": "world"}, id="5-1")
    with pytest.raises(DamagedEntry, match=r"clips-test/0/5-1.*hello"):
        stream.read(0)


def imports_of(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append("." * node.level + (node.module or ""))
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_down_only(room: str) -> None:
    """A room that imports upwards can be neither read nor tested alone."""
    allowed = {f"aurastream.{name}" for name in ROOMS[: ROOMS.index(room) + 1]}
    for path in (ROOT / room).rglob("*.py"):
        for name in imports_of(path):
            assert name.split(".")[0] not in ROOMS, f"{path}: say aurastream.{name}"
            if name.startswith("aurastream."):
                assert ".".join(name.split(".")[:2]) in allowed, f"{path} imports {name}"


def test_one_module_makes_the_redis_clients() -> None:
    """redis-py resends silently unless told otherwise; told once, in one place."""
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            if path.name != "connection.py":
                assert not any(
                    name == "redis" or name.startswith("redis.client") for name in imports_of(path)
                ), path
