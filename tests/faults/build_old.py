"""Row 33: the build of before the upgrade. Its observation is of version 1, and its fold knows nothing
else.
"""

from __future__ import annotations

from aurastream.streams import Count, Event
from aurastream.streams.events import ShortText
from tests.projections import counting


class Observed(Event, frozen=True, kw_only=True, tag="clip.views_observed"):
    """A look at a clip."""

    views: Count
    category: ShortText = ""


class Counting(counting.Counting):
    """The same view, by the old type."""

    events = (Observed,)  # type: ignore[assignment]
