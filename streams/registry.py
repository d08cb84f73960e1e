"""
Which streams a server has, and whether the server is fit to keep them.

A stream's number of partitions is fixed at its creation and recorded in the hash aura:streams (HSETNX: of two
creators one wins, the other learns what was recorded). ``open_stream`` is the only way to a Stream.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from aurastream.streams.codec import Codec
from aurastream.streams.connection import VERSION_MIN, Server
from aurastream.streams.drive import retried
from aurastream.streams.errors import PartitionMismatch, RegistryDamaged, ServerUnfit, StreamUnknown
from aurastream.streams.keys import PARTITIONS_MAX, STREAMS, checked_name
from aurastream.streams.settings import Settings
from aurastream.streams.stream import Stream

HERE: Literal["here"] = "here"
EVICTION_FIT = ("noeviction", "")


class StreamFacts(msgspec.Struct, frozen=True):
    """What is fixed for a stream's life. log: where its entries are: "here", or "kafka". is_replay: its
    events were replayed from
    another stream, so that processors that are silent in a replay leave it alone."""

    partitions: Annotated[int, msgspec.Meta(ge=1, le=PARTITIONS_MAX)]
    versioned: bool = False
    log: Literal["here", "kafka"] = "here"
    is_replay: bool = False


def list_streams(server: Server) -> dict[str, StreamFacts]:
    """All registered streams by name, sorted. Raises RegistryDamaged."""
    rows: dict[bytes, bytes] = server.client.hgetall(STREAMS)  # type: ignore[assignment]
    return {_shown(name): _facts(_shown(name), rows[name]) for name in sorted(rows)}


def _facts(name: str, row: bytes) -> StreamFacts:
    try:
        return msgspec.json.decode(row, type=StreamFacts)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RegistryDamaged(name, row.decode(errors="backslashreplace"), str(error)) from error


def _shown(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def open_stream(
    server: Server,
    name: str,
    *,
    codec: Codec | None = None,
    settings: Settings | None = None,
    create: bool = False,
    partitions: int | None = None,
    versioned: bool = False,
    log: Literal["here", "kafka"] = "here",
    is_replay: bool = False,
) -> Stream:
    """The stream, after the start-up checks.

    create: register it where it is new, with `partitions` (default: the settings'). partitions: refuse any
    other number.
    log: of a new stream: "here", or "kafka" for one whose entries another system keeps and whose views are
    here.
    is_replay: of a new stream: its events are replayed ones.
    Raises ServerUnfit, StreamUnknown, PartitionMismatch, each saying what to do.
    """
    chosen = settings or Settings()
    checked_name("stream", name)
    wanted = StreamFacts(partitions or chosen.partitions, versioned, log, is_replay)
    if not 1 <= wanted.partitions <= PARTITIONS_MAX:
        raise ServerUnfit(f"a stream has 1 to {PARTITIONS_MAX} partitions, not {wanted.partitions}.")

    def register() -> StreamFacts:
        check_server(server, chosen)
        if create:
            server.client.hsetnx(STREAMS, name, msgspec.json.encode(wanted))
        recorded: bytes | None = server.client.hget(STREAMS, name)  # type: ignore[assignment]
        if recorded is None:
            raise StreamUnknown(name, list(list_streams(server)))
        return _facts(name, recorded)

    facts = retried(f"opening the stream {name}", chosen.attempts_max, register, server.refresh)
    if partitions is not None and partitions != facts.partitions:
        raise PartitionMismatch(name, facts.partitions, partitions)
    if facts.log != log and create:
        raise ServerUnfit(
            f"the log of stream {name!r} is {facts.log}, not {log}. Give this one a name of its own."
        )
    return Stream(
        server,
        name,
        facts.partitions,
        facts.versioned,
        codec or Codec(),
        chosen,
        is_log_here=facts.log == HERE,
        is_replay=facts.is_replay,
    )


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
            "runs short. "
            "Set it to noeviction (CONFIG SET maxmemory-policy noeviction, and in redis.conf)."
        )
    kind: bytes = server.client.type(STREAMS)  # type: ignore[assignment]
    if kind not in (b"hash", b"none"):
        raise ServerUnfit(
            f"the key {STREAMS} is a {kind.decode()}, not AuraStream's hash: something else uses this "
            "database. "
            "Give AuraStream a database of its own."
        )
    server.check_ack(settings.ack)
