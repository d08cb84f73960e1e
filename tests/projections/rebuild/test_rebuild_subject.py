"""One key folded anew: listed where it differs, written under the cursor's compare, and never lost to a
worker's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from aurastream.projections import Projection, ProjectionError, View, ViewBroken
from aurastream.projections.built_in.clips import Clips
from aurastream.projections.built_in.trail import Trail
from aurastream.projections.engine import CommitAnswer, Lane
from aurastream.projections.rebuild import Decision, rebuild_subject
from aurastream.projections.rebuild.subject_rows import SubjectRows
from aurastream.streams import OPERATIONS, Server, Settings, Stream, StreamError, SubjectRebuilt, open_stream
from aurastream.streams.history import History
from tests.facts import consume, findings, observation, raw_append
from tests.projections.counting import Count, Counting
from tests.projections.engine.test_generations import ask_all
from tests.projections.rebuild.test_rebuild import crowd, rebuilt, tables


def anew(
    stream: Stream, projection: Projection[Any], key: str, why: str = "", *, accept: bool = False
) -> Any:
    return rebuild_subject(History(stream), projection, key, Decision("ada@host", why), accept=accept)


@pytest.mark.parametrize("projection", [Counting, Clips, Trail])
@pytest.mark.parametrize("with_trail", [True, False])
@pytest.mark.slow
def test_every_key_equals_its_own_events(
    server: Server, stream: Stream, projection: Any, with_trail: bool
) -> None:
    """By the trail's positions, by reading the partition, and by both where the trail lags; doubled entries
    count once.
    """
    events = crowd(800)
    stream.append(events[:700])
    for event in events[100:130]:
        raw_append(server, stream, event)
    if with_trail:
        consume(server, stream, Trail())
    stream.append(events[700:])
    consume(server, stream, projection())
    before = tables(stream, projection(), 1)

    results = [anew(stream, projection(), f"clip-{n}", accept=True) for n in range(40)]

    assert [one.differences for one in results] == [[]] * 40
    assert sum(one.events for one in results) == 800
    assert all(one.rows >= 1 for one in results)
    assert tables(stream, projection(), 1) == before, "nothing is written where nothing differs"


def test_a_clip_that_left_a_ranking_by_the_time_of_others_is_not_put_back(
    server: Server, stream: Stream
) -> None:
    """What is expired is said by the partition's event time, which other clips' events move."""
    born = observation().occurred_at - timedelta(hours=1)
    stream.append([observation(100 * n, minute=n, created_at=born) for n in range(5)])
    stream.append([observation(5, minute=60 * 9, clip="clip-2", created_at=born)])
    consume(server, stream, Clips())
    assert View(stream, Clips()).ranking("viral").rows == []

    assert anew(stream, Clips(), "clip-1").differences == []


def test_rows_that_differ_are_listed_and_put_right_when_that_is_accepted(
    server: Server, stream: Stream
) -> None:
    """A repair is a change by hand: seen first, then made, and in the audit trail."""
    stream.append(crowd(300))
    consume(server, stream, Counting())
    view = View(stream, Counting())
    right = view.state("clip-7")
    server.client.hset(view.key(0, "states"), "clip-7", '{"applied":99,"views":1,"category":"x"}')
    server.client.zadd(view.key(0, "most"), {"clip-7": -99})
    server.client.zadd(view.key(0, "most", "x"), {"clip-7": -99})

    listed = anew(stream, Counting(), "clip-7")
    assert view.state("clip-7") == Count(99, 1, "x")
    done = anew(stream, Counting(), "clip-7", accept=True, why="a slip")

    assert [(item.table, item.key) for item in listed.differences] == [
        ("most", "clip-7"),
        ("most:x", "clip-7"),
        ("states", "clip-7"),
    ]
    assert (listed.is_written, done.is_written, done.differing) == (False, True, 3)
    assert view.state("clip-7") == right
    assert findings(stream, Counting()) == []
    assert done.shared == ["all"]
    assert [(event.subject, event.differing, event.why) for event in facts(server)] == [
        ("clip-7", 3, "a slip")
    ]


def test_a_repair_whose_process_was_killed_is_in_the_audit_trail_with_the_next_look(
    server: Server, stream: Stream
) -> None:
    """The rows and the fact are written by one script: a change by hand that nobody is told of is none."""
    stream.append(crowd(30))
    consume(server, stream, Counting())
    view = View(stream, Counting())
    server.client.hset(view.key(0, "states"), "clip-7", '{"applied":99,"views":1,"category":"x"}')
    server.client.hset("aura:streams", OPERATIONS, '{"partitions":0}')  # so that the append fails
    with pytest.raises(StreamError):
        anew(stream, Counting(), "clip-7", accept=True, why="a slip")
    server.client.hdel("aura:streams", OPERATIONS)

    again = anew(stream, Counting(), "clip-7")

    assert again.differences == []
    assert [(event.subject, event.why) for event in facts(server)] == [("clip-7", "a slip")]
    assert anew(stream, Counting(), "clip-7").differing == 0
    assert len(facts(server)) == 1
    assert not [name for name in server.client.hkeys(stream.keys[0].cursor("counting")) if b"fact" in name]


def facts(server: Server) -> list[SubjectRebuilt]:
    stream = open_stream(server, OPERATIONS, settings=Settings(partitions=1), create=True)
    events = [entry.event for partition in range(stream.partitions) for entry in stream.read(partition)]
    stream.close()
    return [event for event in events if isinstance(event, SubjectRebuilt)]


def test_a_host_that_holds_the_key_in_memory_reads_it_anew(server: Server, stream: Stream) -> None:
    """Without a word to it, its next commit would write its wrong state over the right one."""
    stream.append([observation(1)])
    worker = Lane(Counting(), stream, 0)
    ask_all(stream, worker.catch_up())
    worker._fold._states.rows["clip-1"] = Count(50, 50, "")  # as a bug or a bit flip would have it
    server.client.hset(
        View(stream, Counting()).key(0, "states"), "clip-1", msgspec.json.encode(Count(50, 50, ""))
    )
    stream.append([observation(2, minute=1)])
    raw = stream.read_raw(0, worker.cursor.position)

    assert anew(stream, Counting(), "clip-1", accept=True).is_written
    answer, _ = ask_all(stream, worker.commit(raw))
    assert answer is CommitAnswer.STALE
    ask_all(stream, worker.catch_up())

    assert View(stream, Counting()).state("clip-1") == Count(2, 3, "")


def test_a_view_that_moves_on_before_the_writing_is_folded_on(
    server: Server, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written over a newer row, the repair would lose an event."""
    stream.append([observation(1)])
    consume(server, stream, Counting())
    server.client.hset(
        View(stream, Counting()).key(0, "states"), "clip-1", msgspec.json.encode(Count(50, 50, ""))
    )
    write, writes = SubjectRows.write, []

    def later(repair: SubjectRows, *given: Any) -> bool:
        if not writes:
            stream.append([observation(2, minute=1)])
            consume(server, stream, Counting())
        writes.append(write(repair, *given))
        return writes[-1]

    monkeypatch.setattr(SubjectRows, "write", later)

    done = anew(stream, Counting(), "clip-1", accept=True)

    assert writes == [False, True]
    assert (done.events, View(stream, Counting()).state("clip-1")) == (2, Count(2, 3, ""))


