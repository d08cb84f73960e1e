"""
A past time, and by which clock.

    occurred  entries whose event time is at most T, in the log's order: what was true at T, by all that is
              known of it today
    appended  the log's prefix up to T by the server's clock: what the view said at T
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import msgspec

from aurastream.streams import END, START, Position, last_of, microseconds

By = Literal["occurred", "appended"]


class AsOf(msgspec.Struct, frozen=True):
    """A past time, and by which clock."""

    at: datetime
    by: By = "occurred"

    @property
    def us(self) -> int:
        """Microseconds since 1970."""
        return microseconds(self.at)

    @property
    def last(self) -> Position:
        """The last position that can be part of it; END where only event time decides."""
        if self.by == "occurred":
            return END
        return last_of(str(self.us // 1000)) if self.us >= 0 else START

    def has(self, position: str, occurred_at: datetime) -> bool:
        """Whether an event is part of it."""
        return occurred_at <= self.at if self.by == "occurred" else Position.parse(position) <= self.last

    def __str__(self) -> str:
        shown = self.at.astimezone(UTC).isoformat().replace("+00:00", "Z")
        return f"{shown} ({'event time' if self.by == 'occurred' else 'appended'})"
