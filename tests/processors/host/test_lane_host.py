"""A host's lanes follow its leases, in whatever order losing, claiming and ending come."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from aurastream.processors.host import HostOptions, HostWork, LaneHost, Roster, Sources
from aurastream.projections.built_in.clips import Clips
from aurastream.projections.built_in.trail import Trail
from aurastream.streams import AsyncWires, Claim, Codec, Server, Stream, read_members
from aurastream.streams.keys import old_members_key
from tests.facts import observation
from tests.processors.effects.outside import CODEC, SETTINGS, STREAM, Noting, notes, work

pytestmark = pytest.mark.any_server
PATIENCE_S = 30.0


async def eventually(condition: Any, what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        await asyncio.sleep(0.005)


def lane_tasks() -> list[str]:
    """The lanes that run in this loop, known to the host or not."""
    return [
        task.get_name()
        for task in asyncio.all_tasks()
        if task.get_name().startswith(("lane ", f"effects noting {STREAM}/0")) and not task.done()
    ]


@pytest.mark.parametrize("group", ["clips", "noting"])
def test_a_lane_that_is_claimed_again_while_it_ends_is_run_by_one_task_and_ends_with_its_host(
    server: Server, stream: Stream, group: str
) -> None:
    """Lost and claimed within the second in which its lane ends: the lane was begun while it was being ended,
    so two tasks drove it, and the host forgot both.
    """

    async def scenario() -> None:
        names = (stream.name,)
        sources = Sources(server, CODEC, SETTINGS, [])
        roster = Roster(server, sources, HostWork([Clips()], [Noting()], names))
        host = LaneHost(AsyncWires(server), roster, HostOptions(lease_ms=60_000, patience_s=5.0))
        claim = Claim(group, stream.name, 0)
        host.start()
        await eventually(lambda: claim in host.lanes, "the lane")
        held = dict(host.held)
        for _ in range(5):
            before = host.lanes[claim]
            host._follow({name: epoch for name, epoch in held.items() if name != claim}, set())
            await asyncio.sleep(0)
            host._follow(held, set())
            await eventually(
                lambda before=before: host.lanes.get(claim) not in (None, before), "another lane"
            )
        assert len(lane_tasks()) == 2, lane_tasks()
        stream.append([observation(n, clip=f"c{n}", event_id=f"e{n}") for n in range(20)])
        await eventually(lambda: len(notes(server)) == 20, "its work to go on")
        await host.stop()
        assert lane_tasks() == []

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


def test_a_host_until_idle_outwaits_hosts_of_the_older_scheme(server: Server, stream: Stream) -> None:
    """One was killed and counts as living for the rest of its lease: the processors' lanes waited for it, and
    nothing was left to do, said the exit code.
    """
    stream.append([observation(n, clip=f"c{n}", event_id=f"e{n}") for n in range(3)])
    seconds, _ = server.client.time()
    server.client.zadd(old_members_key("aurastream"), {"dead": (int(seconds) + 2) * 1_000})
    noting = Noting()
    work(server, noting)
    assert sorted(noting.handled) == ["e0", "e1", "e2"]


def test_a_look_at_what_there_is_keeps_no_lease_from_being_renewed(server: Server, stream: Stream) -> None:
    """Sixty new streams at 3 ms a round trip took six seconds to be looked at, by the thread that renews the
    leases: both hosts were dead to each other meanwhile.
    """

    async def scenario() -> None:
        sources = Sources(server, CODEC, SETTINGS, [])
        host = LaneHost(
            AsyncWires(server),
            Roster(server, sources, HostWork([Clips()], [], (stream.name,))),
            HostOptions(lease_ms=600),
        )
        host.start()
        await eventually(lambda: Claim("clips", stream.name, 0) in host.held, "the lane")
        lease = stream.keys[0].lease("clips")

        def ends() -> int:
            return int(server.client.hget(lease, "until") or 0)

        with sources.lock:  # no look gets past it
            before = ends()
            await eventually(lambda: ends() > before + 2_500, "the lease to be renewed")
        await host.stop()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))


class Unmakeable(Trail):
    """A plug-in's code that raises before there is a lane to say so."""

    name = "a-unmakeable"
    is_mended = False

    def codec(self) -> Codec:
        if not self.is_mended:
            raise RuntimeError("no codec")
        return super().codec()


def test_a_lane_that_cannot_be_made_is_said_and_keeps_no_other_from_being_made(
    server: Server, stream: Stream
) -> None:
    """The lanes behind it in the row were held by the host and run by nobody."""

    async def scenario() -> None:
        views = [Unmakeable(), Clips()]
        roster = Roster(server, Sources(server, CODEC, SETTINGS, []), HostWork(views, [], (stream.name,)))
        host = LaneHost(AsyncWires(server), roster, HostOptions(lease_ms=1_000))
        host.start()
        await eventually(lambda: Claim("clips", stream.name, 0) in host.lanes, "the lane behind it")
        await eventually(lambda: read_members(server)[0].card.troubles, "it to be on the card")
        (trouble,) = read_members(server)[0].card.troubles
        assert (trouble.group, trouble.partition) == ("a-unmakeable", 0)
        assert "RuntimeError: no codec" in trouble.reason
        views[0].is_mended = True  # type: ignore[attr-defined]
        await eventually(lambda: Claim("a-unmakeable", stream.name, 0) in host.lanes, "it to be made")
        await eventually(lambda: not read_members(server)[0].card.troubles, "the trouble to go")
        await host.stop()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))
