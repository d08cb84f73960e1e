"""A lane's batch grows with its lag, within bounds of entries, bytes and the server's time."""

from __future__ import annotations

import pytest

from aurastream.projections import View
from aurastream.projections.engine import GroupLane, Lane
from aurastream.projections.engine.pace import (
    COSTS,
    ENTRIES_FIRST,
    ENTRIES_MAX,
    LANE_BYTES,
    PROCESS_BYTES,
    LanePace,
    Room,
)
from aurastream.streams import Server, Settings, Stream, Wires, drive, open_stream
from tests.facts import consume, findings, observation, raw_append
from tests.projections.counting import Counting

SMALL = 100  # bytes of an entry


def pace(entries_max: int = ENTRIES_MAX, commit_s: float = 0.02, room: Room | None = None) -> LanePace:
    return LanePace(entries_max, commit_s, "clips", room or Room())


def grown(lane: LanePace, entries: int = ENTRIES_MAX, size: int = SMALL) -> list[int]:
    """What it asks for, read after read, with so many entries waiting."""
    asked = []
    while entries > 0:
        asked.append(lane.ask())
        lane.has_read(min(entries, asked[-1]), min(entries, asked[-1]) * size)
        entries -= asked[-1]
    return asked


def test_a_lane_that_is_behind_asks_for_ever_more_and_one_that_keeps_up_is_left_alone() -> None:
    """Several looks at a clip become one write; a lane without lag waits for nothing."""
    lane = pace()

    assert grown(lane, 100_000)[:4] == [ENTRIES_FIRST, 4_000, 16_000, 16_000]

    calm = pace()
    assert grown(calm, 10) == [ENTRIES_FIRST]
    assert calm.ask() == ENTRIES_FIRST
    assert grown(pace(entries_max=7), 30)[:2] == [7, 7]


def test_large_entries_make_small_batches() -> None:
    """What a batch holds in memory is bounded by bytes: a larger one is noticed at once."""
    lane = pace()
    grown(lane, 100_000)

    lane.has_read(ENTRIES_MAX, ENTRIES_MAX * 100_000)
    assert lane.ask() == LANE_BYTES // 100_000
    lane.has_read(lane.ask(), lane.ask() * SMALL)
    assert LANE_BYTES // 100_000 < lane.ask() < ENTRIES_MAX // 10
    lane.has_read(1, 100 * LANE_BYTES)
    assert lane.ask() == 1


def test_lanes_that_are_behind_share_the_bytes_of_their_process() -> None:
    """A process whose six hundred lanes fell behind does not hold six hundred large batches."""
    room = Room()
    lanes = [pace(commit_s=1.0, room=room) for _ in range(64)]
    for lane in lanes:
        lane.has_read(ENTRIES_MAX, ENTRIES_MAX * 500)

    assert sum(lane.ask() for lane in lanes) * 500 <= PROCESS_BYTES
    for lane in lanes[1:]:
        lane.rest()
    assert lanes[0].ask() * 500 > LANE_BYTES // 2
    del lane, lanes
    assert room.share() == PROCESS_BYTES


def test_a_commit_holds_the_server_for_no_longer_than_it_may() -> None:
    """Everybody else's commands wait meanwhile; one that was slow for another's sake is passed over."""
    lane = pace(commit_s=0.02)
    grown(lane, 100_000)

    lane.has_committed(4_000, 0.04)
    assert lane.ask() == 2_000
    lane.has_committed(4_000, 0.02)
    assert lane.ask() == 4_000
    lane.has_committed(4_000, 3.0)
    assert lane.ask() == 4_000
    for _ in range(COSTS):
        lane.has_committed(10, 1.0)
    assert lane.ask() == 1


def test_what_an_entry_costs_is_learnt_by_all_lanes_of_a_view() -> None:
    """A lane whose only commit was slow for another's sake is not kept small by it."""
    room = Room()
    lane, other = pace(room=room), pace(room=room)
    grown(lane, 100_000)

    lane.has_committed(4_000, 3.0)
    other.has_committed(4_000, 0.02)

    assert lane.ask() == 4_000


