"""
Event types: what a fact looks like.

An event is a frozen msgspec struct: the envelope's fields (``Event``) and its own. Its tag is its name in the
log for ever; the class may be renamed. New fields get defaults, so that old entries decode for ever.

Here: the envelope, the bounds every event keeps, and the event types the product itself ships. Encoding and
upcasting are in codec.py; a stranger's event types live in the stranger's package.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, ClassVar

import msgspec

COUNT_MAX = 2**53 - 1  # the largest integer that Lua, JSON readers and IEEE doubles all hold exactly
IDENTIFIER = re.compile(
    r"[A-Za-z0-9_.:-]{1,128}"
)  # no braces (hash tags), no blanks, nothing a terminal would obey

Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
TEXT_MAX = 1_000  # characters
# characters of a sealed text: 1,000 of four bytes each, 16 for its seal, in base64, and what names its key
SEALED_MAX = 5_500
ShortText = Annotated[str, msgspec.Meta(max_length=TEXT_MAX)]
PersonalText = Annotated[
    str, msgspec.Meta(max_length=SEALED_MAX)
]  # at most TEXT_MAX when appended; sealed where there is a creator


class Event(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="type",
    tag="",
):
    """One fact, in the past tense: the envelope that every event has.

    event_id: its identity, the same on every delivery; 1 to 128 of ``A-Za-z0-9_.:-``. Derive it from the
    facts (ids.py).
    subject: the entity it is about, and the partition key; the same characters. Order holds within a subject.
    occurred_at: event time with an offset; at most 24 h ahead of the server's clock.
    source: the worker and instance that saw it. correlation_id: the story it belongs to. causation_id: the
    event that led
    to it. traceparent: W3C Trace Context.
    version: the schema version the entry was written in; set by the codec from ``schema_version``.

    personal: of a class with personal data, the names of those fields, each a PersonalText. Such a class has
    a field ``creator`` too,
    a ShortText: the platform's id of the person they are about. They are sealed under the creator's key when
    the event is appended (personal/keyring.py), and the stored creator is a pseudonym. creator "": nothing is
    sealed.
    """

    schema_version: ClassVar[int] = 1
    personal: ClassVar[tuple[str, ...]] = ()

    event_id: str
    subject: str
    occurred_at: Instant
    source: ShortText = ""
    correlation_id: ShortText = ""
    causation_id: ShortText = ""
    traceparent: ShortText = ""
    version: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1


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


class ImportRowRejected(Event, frozen=True, kw_only=True, tag="import.row_rejected"):
    """A row of an imported file could not become an event. The subject is stream:file name, as of all import
    events.

    row: data row number from 1. columns: those that make the row unusable. reason: a sentence. stream: where
    it was meant to go.
    """

    stream: ShortText
    row: Count
    columns: tuple[str, ...]
    reason: ShortText


class ImportFinished(Event, frozen=True, kw_only=True, tag="import.finished"):
    """A file was read to its end; the same content finishes once. rows = valid_rows + rejected_rows."""

    stream: ShortText
    format: ShortText
    file_sha256: Sha256
    rows: Count
    valid_rows: Count
    rejected_rows: Count


class EffectParked(Event, frozen=True, kw_only=True, tag="effect.parked"):
    """A processor gave up on an event (causation_id) for now; the later events of its subject wait behind it.

    The subject is the parked event's, or the processor's name where that cannot be read. source: the worker.
    place: of the parked event, stream/partition/position. attempts: how often its handler was begun.
    """

    processor: ShortText
    place: ShortText
    attempts: Count
    reason: ShortText


class EffectRetried(Event, frozen=True, kw_only=True, tag="effect.retried"):
    """A person let a parked event run again, with what waits behind it. Subject and place as in EffectParked;
    source: who.
    """

    processor: ShortText
    place: ShortText
    why: ShortText = ""


class EffectDiscarded(Event, frozen=True, kw_only=True, tag="effect.discarded"):
    """A person decided that an event gets no effect. As EffectRetried; reason: why it had been parked, "" for
    one that waited.
    """

    processor: ShortText
    place: ShortText
    why: ShortText = ""
    reason: ShortText = ""


class GroupForgotten(Event, frozen=True, kw_only=True, tag="group.forgotten"):
    """A person decided that the producers of a stream no longer wait for a group (the subject). source: who.

    behind_events: how far it was behind, over all partitions.
    """

    producers_of: ShortText
    behind_events: Count
    why: ShortText = ""


class RebuildStarted(Event, frozen=True, kw_only=True, tag="rebuild.started"):
    """A person began to fold a view anew beside the live one. subject: the projection; source: who; stream:
    whose view.
    """

    stream: ShortText
    generation: Count
    why: ShortText = ""


class RebuildCompared(Event, frozen=True, kw_only=True, tag="rebuild.compared"):
    """A rebuild reached the live view's positions and was compared with it. events: read in all. differing:
    rows that are not equal.
    """

    stream: ShortText
    generation: Count
    events: Count
    differing: Count


class ViewSwapped(Event, frozen=True, kw_only=True, tag="view.swapped"):
    """A person made another generation of a view the live one. differing: rows that were not equal, and
    accepted.
    """

    stream: ShortText
    generation: Count
    previous: Count
    differing: Count = 0
    why: ShortText = ""


class ViewRolledBack(Event, frozen=True, kw_only=True, tag="view.rolled_back"):
    """A person made the generation before the live one again. previous: the generation that was live."""

    stream: ShortText
    generation: Count
    previous: Count
    why: ShortText = ""


class GenerationRetired(Event, frozen=True, kw_only=True, tag="generation.retired"):
    """A generation of a view was dropped, for good: its time was over, or a person gave it up."""

    stream: ShortText
    generation: Count
    why: ShortText = ""


class SubjectRebuilt(Event, frozen=True, kw_only=True, tag="subject.rebuilt"):
    """A person had one key's rows of a view (projection) folded anew. differing: rows that were not equal,
    and were put right.
    """

    stream: ShortText
    projection: ShortText
    differing: Count
    why: ShortText = ""


class LogArchived(Event, frozen=True, kw_only=True, tag="log.archived"):
    """A segment of a partition's log was closed into the archive. The subject is the stream. source: who.

    number: of the segment, from 1. first, last: positions of its entries. head: the chain's hash after it.
    """

    partition: Count
    number: Count
    first: ShortText
    last: ShortText
    entries: Count
    head: Sha256


class LogTrimmed(Event, frozen=True, kw_only=True, tag="log.trimmed"):
    """A person had archived entries removed from a partition's log. The subject is the stream. until:
    position of the last one.
    """

    partition: Count
    until: ShortText
    entries: Count
    why: ShortText = ""


class LogReplayed(Event, frozen=True, kw_only=True, tag="log.replayed"):
    """A person replayed events of a stream (the subject) into another stream or a view. selection: what was
    asked for.
    """

    into: ShortText
    events: Count
    selection: ShortText = ""
    why: ShortText = ""


class CreatorErased(Event, frozen=True, kw_only=True, tag="creator.erased"):
    """A person had a creator's key dropped: the personal fields sealed with it can never be read again.

    The subject is the pseudonym that the creator's events carry, never a name. source: who.
    """

    why: ShortText = ""


BUILT_IN: tuple[type[Event], ...] = (
    ClipViewsObserved,
    ImportRowRejected,
    ImportFinished,
    EffectParked,
    EffectRetried,
    EffectDiscarded,
    GroupForgotten,
    RebuildStarted,
    RebuildCompared,
    ViewSwapped,
    ViewRolledBack,
    GenerationRetired,
    SubjectRebuilt,
    LogArchived,
    LogTrimmed,
    LogReplayed,
    CreatorErased,
)
