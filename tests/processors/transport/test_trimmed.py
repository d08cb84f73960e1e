"""A worker app on a log that was trimmed: offsets count what is gone, so that they mean the same to all."""

from __future__ import annotations

from typing import Any

import pytest

from aurastream.processors.transport.lane import TopicLane, acquiring
from aurastream.streams import OPERATIONS, Ask, Server, Stream, drive, open_stream
from aurastream.streams.leases import Claim
from aurastream.streams.retention.trimmer import Goal, Trimmer
from tests.facts import observation


def acquire(stream: Stream, *, from_end: bool) -> TopicLane:
    def answer(asks: list[Ask]) -> list[Any]:
        return stream.wire(0).ask(*[ask.command for ask in asks])

    lane = drive(acquiring(Claim("orders", stream.name, 0), 1, from_end=from_end), answer)
    assert lane is not None
    return lane


@pytest.mark.parametrize(
    ("left", "from_end", "offset"), [(3, False, 7), (3, True, 10), (0, False, 10), (0, True, 10)]
)
def test_an_app_that_is_new_to_a_trimmed_log_counts_what_is_gone(
    server: Server, stream: Stream, left: int, from_end: bool, offset: int
) -> None:
    """Offsets must name the same entry in every process, whenever it began."""
    positions = [item.position for item in stream.append([observation(minute=n) for n in range(10)])]
    server.client.hset(stream.keys[0].archive, "position", positions[-1])
    (done,) = Trimmer(stream, open_stream(server, OPERATIONS, create=True), Goal(keep_events=left)).run()

    lane = acquire(stream, from_end=from_end)

    assert (done.left, lane.offset, lane.highwater) == (left, offset, 10)
    assert server.client.hget(stream.keys[0].acked("orders"), "read") == b"%d" % offset
