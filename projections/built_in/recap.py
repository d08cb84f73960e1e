"""The recap of a day: when something was observed, and the fastest clips with their peaks."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from aurastream.projections.built_in.clip import Clip
from aurastream.streams import ClipViewsObserved, microseconds

MINUTE_US = 60_000_000
TOP = 10  # clips a day's recap names; 5 a category are its first five


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


def recapped(row: Recap | None, clip: Clip, event: ClipViewsObserved) -> Recap:
    """After one more observation; the same object when it adds nothing, as ties and late ones do."""
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
