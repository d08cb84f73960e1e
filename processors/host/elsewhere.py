"""Lanes whose log is in Kafka, for /fleet: only their host knows how they are, so each host adds its own."""

from __future__ import annotations

from collections.abc import Iterator

from aurastream.processors.fleet import Colour, FleetLane, GroupKind, LaneState, LaneTrouble, instant
from aurastream.processors.host.health import AllLanes


def lanes_elsewhere(lanes: AllLanes) -> Iterator[FleetLane]:
    """Those of this host."""
    for hosted in lanes.view_lanes:
        if hosted.lane.is_log_here:
            continue
        stuck, lane = hosted.stuck, hosted.lane
        events, seconds = hosted.waiting()
        yield FleetLane(
            group=lane.view.group,
            stream=lane.stream.name,
            partition=lane.partition,
            kind=GroupKind.VIEW,
            state=LaneState.STUCK if stuck else LaneState.ELSEWHERE,
            colour=Colour.RED if stuck else Colour.GREEN,
            why=stuck.reason if stuck else "",
            since=instant(stuck.since_ms) if stuck else None,
            position=lane.cursor.position or None,
            lag_events=events,
            lag_seconds=seconds,
            read=lane.cursor.read,
            applied=lane.cursor.applied,
            duplicates=lane.cursor.duplicates,
            skipped=lane.cursor.skipped,
            dead=lane.cursor.dead,
            quarantined=lane.cursor.quarantined,
            trouble=LaneTrouble(stuck.position, stuck.event_id, stuck.traceback) if stuck else None,
        )
