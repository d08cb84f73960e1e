"""A lane's consumer group follows its cursor, so that every Redis tool shows place and lag."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aurastream.projections import Consumer, Progress
from aurastream.streams import Server, Stream
from tests.facts import consume, observation
from tests.projections.counting import Counting


def append(stream: Stream, first: int, count: int) -> None:
    stream.append([observation(n, minute=n, clip=f"clip-{n % 40}") for n in range(first, first + count)])


def group_of(server: Server, stream: Stream) -> dict[str, Any]:
    (group,) = server.client.xinfo_groups(stream.keys[0].log)
    return dict(group.items())


def place_and_lag(server: Server, stream: Stream) -> tuple[str, int | None]:
    group = group_of(server, stream)
    return group["last-delivered-id"].decode(), group["lag"]


def test_the_group_is_where_the_cursor_is_after_every_commit(server: Server, stream: Stream) -> None:
    """Its lag is what the view has not applied: not null, and not short by a batch that was only read."""
    append(stream, 0, 300)
    seen: list[tuple[str, int | None]] = []

    def look(progress: Progress) -> None:
        assert progress.cursor.position
        seen.append(place_and_lag(server, stream))
        expected.append((progress.cursor.position, 300 - progress.cursor.read))

    expected: list[tuple[str, int | None]] = []
    Consumer(server, [Counting()], lambda: [stream], batch_max=100, on_commit=look).run(until_idle=True)

    assert seen == expected
    assert seen[-1][1] == 0
    append(stream, 300, 7)
    assert place_and_lag(server, stream)[1] == 7


@pytest.mark.parametrize(
    "disturb",
    [
        lambda client, log: client.xgroup_setid(log, "counting", "0"),
        lambda client, log: client.xgroup_setid(log, "counting", "$"),
        lambda client, log: client.xgroup_destroy(log, "counting"),
        lambda client, log: client.xreadgroup("counting", "thief", {log: ">"}, count=50),
    ],
    ids=["set back", "set ahead", "destroyed", "a thief"],
)
def test_a_group_that_was_moved_by_hand_is_put_back(
    server: Server, stream: Stream, disturb: Callable[[Any, str], object]
) -> None:
    """The group is a hint: whatever becomes of it, it shows the cursor's place again, with a lag, and nothing
    pending.
    """
    append(stream, 0, 100)
    consume(server, stream, Counting())
    append(stream, 100, 100)

    disturb(server.client, stream.keys[0].log)
    consume(server, stream, Counting())
    consume(
        server, stream, Counting()
    )  # what a thief holds beyond the cursor is acknowledged when it is passed

    group = group_of(server, stream)
    last = server.client.xrevrange(stream.keys[0].log, count=1)[0][0]
    assert (group["last-delivered-id"], group["lag"], group["pending"]) == (last, 0, 0)


def test_a_lane_that_only_settled_shows_its_lag(server: Server, stream: Stream) -> None:
    """Also before its first commit, and where it failed at once."""
    append(stream, 0, 50)
    consume(server, stream, Counting())
    append(stream, 50, 20)
    server.client.xgroup_setid(stream.keys[0].log, "counting", "0")
    assert place_and_lag(server, stream)[1] != 20

    class Failed(Exception):
        pass

    def fails(*_: object) -> Any:
        raise Failed

    projection = Counting()
    projection.apply = fails  # type: ignore[method-assign]
    with pytest.raises(Exception, match="counting"):
        consume(server, stream, projection)

    assert place_and_lag(server, stream)[1] == 20


def test_entries_deleted_by_hand_leave_no_lag_for_ever(server: Server, stream: Stream) -> None:
    """At the end of the log nothing is to come, whatever was deleted on the way."""
    append(stream, 0, 50)
    consume(server, stream, Counting())
    append(stream, 50, 20)
    log = stream.keys[0].log
    server.client.xdel(log, *[entry[0] for entry in server.client.xrevrange(log, count=12)[2:]])

    consume(server, stream, Counting())

    assert place_and_lag(server, stream)[1] == 0
