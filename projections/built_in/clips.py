"""
Clips: what is known of every clip, video or broadcast, and who is going viral.

    clip.views_observed -> state per clip -> viral and velocity rankings, totals by category, day and hour,
        the daily recap

Rule for order: a clip's observations are folded in event time. One not newer than the last changes no
numbers: at an equal time it is counted as a tie (the first one stands), at an earlier time it is counted and
listed as late.

Velocity, two kinds:
- Of a pair of neighbouring observations, views/hour: ``delta * 3600 / seconds``; a fall has no velocity (data
definition 4, 5).
- The platform's, views/minute: the larger of the base velocity (views / age in minutes) and the recent
velocity
  (delta / minutes between the two observations), never below 0. The platform divided the latter by the time
  since the clip was first seen, which makes every velocity shrink with age; here numerator and denominator
  are of the same pair.

viral = platform velocity >= viral_per_minute and views >= viral_views and 0 <= age < viral_age_hours, at the
clip's last observation; the age runs on in event time, so a clip leaves the ranking when the partition's
event time passes its end, observed or not. A clip that claims to be from the future has no age and is not
viral. Age counts from publication, or from the first observation where the platform does not say.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from aurastream.projections.built_in.clip import AT_REST, HOUR_US, Clip
from aurastream.projections.built_in.recap import MINUTE_US, Recap, merged, recapped
from aurastream.projections.engine import Projection
from aurastream.projections.tables import Listing, Ranking, Rollup, Totals
from aurastream.streams import ClipViewsObserved

# Fields of a Clip, in their order.
Counts: TypeAlias = tuple[int, int, int, int, int, int, int, int, int]
OfDay: TypeAlias = tuple[int, int, int, int, int, int]
OfHour: TypeAlias = tuple[int, int, int]

_NO_AGE = timedelta(0)
_EARLIEST, _LATEST = (
    datetime(1, 1, 2, tzinfo=UTC),
    datetime(9980, 1, 1, tzinfo=UTC),
)  # the calendar's ends, with room to add and convert


class ClipSettings(BaseSettings):
    """Thresholds of virality; AURASTREAM_CLIPS_<FIELD>. They are part of the view's definition."""

    model_config = SettingsConfigDict(env_prefix="AURASTREAM_CLIPS_", extra="ignore", frozen=True)

    viral_per_minute: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="views/minute from which a clip is trending"
    )
    exploding_per_minute: float = Field(
        3.0, gt=0, allow_inf_nan=False, description="views/minute from which it is exploding"
    )
    viral_views: int = Field(20, ge=0, description="views a viral clip has at least")
    viral_age_hours: float = Field(
        6.0, gt=0, le=87_600, description="hours of age at which a clip is no longer viral"
    )


