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
        holders = sorted(self.holders, key=lambda holder: holder.last)
        needing = [holder for holder in holders if holder.last < first]
        last, parted = self._limit(end)
        if needing or not parted or last >= first:
            return needing
        canonical, second = min(parted)
        why = (
            f"the event at {canonical} was added again at {second}, not by an append: both can only go "
            "together. Run `aurastream archive`, and trim up to the second one."
        )
        farthest = max(double[1] for double in parted)
        return [
            Holder("second entry", str(second), str(last), why),
            *[holder for holder in holders if holder.last < farthest],
        ]

    def _limit(self, end: Position) -> tuple[Position, list[Double]]:
        """That position, and the pairs of entries of one ID that would be parted after it."""
        last = min([end, *[holder.last for holder in self.holders]])
        parted: list[Double] = []
        while split := [double for double in self.doubles if double[0] <= last < double[1]]:
            parted.append(min(split))
            last = parted[-1][0].before()
        return last, parted
