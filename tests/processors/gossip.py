"""Processors for the test of erasures: one that tells all it saw in its exception, one that derives a
personal event.
"""

from __future__ import annotations

from typing import Any

from aurastream.processors.effects import Attempt, Processor
from aurastream.streams import ClipViewsObserved, Event, PersonalText, ShortText


class ClipPraised(Event, frozen=True, kw_only=True, tag="test.clip_praised"):
    """Somebody liked it."""

    personal = ("words",)

    words: PersonalText
    creator: ShortText = ""


class Gossip(Processor):
    """Fails, with what it saw in every form a careless handler may give it."""

    name = "gossip"
    start = "beginning"
    events = (ClipViewsObserved,)
    attempts_max = 1

    def handle(self, event: Any, attempt: Attempt) -> None:
        if event.title:
            raise ValueError(
                f"no luck with {event.title} / {event.title.upper()} / {event.title[3:]!r} by "
                f"{event.channel}: {attempt.source}"
            )


class Praise(Processor):
    """Says it again, in another event."""

    name = "praise"
    start = "beginning"
    events = (ClipViewsObserved,)
    into = "praises"

    def handle(self, event: Any, attempt: Attempt) -> list[Event]:
        return [attempt.derive(ClipPraised, words=f"how lovely, {event.title}")] if event.title else []
