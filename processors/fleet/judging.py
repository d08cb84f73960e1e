"""
What the facts mean: which lanes nobody runs, which are stuck, what was set aside. Pure.

    facts of all partitions, cards of the living hosts, generations -> judged -> Fleet

Red, a person must act:
    a lane that no living host can run, or that none has taken in TAKE_S, while events wait for it
    a lane that its owner says is stuck, or a view's whose cursor stands still for STALL_S while events wait
    a log that ends before a cursor; a key that cannot be read
    a processor's dead letters, until they are retried or discarded
Amber, worth knowing:
    a lane that nobody can run and nothing waits for
    a lane that was given back less than RESTART_S ago, as hosts are restarted
    a lane that is free and about to be taken, a view's that stands still for SLOW_S, handlers that take long
    what a view set aside less than a day ago (it stays listed); dead letters that run again
    a log that lost entries without the trimmer: for ever, and no deed of a person brings them back
    hosts of a build before lanes had leases of their own: what they own is not to be seen
Green by itself, as all of it is read anew at each look.

Decision (2026-11): a projection's damaged entry is a permanent fact of the log, which no decision of a person
makes go away: it turns amber for a day, so that whoever is on duty sees it, and is listed for ever. Refused:
red, which would stay red for the life of the log; a verb to acknowledge it, which is one more state to keep
and to forget. A processor's letter waits for a person, and others wait behind it: red for as long as it does.
Decision (2026-11): a processor's cursor that stands still is never red by itself: it is the closed prefix of
what is done, and one handler that takes long, or is tried again with pauses, holds it by design.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from aurastream.processors.fleet.facts import GroupFacts, PartitionFacts, ServerGroup
from aurastream.processors.fleet.fleet import (
    Fleet,
    FleetHost,
    FleetLane,
    GroupKind,
    LaneState,
    LaneTrouble,
    instant,
    worst,
)
from aurastream.processors.fleet.reasons import reasons_of
from aurastream.processors.fleet.verdicts import Around, aside_colour, kind_of, verdict
from aurastream.processors.fleet.watch import Said, said_field
from aurastream.projections.engine import NEVER_REBUILT, Generation, Record, field_of
from aurastream.streams import HERE, HostCard, Lag, Member, Position, StreamFacts, Trouble


class FleetFacts(msgspec.Struct, frozen=True):
    """All that one look has read. wanted: stream -> groups installed where one looks from. damaged: rows of
    the registry and of generations that cannot be read. said: of lanes, in the log (watch.py).
    """

    now_ms: int
    streams: Mapping[str, StreamFacts]
    partitions: list[PartitionFacts]
    members: list[Member]
    records: Mapping[str, Record]
    old_hosts: int = 0
    wanted: Mapping[str, frozenset[str]] = {}
    damaged: tuple[str, ...] = ()
    said: Mapping[str, Said] = {}


def judged(seen: FleetFacts) -> Fleet:
    """The fleet."""
    lanes = sorted(_Judge(seen).lanes(), key=lambda lane: (lane.stream, lane.group, lane.partition))
    reasons = reasons_of(lanes, seen.old_hosts, seen.damaged)
    hosts = [_host(member, lanes) for member in seen.members]
    colour = worst(reason.colour for reason in reasons)
    return Fleet(instant(seen.now_ms) or "", colour, reasons, hosts, lanes, seen.old_hosts)


class _Judge:
    """Looks lanes over, one by one."""

    def __init__(self, seen: FleetFacts) -> None:
        self._seen = seen
        self._cards = [member.card for member in seen.members]
        self._offers: dict[tuple[str, str], list[HostCard]] = {}
        self._ours = {
            (at.keys.stream, group.name)
            for at in seen.partitions
            for group in at.groups
            if group.has_run or group.name in at.joined
        }
        self._troubles = {
            (card.host, trouble.group, trouble.stream, trouble.partition): trouble
            for card in self._cards
            for trouble in card.troubles
        }

    def lanes(self) -> Iterable[FleetLane]:
        """Every lane that somebody knows."""
        for at in self._seen.partitions:
            servers = {group.name: group for group in at.servers}
            for group in at.groups:
                lane = self._lane(at, group, servers.pop(group.name, None))
                if lane is not None:
                    yield lane
            for server in servers.values():
                yield _foreign(at, server)

    def _lane(self, at: PartitionFacts, group: GroupFacts, server: ServerGroup | None) -> FleetLane | None:
        around = self._around(at, group)
        if group.is_retired:
            return None
        if not around.is_known and group.name not in self._seen.wanted.get(at.keys.stream, ()):
            is_ours = (at.keys.stream, group.name) in self._ours
            return None if server is None or is_ours else _foreign(at, server)
        lag = at.lag(group.read, group.reached, group.following) if around.is_here else NO_LAG
        state, colour, why, since_ms = verdict(at, group, lag, around)
        return FleetLane(
            group=group.name,
            stream=at.keys.stream,
            partition=at.keys.partition,
            kind=kind_of(group),
            state=state,
            colour=colour,
            why=why,
            since=instant(since_ms or self._said_since(at, group)),
            owner=group.owner if group.left_ms > 0 else None,
            lease_left_ms=group.left_ms,
            position=group.reached or None,
            lag_events=lag.events,
            lag_seconds=lag.seconds,
            missing=lag.missing,
            rewound=lag.rewound,
            moved_at=instant(group.moved_ms),
            pending=server.pending if server else 0,
            begun=group.begun,
            read=group.read,
            **_counts(group),
            set_aside=group.set_aside,
            aside_colour=aside_colour(group, at.now_ms),
            aside=group.shown,
            trouble=_shown(around.trouble),
        )

    def _around(self, at: PartitionFacts, group: GroupFacts) -> Around:
        stream, seen = at.keys.stream, self._seen
        offering = self._offering(group.name, stream)
        is_known = group.has_run or group.name in at.joined or bool(offering)
        trouble = self._troubles.get((group.owner, group.name, stream, at.keys.partition))
        generation = self._generation(stream, group.name)
        is_here = stream not in seen.streams or seen.streams[stream].log == HERE
        return Around(self._cards, offering, trouble, generation, is_known, is_here, seen.old_hosts)

    def _offering(self, group: str, stream: str) -> list[HostCard]:
        """Who can run the group's lanes, looked up once for all of them."""
        known = self._offers.get((group, stream))
        if known is None:
            known = [card for card in self._cards if card.offers_lane(group, stream)]
            self._offers[group, stream] = known
        return known

    def _said_since(self, at: PartitionFacts, group: GroupFacts) -> int:
        said = self._seen.said.get(said_field(at.keys.stream, at.keys.partition, group.name))
        return said.since_ms if said is not None and said.event else 0

    def _generation(self, stream: str, group: str) -> Generation | None:
        base, _, number = group.partition("@")
        record = self._seen.records.get(field_of(stream, base), NEVER_REBUILT)
        return record.find(int(number) if number.isdecimal() else 1)


