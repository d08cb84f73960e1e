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

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from aurastream.projections.engine import (
    MICROSECOND,
    Listing,
    Projection,
    Ranking,
    Rollup,
    Totals,
    microseconds,
)
from aurastream.streams import ClipViewsObserved

MINUTE_US = 60_000_000
HOUR_US = 3_600_000_000
_NO_AGE = timedelta(0)
_EARLIEST, _LATEST = (
    datetime(1, 1, 2, tzinfo=UTC),
    datetime(9980, 1, 1, tzinfo=UTC),
)  # the calendar's ends, with room to add and convert
TOP = 10  # clips a day's recap names; 5 a category are its first five


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


class Pair(msgspec.Struct, frozen=True):
    """Two neighbouring observations: delta views in elapsed_us microseconds, from start to end."""

    delta: int
    elapsed_us: int
    start: datetime
    end: datetime

    @property
    def velocity_per_hour(self) -> float:
        """Views per hour, 0.0 for a fall."""
        return max(0, self.delta) * HOUR_US / self.elapsed_us


class Clip(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A clip so far. views is its running total at last_at; gained and lost sum the rises and falls between
    observations.

    age_from: publication, or the first observation. observations: those that counted; ties and late did not.
    pairs_60,
    pairs_180: pairs of at least 60 and 180 views/hour. delta, elapsed_us, last_velocity: of the last pair;
    max_..: of the fastest, which ended at max_at; views/hour, a fall is 0. velocity: the platform's,
    views/minute, at last_at;
    viral_velocity: the same while viral. day_.., hour_..: what the observations of the last day and hour
    added.
    """

    views: int
    first_at: datetime
    last_at: datetime
    age_from: datetime
    day: str
    hour: str
    category: str = ""
    title: str = ""
    channel: str = ""
    observations: int = 1
    ties: int = 0
    late: int = 0
    gained: int = 0
    lost: int = 0
    rises: int = 0
    falls: int = 0
    pairs_60: int = 0
    pairs_180: int = 0
    delta: int = 0
    elapsed_us: int = 0
    last_velocity: float | None = None
    max_delta: int = 0
    max_elapsed_us: int = 0
    max_at: datetime | None = None
    max_velocity: float | None = None
    velocity: float = 0.0
    viral_velocity: float | None = None
    day_rows: int = 1
    day_observations: int = 1
    day_gained: int = 0
    day_falls: int = 0
    day_viral: int = 0
    day_elapsed_us: int = 0
    hour_observations: int = 1
    hour_gained: int = 0
    hour_viral: int = 0

    @property
    def is_viral(self) -> bool:
        """Whether it was viral at its last observation."""
        return self.viral_velocity is not None

    @property
    def last(self) -> Pair | None:
        """The last pair; None while seen once."""
        if not self.elapsed_us:
            return None
        return Pair(self.delta, self.elapsed_us, self.last_at - self.elapsed_us * MICROSECOND, self.last_at)

    @property
    def fastest(self) -> Pair | None:
        """The fastest pair, the earliest of equals; None while seen once."""
        if self.max_at is None:
            return None
        return Pair(
            self.max_delta, self.max_elapsed_us, self.max_at - self.max_elapsed_us * MICROSECOND, self.max_at
        )


class TopClip(msgspec.Struct, frozen=True):
    """A clip in a recap with its peak velocity of the day, views/minute."""

    subject: str
    velocity: float
    views: int
    title: str


class Recap(msgspec.Struct, frozen=True):
    """One day of one category: its polls and its fastest clips, the fastest first, ties by subject.

    One row per day, category and partition; ``merged`` makes the day's. polls: distinct minutes in which
    something was observed, as minutes of the day. Sums of the day are in the table days.
    """

    first_at: datetime
    last_at: datetime
    polls: tuple[int, ...]
    top: tuple[TopClip, ...] = ()

    @property
    def peak_velocity(self) -> float:
        """Of the day's fastest clip, views/minute."""
        return self.top[0].velocity if self.top else 0.0


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
            apply=lambda row, clip, event: recapped(row, clip, event),  # noqa: PLW0108 - defined below
            merge=lambda rows: merged(rows),  # noqa: PLW0108 - defined below
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
        velocity, viral = self._judged(event.views, at, born, 0.0)
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
        views = event.views
        delta = views - state.views
        elapsed = at - state.last_at
        elapsed_us = (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds
        gained, fell = (delta, 0) if delta >= 0 else (0, 1)
        per_hour = gained * HOUR_US / elapsed_us
        # Cross-multiplied, so that equal velocities are equal whatever their floats: the earliest stays.
        max_velocity: float | None = per_hour
        if state.max_at is None or delta * state.max_elapsed_us > state.max_delta * elapsed_us:
            max_delta, max_elapsed_us, max_at = delta, elapsed_us, at
        else:
            max_delta, max_elapsed_us = state.max_delta, state.max_elapsed_us
            max_at, max_velocity = state.max_at, state.max_velocity
        born = event.created_at or state.age_from
        velocity, viral = self._judged(views, at, born, per_hour / 60)
        flag = 0 if viral is None else 1
        day, hour = _day_and_hour(at)
        day_rows = day_observations = hour_observations = 1
        day_gained, day_falls, day_viral, day_elapsed_us, hour_gained, hour_viral = (
            gained,
            fell,
            flag,
            elapsed_us,
            gained,
            flag,
        )
        if day == state.day:
            day_rows, day_observations = state.day_rows + 1, state.day_observations + 1
            day_gained, day_falls = state.day_gained + gained, state.day_falls + fell
            day_viral, day_elapsed_us = state.day_viral | flag, state.day_elapsed_us + elapsed_us
        if hour == state.hour:
            hour_observations, hour_gained = state.hour_observations + 1, state.hour_gained + gained
            hour_viral = state.hour_viral | flag
        return Clip(
            views,
            state.first_at,
            at,
            born,
            day,
            hour,
            event.category,
            event.title or state.title,
            event.channel or state.channel,
            state.observations + 1,
            state.ties,
            state.late,
            state.gained + gained,
            state.lost + gained - delta,
            state.rises + (delta > 0),
            state.falls + fell,
            state.pairs_60 + (delta * MINUTE_US >= elapsed_us),
            state.pairs_180 + (delta * MINUTE_US >= 3 * elapsed_us),
            delta,
            elapsed_us,
            per_hour,
            max_delta,
            max_elapsed_us,
            max_at,
            max_velocity,
            velocity,
            viral,
            day_rows,
            day_observations,
            day_gained,
            day_falls,
            day_viral,
            day_elapsed_us,
            hour_observations,
            hour_gained,
            hour_viral,
        )

    def _judged(self, views: int, at: datetime, born: datetime, recent: float) -> tuple[float, float | None]:
        """The platform's velocity in views/minute, and the same when it makes the clip viral now, else None."""
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


@lru_cache(64)
def _day_and_hour(at: datetime) -> tuple[str, str]:
    """In UTC, as 2026-04-15 and 2026-04-15T04:00Z. Cached, as a poll's observations share their instant."""
    hour = max(at, _EARLIEST).astimezone(UTC).isoformat()[:13]
    return hour[:10], f"{hour}:00Z"


def recapped(row: Recap | None, clip: Clip, event: ClipViewsObserved) -> Recap:
    """The day's recap after one more observation; the same object when it adds nothing. Ties and late ones
    add nothing.
    """
    at = event.occurred_at
    if at != clip.last_at:
        return row if row is not None else Recap(at, at, (_minute(at),))
    if row is None:
        row = Recap(at, at, (_minute(at),))
    elif at == row.last_at and len(row.top) == TOP and clip.velocity < row.top[-1].velocity:
        return row  # the usual case: another clip of the same poll, too slow to be named
    minute = _minute(at)
    polls = row.polls if minute in row.polls else tuple(sorted((*row.polls, minute)))
    top = topped(row.top, TopClip(event.subject, clip.velocity, clip.views, clip.title))
    if polls is row.polls and top is row.top and row.first_at <= at <= row.last_at:
        return row
    return Recap(min(row.first_at, at), max(row.last_at, at), polls, top)


def merged(rows: Iterable[Recap]) -> Recap:
    """One recap of several: of the partitions, of the categories, or both. A clip in two of them counts with
    its peak.
    """
    parts = list(rows)
    top: tuple[TopClip, ...] = ()
    for clip in (clip for part in parts for clip in part.top):
        top = topped(top, clip)
    polls = tuple(sorted({minute for part in parts for minute in part.polls}))
    return Recap(min(part.first_at for part in parts), max(part.last_at for part in parts), polls, top)


def topped(top: tuple[TopClip, ...], clip: TopClip) -> tuple[TopClip, ...]:
    """The TOP fastest with one more; a clip is named once, with its peak. Exact, since a peak only grows
    within its day.
    """
    if clip.velocity <= 0 or (len(top) == TOP and clip.velocity < top[-1].velocity):
        return top
    held = next((item for item in top if item.subject == clip.subject), None)
    if held is not None and held.velocity >= clip.velocity:
        return top
    kept = [item for item in top if item.subject != clip.subject]
    return tuple(sorted([*kept, clip], key=lambda item: (-item.velocity, item.subject))[:TOP])


def _minute(at: datetime) -> int:
    return microseconds(at) // MINUTE_US % 1440
