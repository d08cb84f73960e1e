"""A projection that makes losses and doubles visible: it counts what it applied."""

from __future__ import annotations

import msgspec

from aurastream.projections import Projection, Ranking, Totals
from aurastream.streams import ClipViewsObserved


class Count(msgspec.Struct, frozen=True):
    applied: int
    views: int
    category: str


class Counting(Projection[Count]):
    name = "counting"
    events = (ClipViewsObserved,)
    state = Count
    rankings = (Ranking("most", score="applied", by="category"),)
    totals = (Totals("all", of={"clips": 1, "applied": "applied", "views": "views"}, by="category"),)

    def apply(self, state: Count | None, event: ClipViewsObserved) -> Count:
        return Count(
            (state.applied if state else 0) + 1, (state.views if state else 0) + event.views, event.category
        )
