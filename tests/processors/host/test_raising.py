"""Whatever a plug-in's code raises: the lane says where and why, the host and its other lanes go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from aurastream.processors.effects import Attempt
from aurastream.processors.host import HostOptions, HostWork, LaneHost, Roster, Sources
from aurastream.projections import Projection
from aurastream.projections.built_in.clips import Clips
from aurastream.streams import AsyncWires, Claim, ClipViewsObserved, Server, Stream, read_members
from tests.facts import observation
from tests.processors.effects.outside import CODEC, SETTINGS, Noting, work
from tests.processors.host.test_lane_host import PATIENCE_S, eventually

SURROGATE = "no such file: caf\udce9"  # as os.fsdecode makes it of a name in Latin-1


class Speechless(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("not even that")


class Stop(BaseException):
    """As other frameworks end their tasks."""


RAISED = [
    ValueError(SURROGATE),
    Speechless(),
    SystemExit(3),
    Stop("stop"),
    GeneratorExit(),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
]
pytestmark = [
    pytest.mark.any_server,
    pytest.mark.parametrize("raised", RAISED, ids=lambda e: type(e).__name__),
]


class Looks(msgspec.Struct, frozen=True):
    """How often a clip was looked at."""

    count: int


class Raising(Projection[Looks]):
    """Fails on one event."""

    name = "raising"
    events = (ClipViewsObserved,)
    state = Looks
    raised: BaseException

    def apply(self, state: Looks | None, event: ClipViewsObserved) -> Looks:
        if event.event_id == "bad":
            raise self.raised
        return Looks(1 + (state.count if state else 0))


def scenario_of(server: Server, stream: Stream, projection: Projection[Any]) -> Callable[[], Any]:
    async def scenario() -> None:
        sources = Sources(server, CODEC, SETTINGS, [])
        roster = Roster(server, sources, HostWork([projection, Clips()], [], (stream.name,)))
        host = LaneHost(AsyncWires(server), roster, HostOptions(lease_ms=600))
        claim = Claim("raising", stream.name, 0)
        host.start()
        stream.append([observation(1, event_id="good"), observation(2, event_id="bad")])

        def troubles() -> list[Any]:
            return [each for member in read_members(server) for each in member.card.troubles]

        await eventually(troubles, "the trouble on the host's card, which its leases go with")
        (trouble,) = troubles()
        assert (trouble.group, trouble.partition) == ("raising", 0)
        if not isinstance(projection.raised, KeyboardInterrupt | GeneratorExit):  # type: ignore[attr-defined]
            assert trouble.event_id == "bad"
        assert type(projection.raised).__name__ in trouble.reason  # type: ignore[attr-defined]
        epoch, lease = host.held[claim], stream.keys[0].lease("raising")
        ends = int(server.client.hget(lease, "until") or 0)
        await eventually(
            lambda: int(server.client.hget(lease, "until") or 0) >= ends + 600, "the lease to be kept"
        )
        assert host.held[claim] == epoch
        assert not host._failed.is_set()
        stream.append([observation(3, event_id="more")])
        group = stream.keys[0].cursor("clips")
        await eventually(lambda: int(server.client.hget(group, "read") or 0) == 3, "the other view to go on")
        await host.stop()

    return scenario


def test_a_projection_that_raises_anything_is_stuck_by_name_and_the_host_keeps_its_leases(
    server: Server, stream: Stream, raised: BaseException
) -> None:
    """A text that UTF-8 cannot hold made the card unsayable, and the host lost all its lanes, one host after
    the other; an exit ended them; another kind ended the lane's task without a word.
    """
    projection = Raising()
    projection.raised = raised
    asyncio.run(asyncio.wait_for(scenario_of(server, stream, projection)(), PATIENCE_S))


def test_a_handler_that_raises_anything_has_failed_and_others_are_handled(
    server: Server, stream: Stream, raised: BaseException
) -> None:
    """An interrupt ended the process, a text that cannot be kept or made stopped the partition for good."""

    def behave(event: Any, attempt: Attempt) -> None:
        if event.event_id == "bad":
            raise raised

    noting = Noting(behave)
    stream.append([observation(1, event_id="bad"), observation(2, event_id="good", clip="other")])
    work(server, noting)
    assert sorted(noting.calls) == [("bad", 1), ("bad", 2), ("bad", 3), ("good", 1)]
    (letter,) = server.client.hvals(stream.keys[0].dead("noting"))
    assert type(raised).__name__ in letter.decode()
