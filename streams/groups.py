"""
A consumer group's side of the log: its cursor, its lag, and the commands to read by it.

The cursor (a hash of ours beside the view) is the truth; the server's group follows it, so that every Redis
tool shows who is where, and how far behind. Whatever the group says, consumption continues from the cursor.
Counts are our own: XINFO's lag is null while entries after the cursor were deleted by hand, and absent before
7.0.

Decision (2026-11): lanes read by XRANGE after the cursor, and the script that moves the cursor moves the
group (follow.lua). Refused: XREADGROUP NOACK, which moves the group by what was read and not yet applied, so
that its lag is short by a batch, and needs a second question whether the group says nothing because it was
moved by hand. Measured, server us an entry, XREADGROUP NOACK | XRANGE | XRANGE and SETID with ENTRIESREAD as
a command of its own: 1 a batch 7.5 | 6.0 | 9.8 (Valkey 9.1), 6.7 | 5.6 | 10.0 (Redis 7.0); 500 a batch 0.50 |
0.46 | 0.44 and 0.52 | 0.50 | 0.52; 16,000 a batch 0.63 | 0.65 | 0.66 and 0.65 | 0.68 | 0.63: the same but for
the smallest batches, where the SETID inside the script costs 1 us of the 60 that such a commit takes.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from aurastream.streams.connection import Server
from aurastream.streams.drive import Command, Reply, sound
from aurastream.streams.entries import RawEntry
from aurastream.streams.errors import CountsDamaged
from aurastream.streams.instant import at_once
from aurastream.streams.keys import Keys
from aurastream.streams.positions import Position
from aurastream.streams.wire import Script

FOLLOW = Path(__file__).parent / "follow.lua"  # part of every script that moves a cursor
_ALIGN = Script(__file__, FOLLOW, "align.lua")


class Cursor(msgspec.Struct, frozen=True):
    """How far a group's view of a partition has come.

    position: of the last entry read, as stored; "" before the first. read: entries: applied + duplicates +
    skipped (of types that the projection does not fold) + dead + quarantined. checksum: CRC-32 chained over
    position and checksum of every entry read.
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


def align(log: str, cursor: str, group: str) -> Command:
    """The command that makes the group where there is none, and puts it where the cursor is. log, cursor:
    their keys.
    """
    return _ALIGN.call((log, cursor), (group,))


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
