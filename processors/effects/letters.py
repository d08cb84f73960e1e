"""
Dead letters: events that got no effect for now, and the audit events that say who decided what about them.

A letter is parked (its handler failed for good) or waiting (a letter of its line is before it). A line is a
subject; an entry whose subject cannot be read is a line of its own, "@position". Which of a line's letters is
first says its state, so none is stored.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from aurastream.streams import EffectDiscarded, EffectParked, EffectRetried, Event, Keys, named_id

REASON_MAX = 500  # characters
OURS_MAX = 100  # of a reason whose rest is sealed: together they fit an event's text
WAITING = "waits behind an earlier event of its subject"


class LetterPlace(NamedTuple):
    """Where a dead letter is, as a person says it."""

    group: str
    partition: int
    position: str


class LetterAt(NamedTuple):
    """The same, as the scripts and the audit trail want it."""

    processor: str
    keys: Keys
    position: str

    def event_id(self, what: str, *more: object) -> str:
        """Of the audit event about it; the same for every repeat."""
        return named_id(
            self.processor, f"{self.keys.stream}.{self.keys.partition}", self.position, what, *more
        )


class Letter(msgspec.Struct, frozen=True):
    """What dead:<group> holds under a position. attempts: begun before it was parked. retries: by persons.
    at: the host's clock. traceback: where its handler failed last, code alone.
    """

    line: str
    reason: str
    attempts: int
    at: datetime
    event_id: str = ""
    type: str = ""
    correlation_id: str = ""
    retries: int = 0
    traceback: str = ""

    @property
    def subject(self) -> str:
        """The event's; "" where it cannot be read."""
        return "" if self.line.startswith("@") else self.line

    def text(self) -> str:
        """As it is stored."""
        return msgspec.json.encode(self).decode()


def letter_of(raw: bytes) -> Letter | None:
    """Back from the text; None for what a projection wrote there, which is a plain reason."""
    try:
        return msgspec.json.decode(raw, type=Letter)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def line_of_position(position: str) -> str:
    """The line of an entry without a subject."""
    return f"@{position}"


def parked(at: LetterAt, letter: Letter, host: str) -> EffectParked:
    """The audit event; the same for every repeat of this parking."""
    return EffectParked(
        event_id=at.event_id("parked", letter.retries),
        occurred_at=letter.at,
        source=host,
        attempts=letter.attempts,
        reason=letter.reason,
        **_of(at, letter),
    )


def retried(at: LetterAt, letter: Letter, who: str, why: str) -> EffectRetried:
    """The audit event. letter: with this retry counted."""
    return EffectRetried(
        event_id=at.event_id("retried", letter.retries),
        occurred_at=datetime.now(UTC),
        source=who,
        why=why,
        **_of(at, letter),
    )


def discarded(at: LetterAt, letter: Letter, who: str, why: str) -> EffectDiscarded:
    """The audit event."""
    return EffectDiscarded(
        event_id=at.event_id("discarded"),
        occurred_at=datetime.now(UTC),
        source=who,
        why=why,
        reason="" if letter.reason == WAITING else letter.reason,
        **_of(at, letter),
    )


def _of(at: LetterAt, letter: Letter) -> dict[str, Any]:
    return {
        "subject": letter.subject or at.processor,
        "causation_id": letter.event_id,
        "correlation_id": letter.correlation_id or letter.event_id,
        "processor": at.processor,
        "place": f"{at.keys.where}/{at.position}",
    }


AUDIT_TYPES: tuple[type[Event], ...] = (EffectParked, EffectRetried, EffectDiscarded)
