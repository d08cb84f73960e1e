"""
Which entries a scan is for: the values that they must have.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from aurastream.streams import microseconds


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """The values wanted; None: any. since, until: of occurred_at, the second not included."""

    subject: str | None = None
    type: str | None = None
    source: str | None = None
    correlation_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def equals(self) -> dict[str, str]:
        """Column -> the value it must have."""
        names = ("subject", "type", "source", "correlation_id")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def occurred(self) -> tuple[int | None, int | None]:
        """The bounds of occurred_at, microseconds since 1970."""
        since, until = self.since, self.until
        return (
            None if since is None else microseconds(since),
            None if until is None else microseconds(until),
        )

    def can_be_in(self, low: int | None, high: int | None) -> bool:
        """Whether events that occurred between the two, microseconds (None: there are no events), can be
        among them.
        """
        since, until = self.occurred()
        if low is None or high is None:
            return since is None and until is None and not self.equals()
        return (since is None or high >= since) and (until is None or low < until)
