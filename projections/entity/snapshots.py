"""
Snapshots: the state of an entity at a version, kept beside the log so that the next look reads little.

    state after the event of a version -> checksum -> keep.lua: unless a newer one is there, or this log has
        not that event

A snapshot is a cache of one definition's, kept only forward. One that cannot be trusted is as good as none.
"""

from __future__ import annotations

from enum import IntEnum
from zlib import crc32

import msgspec

from aurastream.projections.engine import AnyProjection, by_todays_rules
from aurastream.streams import CHUNK, PLACE_BYTES, Script, Stream, pack_position

_KEEP = Script(__file__, "keep.lua")


class KeepAnswer(IntEnum):
    """What keep.lua answers."""

    KEPT = 0
    NEWER = 1  # one of this definition, as far or farther, is there
    UNKNOWN = 2  # this log has not these events: after a fail-over, a process may know some that it never got


class Snapshot(msgspec.Struct, frozen=True):
    """As it is stored; keep.lua reads the first two. crc32: of all before it, as nothing else would find a
    flipped bit in a state.
    """

    version: int
    fingerprint: str
    position: str
    state: msgspec.Raw
    crc32: int = 0

    @property
    def checksum(self) -> int:
        """What crc32 must be."""
        parts = (self.version, self.fingerprint.encode(), self.position.encode(), bytes(self.state))
        return crc32(b"%d %b %b %b" % parts)


class Base(msgspec.Struct, frozen=True):
    """Where a fold begins: after so many events of the entity. state: JSON, b"" for none."""

    version: int = 0
    state: bytes = b""


class _KeepHead(msgspec.Struct):
    """What keep.lua takes first."""

    subject: str
    version: int
    fingerprint: str
    chunk: int
    slot: int
    place_bytes: int = PLACE_BYTES


def snapshot_of(raw: bytes) -> Snapshot | None:
    """None where there is none, where it is damaged, or another build's that this one cannot read."""
    try:
        stored = msgspec.json.decode(raw, type=Snapshot) if raw else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return stored if stored is not None and stored.crc32 == stored.checksum else None


def keep(stream: Stream, projection: AnyProjection, subject: str, base: Base, position: str) -> KeepAnswer:
    """Keep the state as it is after the event at the position, which made the base's version."""
    partition = stream.partition_of(subject)
    keys, fingerprint = stream.keys[partition], by_todays_rules(projection.fingerprint)
    unsummed = Snapshot(base.version, fingerprint, position, msgspec.Raw(base.state or b"null"))
    snapshot = msgspec.json.encode(msgspec.structs.replace(unsummed, crc32=unsummed.checksum))
    head = msgspec.msgpack.encode(
        _KeepHead(subject, base.version, fingerprint, *divmod(base.version - 1, CHUNK))
    )
    names = (keys.snapshots(projection.name), keys.versions, keys.entities)
    command = _KEEP.call(names, (head, pack_position(position.encode()), snapshot))
    return KeepAnswer(stream.ask(partition, command, what=f"snapshot of {subject}")[0])


def drop(stream: Stream, projection: AnyProjection, subject: str) -> None:
    """Drop the entity's snapshot."""
    partition = stream.partition_of(subject)
    command = ("HDEL", stream.keys[partition].snapshots(projection.name), subject)
    stream.ask(partition, command, what=f"dropping the snapshot of {subject}")
