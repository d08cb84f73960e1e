"""
A consumer group's side of the log: its cursor, its lag, and the commands to read by it.

The cursor (a hash of ours beside the view) is the truth, the server's group a hint: it wakes consumers up and
shows every Redis tool who is where. Whatever the group says, consumption continues from the cursor; ``seek``
brings the group in line.
Counts are our own: XINFO's lag is null after an XDEL or SETID and absent before 7.0.
"""

from __future__ import annotations

import msgspec

from aurastream.streams.connection import Server
from aurastream.streams.drive import Command, Reply, sound
from aurastream.streams.entries import RawEntry
from aurastream.streams.errors import CountsDamaged
from aurastream.streams.instant import at_once
from aurastream.streams.keys import Keys
from aurastream.streams.positions import Position

CONSUMER = "owner"  # one consumer per group and partition: the cursor allows no second one to progress


class Cursor(msgspec.Struct, frozen=True):
    """How far a group's view of a partition has come.

    position: of the last entry read, as stored; "" before the first. read: entries: applied + duplicates +
    skipped (of types that the projection does not fold) + dead + quarantined. checksum: CRC-32 chained over
    position and checksum of every entry read.
    fingerprint: of the projection's definition and settings. watermark: latest event time applied,
    microseconds since 1970.
    closed_to: up to where the first rules of intake were followed, where today's are since; else "".
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
    closed_to: str = ""

    @property
    def at(self) -> Position:
        """The position in a form that compares; START before the first entry."""
        return Position.parse(self.position)

    def fields(self) -> list[str | int]:
        """field, value, .. as HSET takes them."""
        return [item for name in self.__struct_fields__ for item in (name, getattr(self, name))]


def cursor_of(reply: list[bytes]) -> Cursor:
    """From HGETALL's flat answer; a missing key is a cursor before the first entry.

    Fields of newer builds are passed over. Raises CountsDamaged.
    """
    pairs = {
        reply[i].decode(errors="backslashreplace"): reply[i + 1].decode(errors="backslashreplace")
        for i in range(0, len(reply), 2)
    }
    known = {name: pairs[name] for name in Cursor.__struct_fields__ if name in pairs}
    try:
        cursor = msgspec.convert(known, Cursor, strict=False)
        Position.parse(cursor.position)
    except ValueError as error:  # msgspec's among them
        raise CountsDamaged("a cursor", str(error)) from error
    return cursor


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
    *answers, facts = at_once(  # one snapshot, or the counts would not add up
        server,
        (keys.log, keys.meta),
        (
            ("XLEN", keys.log),
            ("HMGET", keys.meta, "trimmed", "appended", "trimmed_to"),
            ("XRANGE", keys.log, f"({cursor.at}", "+", "COUNT", 1),
            ("XREVRANGE", keys.log, "+", "-", "COUNT", 1),
            ("XINFO", "STREAM", keys.log),
        ),
    )
    length, (trimmed_raw, appended_raw, trimmed_to), following, last = sound(answers)
    try:
        trimmed, appended, end = (
            int(trimmed_raw or 0),
            int(appended_raw or 0),
            Position.parse(trimmed_to or b""),
        )
    except ValueError as error:
        raise CountsDamaged(keys.where, str(error)) from error
    held = length + trimmed
    end = _position(last) if last else end
    missing = max(0, max(cursor.read, appended, _entries_added(facts)) - held)
    is_rewound, events = end < cursor.at, max(0, held - cursor.read)
    if not following:
        return Lag(0 if missing or is_rewound else events, 0.0, missing, is_rewound)
    seconds, microseconds = server.client.time()
    waiting_s = seconds + microseconds / 1e6 - _position(following).ms / 1000
    return Lag(max(events, 1), max(0.0, round(waiting_s, 3)), missing, is_rewound)


def _entries_added(facts: Reply) -> int:
    """Of XINFO STREAM's flat answer: all that was ever added, raw XADDs included; 0 before Redis 7.0, and
    where there is no log.
    """
    if not isinstance(facts, list) or b"entries-added" not in facts[::2]:
        return 0
    return int(facts[2 * facts[::2].index(b"entries-added") + 1])


def _position(entries: list[RawEntry]) -> Position:
    return Position.parse(entries[0][0])


def ensure(keys: Keys, group: str, cursor: Cursor) -> Command:
    """The command that makes the group; BUSYGROUP is the answer where it exists."""
    return ("XGROUP", "CREATE", keys.log, group, cursor.position or "0", "MKSTREAM")


def seek(keys: Keys, group: str, cursor: Cursor) -> Command:
    """The command that puts the group where the cursor is."""
    return ("XGROUP", "SETID", keys.log, group, cursor.position or "0")


def read_new(keys: Keys, group: str, count: int) -> Command:
    """The command that reads what the group has not delivered yet, without waiting.

    NOACK: the cursor says what was applied; a pending list to be filled and emptied costs the server 2 us an
    event (measured).
    """
    return ("XREADGROUP", "GROUP", group, CONSUMER, "COUNT", count, "NOACK", "STREAMS", keys.log, ">")


def wake_up(waiting: dict[str, str], block_ms: int) -> Command:
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
