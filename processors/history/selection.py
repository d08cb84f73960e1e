"""
What of the past is asked for: shared by ``replay`` and ``audit``. Pure; the reading of it is reading.py's.

Always true: a selection says the same of an event wherever it is asked, and bounds the positions that can fit
without looking at one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from aurastream.projections.built_in import story_of
from aurastream.streams import AHEAD_MAX, END, EPOCH, MICROSECOND, START, Envelope, Position
from aurastream.streams.archive import Where

By = Literal["occurred", "appended"]
StreamPartition = tuple[str, int]
Order = tuple[Position, str, int]  # position, stream, partition
MILLISECOND = timedelta(milliseconds=1)


class PastEvent(msgspec.Struct, frozen=True):
    """A canonical entry. raw: the event's JSON as stored, personal fields sealed."""

    stream: str
    partition: int
    position: str
    envelope: Envelope
    raw: bytes

    @property
    def order(self) -> Order:
        """Its place among the entries of all streams."""
        return (Position.parse(self.position), self.stream, self.partition)

    @property
    def place(self) -> str:
        """stream/partition/position."""
        return f"{self.stream}/{self.partition}/{self.position}"


class Selection(msgspec.Struct, frozen=True):
    """Which events. Empty sets choose all. since, until: inclusive, of event time or (by "appended") of the
    position's clock.

    correlations: stories as the trail names them (trail.story_of), with their first causes, whose event IDs
    they are.
    """

    since: datetime | None = None
    until: datetime | None = None
    by: By = "occurred"
    types: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()
    correlations: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()

    def fits(self, event: Envelope) -> bool:
        """Whether the event is chosen, as far as it says so itself (not by its position)."""
        return (
            (not self.types or event.type in self.types)
            and (not self.subjects or event.subject in self.subjects)
            and (
                not self.correlations
                or story_of(event) in self.correlations
                or event.event_id in self.correlations
            )
            and (not self.sources or is_from(event.source, self.sources))
            and (not self.events or event.event_id in self.events)
            and (self.by != "occurred" or self._is_in_time(event.occurred_at))
        )

    def _is_in_time(self, moment: datetime) -> bool:
        return (self.since is None or moment >= self.since) and (self.until is None or moment <= self.until)

    def after(self) -> Position:
        """A position no chosen entry is at or before."""
        if self.since is None:
            return START
        # Nothing is appended more than AHEAD_MAX before it occurs: intake would quarantine it.
        earliest = self.since if self.by == "appended" else _shifted(self.since, -AHEAD_MAX)
        first_ms = -((EPOCH - earliest) // MILLISECOND)  # rounded up
        return Position(first_ms, 0).before() if earliest > EPOCH else START

    def last(self) -> Position:
        """A position no chosen entry is after; END where time sets no bound."""
        if self.until is None or self.by != "appended":
            return END
        return Position(max((self.until - EPOCH) // MILLISECOND, 0) + 1, 0).before()

    def is_within(self, position: str) -> bool:
        """Whether an entry there can be chosen, by its position alone."""
        return self.after() < Position.parse(position) <= self.last()

    def where(self) -> Where | None:
        """What the archive can be asked for by its columns; None where it must be read through."""
        since, until = (self.since, self.until) if self.by == "occurred" else (None, None)
        where = Where(
            type=_only(self.types),
            subject=_only(self.subjects),
            since=since,
            until=until and _shifted(until, MICROSECOND),
        )
        return where if where != Where() else None

    def in_words(self) -> str:
        """In words, the same for the same selection."""
        moments = (("from", self.since), ("to", self.until))
        sets = (
            ("type", self.types),
            ("subject", self.subjects),
            ("correlation", self.correlations),
            ("source", self.sources),
        )
        parts = [f"{name}={moment.isoformat()}" for name, moment in moments if moment is not None]
        parts += [f"by={self.by}"] if self.since or self.until else []
        parts += [f"{name}={','.join(sorted(chosen))}" for name, chosen in sets if chosen]
        return " ".join(parts) or "everything"


class Tally(msgspec.Struct):
    """What a reading came upon. damaged: left out, as no view counts them either; duplicates: of entries read
    before. ends: how far it goes in each partition.
    """

    scanned: int = 0
    damaged: int = 0
    duplicates: int = 0
    ends: dict[StreamPartition, str] = {}


def is_from(source: str, names: Iterable[str]) -> bool:
    """Whether an event's source is one of these: worker@host:1 is of worker@host:1, and of worker."""
    return any(source == name or source.startswith((f"{name}@", f"{name}:", f"{name}/")) for name in names)


def _only(names: frozenset[str]) -> str | None:
    """The one there is, where it is one."""
    return next(iter(names)) if len(names) == 1 else None


def _shifted(moment: datetime, by: timedelta) -> datetime:
    try:
        return moment + by
    except OverflowError:
        return (datetime.min if by < timedelta(0) else datetime.max).replace(tzinfo=EPOCH.tzinfo)
