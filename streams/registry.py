"""
Which streams a server has, and whether the server is fit to keep them.

A stream's number of partitions is fixed at its creation and recorded in the hash aura:streams (HSETNX: of two
creators one wins, the other learns what was recorded), which is written to only where the stream is new: who
looks at a full server must be able to open its streams. ``open_stream`` is the only way to a Stream. Topics
of Faust apps are registered here too, and marked (topics.py).
"""

from __future__ import annotations

from typing import Unpack

import msgspec

from aurastream.streams.codec import Codec
from aurastream.streams.connection import VERSION_MIN, Server
from aurastream.streams.errors import PartitionMismatch, ServerUnfit, StreamUnknown
from aurastream.streams.facts import HERE, Fixed, StreamFacts, facts_of
from aurastream.streams.faults import retried
from aurastream.streams.keys import PARTITIONS_MAX, STREAMS, checked_name
from aurastream.streams.settings import Settings
from aurastream.streams.spare import put_beyond
from aurastream.streams.stream import Stream
from aurastream.streams.topics import judged

EVICTION_FIT = ("noeviction", "")


def list_streams(server: Server) -> dict[str, StreamFacts]:
    """All registered streams by name, sorted, topics among them. Raises RegistryDamaged."""
    rows: dict[bytes, bytes] = server.client.hgetall(STREAMS)  # type: ignore[assignment]
    return judged(server, {_shown(name): facts_of(_shown(name), rows[name]) for name in sorted(rows)})


def event_streams(server: Server) -> list[str]:
    """The registered streams that no topic of a Faust app is, sorted. Raises RegistryDamaged."""
    return [name for name, facts in list_streams(server).items() if not facts.is_topic]


def _shown(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def open_stream(
    server: Server,
    name: str,
    *,
    codec: Codec | None = None,
    settings: Settings | None = None,
    create: bool = False,
    **fixed: Unpack[Fixed],
) -> Stream:
    """The stream, after the start-up checks.

    create: register it where it is new, with the facts given. partitions: refuse any other number; default:
    as it is, of a new stream the settings'. log: "kafka" for a stream whose entries another system keeps and
    whose views are here.
    Raises ServerUnfit, StreamUnknown, PartitionMismatch, each saying what to do.
    """
    chosen, partitions = settings or Settings(), fixed.get("partitions")
    checked_name("stream", name)
    wanted = _wanted(chosen, fixed)
    facts = retried(
        f"opening the stream {name}",
        chosen.attempts_max,
        lambda: _registered(server, name, chosen, wanted if create else None),
        server.refresh,
        chosen.server_wait_s,
    )
    if partitions is not None and partitions != facts.partitions:
        raise PartitionMismatch(name, facts.partitions, partitions)
    if create and facts.log != wanted.log:
        raise ServerUnfit(
            f"the log of stream {name!r} is {facts.log}, not {wanted.log}. Give this one a name of its own."
        )
    return Stream(server, name, facts, codec or Codec(), chosen)


def _wanted(settings: Settings, fixed: Fixed) -> StreamFacts:
    """What a new stream is made as. Raises ServerUnfit."""
    wanted = StreamFacts(
        fixed.get("partitions") or settings.partitions,
        fixed.get("versioned", False),
        fixed.get("log", HERE),
        fixed.get("is_replay", False),
        fixed.get("is_topic", False),
    )
    if not 1 <= wanted.partitions <= PARTITIONS_MAX:
        raise ServerUnfit(f"a stream has 1 to {PARTITIONS_MAX} partitions, not {wanted.partitions}.")
    return wanted


def _registered(server: Server, name: str, settings: Settings, new: StreamFacts | None) -> StreamFacts:
    """What is recorded of the stream; `new` is recorded where nothing is. Raises StreamUnknown where nothing
    is to be.
    """
    check_server(server, settings)
    row: bytes | None = server.client.hget(STREAMS, name)  # type: ignore[assignment]
    if row is None and new is not None:
        seconds, microseconds = server.client.time()
        made = msgspec.structs.replace(new, created_ms=seconds * 1_000 + microseconds // 1_000)
        put_beyond(server, STREAMS, "HSETNX", name, msgspec.json.encode(made))
        row = server.client.hget(STREAMS, name)  # type: ignore[assignment]
    if row is None:
        raise StreamUnknown(name, list(list_streams(server)))
    return judged(server, {name: facts_of(name, row)})[name]


def check_server(server: Server, settings: Settings) -> None:
    """Refuse a server that would lose or change what we keep. Raises ServerUnfit with the remedy."""
    facts = server.facts
    if facts.flavour == "redis" and facts.version < VERSION_MIN:
        raise ServerUnfit(
            f"the server is {facts.name}; AuraStream needs Redis 6.2 or later, or Valkey. Upgrade it."
        )
    if facts.eviction not in EVICTION_FIT:
        raise ServerUnfit(
            f"the server's maxmemory-policy is {facts.eviction}: it deletes views and event IDs when memory "
            "runs short. Set it to noeviction (CONFIG SET maxmemory-policy noeviction, and in redis.conf)."
        )
    _check_database(server)
    server.check_ack(settings.ack)


def _check_database(server: Server) -> None:
    """Refuse a database that somebody else keeps a key of ours in. Raises ServerUnfit."""
    kind: bytes = server.client.type(STREAMS)  # type: ignore[assignment]
    if kind not in (b"hash", b"none"):
        raise ServerUnfit(
            f"the key {STREAMS} is a {kind.decode()}, not AuraStream's hash: something else uses this "
            "database. Give AuraStream a database of its own."
        )