NO_LAG = Lag(0, 0.0, 0, rewound=False)  # of a log in Kafka: its tools know, and its host's /health


def _foreign(at: PartitionFacts, group: ServerGroup) -> FleetLane:
    is_behind = Position.parse(group.delivered) < Position.parse(at.last)
    return FleetLane(
        group=group.name,
        stream=at.keys.stream,
        partition=at.keys.partition,
        kind=GroupKind.FOREIGN,
        state=LaneState.FOREIGN,
        position=group.delivered,
        lag_events=int(is_behind) if group.lag is None else group.lag,
        pending=group.pending,
    )


def _counts(group: GroupFacts) -> dict[str, int]:
    names = ("applied", "duplicates", "skipped", "dead", "quarantined")
    return {name: getattr(group.cursor, name) for name in names}


def _shown(trouble: Trouble | None) -> LaneTrouble | None:
    if trouble is None:
        return None
    return LaneTrouble(trouble.position, trouble.event_id, trouble.traceback)


def _host(member: Member, lanes: list[FleetLane]) -> FleetHost:
    card = member.card
    owned: dict[str, dict[str, list[int]]] = {}
    for lane in lanes:
        if lane.owner == card.host:
            owned.setdefault(lane.stream, {}).setdefault(lane.group, []).append(lane.partition)
    offers = sum(
        count
        for groups in card.offers.values()
        for group, count in groups.items()
        if not group.startswith("@")
    )
    started = instant(card.started_ms)
    return FleetHost(
        card.host, card.kind, card.build, card.pid, started, member.left_ms, owned, offers, card.notes
    )