class Clips(Projection[Clip]):
    """The clip view; see the module's text for its rules."""

    name = "clips"
    events = (ClipViewsObserved,)
    state = Clip
    table = "clips"
    settings_type = ClipSettings
    settings: ClipSettings

    def __init__(self, settings: ClipSettings | None = None) -> None:
        super().__init__(settings)
        self._viral_per_minute = self.settings.viral_per_minute
        self._viral_views = self.settings.viral_views
        self._viral_age = timedelta(hours=self.settings.viral_age_hours)
        self.rankings = (
            Ranking("latest_views", score="views"),
            Ranking("last_velocity", score="last_velocity"),
            Ranking("max_velocity", score="max_velocity"),
            Ranking(
                "viral", score="viral_velocity", by="category", expires_at=self._viral_until, unit="views/min"
            ),
        )

    totals = (
        Totals(
            "categories",
            by="category",
            of={
                "subjects": 1,
                "latest_views_sum": "views",
                "gained": "gained",
                "lost": "lost",
                "falls": "falls",
            },
        ),
        Totals(
            "days",
            by="category",
            window="day",
            of={
                "clips": 1,
                "views": "views",
                "rows": "day_rows",
                "observations": "day_observations",
                "gained": "day_gained",
                "falls": "day_falls",
                "viral": "day_viral",
                "elapsed_us": "day_elapsed_us",
            },
        ),
        Totals(
            "hours",
            by="category",
            window="hour",
            of={
                "clips": 1,
                "views": "views",
                "observations": "hour_observations",
                "gained": "hour_gained",
                "viral": "hour_viral",
            },
        ),
    )
    rollups = (
        Rollup(
            "recap",
            key=lambda clip, event: f"{clip.day}|{clip.category}",
            row=Recap,
            apply=recapped,
            merge=merged,
        ),
    )
    listings = (
        Listing(
            "late",
            key=lambda event: "late",
            item=lambda before, after, event, position: (
                position if before is not None and after.late != before.late else None
            ),
        ),
    )

    def apply(self, state: Clip | None, event: ClipViewsObserved) -> Clip:
        """The clip after one more observation."""
        at = event.occurred_at
        if state is None:
            return self._first(event, at)
        if at <= state.last_at:
            return _not_newer(state, is_tie=at == state.last_at)
        return self._next(state, event, at)

    @property
    def headline(self) -> str:
        return "viral"

    def shown(self, state: Clip) -> dict[str, Any]:
        """What one wants to know of a clip; the last column has the platform's word for a viral one."""
        return {
            "title": state.title or "-",
            "category": state.category,
            "views": state.views,
            "": self.label(state),
        }

    def label(self, clip: Clip) -> str:
        """The platform's word for a viral clip, else ""."""
        if clip.viral_velocity is None:
            return ""
        is_exploding = clip.viral_velocity >= self.settings.exploding_per_minute
        return "exploding" if is_exploding else "trending"

    def _first(self, event: ClipViewsObserved, at: datetime) -> Clip:
        born = event.created_at or at
        velocity, viral = self._judged(event.views, at, born, AT_REST)
        day, hour = _day_and_hour(at)
        flag = 0 if viral is None else 1
        return Clip(
            event.views,
            at,
            at,
            born,
            day,
            hour,
            event.category,
            event.title,
            event.channel,
            velocity=velocity,
            viral_velocity=viral,
            day_viral=flag,
            hour_viral=flag,
        )

    def _next(self, state: Clip, event: ClipViewsObserved, at: datetime) -> Clip:
        delta, elapsed = event.views - state.views, at - state.last_at
        elapsed_us = (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds
        gained = delta if delta >= 0 else 0
        per_hour = gained * HOUR_US / elapsed_us
        born = event.created_at or state.age_from
        velocity, viral = self._judged(event.views, at, born, per_hour / 60)
        day, hour = _day_and_hour(at)
        of_day, of_hour = _windowed(state, (day, hour), delta, elapsed_us, 0 if viral is None else 1)
        return Clip(
            event.views,
            state.first_at,
            at,
            born,
            day,
            hour,
            event.category,
            event.title or state.title,
            event.channel or state.channel,
            *_counted(state, delta, gained, elapsed_us),
            delta,
            elapsed_us,
            per_hour,
            *_fastest(state, delta, elapsed_us, at, per_hour),
            velocity,
            viral,
            *of_day,
            *of_hour,
        )

    def _judged(self, views: int, at: datetime, born: datetime, recent: float) -> tuple[float, float | None]:
        """The platform's velocity in views/minute, and again where it makes the clip viral, else None."""
        age = at - born
        age_minutes = age.total_seconds() / 60
        velocity = max(recent, views / age_minutes) if age_minutes > 0 else recent
        is_viral = (
            velocity >= self._viral_per_minute
            and views >= self._viral_views
            and _NO_AGE <= age < self._viral_age
        )
        return velocity, velocity if is_viral else None

    def _viral_until(self, clip: Clip) -> datetime:
        return min(clip.age_from, _LATEST) + self._viral_age


def _not_newer(state: Clip, is_tie: bool) -> Clip:
    if is_tie:
        return msgspec.structs.replace(state, ties=state.ties + 1, day_rows=state.day_rows + 1)
    return msgspec.structs.replace(state, late=state.late + 1)


def _counted(state: Clip, delta: int, gained: int, elapsed_us: int) -> Counts:
    """From ``observations`` to ``pairs_180`` after one more pair."""
    return (
        state.observations + 1,
        state.ties,
        state.late,
        state.gained + gained,
        state.lost + gained - delta,
        state.rises + (delta > 0),
        state.falls + (delta < 0),
        state.pairs_60 + (delta * MINUTE_US >= elapsed_us),
        state.pairs_180 + (delta * MINUTE_US >= 3 * elapsed_us),
    )


def _fastest(
    state: Clip, delta: int, elapsed_us: int, at: datetime, per_hour: float
) -> tuple[int, int, datetime, float | None]:
    """From ``max_delta`` to ``max_velocity``. Cross-multiplied, so that equal velocities are equal whatever
    their floats: the earliest stays.
    """
    if state.max_at is None or delta * state.max_elapsed_us > state.max_delta * elapsed_us:
        return delta, elapsed_us, at, per_hour
    return state.max_delta, state.max_elapsed_us, state.max_at, state.max_velocity


def _windowed(
    state: Clip, window: tuple[str, str], delta: int, elapsed_us: int, viral: int
) -> tuple[OfDay, OfHour]:
    """From ``day_rows`` to ``hour_viral``. window: day and hour of the observation; viral: 1 or 0."""
    gained, fell = (delta, 0) if delta >= 0 else (0, 1)
    of_day = (1, 1, gained, fell, viral, elapsed_us)
    if window[0] == state.day:
        of_day = (
            state.day_rows + 1,
            state.day_observations + 1,
            state.day_gained + gained,
            state.day_falls + fell,
            state.day_viral | viral,
            state.day_elapsed_us + elapsed_us,
        )
    if window[1] != state.hour:
        return of_day, (1, gained, viral)
    return of_day, (state.hour_observations + 1, state.hour_gained + gained, state.hour_viral | viral)


@lru_cache(64)
def _day_and_hour(at: datetime) -> tuple[str, str]:
    """In UTC, as 2026-04-15 and 2026-04-15T04:00Z. Cached, as a poll's observations share their instant."""
    hour = max(at, _EARLIEST).astimezone(UTC).isoformat()[:13]
    return hour[:10], f"{hour}:00Z"
