"""The lanes' verdicts as sentences, one for all lanes of a group and stream that are in one state for one
reason. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from datetime import UTC, datetime

import msgspec

from aurastream.processors.fleet.facts import SetAside
from aurastream.processors.fleet.fleet import (
    Colour,
    Fleet,
    FleetLane,
    FleetReason,
    GroupKind,
    LaneState,
    instant,
    ranges,
    worst,
)
from aurastream.streams import Position

ORDER = {Colour.RED: 0, Colour.AMBER: 1, Colour.GREEN: 2}
WHY_MAX = 300  # characters of a reason in a sentence; its lane has it whole
SET_ASIDE = "set aside"
STATES = {LaneState.UNOWNED: "nobody runs it", LaneState.STUCK: "stuck", LaneState.FREE: "nobody runs it"}


def reasons_of(
    lanes: Iterable[FleetLane], old_hosts: int = 0, damaged: Iterable[str] = ()
) -> list[FleetReason]:
    """What there is to know, red first."""
    listed = list(lanes)
    reasons = [*_states(listed), *_asides(listed)]
    reasons += [FleetReason(Colour.RED, "damaged", "", "", (), text, None) for text in damaged]
    if old_hosts:
        text = f"{old_hosts} hosts of an older build: what they own is not to be seen. Upgrade them."
        reasons.append(FleetReason(Colour.AMBER, "old hosts", "", "", (), text, None))
    return _sorted(reasons)


def _sorted(reasons: Iterable[FleetReason]) -> list[FleetReason]:
    return sorted(reasons, key=lambda item: (ORDER[item.colour], item.stream, item.group, item.partitions))


def with_lanes(fleet: Fleet, lanes: Iterable[FleetLane]) -> Fleet:
    """The fleet with these lanes, in place of those of their names."""
    own = {(lane.stream, lane.group, lane.partition): lane for lane in lanes}
    if not own:
        return fleet
    every = {(lane.stream, lane.group, lane.partition): lane for lane in fleet.lanes} | own
    listed = [every[name] for name in sorted(every)]
    reasons = _sorted(
        [*_states(listed), *_asides(listed), *(each for each in fleet.reasons if not each.group)]
    )
    colour = worst(reason.colour for reason in reasons)
    return msgspec.structs.replace(fleet, colour=colour, reasons=reasons, lanes=listed)


def unreachable(why: str) -> Fleet:
    """What there is to say while no server answers."""
    text = f"the server does not answer: {why}"
    reason = FleetReason(Colour.RED, "server away", "", "", (), text, None)
    return Fleet(datetime.now(UTC).isoformat(timespec="seconds"), Colour.RED, [reason], [], [])


def _states(lanes: list[FleetLane]) -> Iterator[FleetReason]:
    coloured = [lane for lane in lanes if lane.colour is not Colour.GREEN]
    for same in _alike(coloured, lambda lane: (lane.stream, lane.group, lane.state, lane.why)):
        first = same[0]
        parts = [STATES.get(first.state, ""), first.why[:WHY_MAX], _waiting(same), _entry(first)]
        since = min((lane.since for lane in same if lane.since), default=None)
        yield _reason(
            worst(lane.colour for lane in same),
            first.state,
            same,
            "; ".join(part for part in parts if part),
            since,
        )


def _asides(lanes: list[FleetLane]) -> Iterator[FleetReason]:
    having = [lane for lane in lanes if lane.set_aside]
    for same in _alike(having, lambda lane: (lane.stream, lane.group)):
        first = min((each for lane in same for each in lane.aside), key=_place, default=SetAside("0-0", ""))
        count = sum(lane.set_aside for lane in same)
        verb = "parked" if same[0].kind is GroupKind.PROCESSOR else "damaged"
        text = f"{count:,} events {verb}, the first at {first.position}: {first.why[:WHY_MAX]}"
        colour = worst(lane.aside_colour for lane in same)
        yield _reason(colour, SET_ASIDE, same, text, instant(_place(first).ms))


def _alike(lanes: Iterable[FleetLane], key: Callable[[FleetLane], Hashable]) -> Iterable[list[FleetLane]]:
    alike: dict[Hashable, list[FleetLane]] = {}
    for lane in lanes:
        alike.setdefault(key(lane), []).append(lane)
    return alike.values()


def _reason(colour: Colour, what: str, same: list[FleetLane], text: str, since: str | None) -> FleetReason:
    first, partitions = same[0], tuple(sorted(lane.partition for lane in same))
    where = f"{first.group} of {first.stream}/{ranges(partitions)}"
    return FleetReason(colour, str(what), first.group, first.stream, partitions, f"{where}: {text}", since)


def _waiting(same: list[FleetLane]) -> str:
    events = sum(lane.lag_events for lane in same)
    return f"{events:,} events wait, {max(lane.lag_seconds for lane in same):,.0f} s" if events else ""


def _entry(lane: FleetLane) -> str:
    trouble = lane.trouble
    if lane.state is not LaneState.STUCK or trouble is None or not trouble.position:
        return ""
    return f"at {trouble.position}" + (f", event {trouble.event_id}" if trouble.event_id else "")


def _place(aside: SetAside) -> Position:
    return Position.parse(aside.position)
