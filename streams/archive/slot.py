"""
A partition's slot: what Redis says of how far its archive goes, and how far its log is trimmed.

    aura:{<stream>.<partition>}:archive    number, position, entries, head, url (archive.lua, move.lua); told
        (the archiver)
"""

from __future__ import annotations

import msgspec

from aurastream.streams import Position, Stream


class Slot(msgspec.Struct, frozen=True, rename={"audited": "told"}):
    """What it says. number and entries: of segments and entries in all. position: the last archived one.
    head: the newest's hash.

    audited: up to which segment the audit trail has it.
    """

    number: int = 0
    position: str = ""
    entries: int = 0
    head: str = ""
    url: str = ""
    audited: int = 0

    @property
    def end(self) -> Position:
        """The last archived position, START where nothing is archived."""
        return Position.parse(self.position)


def slot_of(stream: Stream, partition: int) -> Slot:
    """What it says now. Raises UnknownOutcome."""
    names = Slot.__struct_encode_fields__
    question = ("HMGET", stream.keys[partition].archive, *names)
    values: list[bytes | None] = stream.ask(
        partition, question, what=f"reading how far {stream.name}/{partition} is archived"
    )[0]
    known = {name: value.decode() for name, value in zip(names, values, strict=True) if value is not None}
    return msgspec.convert(known, Slot, strict=False)


def trimmed_to(stream: Stream, partition: int) -> Position:
    """Up to where the partition's log is trimmed; START where it never was. Raises UnknownOutcome."""
    question = ("HGET", stream.keys[partition].meta, "trimmed_to")
    position: bytes | None = stream.ask(
        partition, question, what=f"reading how far {stream.name}/{partition} is trimmed"
    )[0]
    return Position.parse(position or b"")
