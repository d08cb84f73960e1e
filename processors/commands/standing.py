"""
Where everything stands, gathered: what `aurastream status` says.

Structs whose names are the keys of --json; times are ISO 8601, sizes bytes. The groups, the hosts and the
colour are the fleet's (processors/fleet), which knows those that are not installed here as well; nothing is
read but counts, positions and reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from aurastream.processors.commands.common import Session
from aurastream.processors.fleet import (
    Colour,
    FleetHost,
    FleetLane,
    FleetReader,
    FleetReason,
    instant,
    judged,
)
from aurastream.projections.engine import Generation, Record, State, is_same_definition
from aurastream.streams import Settings, Stream, backlogs, generation_group


class ServerStanding(msgspec.Struct, frozen=True):
    """The server. eviction: its policy; None where it does not say."""

    name: str
    cluster: bool
    eviction: str | None
    memory_bytes: int


class PressureStanding(msgspec.Struct, frozen=True):
    """The slowest of the groups that producers wait for, and whether they do."""

    slowest: str
    events: int
    bytes: int
    is_full: bool


class PartitionStanding(msgspec.Struct, frozen=True):
    """A partition's log. last: its last entry's position. pressure: None where nobody holds any back."""

    partition: int
    events: int
    last: str | None
    appends_repeated: int
    log_bytes: int
    ids_bytes: int
    pressure: PressureStanding | None


class GenerationStanding(msgspec.Struct, frozen=True):
    """A generation of a view that was ever rebuilt. read: of the entries there ever were. differing: None
    where it was not compared.
    """

    generation: int
    state: str
    is_ours: bool
    read: int
    entries: int
    by: str
    started_at: str | None
    swapped_at: str | None
    kept_until: str | None
    differing: int | None
    builder: str | None


class StreamStanding(msgspec.Struct, frozen=True):
    """A stream; groups and generations by name; of a group its lanes. is_topic: it has the messages of Faust
    apps, no events.
    """

    partitions: list[PartitionStanding]
    versioned: bool
    groups: dict[str, list[FleetLane]]
    generations: dict[str, list[GenerationStanding]]
    is_topic: bool = False


class ProjectionStanding(msgspec.Struct, frozen=True):
    """What is installed here."""

    version: int
    fingerprint: str


class Standing(msgspec.Struct, frozen=True):
    """All of it. colour: of the fleet; reasons: why, red first."""

    colour: Colour
    reasons: list[FleetReason]
    server: ServerStanding
    home: str | None
    hosts: list[FleetHost]
    streams: dict[str, StreamStanding]
    projections: dict[str, ProjectionStanding]


def standing(session: Session) -> Standing:
    """Look at everything."""
    server, home = session.server.facts, session.connection.home
    streams = session.streams()
    reader = FleetReader(session.server, session.settings.attempts_max, is_thorough=True)
    facts = reader.seen({stream.name: _installed(session, stream) for stream in streams})
    reader.close()
    fleet = judged(facts)
    entries = dict.fromkeys(facts.streams, 0)
    for at in facts.partitions:
        entries[at.keys.stream] += at.length + at.trimmed
    return Standing(
        fleet.colour,
        fleet.reasons,
        ServerStanding(server.name, server.is_cluster, server.eviction, _memory(session)),
        str(home) if home else None,
        fleet.hosts,
        {
            stream.name: StreamStanding(
                [_partition(session.settings, stream, partition) for partition in range(stream.partitions)],
                stream.versioned,
                fleet.of(stream.name),
                _generations(session, stream.name, facts.records, fleet.of(stream.name), entries),
                bool(stream.facts.is_topic),
            )
            for stream in streams
        },
        {
            name: ProjectionStanding(projection.version, projection.fingerprint)
            for name, projection in sorted(session.installed.projections.items())
        },
    )


def _memory(session: Session) -> int:
    info: Any = session.server.client.info("memory")  # of a cluster, by node
    nodes = info.values() if session.server.facts.is_cluster and "used_memory" not in info else [info]
    return sum(int(node["used_memory"]) for node in nodes)


def _installed(session: Session, stream: Stream) -> frozenset[str]:
    """The views and processors of this process that take the stream."""
    projections = session.installed.projections
    views = {name for name, projection in projections.items() if projection.takes(stream)}
    if not session.installed.processors:
        return frozenset(views)
    from aurastream.processors.effects import processors_of  # here, as most who look have none

    processors = processors_of(session.installed)
    return frozenset(views.union(name for name, each in processors.items() if each.takes(stream)))


def _partition(settings: Settings, stream: Stream, partition: int) -> PartitionStanding:
    keys = stream.keys[partition]
    pressure = _pressure(settings, stream, partition)
    events, repeated, last, *sizes = stream.ask(
        partition,
        ("XLEN", keys.log),
        ("HGET", keys.meta, "duplicates"),
        ("XREVRANGE", keys.log, "+", "-", "COUNT", 1),
        ("MEMORY", "USAGE", keys.log),
        ("MEMORY", "USAGE", keys.ids),
    )
    position = last[0][0].decode() if last else None
    log_bytes, ids_bytes = (size or 0 for size in sizes)
    return PartitionStanding(partition, events, position, int(repeated or 0), log_bytes, ids_bytes, pressure)


def _pressure(settings: Settings, stream: Stream, partition: int) -> PressureStanding | None:
    slowest = next(iter(backlogs(stream.server, stream.keys[partition])), None)
    if slowest is None:
        return None
    budgets = ((slowest.events, settings.budget_events), (slowest.bytes, settings.budget_bytes))
    is_full = any(budget and behind >= budget for behind, budget in budgets)
    return PressureStanding(slowest.group, slowest.events, slowest.bytes, is_full)


def _generations(
    session: Session,
    stream: str,
    records: Mapping[str, Record],
    lanes: Mapping[str, list[FleetLane]],
    entries: Mapping[str, int],
) -> dict[str, list[GenerationStanding]]:
    """Of the stream's views that were ever rebuilt, installed here or not."""
    views = {}
    for field, record in sorted(records.items()):
        name, _, view = field.rpartition("/")
        if name == stream and record.last > 1:
            own = session.installed.projections.get(view)
            fingerprint = own.fingerprint if own is not None else None
            views[view] = [
                _generation(
                    item, fingerprint, lanes.get(generation_group(view, item.number), []), entries[stream]
                )
                for item in record.generations
            ]
    return views


def _generation(
    item: Generation, fingerprint: str | None, lanes: list[FleetLane], entries: int
) -> GenerationStanding:
    read = sum(lane.read for lane in lanes)
    return GenerationStanding(
        item.number,
        item.state.value,
        fingerprint is not None and is_same_definition(item.fingerprint, fingerprint),
        0 if item.state is State.RETIRED else read,
        entries,
        item.by,
        instant(item.started_ms),
        instant(item.swapped_ms),
        instant(item.kept_until_ms),
        item.differing if item.compared_with else None,
        item.builder if item.state is State.BUILDING else None,
    )
