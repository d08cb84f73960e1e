"""
Reads: every answer comes from one instant of a partition and names it, and partitions merge into what one
would have been.

The atomicity checks run beside a process that writes at full speed, and the same checks are run on a reader
that takes two steps,
where they must fail: a check that cannot fail proves nothing.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurastream.projections import Answer, Listing, Projection, ProjectionError, Ranking, View
from aurastream.projections.built_in.clips import Clips
from aurastream.streams import (
    ClipViewsObserved,
    Position,
    Server,
    Settings,
    Stream,
    microseconds,
    open_stream,
)
from aurastream.streams.groups import Cursor
from tests.facts import NOON, consume, findings, observation
from tests.projections.counting import Counting
from tests.servers import ServerProcess, until

READS = 2_500  # of each of the two readers


# One instant, beside a writer at full speed.

WRITER = """
import itertools, sys
from aurastream.projections import Consumer
from aurastream.streams import Server, open_stream
from tests.facts import observation
from tests.projections.counting import Counting

server = Server(sys.argv[1])
stream = open_stream(server, "clips-reads")
for first in itertools.count(step=1_000):
    seen = range(first, first + 1_000)
    named = [(n, {"clip": f"c{n % 23}", "category": f"p{n % 5}", "event_id": f"e{n}"}) for n in seen]
    stream.append([observation(n % 97, minute=n % 9_999, **names) for n, names in named])
    Consumer(server, [Counting()], lambda: [stream], batch_max=7).run(until_idle=True)
