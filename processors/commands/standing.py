"""
Where everything stands, gathered: what `aurastream status` says.

Structs whose names are the keys of --json; times are ISO 8601, sizes bytes. Lags are counted by the server,
so that nothing is read but counts, a first and a last entry per group and partition.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from aurastream.processors.commands.common import Session
from aurastream.projections import Projection, View
from aurastream.projections.engine import NEVER_REBUILT, Generation, State, is_same_definition, read_record
from aurastream.streams import (
    Cursor,
    Lag,
    Settings,
    Stream,
    backlogs,
    cursor_of,
    generation_group,
    lag_of,
    list_streams,
)

NO_LAG_KNOWN = Lag(0, 0.0, 0, rewound=False)  # of a log in Kafka: its tools know, and the host's /health


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


class GroupStanding(msgspec.Struct, frozen=True):
    """How far a group is in a partition. missing: entries gone without the trimmer; rewound: the log ends
    before the cursor.
    """

    partition: int
    position: str | None
    lag_events: int
    lag_seconds: float
    missing: int
    rewound: bool
    pending: int
    applied: int
    duplicates: int
    skipped: int
    dead: int
    quarantined: int


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
    """A stream; groups and generations by name. is_topic: it has the messages of Faust apps, no events."""

    partitions: list[PartitionStanding]
    versioned: bool
    groups: dict[str, list[GroupStanding]]
    generations: dict[str, list[GenerationStanding]]
    is_topic: bool = False


class ProjectionStanding(msgspec.Struct, frozen=True):
    """What is installed here."""

    version: int
    fingerprint: str


class Standing(msgspec.Struct, frozen=True):
    """All of it."""

    server: ServerStanding
    home: str | None
    streams: dict[str, StreamStanding]
    projections: dict[str, ProjectionStanding]


def standing(session: Session) -> Standing:
    """Look at everything."""
    facts, home = session.server.facts, session.connection.home
    return Standing(
        ServerStanding(facts.name, facts.is_cluster, facts.eviction, _memory(session)),
        str(home) if home else None,
        {name: _stream(session, session.open(name)) for name in list_streams(session.server)},
        {
            name: ProjectionStanding(projection.version, projection.fingerprint)
            for name, projection in sorted(session.installed.projections.items())
        },
    )


def _memory(session: Session) -> int:
    info: Any = session.server.client.info("memory")  # of a cluster, by node
    nodes = info.values() if session.server.facts.is_cluster and "used_memory" not in info else [info]
    return sum(int(node["used_memory"]) for node in nodes)


def _stream(session: Session, stream: Stream) -> StreamStanding:
    views = {name: view for name, view in sorted(session.installed.projections.items()) if view.takes(stream)}
    effects = _effects(session, stream) if session.installed.processors else []
    return StreamStanding(
        [_partition(session.settings, stream, partition) for partition in range(stream.partitions)],
        stream.versioned,
        {name: _folded(stream, view) for name, view in views.items()}
        | {name: _handled(stream, name) for name in effects},
        {name: _generations(stream, view) for name, view in views.items()},
        bool(stream.facts.is_topic),
    )


def _effects(session: Session, stream: Stream) -> list[str]:
    """The processors that read the stream. Imported here, as most who ask have none."""
    from aurastream.processors.effects import processors_of

    processors = sorted(processors_of(session.installed).items())
    return [name for name, processor in processors if processor.takes(stream)]


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


def _folded(stream: Stream, projection: Projection[Any]) -> list[GroupStanding]:
    """A view's."""
    view = View(stream, projection)
    cursors = view.cursors()
    group = generation_group(projection.name, view.generation)
    return [_group(stream, group, partition, cursor) for partition, cursor in cursors.items()]


def _handled(stream: Stream, name: str) -> list[GroupStanding]:
    """A processor's; its dead letters are those that are parked or wait behind one."""
    return [
        _group(stream, name, partition, cursor_of(stream.ask(partition, ("HGETALL", keys.cursor(name)))[0]))
        for partition, keys in enumerate(stream.keys)
    ]


def _group(stream: Stream, group: str, partition: int, cursor: Cursor) -> GroupStanding:
    lag = lag_of(stream.server, stream.keys[partition], cursor) if stream.is_log_here else NO_LAG_KNOWN
    return GroupStanding(
        partition,
        cursor.position or None,
        lag.events,
        lag.seconds,
        lag.missing,
        lag.rewound,
        _pending(stream, partition, group),
        cursor.applied,
        cursor.duplicates,
        cursor.skipped,
        cursor.dead,
        cursor.quarantined,
    )


def _pending(stream: Stream, partition: int, group: str) -> int:
    wire = stream.wire(partition)
    wire.send([("XPENDING", stream.keys[partition].log, group)])
    reply = wire.receive()
    return 0 if isinstance(reply, Exception) else int(reply[0])  # an Exception: no such group or log yet


def _generations(stream: Stream, projection: Projection[Any]) -> list[GenerationStanding]:
    record = read_record(stream.server, stream.name, projection.name)
    if record == NEVER_REBUILT:
        return []
    total = 0
    for partition, keys in enumerate(stream.keys):
        length, trimmed = stream.ask(partition, ("XLEN", keys.log), ("HGET", keys.meta, "trimmed"))
        total += int(length) + int(trimmed or 0)
    return [_generation(stream, projection, item, total) for item in record.generations]


def _generation(
    stream: Stream, projection: Projection[Any], item: Generation, total: int
) -> GenerationStanding:
    return GenerationStanding(
        item.number,
        item.state.value,
        is_same_definition(item.fingerprint, projection.fingerprint),
        _read(View(stream, projection, generation=item.number), item.state),
        total,
        item.by,
        _instant(item.started_ms),
        _instant(item.swapped_ms),
        _instant(item.kept_until_ms),
        item.differing if item.compared_with else None,
        item.builder if item.state is State.BUILDING else None,
    )


def _read(view: View[Any], state: State) -> int:
    """How many entries the generation has read; 0 of one whose cursors are gone."""
    return 0 if state is State.RETIRED else sum(cursor.read for cursor in view.cursors().values())


def _instant(at_ms: int) -> str | None:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds") if at_ms else None
