"""
Identities derived from facts, so that a repeated poll or a repeated step appends nothing new.

    a poller's:     observed_id(platform, subject, instant)          the same look at the same thing is the
                    same fact
    a processor's:  derived_id(source event ID, processor, ordinal)  the same step on the same event is the
                    same fact
    anything else:  named_id(parts ..)                               the same parts are the same fact

All are pure. Their texts are part of the log for ever: a change here would make every repeat a new event.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b

from aurastream.streams.errors import StreamError
from aurastream.streams.events import IDENTIFIER

READABLE_MAX = 128  # characters of an event_id


def observed_id(platform: str, subject: str, observed_at: datetime) -> str:
    """``platform:subject:instant`` with the instant in UTC to the microsecond, or its digest when that is too
    long.

    Raises StreamError when observed_at has no offset: local time would give one fact two names.
    """
    if observed_at.tzinfo is None:
        raise StreamError(
            f"observed_at {observed_at} has no offset; give an aware datetime, as in datetime.now(UTC)"
        )
    instant = observed_at.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return _bounded(f"{platform}:{subject}:{instant}")


def derived_id(source_event_id: str, processor: str, ordinal: int = 0) -> str:
    """``source:processor:ordinal``, or its digest when that is too long. ordinal: which of the step's
    results, from 0.
    """
    return _bounded(f"{source_event_id}:{processor}:{ordinal}")


def named_id(*parts: object) -> str:
    """The parts joined by colons, or the digest of that when it is too long or has a character an event_id
    must not have.
    """
    return _bounded(":".join(map(str, parts)))


def _bounded(text: str) -> str:
    """The text where it is a legal event_id, else ``d:`` and its 160-bit BLAKE2b digest in hexadecimal."""
    if len(text) <= READABLE_MAX and IDENTIFIER.fullmatch(text):
        return text
    return "d:" + blake2b(text.encode(), digest_size=20).hexdigest()
