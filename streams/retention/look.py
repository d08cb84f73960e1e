"""
One look at a partition: who may still need an entry of its log, and up to where it may be trimmed without
them. Pure.

    holders, each with the last position it lets go
        -> the least of them; lowered where it would part the two entries of one event ID
"""

from __future__ import annotations

import msgspec

from aurastream.streams import START, Position


class Holder(msgspec.Struct, frozen=True):
    """Who holds entries back. kind: group, app, foreign group, archive, dead letter, or second entry.

    through: the last position that may go as far as it is concerned; "" none. why: a sentence with the
    remedy.
    """

    kind: str
    name: str
    through: str
    why: str

    @property
    def last(self) -> Position:
        """The same, to compare; START: none."""
        return Position.parse(self.through)


Double = tuple[Position, Position]  # the canonical and another entry of one event ID


class Look(msgspec.Struct):
    """What is there now. entries, first, newest: of the log. groups: those that joined or have dead entries
    -> how many.

    ours: the server's groups that are a projection's, a processor's or an app's. raw_entries: added without
    append.lua. doubles: of event IDs that are in the log twice. kept_from: the last entry a number of kept
    ones lets go, where doubles had to be looked for. keys: of groups and apps, as trim.lua takes them.
    """

    keys: list[str]
    entries: int = 0
    first: Position = START
    newest: Position = START
    groups: dict[str, int] = {}
    ours: set[str] = set()
    apps: list[str] = []
    raw_entries: int = 0
    holders: list[Holder] = []
    doubles: list[Double] = []
    kept_from: Position | None = None

    def through(self, end: Position) -> Position:
        """The last position up to `end` that nobody needs."""
        return self._limit(end)[0]

    def blocking(self, first: Position, end: Position) -> list[Holder]:
        """Who needs the entry at `first`, which is the first of those that were to go up to `end`."""
        holders = [holder for holder in self.holders if holder.last < first]
        last, double = self._limit(end)
        if holders or double is None or last >= first:
            return sorted(holders, key=lambda holder: holder.last)
        canonical, second = double
        why = (
            f"the event at {canonical} was added again at {second}, not by an append: both can only go "
            "together. Archive and trim up to the second one."
        )
        return [Holder("second entry", str(second), str(last), why)]

    def _limit(self, end: Position) -> tuple[Position, Double | None]:
        """That position, and the two entries of one ID that would be parted after it, if any."""
        last, double = min([end, *[holder.last for holder in self.holders]]), None
        while split := [pair for pair in self.doubles if pair[0] <= last < pair[1]]:
            double = min(split)
            last = double[0].before()
        return last, double
