"""A lane that reads for itself in an event loop: it needs nobody but the server, and says what keeps it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from aurastream.processors.host.lane import HostedLane
from aurastream.processors.host.wakes import Wakes
from aurastream.projections import Projection, View
from aurastream.projections.engine import GroupLane, Progress
from aurastream.projections.engine.fold import SLICE
from aurastream.streams import AsyncWires, ClipViewsObserved, Server, Settings, Stream, ask_lease, open_stream
from tests.cluster import Cluster
from tests.facts import findings, observation
from tests.projections.counting import Count, Counting

PATIENCE_S = 20.0


class Failing(Counting):
    """Counting, until it is made to fail at one event."""

    name = "failing"
    fails_at = ""

    def apply(self, state: Count | None, event: ClipViewsObserved) -> Count:
        if event.event_id == Failing.fails_at:
            raise ZeroDivisionError("by the plug-in")
        return super().apply(state, event)


class Hosted:
    """A host's lanes without a host."""

    def __init__(self, wires: AsyncWires) -> None:
        self.wires, self.wakes = wires, Wakes(wires)
        self.lanes: list[HostedLane] = []

    def start(
        self, stream: Stream, projection: Projection[Any], epoch: int | None = None
    ) -> list[HostedLane]:
        """One lane for every partition."""
        made = [
            HostedLane(GroupLane(projection, stream, partition), self.wires, self.wakes)
            for partition in range(stream.partitions)
        ]
        self.lanes += made
        for lane in made:
            lane.start(epoch)
        return made


@asynccontextmanager
async def hosted(server: Server) -> AsyncIterator[Hosted]:
    """Lanes that end with the block."""
    host = Hosted(AsyncWires(server))
    try:
        yield host
    finally:
        await asyncio.gather(*[lane.stop(1.0) for lane in host.lanes])
        await host.wakes.close()
        await host.wires.close()


async def awaited(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE_S} s for {what}"
        await asyncio.sleep(0.002)


def append(stream: Stream, first: int, count: int) -> None:
    stream.append([observation(n, minute=n, clip=f"clip-{n % 40}") for n in range(first, first + count)])


def applied(stream: Stream, projection: Projection[Any]) -> int:
    return sum(cursor.applied for cursor in View(stream, projection).cursors().values())