"""


@pytest.fixture
def written(one_server: ServerProcess) -> Iterator[str]:
    """The URL of a server on which a process appends and consumes, seven events a commit, until the test is
    over.
    """
    server = Server(one_server.url)
    server.client.flushall()
    stream = open_stream(server, "clips-reads", create=True, settings=Settings(partitions=2))
    writer = subprocess.Popen([sys.executable, "-c", WRITER, one_server.url])
    until(
        lambda: (
            writer.poll() is not None
            or all(cursor.applied for cursor in View(stream, Counting()).cursors().values())
        ),
        "a view",
    )
    yield one_server.url
    was_alive = writer.poll() is None
    writer.kill()
    writer.wait()
    stream.close()
    server.close()
    assert was_alive, "the writer died"


class Reader:
    """Compares what it reads; remembers positions, which must never go back."""

    def __init__(self, url: str, kind: type[View[Any]] = View) -> None:
        self.server = Server(url)
        self.stream = open_stream(self.server, "clips-reads")
        self.view = kind(self.stream, Counting())
        self.seen: dict[int, set[str]] = {0: set(), 1: set()}
        self._latest = {0: "0-0", 1: "0-0"}

    def positions(self, positions: dict[int, str]) -> None:
        assert set(positions) == {0, 1}
        for partition, position in positions.items():
            assert Position.parse(position) >= Position.parse(self._latest[partition]), (
                "a later read shows an earlier instant"
            )
            self._latest[partition] = position
            self.seen[partition].add(position)

    def totals_agree(self) -> None:
        """A total is the sum of its parts, and both of what the cursor counts."""
        found = self.view.tables("states", "all")
        self.positions({partition: cursor.position for partition, (cursor, _) in found.items()})
        for cursor, (states, totals) in found.values():
            sums: dict[str, dict[str, int]] = {}
            for raw in states.values():
                state = msgspec.json.decode(raw)
                row = sums.setdefault(state["category"], {"applied": 0, "views": 0, "clips": 0})
                for column, more in (("applied", state["applied"]), ("views", state["views"]), ("clips", 1)):
                    row[column] += more
            assert {part: msgspec.json.decode(raw) for part, raw in totals.items()} == sums
            assert sum(row["applied"] for row in sums.values()) == cursor.applied == cursor.read

    def ranks_agree(self) -> None:
        """A leaderboard shows the states its scores were made of, and is in order."""
        answer = self.view.ranking("most", top=10)
        self.positions(answer.positions)
        assert [row.score for row in answer.rows] == [row.state.applied for row in answer.rows]
        assert answer.rows == sorted(answer.rows, key=lambda row: (-row.score, row.key.encode()))

    def parts_agree(self) -> None:
        """Over all and by part are one ranking: read as keys, the parts hold together exactly what the whole
        holds.
        """
        for partition in (0, 1):
            names = [self.view.key(partition, "most", part) for part in (None, *(f"p{n}" for n in range(5)))]
            _, (whole, *parts) = self.view.keys_at_once(partition, names)
            in_parts = [pair for part in parts for pair in zip(part[::2], part[1::2], strict=True)]
            assert sorted(in_parts) == sorted(zip(whole[::2], whole[1::2], strict=True))

    def close(self) -> None:
        self.stream.close()
        self.server.close()


CHECKS = (Reader.totals_agree, Reader.ranks_agree, Reader.parts_agree)


@pytest.mark.process
def test_readers_at_full_speed_never_see_a_total_that_differs_from_its_parts(written: str) -> None:
    """A leaderboard with its states, a total with its parts: one snapshot, with the position it reflects."""
    readers = [Reader(written), Reader(written)]
    failures: list[BaseException] = []

    def read(reader: Reader, checks: tuple[Callable[[Reader], None], ...]) -> None:
        try:
            for number in range(READS):
                checks[number % len(checks)](reader)
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=read, args=(reader, checks))
        for reader, checks in zip(readers, (CHECKS, CHECKS[::-1]), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for reader in readers:
        reader.close()

    if failures:
        raise failures[0]
    moments = [len(seen) for reader in readers for seen in reader.seen.values()]
    print("instants seen by reader and partition:", moments)
    assert min(moments) > READS // 100, "the readers hardly saw it move"


class TornView(View[Any]):
    """A reader of two steps, as one writes it without a script: the tables one after the other, the states
    after the ranks.
    """

    def tables(self, *tables: str) -> dict[int, tuple[Cursor, list[dict[str, bytes]]]]:
        steps = [super(TornView, self).tables(table) for table in tables]
        return {
            partition: (steps[0][partition][0], [step[partition][1][0] for step in steps])
            for partition in steps[0]
        }

    def ranking(self, name: str, top: int = 20, part: str | None = None) -> Answer:
        ranks = super().ranking(name, top, part)
        states = self.states().rows
        return Answer(
            [msgspec.structs.replace(row, state=states[row.key]) for row in ranks.rows], ranks.positions
        )

    def keys_at_once(self, partition: int, names: list[str]) -> tuple[Cursor, list[list[bytes]]]:
        steps = [super(TornView, self).keys_at_once(partition, [name]) for name in names]
        return steps[0][0], [step[1][0] for step in steps]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.slow
def test_a_reader_of_two_steps_turns_the_check_red(written: str, check: Callable[[Reader], None]) -> None:
    """The mutation check: the differences are there to be seen, and the checks see them."""
    reader = Reader(written, TornView)

    with pytest.raises(AssertionError):
        for_long(check, reader)
    reader.close()


def for_long(check: Callable[[Reader], None], reader: Reader) -> None:
    for _ in range(20 * READS):
        check(reader)


@pytest.mark.slow
def test_two_hgetalls_see_a_total_that_differs_from_its_parts(written: str) -> None:
    """What any client sees that does not read by script."""
    reader = Reader(written)
    states, totals = reader.view.key(0, "states"), reader.view.key(0, "all")

    def differs() -> bool:
        parts = [msgspec.json.decode(raw)["applied"] for raw in reader.server.client.hgetall(states).values()]
        whole = [msgspec.json.decode(raw)["applied"] for raw in reader.server.client.hgetall(totals).values()]
        return sum(parts) != sum(whole)

    until(differs, "a difference")
    reader.close()


# Rankings of several partitions are one ranking.


class Scored(msgspec.Struct, frozen=True):
    score: float
    part: str
    end: datetime | None = None


class Board(Projection[Scored]):
    name = "board"
    events = (ClipViewsObserved,)
    state = Scored
    rankings = (
        Ranking("plain", score="score", by="part"),
        Ranking("fading", score="score", by="part", expires_at=lambda state: state.end),
    )


def store(stream: Stream, rows: list[tuple[int, str, Scored]], watermarks: dict[int, int]) -> None:
    """A view as a consumer would have left it, in any partition; a partition drops what its own watermark has
    passed.
    """
    view = View(stream, Board())
    with stream.server.client.pipeline(transaction=False) as pipeline:
        pipeline.flushdb()
        for partition, at in watermarks.items():
            fields = Cursor(position=f"{at + 1}-{partition}", watermark=microseconds(NOON) + at).fields()
            pipeline.hset(stream.keys[partition].cursor("board"), items=fields)
        for partition, key, state in rows:
            pipeline.hset(view.key(partition, "states"), key, msgspec.json.encode(state))
            is_over = state.end is not None and state.end <= NOON + timedelta(
                microseconds=watermarks[partition]
            )
            for name in ("plain", "fading") if not is_over else ("plain",):
                for part in (None, state.part):
                    pipeline.zadd(view.key(partition, name, part), {key: 0.0 - state.score})
        pipeline.execute()


finite = st.one_of(
    st.sampled_from([0.0, -1.0, 1.0, 2.5, -2.5, 1e-300, float(2**53 - 1)]),
    st.floats(-1e9, 1e9, allow_nan=False),
)
keys = st.text("abc:.-é", min_size=1, max_size=3) | st.text(max_size=2)


@st.composite
def boards(draw: st.DrawFn) -> tuple[list[tuple[int, str, Scored]], dict[int, int]]:
    """Keys with scores, parts and ends, mostly in few of the partitions, so that a fair share is not
    enough.
    """
    count = draw(st.sampled_from([1, 2, 4, 12]))
    crowded = draw(st.integers(0, count - 1))
    partitions = st.one_of(st.just(crowded), st.integers(0, count - 1))
    ends = st.one_of(st.none(), st.integers(0, 12).map(lambda at: NOON + timedelta(microseconds=at)))
    states = st.builds(Scored, finite, st.sampled_from(["", "x", "y:z|%"]), ends)
    size = draw(st.sampled_from([0, 3, 40]))
    found = draw(st.dictionaries(keys, st.tuples(partitions, states), min_size=min(size, 30), max_size=size))
    watermarks = {partition: draw(st.integers(0, 10)) for partition in range(count)}
    return [(partition, key, state) for key, (partition, state) in found.items()], watermarks


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(
    board=boards(),
    top=st.sampled_from([-1, 0, 1, 2, 5, 9, 20, 100]),
    part=st.sampled_from([None, "", "x", "y:z|%", "none"]),
)
@pytest.mark.slow
def test_a_ranking_over_partitions_is_the_head_of_the_sorted_whole(
    one_server: ServerProcess,
    board: tuple[list[tuple[int, str, Scored]], dict[int, int]],
    top: int,
    part: str | None,
) -> None:
    """Highest first, ties by key as bytes, any sign; what the latest event time of any partition has passed
    is out.
    """
    rows, watermarks = board
    server = Server(one_server.url)
    stream = open_stream(server, f"board-{len(watermarks)}", create=True, partitions=len(watermarks))
    store(stream, rows, watermarks)
    now = NOON + timedelta(microseconds=max(watermarks.values()))

    for name in ("plain", "fading"):
        answer = View(stream, Board()).ranking(name, top, part)

        whole = [(key, state) for _, key, state in rows if part in (None, state.part)]
        if name == "fading":
            whole = [(key, state) for key, state in whole if state.end is None or state.end > now]
        whole.sort(key=lambda row: (-row[1].score, row[0].encode()))
        head = whole if top < 0 else whole[:top]
        assert [(row.key, row.state) for row in answer.rows] == head
        assert [row.score for row in answer.rows] == [state.score for _, state in head]
        assert answer.positions == {
            partition: f"{at + 1}-{partition}" for partition, at in watermarks.items()
        }
    stream.close()
    server.close()


def test_a_long_ranking_is_read_from_the_partition_that_holds_it(one_server: ServerProcess) -> None:
    """All of the best in one partition, hundreds of expired ones before them: asked for again, and for ever
    more, until enough.
    """
    server = Server(one_server.url)
    stream = open_stream(server, "board-8", create=True, partitions=8)
    over = NOON + timedelta(microseconds=5)
    rows = [(3, f"old-{n:04}", Scored(10_000.0 + n, "x", over)) for n in range(900)]
    rows += [(3, f"new-{n:04}", Scored(float(n), "x")) for n in range(50)]
    rows += [(n % 8, f"low-{n:04}", Scored(-float(n), "x")) for n in range(1, 50)]
    store(stream, rows, {partition: 7 if partition == 0 else 1 for partition in range(8)})

    for part in (None, "x"):
        answer = View(stream, Board()).ranking("fading", 60, part)
        assert [row.key for row in answer.rows] == [f"new-{n:04}" for n in range(49, -1, -1)] + [
            f"low-{n:04}" for n in range(1, 11)
        ]
    stream.close()
    server.close()


def test_a_partition_that_moves_between_two_looks_hides_no_other_partitions_rows(
    one_server: ServerProcess,
) -> None:
    """A ranking asks a crowded partition twice. What it held the first time may have expired the second time:
    the partitions whose
    fair share was enough the first time must be asked for more."""
    server = Server(one_server.url)
    stream = open_stream(server, "board-16", create=True, partitions=16)
    crowd = [(0, f"a{n:02}", Scored(100.0 + n, "x", NOON + timedelta(microseconds=5))) for n in range(20)]
    others = [(1, f"b{n:02}", Scored(float(n), "x")) for n in range(20)]
    store(stream, [*crowd, *others], dict.fromkeys(range(16), 1))

    class Interrupted(View[Any]):
        looks = 0

        def ask(self, requests: Any, **options: Any) -> Any:
            if self.looks == 1:
                store(stream, [*crowd, *others], dict.fromkeys(range(16), 9))
            self.looks += 1
            return super().ask(requests, **options)

    answer = Interrupted(stream, Board()).ranking("fading", 10)

    assert [row.key for row in answer.rows] == [f"b{n:02}" for n in range(19, 9, -1)]
    assert answer.positions[0] == "10-0"
    stream.close()
    server.close()


# What is not there, and what is named.


@pytest.fixture
def parted(server: Server) -> Iterator[Stream]:
    stream = open_stream(server, "clips-parted", create=True, settings=Settings(partitions=3))
    yield stream
    stream.close()


def test_a_view_of_nothing_is_empty_and_says_so(parted: Stream) -> None:
    """A new view is asked before its first event, and must not look broken."""
    view = View(parted, Clips())

    assert view.state("clip-1") is None
    assert (
        view.ranking("viral").rows
        == view.ranking("viral", 0).rows
        == view.ranking("viral", part="irl").rows
        == []
    )
    assert (
        view.states().rows
        == view.totals("days").rows
        == view.rollup("recap").rows
        == view.listing("late", "late").rows
        == {}
    )
    assert (
        view.ranking("viral").positions
        == view.states().positions
        == view.totals("days").positions
        == {0: "", 1: "", 2: ""}
    )


def test_an_absent_key_is_none_among_others(server: Server, parted: Stream) -> None:
    """Rows are matched by their place: one that is missing must not move the others."""
    parted.append([observation(5, clip="a")])
    consume(server, parted, Clips())
    view = View(parted, Clips())

    assert view.state("a") is not None
    assert view.state("b") is None
    home = parted.partition_of("a")
    found = view.rows("clips", ["b", "a", "b"])
    assert [raw is not None for raw in found.rows[home]] == [False, True, False]
    assert all(raw == [None] * 3 for partition, raw in found.rows.items() if partition != home)
    assert view.rows("clips", []).rows == {0: [], 1: [], 2: []}


def test_every_answer_names_the_position_of_every_partition(server: Server, parted: Stream) -> None:
    """The same for every kind of read, and exactly the position of the last entry that was folded."""
    placed = parted.append([observation(n, clip=f"c{n}", category="irl", minute=n) for n in range(30)])
    consume(server, parted, Clips())
    ends = {
        partition: max((item.position for item in placed if item.partition == partition), key=Position.parse)
        for partition in range(3)
    }
    view = View(parted, Clips())

    answers = [
        view.states(),
        view.totals("days"),
        view.rollup("recap"),
        view.listing("late", "late"),
        view.rows("clips", ["c1"]),
    ]
    answers += [view.ranking("latest_views", top) for top in (1, 20, -1)]
    assert [answer.positions for answer in answers] == [ends] * len(answers)
    assert {partition: cursor.position for partition, cursor in view.cursors().items()} == ends
    assert view.rows("clips", ["c1"], partitions=[2]).positions == {2: ends[2]}
    assert sum(cursor.applied for cursor in view.cursors().values()) == 30


def test_totals_of_partitions_add_up(server: Server, parted: Stream) -> None:
    """A total is kept per partition; people ask for the whole."""
    parted.append([observation(100 + n, clip=f"c{n}", category=f"p{n % 2}") for n in range(20)])
    consume(server, parted, Clips())
    rows = View(parted, Clips()).totals("categories").rows

    assert {row: (total["subjects"], total["latest_views_sum"]) for row, total in rows.items()} == {
        f"p{odd}": (10, sum(100 + n for n in range(odd, 20, 2))) for odd in (0, 1)
    }


def test_a_ranking_that_does_not_exist_is_refused_with_those_that_do(stream: Stream) -> None:
    """A typing error must not look like an empty leaderboard."""
    with pytest.raises(
        ProjectionError,
        match=r"no ranking 'best' \(rankings: latest_views, last_velocity, max_velocity, viral\)",
    ):
        View(stream, Clips()).ranking("best")


@pytest.mark.slow
def test_a_row_of_thousands_is_read_whole(server: Server, stream: Stream) -> None:
    """A script may unpack about 8,000 values at once; rankings and rows are longer than that."""
    stream.append([observation(n, clip=f"c{n:05}") for n in range(9_001)])
    consume(server, stream, Clips())
    view = View(stream, Clips())

    answer = view.ranking("latest_views", -1)
    assert [row.state.views for row in answer.rows] == list(range(9_000, -1, -1))
    rows = view.rows("clips", [f"c{n:05}" for n in range(9_001)]).rows[0]
    assert [msgspec.json.decode(raw)["views"] for raw in rows if raw is not None] == list(range(9_001))


# Lists.


class Noted(Counting):
    """Counting, with a list by category of what was seen."""

    name = "noted"
    listings = (
        Listing(
            "notes",
            key=lambda event: event.category,
            item=lambda old, new, event, position: {"at": position, "n": event.views},
        ),
    )


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 32, 100])
def test_a_list_comes_back_in_the_order_of_the_log_whatever_its_rows(
    server: Server, stream: Stream, count: int
) -> None:
    """Full rows and the open end are read apart, and must read as one list."""
    placed = stream.append([observation(n, minute=n, category="irl") for n in range(count)])
    consume(server, stream, Noted(), batch_max=5)

    found = View(stream, Noted()).listing("notes", "irl").rows
    assert found == ({0: [{"at": item.position, "n": n} for n, item in enumerate(placed)]} if count else {})


def test_a_list_over_partitions_is_one_list_per_partition(server: Server, parted: Stream) -> None:
    """Partitions have no common order; a merged list would claim one."""
    placed = parted.append([observation(n, clip=f"c{n}", category="irl") for n in range(60)])
    consume(server, parted, Noted())

    found = View(parted, Noted()).listing("notes", "irl").rows
    by_partition = {p: [item.position for item in placed if item.partition == p] for p in range(3)}
    assert {partition: [item["at"] for item in items] for partition, items in found.items()} == by_partition
    assert View(parted, Noted()).listing("notes", "irl", partitions=[1]).rows == {1: found[1]}


# A check is a read, too.


def test_a_check_beside_a_live_consumer_sees_the_parts_that_come_up_meanwhile(
    server: Server, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lists the tables, then reads them at one instant: a category that is new in between is no
    difference.
    """
    stream.append([observation(1, category="irl")])
    consume(server, stream, Counting())
    listed = server.client.scan_iter

    def and_meanwhile(*given: Any, **more: Any) -> list[Any]:
        found = list(listed(*given, **more))
        stream.append(
            [
                observation(1, clip="clip-2", category="music"),
                observation(2, clip="clip-2", minute=1, category="music"),
            ]
        )
        consume(server, stream, Counting())
        return found

    monkeypatch.setattr(server.client, "scan_iter", and_meanwhile)

    assert findings(stream, Counting()) == []


def test_a_check_still_sees_a_table_that_nobody_folded_and_one_that_is_gone(
    server: Server, stream: Stream
) -> None:
    """What check does not list it cannot compare."""
    stream.append([observation(1, category="irl")])
    consume(server, stream, Counting())
    view = View(stream, Counting())
    server.client.zadd(view.key(0, "most", "music"), {"clip-9": -1})
    server.client.delete(view.key(0, "most", "irl"))

    assert findings(stream, Counting()) == ["most:irl clip-1:  != -1.0", "most:music clip-9: -1 != "]