def repaired(stream: Stream, spoil: Callable[[str, str], object]) -> Any:
    """What the writing answers where keys were changed since the look. spoil: called with cursor and
    states.
    """
    stream.append([observation(1)])
    consume(stream.server, stream, Counting())
    rows = SubjectRows(stream, Counting(), "clip-1")
    cursor, stored = rows.read()
    spoil(stream.keys[0].cursor("counting"), View(stream, Counting()).key(0, "states"))
    fact = SubjectRebuilt(
        event_id="x",
        subject="clip-1",
        occurred_at=datetime.now(UTC),
        stream=stream.name,
        projection="counting",
        differing=1,
    )
    return rows.write(cursor, stored, stored, fact)


def test_a_generation_that_was_retired_meanwhile_is_left_alone(server: Server, stream: Stream) -> None:
    """Rows written into it would stay for ever, as nobody clears its tables twice."""
    assert repaired(stream, lambda cursor, states: server.client.hset(cursor, "retired", 1)) is False


def test_a_table_of_another_type_is_named_before_anything_is_written(server: Server, stream: Stream) -> None:
    """In the middle of the writes it would leave half a repair."""

    def spoil(cursor: str, states: str) -> None:
        server.client.delete(states)
        server.client.set(states, "mine")

    with pytest.raises(ViewBroken, match="states is a string"):
        repaired(stream, spoil)
    assert server.client.hget(stream.keys[0].cursor("counting"), "repairs") == b"0"


def test_it_is_the_live_generation_that_is_put_right(server: Server, stream: Stream) -> None:
    """A kept generation is nobody's answer; mending it would mend nothing."""
    stream.append([observation(1)])
    consume(server, stream, Counting())
    rebuilt(stream, Counting())
    view = View(stream, Counting())
    view.cursors()
    server.client.hset(view.key(0, "states"), "clip-1", msgspec.json.encode(Count(50, 50, "")))

    assert anew(stream, Counting(), "clip-1", accept=True).is_written

    assert View(stream, Counting(), generation=2).state("clip-1") == Count(1, 1, "")


def test_what_cannot_be_done_for_one_key_is_said(server: Server, stream: Stream) -> None:
    """Each would write rows that one key's events cannot vouch for."""

    class ByCategory(Counting):
        name = "by-category"

        def key(self, event: Any) -> str:
            return str(event.category)

    class Second(Counting):
        version = 2

    stream.append([observation(1)])
    consume(server, stream, Counting())

    with pytest.raises(ProjectionError, match="keys of 'by-category' are not subjects"):
        anew(stream, ByCategory(), "irl")
    with pytest.raises(ProjectionError, match="folded by another definition"):
        anew(stream, Second(), "clip-1")
    assert anew(stream, Counting(), "nobody").rows == 0