def in_a_loop(server: Server, work: Callable[[Hosted], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with hosted(server) as host:
            await work(host)

    asyncio.run(whole())


@pytest.fixture
def parted(server: Server) -> Stream:
    return open_stream(server, "clips-hosted", create=True, settings=Settings(partitions=4))


def test_a_lane_reads_for_itself_what_is_there_and_what_comes(server: Server, parted: Stream) -> None:
    """Nobody hands anything over: one waker has all logs, and each lane reads its own."""
    append(parted, 0, 500)

    async def work(host: Hosted) -> None:
        lanes = host.start(parted, Counting())
        await awaited(lambda: all(lane.is_idle for lane in lanes), "the backlog")
        assert applied(parted, Counting()) == 500
        for n in range(500, 560):
            await asyncio.to_thread(append, parted, n, 1)
        await awaited(lambda: applied(parted, Counting()) == 560, "what came")
        assert not any(lane.trouble or lane.waits_for for lane in lanes)

    in_a_loop(server, work)

    assert findings(parted, Counting()) == []


def test_a_quiet_fleet_of_lanes_is_woken_at_once(server: Server, parted: Stream) -> None:
    """A view is read to see what just happened: an idle lane does not wait for its own look at the log."""
    moments: dict[int, float] = {}

    async def work(host: Hosted) -> None:
        lanes = host.start(parted, Counting())
        for lane in lanes:
            lane.lane.on_commit = lambda progress: moments.setdefault(progress.cursor.read, time.monotonic())
        took = []
        for n in range(20):
            await awaited(lambda: all(lane.is_idle for lane in lanes), "an idle host")
            moments.clear()
            began = time.monotonic()
            await asyncio.to_thread(append, parted, n, 1)
            await awaited(lambda: moments, "the commit")
            took.append(min(moments.values()) - began)
        assert sorted(took)[10] < 0.1, took  # a look by itself would be half a second on average

    in_a_loop(server, work)


def test_a_stuck_lane_says_at_which_event_and_why_and_goes_on_when_mended(
    server: Server, parted: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator needs the event, its place and the traceback; the other lanes go on meanwhile."""
    append(parted, 0, 80)
    broken = observation(33, minute=33, clip="clip-33")
    monkeypatch.setattr(Failing, "fails_at", broken.event_id)
    partition = parted.partition_of("clip-33")

    async def work(host: Hosted) -> None:
        lanes = host.start(parted, Failing())
        others = [lane for lane in lanes if lane.lane.partition != partition]
        await awaited(lambda: lanes[partition].stuck, "the trouble")
        await awaited(lambda: all(lane.is_idle for lane in others), "the others")
        stuck = lanes[partition].stuck
        assert stuck is not None
        assert (stuck.event_id, stuck.partition, stuck.group) == (broken.event_id, partition, "failing")
        (entry,) = server.client.xrange(parted.keys[partition].log, stuck.position, stuck.position)
        assert broken.event_id.encode() in entry[1][b"event"]
        assert "by the plug-in" in stuck.reason
        assert "in apply" in stuck.traceback
        assert lanes[partition].trouble == stuck.reason
        assert not any(lane.trouble for lane in others)
        monkeypatch.setattr(Failing, "fails_at", "")
        await awaited(lambda: applied(parted, Failing()) == 80, "it to be tried again")
        await awaited(lambda: lanes[partition].trouble == "", "the trouble to be over")

    in_a_loop(server, work)


def test_cut_connections_are_waited_for_and_are_no_trouble(server: Server, parted: Stream) -> None:
    """What passes by itself ends nothing; the waker's own connection is one of those cut."""

    async def work(host: Hosted) -> None:
        lanes = host.start(parted, Counting())
        for round_ in range(5):
            await asyncio.to_thread(append, parted, round_ * 50, 50)
            await asyncio.to_thread(server.client.client_kill_filter, _type="normal", skipme=True)
        await awaited(lambda: applied(parted, Counting()) == 250, "all after the cuts")
        assert not any(lane.trouble for lane in lanes)

    in_a_loop(server, work)

    assert findings(parted, Counting()) == []


def test_a_lane_stops_after_the_commit_under_way_and_is_fenced_by_a_newer_owner(
    server: Server, stream: Stream
) -> None:
    """Who takes over begins at the cursor; nobody writes behind its back."""
    append(stream, 0, 100)
    lease = stream.keys[0].lease(Counting.name)
    old = ask_lease(server, lease, "old", 60_000, "claim").epoch
    ask_lease(server, lease, "old", 60_000, "release")
    new = ask_lease(server, lease, "new", 60_000, "claim").epoch

    async def work(host: Hosted) -> None:
        (fenced,) = host.start(stream, Counting(), old)
        await awaited(lambda: fenced.is_fenced, "the fence")
        assert not fenced.is_running
        assert applied(stream, Counting()) == 0
        (owner,) = host.start(stream, Counting(), new)
        await awaited(lambda: owner.is_idle, "the owner")
        began = time.monotonic()
        await owner.stop(5.0)
        assert time.monotonic() - began < 1.0
        assert not owner.is_running
        owner.start(new)
        append(stream, 100, 10)
        await awaited(lambda: applied(stream, Counting()) == 110, "a lane that was started again")

    in_a_loop(server, work)


def test_a_lane_that_must_go_does_not_begin_another_batch(server: Server, stream: Stream) -> None:
    """A moved lane is idle for as long as its last owner takes to let go."""
    append(stream, 0, 400)
    seen: list[Progress] = []

    async def work(host: Hosted) -> None:
        lane = HostedLane(GroupLane(Counting(), stream, 0, batch_max=10), host.wires, host.wakes)
        host.lanes.append(lane)
        ending: list[asyncio.Task[None]] = []

        def committed(progress: Progress) -> None:
            seen.append(progress)
            if len(seen) == 3:
                ending.append(asyncio.ensure_future(lane.stop(5.0)))
                lane.lane.is_ending = (
                    True  # as stop does first, were its turn to come before the next batch's
                )

        lane.lane.on_commit = committed
        lane.start(None)
        await awaited(lambda: ending and ending[0].done(), "the end")

    in_a_loop(server, work)

    assert len(seen) == 3
    assert applied(stream, Counting()) == 30


@pytest.fixture
def cluster(valkey: str) -> Iterator[Cluster]:
    cluster = Cluster(valkey)
    yield cluster
    cluster.stop()


@pytest.mark.cluster
@pytest.mark.slow
def test_a_cluster_is_looked_at_ever_slower_and_every_lane_is_woken(cluster: Cluster) -> None:
    """No one command waits for several slots there."""
    server = Server(cluster.url)
    parted = open_stream(server, "clips-hosted", create=True, settings=Settings(partitions=4))

    async def work(host: Hosted) -> None:
        host.start(parted, Counting())
        for n in range(30):
            await asyncio.to_thread(append, parted, n, 1)
            await awaited(lambda total=n + 1: applied(parted, Counting()) == total, "the event")

    in_a_loop(server, work)

    assert findings(parted, Counting()) == []
    server.close()


class Counted(Counting):
    """Counting, and how many events it has folded."""

    name = "counted"
    folded = 0

    def apply(self, state: Count | None, event: ClipViewsObserved) -> Count:
        self.folded += 1
        return super().apply(state, event)


def test_a_lane_that_catches_up_lets_others_have_their_turn(server: Server, stream: Stream) -> None:
    """A batch of many thousand is folded in parts: pages and lanes with little to do go on."""
    for first in range(0, 12_000, 500):
        append(stream, first, 500)
    turns: list[int] = []  # events folded by then
    sizes: list[int] = []

    async def work(host: Hosted) -> None:
        counted = Counted()
        lane = HostedLane(GroupLane(counted, stream, 0), host.wires, host.wakes)
        host.lanes.append(lane)
        lane.lane.pace.has_committed(10_000, 0.001)  # cheap: this is about the fold
        lane.lane.on_commit = lambda progress: sizes.append(progress.events)
        lane.start(None)
        while not lane.is_idle:
            turns.append(counted.folded)
            await asyncio.sleep(0)

    in_a_loop(server, work)

    assert max(sizes) > 4_000, sizes
    assert max(after - before for before, after in pairwise(turns)) <= SLICE


def test_a_server_that_is_full_is_waited_for_and_said(server: Server, parted: Stream) -> None:
    """What the server refuses for a while is nobody's to mend here: no trouble, no end, and on it goes."""
    append(parted, 0, 200)

    async def work(host: Hosted) -> None:
        await asyncio.to_thread(server.client.config_set, "maxmemory", 1)
        lanes = host.start(parted, Counting())
        await awaited(lambda: all("OOM" in lane.waits_for for lane in lanes), "the refusals")
        assert not any(lane.trouble for lane in lanes)
        await asyncio.to_thread(server.client.config_set, "maxmemory", 0)
        await awaited(lambda: applied(parted, Counting()) == 200, "all of them")
        await awaited(lambda: not any(lane.waits_for for lane in lanes), "the end of the wait")

    in_a_loop(server, work)

    assert findings(parted, Counting()) == []
