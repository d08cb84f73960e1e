"""What is read of a partition's view at one instant, as a call of snapshot.lua."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from aurastream.projections.tables import Read, Rows, Whole
from aurastream.streams import Command, Script

_SNAPSHOT = Script(__file__, "snapshot.lua")
_encode = msgspec.msgpack.Encoder().encode


class Named(NamedTuple):
    """Asked for: a whole key by its Redis name, whatever table it is."""

    key: str


class _SnapshotRead(msgspec.Struct, omit_defaults=True):
    """As snapshot.lua reads it."""

    verb: str
    key: int
    first: int = 0
    last: int = 0
    count: int = 0
    states: int = 0


def snapshot(
    cursor: str, reads: Iterable[Read | Named], key_of: Callable[[str, str | None], str], states: str
) -> Command:
    """The call. key_of: the Redis key of a table and its part. states: the table of states. Answers are in
    the reads' order, after the cursor.
    """
    keys: dict[str, int] = {cursor: 1}
    fields: list[str] = []
    operations = []

    def place(key: str) -> int:
        return keys.setdefault(key, len(keys) + 1)

    for read in reads:
        match read:
            case Named(key):
                operations.append(_SnapshotRead("all", place(key)))
            case Whole(table):
                operations.append(_SnapshotRead("all", place(key_of(table, None))))
            case Rows(table, names):
                first = 2 + len(fields)
                fields += names
                operations.append(
                    _SnapshotRead("get", place(key_of(table, None)), first, first + len(names) - 1)
                )
            case _:
                ranked, held = place(key_of(read.table, read.part)), place(key_of(states, None))
                operations.append(_SnapshotRead("top", ranked, count=read.most, states=held))
    return _SNAPSHOT.call(list(keys), (_encode(operations), *fields))
