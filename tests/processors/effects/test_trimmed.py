"""Processors on a log that was trimmed: a new one is not behind for ever, and what waits for a retry keeps
its entry.
"""

from __future__ import annotations

from aurastream.processors.effects import LetterPlace, discard
from aurastream.streams import OPERATIONS, Server, Stream, open_stream
from aurastream.streams.groups import cursor_of, lag_of
from aurastream.streams.pressure import backlogs
from aurastream.streams.retention.trimmer import Goal, Trimmer
from tests.facts import observation
from tests.processors.effects.outside import CODEC, SETTINGS, Noting, assert_balanced, failing, work


def operations(server: Server) -> Stream:
    return open_stream(server, OPERATIONS, codec=CODEC, settings=SETTINGS, create=True)


def trim(stream: Stream, audit: Stream) -> list[str]:
    """All that may go; who held the rest back."""
    keys = stream.keys[0]
    last = stream.server.client.xrevrange(keys.log, count=1)[0][0]
    stream.server.client.hset(keys.archive, "position", last)
    (done,) = Trimmer(stream, audit, Goal(keep_events=0)).run()
    return [f"{holder.kind} {holder.name}" for holder in done.blockers]


def test_a_processor_that_is_new_to_a_trimmed_log_is_not_behind(server: Server, stream: Stream) -> None:
    """Counts that left out what was trimmed would hold the producers back in the end."""
    stream.append([observation(minute=n, event_id=f"e{n}") for n in range(20)])
    trim(stream, operations(server))
    stream.append([observation(minute=n, event_id=f"e{n}") for n in range(20, 25)])
    noting = Noting()

    work(server, noting)

    cursor = cursor_of(stream.wire(0).ask(("HGETALL", stream.keys[0].cursor("noting")))[0])
    assert noting.handled == [f"e{n}" for n in range(20, 25)]
    assert (cursor.read, cursor.skipped, cursor.applied) == (25, 20, 5)
    assert lag_of(server, stream.keys[0], cursor).events == 0
    assert [(item.group, item.events, item.bytes) for item in backlogs(server, stream.keys[0])] == [
        ("noting", 0, 0)
    ]
    assert_balanced(server, stream)


def test_a_parked_event_stays_in_the_log_until_somebody_decides(server: Server, stream: Stream) -> None:
    """A letter refers to its entry, so a trim may not take that away."""
    stream.append([observation(minute=n, event_id=f"e{n}", clip=f"clip-{n % 2}") for n in range(6)])
    work(server, Noting(failing("e2", times=99)))

    held = trim(stream, operations(server))
    left = [entry.event.event_id for entry in stream.read(0)]
    for entry in stream.read(0)[::2]:
        discard(stream, operations(server), LetterPlace("noting", 0, entry.position), "a test")
    free = trim(stream, operations(server))

    assert (held, left) == (["dead letter noting"], ["e2", "e3", "e4", "e5"])
    assert (free, stream.read(0)) == ([], [])
    assert_balanced(server, stream)
