"""
The fleet as people and programs see it: one struct for /fleet, `aurastream status` and --json.

Times are ISO 8601 in UTC by the servers' clocks; a lane is one group's way through one partition.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache

import msgspec

from aurastream.processors.fleet.facts import SetAside


class Colour(StrEnum):
    """green: nothing to do. amber: worth knowing, nobody has to act. red: a person must act."""

    GREEN = "green"
    AMBER = "amber"
    RED = "red"


_RANKS = {colour: rank for rank, colour in enumerate(Colour)}


def worst(colours: Iterable[Colour]) -> Colour:
    """The worst of them; green of none."""
    return max(colours, key=_RANKS.__getitem__, default=Colour.GREEN)


class LaneState(StrEnum):
    """What a lane is doing."""

    RUNS = "runs"  # a living host owns it
    STUCK = "stuck"  # it is owned, and cannot advance
    FREE = "free"  # a living host can run it and has not taken it yet
    UNOWNED = "unowned"  # no living host can run it
    BUILDING = "building"  # of a generation that a rebuild is making
    KEPT = "kept"  # of a generation that is there for a rollback: nobody needs to keep it up
    ELSEWHERE = "elsewhere"  # its log is in Kafka, which says who reads it
    FORGOTTEN = "forgotten"  # a person has let it go
    FOREIGN = "foreign"  # a consumer group of the server that is none of AuraStream's
    NEW = "new"  # installed where one looks from, and never run


class GroupKind(StrEnum):
    """Whose group it is."""

    VIEW = "view"
    PROCESSOR = "processor"
    APP = "app"
    FOREIGN = "foreign"
    UNKNOWN = "unknown"  # nobody has run it yet


class LaneTrouble(msgspec.Struct, frozen=True):
    """What its owner says: the entry it stands at, and where its code raised."""

    position: str
    event_id: str
    traceback: str


class FleetLane(msgspec.Struct, frozen=True, kw_only=True):
    """A lane. why: of its colour. since: of this state, where that is known. moved_at: when its cursor moved
    last. aside: of the entries that it could not use the first, and last the newest.
    """

    group: str
    stream: str
    partition: int
    kind: GroupKind = GroupKind.UNKNOWN
    state: LaneState = LaneState.RUNS
    colour: Colour = Colour.GREEN
    why: str = ""
    since: str | None = None
    owner: str | None = None
    lease_left_ms: int = 0
    position: str | None = None
    lag_events: int = 0
    lag_seconds: float = 0.0
    missing: int = 0
    rewound: bool = False
    moved_at: str | None = None
    pending: int = 0
    begun: int = 0
    read: int = 0
    applied: int = 0
    duplicates: int = 0
    skipped: int = 0
    dead: int = 0
    quarantined: int = 0
    set_aside: int = 0
    aside_colour: Colour = Colour.GREEN
    aside: tuple[SetAside, ...] = ()
    trouble: LaneTrouble | None = None


class FleetHost(msgspec.Struct, frozen=True):
    """A living host. lanes: stream -> group -> the partitions it owns. offers: how many lanes it can run.
    notes: what it cannot run, and why.
    """

    host: str
    kind: str
    build: str
    pid: int
    started_at: str | None
    left_ms: int
    lanes: dict[str, dict[str, list[int]]]
    offers: int
    notes: tuple[str, ...]

    @property
    def held(self) -> int:
        """How many lanes it owns."""
        return sum(len(each) for groups in self.lanes.values() for each in groups.values())


class FleetReason(msgspec.Struct, frozen=True):
    """One thing to know: the lanes of a group and stream that are in one state for one reason."""

    colour: Colour
    what: str
    group: str
    stream: str
    partitions: tuple[int, ...]
    text: str
    since: str | None


class Fleet(msgspec.Struct, frozen=True):
    """All of it at one time. old_hosts: that live and are of builds before lanes had leases of their own."""

    at: str
    colour: Colour
    reasons: list[FleetReason]
    hosts: list[FleetHost]
    lanes: list[FleetLane]
    old_hosts: int = 0

    def of(self, stream: str) -> dict[str, list[FleetLane]]:
        """A stream's lanes by group."""
        groups: dict[str, list[FleetLane]] = {}
        for lane in self.lanes:
            if lane.stream == stream:
                groups.setdefault(lane.group, []).append(lane)
        return groups


def instant(at_ms: int) -> str | None:
    """ISO 8601 in UTC, whole seconds; None for 0, which is not known."""
    return _instant(at_ms // 1000) if at_ms > 0 else None


@lru_cache(maxsize=4096)  # lanes that are still, and owned since, are most of them
def _instant(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds")


def ranges(partitions: Iterable[int]) -> str:
    """0-3, 7: for people."""
    runs: list[list[int]] = []
    for number in sorted(partitions):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def shown_lanes(host: FleetHost) -> str:
    """What it owns: clips of clips-live 0-3; .."""
    parts = [
        f"{group} of {stream} {ranges(partitions)}"
        for stream, groups in sorted(host.lanes.items())
        for group, partitions in sorted(groups.items())
    ]
    return "; ".join(parts)
