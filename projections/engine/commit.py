"""
One commit: what commit.lua is called with, and what it answers.

    Commit (from where, to where, on what evidence, which rows) -> command: head, evidence, operands
        -> CommitAnswer

The head is one msgpack map with names (``CommitHead``); what is binary, or many, follows it as arguments
of its own. The script's header is the contract. Pure.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec

from aurastream.projections.engine.evidence import Judged
from aurastream.projections.tables import Change, Stored, TableKind
from aurastream.streams import FOLLOW, Command, Cursor, Keys, Reply, Script, generation_group

_COMMIT = Script(__file__, FOLLOW, "commit.lua")
_FIXED = 4  # arguments before the operands: head, digests, packed positions, the last entry's checksum
_encode = msgspec.msgpack.Encoder().encode


class CommitAnswer(IntEnum):
    """What commit.lua says, named in it alike."""

    OK = 0
    STALE = 1
    GAP = 2
    ODD = 3
    BROKEN = 4
    REDEFINED = 5
    FENCED = 6
    REWOUND = 7
    RETIRED = 8
    BEHIND = 9
    IMPURE = 10


class Source(StrEnum):
    """Where the entries of a commit come from."""

    HERE = "here"  # this log: they must be what follows the cursor in it
    PURE = "pure"  # the same, without evidence: append.lua must have made every entry
    ARCHIVE = "archive"  # nothing is compared: which of them are duplicates is known from there
    ELSEWHERE = "elsewhere"  # a log that is not on this server


class ViewKeys:
    """The names of everything that one generation of a partition's view has.

    group: whose cursor moves. lease_group: of the lease, and to read by; the same unless it is set.
    """

    def __init__(self, keys: Keys, projection: str, generation: int) -> None:
        self.keys, self.projection, self.generation = keys, projection, generation
        self.group = self.lease_group = generation_group(projection, generation)
        self.cursor, self.dead = keys.cursor(self.group), keys.dead(self.group)

    def table(self, name: str, part: str | None = None) -> str:
        return self.keys.view(self.projection, self.generation, name, part)

    def fixed(self) -> list[str]:
        """The keys that every commit names first."""
        keys = self.keys
        return [self.cursor, keys.log, keys.ids, keys.lease(self.lease_group), keys.meta]


class Operation(msgspec.Struct, array_like=True):
    """A command on one of the keys (from 1), with the arguments first to last (from 1)."""

    key: int
    command: str
    first: int
    last: int


class CommitHead(msgspec.Struct, kw_only=True):
    """As commit.lua reads it. cursor, judged: how many of the arguments after the fixed ones are of each."""

    position: str
    after: str
    first: str
    fingerprint: str
    repairs: int
    source: str
    epoch: int | msgspec.UnsetType
    group: str | msgspec.UnsetType
    read: int
    kinds: list[str]
    cursor: int
    judged: int
    operations: list[Operation]


class Commit(msgspec.Struct, kw_only=True):
    """One batch, folded. before, after: the cursor. first: position of its first entry. last: the last value
    of its last entry, its checksum. digests, packed: of the events that the index shall name as they are.
    dead: position -> reason. group: that follows the cursor, or "".
    """

    before: Cursor
    after: Cursor
    first: bytes
    last: bytes
    source: Source
    changes: list[Change]
    dead: dict[str, str]
    digests: bytes = b""
    packed: bytes = b""
    judged: list[Judged] = []
    group: str = ""

    def command(self, view: ViewKeys, epoch: int | None) -> Command:
        """The call of the script. epoch: of the lease; None compares none."""
        cursor = self.after.fields()
        verdicts = [part for item in self.judged for part in item.args()]
        tables = [(view.table(change.table, change.part), change) for change in self.changes]
        if self.dead:
            dead = Change("dead", TableKind.HASH, put={key: why.encode() for key, why in self.dead.items()})
            tables.append((view.dead, dead))
        fixed = view.fixed()
        first = 1 + _FIXED + len(cursor) + len(verdicts)
        operations, operands = written([change for _, change in tables], 1 + len(fixed), first)
        head = CommitHead(
            position=self.after.position,
            after=self.before.position,
            first=self.first.decode(),
            fingerprint=self.before.fingerprint or self.after.fingerprint,
            repairs=self.after.repairs,
            source=self.source.value,
            epoch=msgspec.UNSET if epoch is None else epoch,
            group=self.group or msgspec.UNSET,
            read=self.after.read,
            kinds=[change.kind.value for _, change in tables],
            cursor=len(cursor),
            judged=len(verdicts),
            operations=operations,
        )
        evidence = (_encode(head), self.digests, self.packed, self.last)
        keys = [*fixed, *[key for key, _ in tables]]
        return _COMMIT.call(keys, (*evidence, *cursor, *verdicts, *operands))


def held_s(reply: list[Reply], now: list[bytes]) -> float:
    """How long a commit that was OK held the server. now: its answer to TIME, right behind."""
    began = int(reply[2]) * 1_000_000 + int(reply[3])
    return max(0, int(now[0]) * 1_000_000 + int(now[1]) - began) / 1e6


def written(changes: list[Change], key: int, first: int) -> tuple[list[Operation], list[Stored]]:
    """Changes as a script's operations on keys `key`, .. and their operands, arguments `first`, .."""
    operations: list[Operation] = []
    operands: list[Stored] = []
    for number, change in enumerate(changes, start=key):
        for command, parts in change.writes():
            start = first + len(operands)
            operations.append(Operation(number, command, start, start + len(parts) - 1))
            operands += parts
    return operations, operands


def is_commit(command: Command) -> bool:
    """Whether the command moves a view, for whoever measures how long that takes."""
    return command[:2] == ("EVALSHA", _COMMIT.sha)
