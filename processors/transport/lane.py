"""
A partition this app owns: how far it was handed to Faust, and how far it is acknowledged.

    acquiring: cursor -> TopicLane -> next entries by position (XRANGE) -> handed -> acknowledged by Faust
                              in any order -> passed: the longest prefix -> acknowledge.lua

Offsets are Faust's: integers without gaps, here the number of the partition's entries before this one, so
that they name the same entry in every process. Positions are the truth: reading continues after a position,
whatever the server's group says.

Invariant: acknowledged <= offset of the first in unacked <= .. <= offset, and every entry before
``acknowledged`` was handled. What is handed out again is cut into the same messages as before: Faust
acknowledges by offset, and a late acknowledgement of a small batch must not pass for one of a larger batch
that begins at the same entry.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import NamedTuple

import msgspec

from aurastream.streams import Ask, Asking, Claim, Command, Keys, RawEntry, Script

UNACKED_MAX = (
    100_000  # messages of one partition handed out and not acknowledged: beyond, nothing more is read
)

_ACKNOWLEDGE = Script(__file__, "acknowledge.lua")


class Acknowledged(IntEnum):
    """What acknowledge.lua says."""

    OK = 1
    FENCED = 2


class Handed(NamedTuple):
    """One message: its offset, that of the next, and the position of its last entry."""

    offset: int
    following: int
    position: str


class TopicLane:
    """One partition under one lease. cuts: offsets at which messages ended that were handed out, in order."""

    def __init__(self, claim: Claim, epoch: int, position: str = "", read: int = 0) -> None:
        self.claim, self.epoch = claim, epoch
        self.keys: Keys = claim.keys
        self.position, self.offset = position, read
        self.acknowledged = Handed(read, read, position)
        self.unacked: deque[Handed] = deque()
        self.cuts: deque[int] = deque()
        self.highwater = read
        self.is_leaving = False

    @property
    def is_full(self) -> bool:
        """Whether too much is handed out already."""
        return len(self.unacked) >= UNACKED_MAX

    def reading(self, count: int) -> Ask:
        """The command that reads what follows."""
        while self.cuts and self.cuts[0] <= self.offset:
            self.cuts.popleft()
        if self.cuts:
            count = min(count, self.cuts[0] - self.offset)
        return Ask(
            self.keys.log, ("XRANGE", self.keys.log, f"({self.position or '0-0'}", "+", "COUNT", count)
        )

    def hand(self, entries: list[RawEntry], *, is_tracked: bool = True) -> None:
        """These entries, the next ones, are handed out as one message."""
        handed = Handed(self.offset, self.offset + len(entries), entries[-1][0].decode())
        self.offset, self.position = handed.following, handed.position
        if is_tracked and handed.following > self.acknowledged.following:
            self.unacked.append(handed)

    def passed(self, acked: set[int]) -> int | None:
        """The offset after the longest acknowledged prefix, which leaves `acked`; None if as before."""
        before = self.acknowledged
        while self.unacked and self.unacked[0].offset in acked:
            self.acknowledged = self.unacked.popleft()
            acked.discard(self.acknowledged.offset)
        return None if self.acknowledged is before else self.acknowledged.following

    def rewind(self) -> None:
        """Hand out again what is not acknowledged."""
        self.go(self.acknowledged.position, self.acknowledged.following)

    def go(self, position: str, offset: int) -> None:
        """Continue after a position."""
        self.cuts = deque(self.ends())
        self.position, self.offset = position, offset
        self.unacked.clear()

    def start(self, position: str, offset: int) -> None:
        """Begin after a position, as if all before it were acknowledged."""
        self.position, self.offset = position, offset
        self.acknowledged = Handed(offset, offset, position)

    def ends(self) -> list[int]:
        """Where the messages end whose acknowledgement may still come."""
        return sorted({*self.cuts, *(handed.following for handed in self.unacked)})

    def acknowledging(self) -> Ask:
        """The command that records ``acknowledged``; its answer is an Acknowledged."""
        keys = (self.keys.acked(self.claim.group), self.keys.lease(self.claim.group), self.keys.log)
        head = _AcknowledgeHead(
            self.claim.group, self.epoch, self.acknowledged.position, self.acknowledged.following
        )
        return Ask(keys[0], _ACKNOWLEDGE.call(keys, (msgspec.msgpack.encode(head),)))


class _AcknowledgeHead(msgspec.Struct, frozen=True):
    """See acknowledge.lua."""

    group: str
    epoch: int
    position: str
    read: int


def acquiring(claim: Claim, epoch: int, *, from_end: bool) -> Asking[TopicLane | None]:
    """Take a partition over from the group's cursor. None when a newer owner exists.

    from_end: a group that is new to the partition begins after its last entry instead of before its first.
    """
    keys = claim.keys
    commands: tuple[Command, ...] = (
        ("HMGET", keys.acked(claim.group), "position", "read"),
        ("XREVRANGE", keys.log, "+", "-", "COUNT", 1),
        ("XLEN", keys.log),
        ("HGET", keys.meta, "trimmed"),
    )
    (position, read), last, length, trimmed = yield [Ask(keys.log, command) for command in commands]
    gone = int(trimmed or 0)  # offsets count what was trimmed
    if position is not None:
        lane = TopicLane(claim, epoch, position.decode(), int(read))
    elif from_end and last:
        lane = TopicLane(claim, epoch, last[0][0].decode(), length + gone)
    else:
        lane = TopicLane(claim, epoch, "", gone)
    lane.highwater = length + gone
    (answer,) = yield [lane.acknowledging()]
    return lane if Acknowledged(answer) is Acknowledged.OK else None
