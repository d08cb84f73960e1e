"""A projection that uses everything a person can declare."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from aurastream.projections import Listing, Projection, Ranking, Rollup, Totals
from aurastream.streams import ClipViewsObserved

TTL = timedelta(minutes=90)
FAME = timedelta(minutes=200)


class Visit(msgspec.Struct, frozen=True):
    """What is known of a key since it was last away for TTL."""

    began: datetime
    seen: datetime
    looks: int
    points: int
    part: str
    hour: str

    @property
    def fame(self) -> float | None:
        """Absent at 13 points, as a score may be."""
        return None if self.points == 13 else self.points / 2


class Tally(msgspec.Struct, frozen=True):
    moves: int
    most: int


def tallied(row: Tally | None, visit: Visit, event: ClipViewsObserved) -> Tally:
    return Tally(1, visit.points) if row is None else Tally(row.moves + 1, max(row.most, visit.points))


class Visits(Projection[Visit]):
    name = "visits"
    events = (ClipViewsObserved,)
    state = Visit
    rankings = (
        Ranking("points", score="points", by="part"),
        Ranking("looks", score=lambda visit: visit.looks, by=lambda visit: visit.looks % 2),
        Ranking(
            "fame",
            score="fame",
            by="part",
            expires_at=lambda visit: None if visit.looks == 3 else visit.seen + FAME,
        ),
        Ranking("plain", score="fame"),
    )
    totals = (
        Totals("by_part", by="part", of={"keys": 1, "points": "points", "looks": "looks"}),
        Totals("by_hour", by="part", window="hour", of={"keys": 1, "points": "points"}),
        Totals("by_day", window=lambda visit: visit.hour[:10], of={"points": lambda visit: visit.points}),
        Totals("all", of={"points": "points"}),
    )
    rollups = (Rollup("tally", key=lambda visit, event: visit.part or None, row=Tally, apply=tallied),)
    listings = (
        Listing(
            "began",
            key=lambda event: event.category,
            item=lambda old, new, event, position: position if old is None else None,
        ),
    )

    def apply(self, state: Visit | None, event: ClipViewsObserved) -> Visit:
        at, points = event.occurred_at, event.views - 20
        if state is None:
            return Visit(at, at, 1, points, event.category, at.isoformat()[:13])
        if at <= state.seen or points == -20:
            return state
        return Visit(state.began, at, state.looks + 1, points, event.category, at.isoformat()[:13])


class Sessions(Visits):
    """The same, whose states begin anew after TTL; not at their fourth look."""

    name = "sessions"

    def expires_at(self, state: Visit) -> datetime | None:
        return None if state.looks == 4 else state.seen + TTL
