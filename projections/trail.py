"""The audit trail by subject: how many events it has, from when to when, and where each of them is in the log."""

from __future__ import annotations

from typing import Any

import msgspec

from aurastream.projections.projection import Listing, Projection


class Subject(msgspec.Struct, frozen=True):
    """events: how many, per type in types."""

    events: int
    types: dict[str, int]


class Trail(Projection[Subject]):
    """Every event of the log, whatever its type, by subject. The positions are in log order, which is not event time's."""

    name = "trail"
    events = None
    state = Subject
    table = "subjects"
    listings = (Listing("positions", key=lambda event: event.subject, item=lambda before, after, event, position: position),)

    def apply(self, state: Subject | None, event: Any) -> Subject:
        """One more event of the subject."""
        if state is None:
            return Subject(1, {event.type: 1})
        return Subject(state.events + 1, {**state.types, event.type: state.types.get(event.type, 0) + 1})
