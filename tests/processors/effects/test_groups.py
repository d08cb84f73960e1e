"""A processor's consumer group follows its cursor, as a view's does."""

from __future__ import annotations

from aurastream.streams import Server, Stream
from tests.facts import observation
from tests.processors.effects.outside import Noting, work


def test_every_redis_tool_shows_where_a_processor_is(server: Server, stream: Stream) -> None:
    """Place and lag, in whatever order handlers ended, also after the group was moved by hand."""
    log = stream.keys[0].log

    def append(first: int, count: int) -> None:
        stream.append([observation(n, minute=n, clip=f"clip-{n % 7}") for n in range(first, first + count)])

    def place_and_lag() -> tuple[bytes, int | None, int]:
        (group,) = [group for group in server.client.xinfo_groups(log) if group["name"] == b"noting"]
        return group["last-delivered-id"], group["lag"], group["pending"]

    append(0, 30)
    work(server, Noting())
    last = server.client.xrevrange(log, count=1)[0][0]
    assert place_and_lag() == (last, 0, 0)

    append(30, 5)
    assert place_and_lag() == (last, 5, 0)
    server.client.xgroup_setid(log, "noting", "0")
    work(server, Noting())

    assert place_and_lag() == (server.client.xrevrange(log, count=1)[0][0], 0, 0)
