"""Rebuilding a view: built beside the live one, compared, swapped, kept, rolled back; never written to, never
mixed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from aurastream.projections import Projection, ProjectionError, View
from aurastream.projections.built_in.clips import Clips
from aurastream.projections.built_in.imports import Imports
from aurastream.projections.built_in.trail import Trail
from aurastream.projections.engine.check import stored_tables, table_names
from aurastream.projections.engine.generations import read_record
from aurastream.projections.engine.retirement import retire_due
from aurastream.projections.rebuild import Compared, Decision, Rebuild, RebuildRunning, abandon, rollback
from aurastream.streams import ImportRowRejected, Server, Settings, Stream, open_stream
from aurastream.streams.errors import ArchiveNeeded
from aurastream.streams.history import History
from tests.facts import consume, findings, observation, raw_append
from tests.projections.counting import Count, Counting
from tests.projections.engine.test_generations import operations, states
from tests.servers import until

DAY_MS = 86_400_000


class Planted(Counting):
    """Counting with a bug: what has 7 views counts as 8."""

    def apply(self, state: Count | None, event: Any) -> Count:
        return super().apply(state, msgspec.structs.replace(event, views=event.views + (event.views == 7)))


class Second(Counting):
    """Counting of another definition."""

    version = 2

    def apply(self, state: Count | None, event: Any) -> Count:
        after = super().apply(state, event)
        return msgspec.structs.replace(after, views=0)


def rebuild(stream: Stream, projection: Projection[Any], **options: Any) -> Rebuild:
    return Rebuild(History(stream), projection, Decision("ada@host"), **options)


def rebuilt(
    stream: Stream, projection: Projection[Any], *, accept: bool = False, keep_ms: int = DAY_MS
) -> list[Compared]:
    """The whole of it. Raises ProjectionError where it differs and was not accepted."""
    with rebuild(stream, projection) as work:
        work.begin()
        assert work.build()
        parts = work.compare(accept=accept)
        assert parts is not None
        assert work.swap(keep_ms) is not None
        work.follow()
        return parts


def tables(stream: Stream, projection: Projection[Any], generation: int) -> Any:
    """Every table of every partition with the cursor's counts, generation's number left out."""
    view = View(stream, projection, generation=generation)
    stored_parts = [
        stored_tables(view, partition, sorted(table_names(view, partition)))
        for partition in range(stream.partitions)
    ]
    return [(msgspec.structs.replace(cursor, read_bytes=0), stored) for cursor, stored in stored_parts]


@pytest.fixture
def parted(server: Server) -> Any:
    stream = open_stream(server, "clips-parted", create=True, settings=Settings(partitions=3))
    yield stream
    stream.close()


def crowd(count: int, *, first: int = 0, clips: int = 40) -> list[Any]:
    """Observations of some clips in some categories over two days."""
    return [
        observation(
            n * 3 % 997,
            minute=n * 1.7,
            clip=f"clip-{n * 7 % clips}",
            category=f"category {n % 5}",
            event_id=f"e{n}",
            created_at=observation().occurred_at - timedelta(hours=1),
        )
        for n in range(first, first + count)
    ]


@pytest.mark.parametrize("projection", [Counting, Clips, Trail])
def test_a_rebuilt_view_equals_the_live_one_and_takes_its_place(
    server: Server, parted: Stream, projection: Any
) -> None:
    """The whole way of a rebuild where nothing is wrong, counts and audit trail included."""
    parted.append(crowd(3_000))
    consume(server, parted, projection())
    before = tables(parted, projection(), 1)

    parts = rebuilt(parted, projection())

    assert [(one.differing, one.differences) for one in parts] == [(0, [])] * 3
    assert tables(parted, projection(), 2) == before == tables(parted, projection(), 1)
    assert states(read_record(server, parted.name, projection.name)) == {1: "kept", 2: "live"}
    assert operations(server) == [("RebuildCompared", 2), ("RebuildStarted", 2), ("ViewSwapped", 2)]
    assert findings(parted, projection()) == []
    parted.append(crowd(500, first=3_000))
    consume(server, parted, projection())
    assert tables(parted, projection(), 1) == tables(parted, projection(), 2), "the kept one is kept up"


class ByCategory(Counting):
    """Keys that are no subjects: every partition has its own state of a category."""

    name = "by-category"

    def key(self, event: Any) -> str | None:
        return str(event.category) if event.category != "category 3" else None


def test_a_view_whose_keys_are_no_subjects_is_rebuilt_as_well(server: Server, parted: Stream) -> None:
    """Its keys cross partitions, so nothing may rest on keys being subjects."""
    parted.append(crowd(1_000))
    consume(server, parted, ByCategory())

    assert [one.differing for one in rebuilt(parted, ByCategory())] == [0, 0, 0]
    assert findings(parted, ByCategory()) == []


def test_the_view_of_imports_is_rebuilt_in_its_own_stream(server: Server) -> None:
    """System streams have views too, and nobody names their stream on the command line."""
    stream = open_stream(server, "imports", create=True, settings=Settings(partitions=2))
    stream.append(
        [
            ImportRowRejected(
                event_id=f"r{n}",
                subject=f"file-{n % 3}",
                occurred_at=observation().occurred_at,
                source="ada@host",
                stream="clips-test",
                row=n,
                columns=("views",),
                reason="no number",
            )
            for n in range(90)
        ]
    )
    consume(server, stream, Imports())

    assert [one.differing for one in rebuilt(stream, Imports())] == [0, 0]
    assert findings(stream, Imports()) == []
    stream.close()


def test_a_log_with_damaged_foreign_and_doubled_entries_is_rebuilt_as_it_was(
    server: Server, parted: Stream
) -> None:
    """The rebuild takes shortcuts that such entries forbid; it has to notice them itself."""
    events = crowd(600)
    parted.append(events[:300])
    for event in events[290:310]:
        raw_append(server, parted, event)
    for keys in parted.keys:
        server.client.xadd(keys.log, {"event": "no event", "crc32": 1})
        server.client.xadd(keys.log, {"note": "mine"})
    parted.append(events[300:])
    consume(server, parted, Counting(), batch_max=7)

    assert [one.differing for one in rebuilt(parted, Counting())] == [0, 0, 0]

    assert findings(parted, Counting()) == []
    assert sum(state.applied for state in View(parted, Counting()).states().rows.values()) == 600


def test_a_planted_bug_is_named_key_by_key_and_the_swap_refused(server: Server, stream: Stream) -> None:
    """This is what the comparison is for: a person sees what would change before it does."""
    stream.append([observation(n, clip=f"clip-{n}") for n in range(20)])
    consume(server, stream, Counting())
    before = tables(stream, Counting(), 1)

    with rebuild(stream, Planted()) as work:
        work.begin()
        work.build()
        (part,) = work.compare() or []
        with pytest.raises(ProjectionError, match="nobody accepted"):
            work.swap(DAY_MS)

    assert part.differing == 2
    assert [(item.table, item.key) for item in part.differences] == [("all", ""), ("states", "clip-7")]
    assert (part.differences[1].view, part.differences[1].log) == (
        '{"applied":1,"views":7,"category":""}',
        '{"applied":1,"views":8,"category":""}',
    )
    assert states(read_record(server, stream.name, "counting")) == {1: "live", 2: "building"}
    assert tables(stream, Counting(), 1) == before


def test_what_differs_is_swapped_once_somebody_accepts_it(server: Server, stream: Stream) -> None:
    """A changed definition is the usual reason; it goes on from what was built."""
    stream.append([observation(n, clip=f"clip-{n}") for n in range(20)])
    consume(server, stream, Counting())
    with rebuild(stream, Second()) as first:
        first.begin()
        first.build()
        assert sum(one.differing for one in first.compare() or []) == 20

    with rebuild(stream, Second()) as second:
        second.begin()
        assert (second.has_resumed, second.generation) == (True, 2)
        second.build()
        second.compare(accept=True)
        second.swap(DAY_MS)

    assert View(stream, Second()).state("clip-7") == Count(1, 0, "")
    joined = [name.decode() for name in server.client.hkeys(stream.keys[0].groups)]
    assert joined == ["counting@2"], "producers wait for nobody who may not be there"
    record = read_record(server, stream.name, "counting")
    assert record.followed(Second().fingerprint) == (2,)
    assert record.followed(Counting().fingerprint) == (1,)
    stream.append([observation(50, clip="clip-50")])
    consume(server, stream, Counting())
    consume(server, stream, Second())
    assert [View(stream, Counting(), generation=number).cursor(0).read for number in (1, 2)] == [21, 21]


def test_a_view_that_never_was_needs_no_comparison_and_keeps_nothing(server: Server, stream: Stream) -> None:
    """A new projection on an old log has nothing to be equal to."""
    stream.append([observation(1)])

    assert rebuilt(stream, Counting()) == []

    assert View(stream, Counting()).state("clip-1") == Count(1, 1, "")
    assert states(read_record(server, stream.name, "counting")) == {2: "live"}
    assert operations(server) == [
        ("GenerationRetired", 1),
        ("RebuildCompared", 2),
        ("RebuildStarted", 2),
        ("ViewSwapped", 2),
    ]


def test_a_live_view_that_nobody_moves_is_compared_where_it_stands(server: Server, stream: Stream) -> None:
    """Its worker may be gone for good: a rebuild must not wait for it."""
    stream.append([observation(1)])
    consume(server, stream, Counting())
    stream.append([observation(2, minute=1)])

    (part,) = rebuilt(stream, Counting())

    assert (part.events, part.differing) == (1, 0)
    assert View(stream, Counting()).cursor(0).read == 2
    assert View(stream, Counting(), generation=1).cursor(0).read == 1


def test_a_second_rebuild_is_told_of_the_first(server: Server, stream: Stream) -> None:
    """Two would waste a day; the second person must learn who to ask."""
    stream.append([observation(1)])
    consume(server, stream, Counting())

    with rebuild(stream, Counting()) as first:
        first.begin()
        first.build()
        with rebuild(stream, Counting()) as second, pytest.raises(RebuildRunning) as refusal:
            second.begin()
        with pytest.raises(RebuildRunning):
            abandon(stream, Counting(), Decision("bob@host"))

    assert f"generation 2, begun by ada@host, by process {first.host} since" in str(refusal.value)
    assert "1 of 1 events read" in str(refusal.value)
    with rebuild(stream, Counting()) as third:
        third.begin()
    assert third.generation == 2


def test_what_is_given_up_is_gone_and_the_live_view_as_it_was(server: Server, stream: Stream) -> None:
    """Giving up has to be free, or nobody dares to begin."""
    stream.append([observation(1)])
    consume(server, stream, Counting())
    before = tables(stream, Counting(), 1)
    with rebuild(stream, Counting()) as work:
        work.begin()
        work.build()

    assert abandon(stream, Counting(), Decision("ada@host", "enough")) == 2

    assert states(read_record(server, stream.name, "counting")) == {1: "live"}
    assert tables(stream, Counting(), 1) == before
    assert server.client.keys("aura:{clips-test.0}:view:counting:2:*") == []
    assert operations(server) == [("GenerationRetired", 2), ("RebuildStarted", 2)]
    with pytest.raises(ProjectionError, match="nothing is being built"):
        abandon(stream, Counting(), Decision("ada@host"))


def test_what_was_begun_by_another_definition_is_given_up_and_begun_anew(
    server: Server, stream: Stream
) -> None:
    """Half a view by another fold can never be finished by this one."""
    stream.append([observation(1)])
    consume(server, stream, Counting())
    with rebuild(stream, Counting()) as work:
        work.begin()
        work.build()

    rebuilt(stream, Second(), accept=True)

    assert states(read_record(server, stream.name, "counting")) == {1: "kept", 3: "live"}


def test_a_rebuild_that_was_stopped_past_its_lease_is_fenced(server: Server, stream: Stream) -> None:
    """SIGSTOP, seen from the script: a newer epoch owns the generation."""
    from aurastream.projections.engine.apply import Fenced

    stream.append([observation(1)])
    asleep = rebuild(stream, Counting())
    asleep.begin()
    asleep._lease._ends.set()  # type: ignore[union-attr] # it renews nothing any more
    server.client.hset(stream.keys[0].lease("counting@2"), "until", 0)

    with rebuild(stream, Counting()) as awake:
        awake.begin()
        with pytest.raises(Fenced):
            asleep.build()
        awake.build()

    assert View(stream, Counting(), generation=2).cursor(0).read == 1


def test_a_rollback_makes_the_one_before_live_again_and_tells_its_lag(server: Server, stream: Stream) -> None:
    """The way back is the reason to keep a generation at all."""
    stream.append([observation(1)])
    consume(server, stream, Counting())
    rebuilt(stream, Counting())
    stream.append([observation(2, minute=1)])

    done = rollback(History(stream), Counting(), Decision("ada@host"), keep_ms=DAY_MS)

    assert (done.generation, done.previous, done.lag_events) == (1, 2, 0)
    assert View(stream, Counting()).state("clip-1") == Count(2, 3, "")
    assert states(read_record(server, stream.name, "counting")) == {1: "live", 2: "kept"}
    assert ("ViewRolledBack", 1) in operations(server)
    assert rollback(History(stream), Counting(), Decision("ada@host"), keep_ms=DAY_MS).generation == 2
    assert findings(stream, Counting()) == []


def test_a_rollback_to_another_definition_that_lags_is_refused_unless_that_is_accepted(
    server: Server, stream: Stream
) -> None:
    """Older numbers are a choice a person makes, not a surprise."""
    stream.append([observation(1)])
    consume(server, stream, Counting())
    rebuilt(stream, Second(), accept=True)
    stream.append([observation(2, minute=1)])
    consume(server, stream, Second())

    with pytest.raises(ProjectionError, match="lacks 1 events that the live one has"):
        rollback(History(stream), Second(), Decision("ada@host"), keep_ms=DAY_MS)
    done = rollback(History(stream), Second(), Decision("ada@host"), keep_ms=DAY_MS, accept_lag=True)

    assert (done.generation, done.lag_events) == (1, 1)


def test_a_rollback_has_nowhere_to_go_without_a_kept_generation(server: Server, stream: Stream) -> None:
    """An operator in a hurry gets a sentence and the remedy, not an empty view."""
    stream.append([observation(1)])
    consume(server, stream, Counting())

    with pytest.raises(ProjectionError, match="no generation of 'counting' of 'clips-test' is kept"):
        rollback(History(stream), Counting(), Decision("ada@host"), keep_ms=DAY_MS)


def test_a_rollback_in_the_middle_of_a_rebuild_is_noticed_by_its_swap(server: Server, stream: Stream) -> None:
    """What was compared is not what would be replaced."""
    stream.append([observation(1)])
    consume(server, stream, Counting())
    rebuilt(stream, Counting())
    with rebuild(stream, Counting()) as work:
        work.begin()
        work.build()
        work.compare()
        whole: Callable[[int], bool] = work._is_behind

        def meanwhile(number: int) -> bool:
            rollback(History(stream), Counting(), Decision("bob@host"), keep_ms=DAY_MS)
            return whole(number)

        work._is_behind = meanwhile  # type: ignore[method-assign] # between the look at the record and the swap
        with pytest.raises(ProjectionError, match="became the live one meanwhile"):
            work.swap(DAY_MS)

    assert read_record(server, stream.name, "counting").live == 1
    assert [one.differing for one in rebuilt(stream, Counting())] == [0], (
        "compared again, with the one that is live now"
    )
    assert states(read_record(server, stream.name, "counting")) == {1: "kept", 2: "kept", 3: "live"}


def test_a_log_that_was_trimmed_is_not_read_short(server: Server, stream: Stream) -> None:
    """Without an archive what is gone is gone: it says so, and builds nothing that lacks it."""
    stream.append(crowd(50))
    gone = stream.read_raw(0)[9][0]
    server.client.xtrim(stream.keys[0].log, maxlen=40)
    server.client.hset(stream.keys[0].meta, mapping={"trimmed": 10, "trimmed_to": gone})

    with rebuild(stream, Counting()) as work:
        work.begin()
        with pytest.raises(ArchiveNeeded):
            work.build()

    assert View(stream, Counting(), generation=2).cursor(0).read == 0


def test_what_was_kept_long_enough_is_retired_by_the_next_rebuild(server: Server, stream: Stream) -> None:
    """Where no host runs for a while, generations would pile up in memory."""
    stream.append([observation(1)])
    consume(server, stream, Counting())
    rebuilt(stream, Counting(), keep_ms=1)

    rebuilt(stream, Counting())

    assert states(read_record(server, stream.name, "counting")) == {2: "kept", 3: "live"}
    assert server.client.keys("aura:{clips-test.0}:view:counting:1:*") == []


def test_a_pause_frees_the_producers_and_the_next_goes_on(server: Server, parted: Stream) -> None:
    """Producers wait for a rebuild; one that stands still must not stop the platform."""
    parted.append(crowd(300))
    consume(server, parted, Counting())
    stops: list[bool] = []

    with rebuild(parted, Counting()) as first:
        first.stopping = lambda: len(stops) >= 2 or stops.append(True) is not None
        first.begin()
        assert first.build() is False

    assert not any(server.client.hexists(keys.groups, "counting@2") for keys in parted.keys)
    assert [one.differing for one in rebuilt(parted, Counting())] == [0, 0, 0]


def test_a_rebuild_that_died_holds_nobody_up(server: Server, parted: Stream) -> None:
    """Forgotten after a kill, its cursor would stop the producers at their budget, days later; while it lives
    it counts.
    """
    parted.append(crowd(200))
    consume(server, parted, Counting())
    joined = [keys.groups for keys in parted.keys]
    job = rebuild(parted, Counting(), lease_ms=300)
    job.begin()

    retire_due(parted, "counting", "worker")
    while_it_lives = [server.client.hexists(groups, "counting@2") for groups in joined]
    assert job._lease is not None
    job._lease._ends.set()  # as a kill ends it: nothing is renewed, nothing given back

    def is_let_go() -> bool:
        retire_due(parted, "counting", "worker")
        return not any(server.client.hexists(groups, "counting@2") for groups in joined)

    until(is_let_go, "the dead rebuild to be let go of")
    with rebuild(parted, Counting()) as again:
        again.begin()
        assert all(server.client.hexists(groups, "counting@2") for groups in joined)
        again.build()

    assert while_it_lives == [True] * len(joined)
    assert tables(parted, Counting(), 2) == tables(parted, Counting(), 1)
