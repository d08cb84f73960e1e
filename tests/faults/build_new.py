"""Row 33: the build after the upgrade. Version 2 renamed the number and put the category into a part of its
own.
"""

from __future__ import annotations

from typing import Any

import msgspec

from aurastream.streams import Codec, Count, Event
from aurastream.streams.events import ShortText
from tests.projections import counting

TAG = "clip.views_observed"


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the clip is shown."""

    category: ShortText


def second(old: dict[str, Any]) -> dict[str, Any]:
    """Version 1 as version 2. Pure: a new dict, the old one as it was."""
    kept = {name: value for name, value in old.items() if name not in ("views", "category")}
    return {**kept, "total": old["views"], "place": {"category": old.get("category", "")}}


class Observed(Event, frozen=True, kw_only=True, tag=TAG):
    """A look at a clip."""

    schema_version = 2
    upcasters = {1: second}  # noqa: RUF012 - as anybody writes it
    total: Count
    place: Place

    @property
    def views(self) -> int:
        """As the fold calls it."""
        return self.total

    @property
    def category(self) -> str:
        """As the fold calls it."""
        return self.place.category


CODEC = Codec((Observed,))


class Counting(counting.Counting):
    """The same view, by the new type: its fold did not change, so neither did its fingerprint."""

    events = (Observed,)  # type: ignore[assignment]


def made(*, views: int, category: str, **envelope: Any) -> Observed:
    """What the new producer writes of the same facts."""
    return Observed(total=views, place=Place(category), **envelope)
