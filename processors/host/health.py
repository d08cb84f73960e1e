"""
Whether this process is well: fit for a liveness probe, whose red is a restart.

    own lanes -> a look at the server, bounded -> LaneHealth each -> Health

Red is what a restart mends: a lane of ours whose cursor stands still for STALL_S while events wait, without
an error that says why; one whose task has ended; one that says for twice as long that the server does not
answer it, while the server answers this look. Never another's fault or a person's to decide: a server that is
away or refuses (it is tried all the time), a definition that was changed, an event that makes a fold fail,
dead letters. These are said here too, and are red at /fleet.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from aurastream.processors.effects import LaneRunner
from aurastream.processors.fleet import LaneLook
from aurastream.processors.host.sight import Away, Sight
from aurastream.processors.host.supervised import SupervisedLane
from aurastream.streams import Claim

STALL_S = 15.0
LOST_WORDS = ("ConnectionError", "TimeoutError", "OSError", "BrokenPipeError")
REASONS_MAX = 5


class LaneHealth(msgspec.Struct, frozen=True):
    """One lane of ours. trouble: what a person must mend. waits_for: a fault that passes. sick: what a
    restart would mend; each "" when there is none.
    """

    group: str
    generation: int
    stream: str
    partition: int
    position: str
    lag_events: int
    lag_seconds: float
    set_aside: int
    trouble: str
    waits_for: str
    sick: str


class Health(msgspec.Struct, frozen=True):
    """The process. reason: why it is not healthy. server: "answers", or what is known of it."""

    healthy: bool
    reason: str
    server: str
    lanes: list[LaneHealth]

    @property
    def is_answered(self) -> bool:
        """Whether the server answers."""
        return self.server == ANSWERS


ANSWERS = "answers"


class AllLanes(Protocol):
    """The lanes of a host. owned: how many leases it holds. takeovers: of them, from hosts that did not give
    them back. waits_for: why its leases are not kept, or what the server refuses; "" while all is well.
    waits_since_ms: since when the server does not do what a lane wants of it.
    """

    @property
    def view_lanes(self) -> Sequence[SupervisedLane]: ...

    @property
    def effect_lanes(self) -> Sequence[LaneRunner]: ...

    @property
    def owned(self) -> int: ...

    @property
    def takeovers(self) -> int: ...

    @property
    def waits_for(self) -> str: ...

    @property
    def waits_since_ms(self) -> int | None: ...


async def health_of(lanes: AllLanes, sight: Sight) -> Health:
    """The verdict, within a second whatever the server does."""
    views, effects = list(lanes.view_lanes), list(lanes.effect_lanes)
    here = [lane for lane in views if lane.lane.is_log_here]
    claims = [*map(claim_of, here), *map(_claim_of_effects, effects)]
    looks: dict[Claim, LaneLook] = {}
    server = ANSWERS
    try:
        looks = await sight.lanes(claims)
    except Away as error:
        server = f"does not answer: {error}"
    shown = [_of_view(lane, looks.get(claim_of(lane))) for lane in views]
    shown += [_of_effects(lane, looks.get(_claim_of_effects(lane))) for lane in effects]
    reasons = [f"{lane.group} at {lane.stream}/{lane.partition}: {lane.sick}" for lane in shown if lane.sick]
    return Health(not reasons, "; ".join(reasons[:REASONS_MAX]), server, shown)


def claim_of(hosted: SupervisedLane) -> Claim:
    """The name of a view's lane."""
    return Claim(hosted.lane.view.group, hosted.lane.stream.name, hosted.lane.partition)


def _claim_of_effects(runner: LaneRunner) -> Claim:
    return Claim(runner.lane.group, runner.lane.keys.stream, runner.lane.keys.partition)


def _of_view(hosted: SupervisedLane, look: LaneLook | None) -> LaneHealth:
    lane = hosted.lane
    events, seconds = (look.lag.events, look.lag.seconds) if look else hosted.waiting()
    still_s = min(look.still_s if look else seconds, time.monotonic() - hosted.moved_at)
    return LaneHealth(
        lane.projection.name,
        lane.generation,
        lane.stream.name,
        lane.partition,
        lane.cursor.position,
        events,
        seconds,
        look.facts.set_aside if look else 0,
        hosted.trouble or ("the log ends before the cursor" if look and look.lag.rewound else ""),
        hosted.waits_for,
        next(_sicknesses(hosted, events, still_s, is_answered=look is not None), ""),
    )


def _sicknesses(hosted: SupervisedLane, events: int, still_s: float, *, is_answered: bool) -> Iterator[str]:
    """What a restart would mend."""
    has_ended = hosted.is_fenced or hosted.is_retired or hosted.is_stopping
    if not has_ended and not hosted.is_running:
        yield "its task has ended"
    if hosted.trouble or has_ended:
        return
    if not hosted.waits_for and still_s > STALL_S:
        yield f"{events} events wait and its cursor has not moved for {still_s:.0f} s"
    if is_answered and hosted.waits_for.startswith(LOST_WORDS) and still_s > 2 * STALL_S:
        yield f"the server answers others, and not this lane for {still_s:.0f} s: {hosted.waits_for}"


def _of_effects(runner: LaneRunner, look: LaneLook | None) -> LaneHealth:
    claim = _claim_of_effects(runner)
    return LaneHealth(
        claim.group,
        1,
        claim.stream,
        claim.partition,
        look.facts.reached if look else "",
        look.lag.events if look else 0,
        look.lag.seconds if look else 0.0,
        look.facts.set_aside if look else 0,
        runner.trouble,
        "",
        "",
    )
