"""
Pulse: the work that the apply target names, viral and velocity rankings and hourly aggregates, and nothing
else.

The product's own view of clips (projections/clips.py) does this and more; it is measured beside it.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

import msgspec

from aurastream.projections import Projection, Ranking, Totals
from aurastream.streams import ClipViewsObserved

VIRAL_PER_MINUTE, VIRAL_VIEWS = 1.0, 20


class Beat(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A clip so far. velocity: views/minute of the last pair; viral: the same while it is viral; hour_gained:
    this hour's rise.
    """

    views: int
    at: datetime
    category: str
    hour: str
    velocity: float | None = None
    viral: float | None = None
    hour_gained: int = 0


class Pulse(Projection[Beat]):
    """Viral and velocity rankings, and clips, views and gains by hour and category."""

    name = "pulse"
    events = (ClipViewsObserved,)
    state = Beat
    rankings = (Ranking("velocity", score="velocity"), Ranking("viral", score="viral", by="category"))
    totals = (
        Totals(
            "hours", by="category", window="hour", of={"clips": 1, "views": "views", "gained": "hour_gained"}
        ),
    )

    def apply(self, state: Beat | None, event: ClipViewsObserved) -> Beat:
        """The clip after one more observation; one that is not newer changes nothing."""
        at, views = event.occurred_at, event.views
        if state is None:
            return Beat(views, at, event.category, _hour(at))
        if at <= state.at:
            return state
        gained = max(0, views - state.views)
        velocity = gained * 60 / (at - state.at).total_seconds()
        viral = velocity if velocity >= VIRAL_PER_MINUTE and views >= VIRAL_VIEWS else None
        hour = _hour(at)
        return Beat(
            views,
            at,
            event.category,
            hour,
            velocity,
            viral,
            gained + state.hour_gained if hour == state.hour else gained,
        )


@lru_cache(64)
def _hour(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:00Z")
