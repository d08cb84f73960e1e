"""What was seen of clips, videos and recorded broadcasts."""

from __future__ import annotations

from aurastream.streams.events.envelope import Count, Event, Instant, PersonalText, ShortText


class ClipViewsObserved(Event, frozen=True, kw_only=True, tag="clip.views_observed"):
    """A platform reported this many views on a clip, video or recorded broadcast (the subject) at
    ``occurred_at``.

    views: running total since publication, not a delta: a lost poll costs detail, not truth.
    category: the platform's category or game, any text. created_at: publication; absent where the platform
    does not say.
    creator: the platform's id of who published it, under whose key title and channel are sealed; in the log,
    a pseudonym.
    """

    personal = ("title", "channel")

    views: Count
    category: ShortText = ""
    title: PersonalText = ""
    channel: PersonalText = ""
    created_at: Instant | None = None
    creator: ShortText = ""
