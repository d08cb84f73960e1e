"""
A consumer group's side of the log: its cursor, its lag, and the commands to read by it.

The cursor (a hash of ours beside the view) is the truth, the server's group a hint: it wakes consumers up and
shows every Redis tool who is where. Whatever the group says, consumption continues from the cursor; ``seek``
brings the group in line.
Counts are our own: XINFO's lag is null after an XDEL or SETID and absent before 7.0.
"""

from __future__ import annotations

from typing import Any

import msgspec

from aurastream.streams.connection import Server
from aurastream.streams.errors import CountsDamaged
from aurastream.streams.keys import Keys

CONSUMER = "owner"  # one consumer per group and partition: the cursor allows no second one to progress


class Cursor(msgspec.Struct, frozen=True):
    """How far a group's view of a partition has come.

    position: of the last entry read; "" before the first. read = applied + duplicates + skipped + dead +
    quarantined.
    skipped: events of types the projection does not fold. checksum: CRC-32 chained over position and checksum
    of every entry read.
    fingerprint: of the projection's definition and settings. watermark: latest event time applied,
    microseconds since 1970.
    read_bytes: of the JSON of the entries read. repairs: how often rows were put right from outside, so that
    whoever keeps states in memory reads them anew.
    """

    position: str = ""
    read: int = 0
    applied: int = 0
    duplicates: int = 0
    skipped: int = 0
    dead: int = 0
    quarantined: int = 0
    checksum: int = 0
    fingerprint: str = ""
    watermark: int = 0
    read_bytes: int = 0
    repairs: int = 0

    def fields(self) -> list[str | int]:
        """field, value, .. as HSET takes them."""
        return [item for name in self.__struct_fields__ for item in (name, getattr(self, name))]


def cursor_of(reply: list[bytes]) -> Cursor:
    """From HGETALL's flat answer; a missing key is a cursor before the first entry. Unknown fields (newer
    builds) are kept out.

    Raises CountsDamaged.
    """
    pairs = {
        reply[i].decode(errors="backslashreplace"): reply[i + 1].decode(errors="backslashreplace")
        for i in range(0, len(reply), 2)
    }
    known = {name: pairs[name] for name in Cursor.__struct_fields__ if name in pairs}
    try:
        cursor = msgspec.convert(known, Cursor, strict=False)
        as_pair(cursor.position)
    except ValueError as error:  # msgspec's among them
        raise CountsDamaged("a cursor", str(error)) from error
    return cursor


def flat(reply: Any) -> list[bytes]:
    """HGETALL as the server answers it, whether or not redis-py made a dict of it: in a cluster's transaction
    it does not.
    """
    return [part for pair in reply.items() for part in pair] if isinstance(reply, dict) else reply


class Lag(msgspec.Struct, frozen=True):
    """What a group has not yet read of a partition.

    events: exact. seconds: how long the oldest of them has been in the log, 0.0 when there is none.
    missing: entries that vanished from the log without the trimmer (XDEL, XTRIM, DEL by hand), else 0.
    rewound: the log ends before the cursor (restored from an older copy, or re-created).
    """

    events: int
    seconds: float
    missing: int
    rewound: bool


def lag_of(server: Server, keys: Keys, cursor: Cursor) -> Lag:
    """O(1) on the counts, plus one look at the first entry after the cursor. Raises CountsDamaged."""
    with server.client.pipeline(transaction=True) as pipeline:  # one snapshot, or the counts would not add up
        pipeline.xlen(keys.log)
        pipeline.hmget(keys.meta, "trimmed", "appended", "trimmed_to")
        pipeline.execute_command("XRANGE", keys.log, f"({cursor.position or '0-0'}", "+", "COUNT", 1)
        pipeline.execute_command("XREVRANGE", keys.log, "+", "-", "COUNT", 1)
        pipeline.execute_command("XINFO", "STREAM", keys.log)
        *answers, facts = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    length, (trimmed_raw, appended_raw, trimmed_to), following, last = answers
    seconds, microseconds = server.client.time()
    try:
        trimmed, appended = int(trimmed_raw or 0), int(appended_raw or 0)
        as_pair((trimmed_to or b"").decode())
    except ValueError as error:
        raise CountsDamaged(keys.where, str(error)) from error
    held = length + trimmed
    events = max(0, held - cursor.read)
    end = _position(last) if last else (trimmed_to or b"").decode()
    rewound = as_pair(end) < as_pair(cursor.position)
    missing = max(0, max(cursor.read, appended, _entries_added(facts)) - held)
    if not following:
        return Lag(0 if missing or rewound else events, 0.0, missing, rewound)
    waiting_s = seconds + microseconds / 1e6 - as_pair(_position(following))[0] / 1000
    return Lag(max(events, 1), max(0.0, round(waiting_s, 3)), missing, rewound)


def as_pair(position: str) -> tuple[int, int]:
    """A position in a form that compares: (milliseconds, sequence)."""
    milliseconds, _, sequence = position.partition("-")
    return int(milliseconds or 0), int(sequence or 0)


def _entries_added(facts: Any) -> int:
    """Of XINFO STREAM's flat answer: all that was ever added, raw XADDs included; 0 before Redis 7.0, and
    where there is no log.
    """
    if not isinstance(facts, list) or b"entries-added" not in facts[::2]:
        return 0
    return int(facts[2 * facts[::2].index(b"entries-added") + 1])


def _position(reply: list[Any]) -> str:
    return str(reply[0][0].decode())


def ensure(keys: Keys, group: str, cursor: Cursor) -> tuple[Any, ...]:
    """The command that makes the group; BUSYGROUP is the answer where it exists."""
    return ("XGROUP", "CREATE", keys.log, group, cursor.position or "0", "MKSTREAM")


def seek(keys: Keys, group: str, cursor: Cursor) -> tuple[Any, ...]:
    """The command that puts the group where the cursor is."""
    return ("XGROUP", "SETID", keys.log, group, cursor.position or "0")


def read_new(keys: Keys, group: str, count: int) -> tuple[Any, ...]:
    """The command that reads what the group has not delivered yet, without waiting. NOACK: the cursor says
    what was applied, and
    a pending list that must be filled and emptied costs the server 2 us an event (measured) and decides
    nothing."""
    return ("XREADGROUP", "GROUP", group, CONSUMER, "COUNT", count, "NOACK", "STREAMS", keys.log, ">")


def wake_up(waiting: dict[str, str], block_ms: int) -> tuple[Any, ...]:
    """The command that waits up to block_ms until one of the logs has an entry after its position. Reads for
    no group.
    """
    return (
        "XREAD",
        "COUNT",
        1,
        "BLOCK",
        block_ms,
        "STREAMS",
        *waiting,
        *[at or "0-0" for at in waiting.values()],
    )