class Everything(Counting):
    """Counting, of every event by its own subject."""

    name = "everything"


class Brief(Counting):
    """Counting, whose commits no other test has timed."""

    name = "brief"


def lane_of(stream: Stream, **options: int) -> GroupLane:
    return GroupLane(Everything(), stream, 0, **options)


def committed(server: Server, lane: Lane, entries: int) -> int:
    """One commit of so many entries, with all its questions; how often it was asked."""
    wires, asked = Wires(server), 0

    def answer(asks: list) -> list:
        nonlocal asked
        asked += 1
        return wires.exchange(asks)

    drive(lane.settle(), wires.exchange)
    (raw,) = wires.ask(lane.asks(("XRANGE", lane.keys.log, "-", "+", "COUNT", entries)))
    answer_code, _ = drive(lane.commit(raw), answer)
    wires.close()
    assert answer_code.name == "OK"
    return asked


@pytest.mark.parametrize("is_pure", [True, False], ids=["pure", "with digests"])
def test_one_commit_takes_sixteen_thousand_entries(server: Server, stream: Stream, is_pure: bool) -> None:
    """Lua unpacks no more than 8,000 values at once; the index is compared in parts."""
    count = ENTRIES_MAX
    for first in range(0, count, 500):
        stream.append([observation(n, minute=n / 60, clip=f"clip-{n}") for n in range(first, first + 500)])
    if not is_pure:
        raw_append(server, stream, observation(1, event_id="by-hand", clip="clip-x"))

    lane = lane_of(stream)
    committed(server, lane, count)

    assert lane.cursor.applied == count
    consume(server, stream, Everything())
    assert findings(stream, Everything()) == []


def test_sixteen_thousand_that_the_index_does_not_know_are_judged_in_one_commit(
    server: Server, stream: Stream
) -> None:
    """A log that was mirrored entry by entry: every digest is odd, beyond what Lua returns in one unpack."""
    with server.client.pipeline(transaction=False) as pipeline:
        codec = stream.codec
        for n in range(ENTRIES_MAX):
            event = observation(n, minute=n / 60, clip=f"clip-{n % 9_000}")
            raw = codec.encode(event)
            pipeline.xadd(stream.keys[0].log, {"event": raw, "crc32": __import__("zlib").crc32(raw)})
        pipeline.execute()

    lane = lane_of(stream)
    committed(server, lane, ENTRIES_MAX)

    assert (lane.cursor.applied, server.client.hlen(stream.keys[0].ids)) == (ENTRIES_MAX, ENTRIES_MAX)
    assert findings(stream, Everything()) == []


def test_a_backlog_is_taken_in_few_commits(server: Server) -> None:
    """From one read to all that is there, where the server's time is no bound."""
    stream = open_stream(server, "clips-long", create=True, settings=Settings(partitions=1, commit_ms=10_000))
    for first in range(0, 12_000, 500):
        stream.append([observation(n, minute=n, clip=f"clip-{n % 40}") for n in range(first, first + 500)])
    sizes: list[int] = []

    consume(server, stream, Counting(), on_commit=lambda progress: sizes.append(progress.events))

    assert sizes == [ENTRIES_FIRST, 4 * ENTRIES_FIRST, 12_000 - 5 * ENTRIES_FIRST]
    assert findings(stream, Counting()) == []


def test_a_commit_that_may_hold_the_server_for_a_millisecond_stays_small(server: Server) -> None:
    """AURASTREAM_COMMIT_MS bounds what others wait for, whatever the lag."""
    stream = open_stream(server, "clips-short", create=True, settings=Settings(partitions=1, commit_ms=1))
    for first in range(0, 12_000, 500):
        stream.append([observation(n, minute=n, clip=f"clip-{n}") for n in range(first, first + 500)])
    sizes: list[int] = []

    consume(server, stream, Brief(), on_commit=lambda progress: sizes.append(progress.events))

    assert max(sizes[2:]) < 4_000, sizes
    assert View(stream, Brief()).cursors()[0].applied == 12_000
