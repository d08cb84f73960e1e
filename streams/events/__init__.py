"""Event types: what a fact looks like. An event type lives with its own kind; a stranger's, in the
stranger's package.

    envelope  what every event has, and the bounds it keeps      clips, imports, effects, audit  the product's
    own types

Encoding and upcasting are in codec.py.
"""

from __future__ import annotations

from aurastream.streams.events.audit import (
    CreatorErased,
    GenerationRetired,
    GroupForgotten,
    LogArchived,
    LogReplayed,
    LogTrimmed,
    ProcessorAccepted,
    RebuildCompared,
    RebuildStarted,
    SegmentSetAside,
    SubjectRebuilt,
    ViewRolledBack,
    ViewSwapped,
)
from aurastream.streams.events.clips import ClipViewsObserved
from aurastream.streams.events.effects import EffectDiscarded, EffectParked, EffectRetried
from aurastream.streams.events.envelope import (
    COUNT_MAX,
    IDENTIFIER,
    SEALED_MAX,
    TEXT_MAX,
    Count,
    Event,
    Instant,
    Json,
    PersonalText,
    Sha256,
    ShortText,
    Upcaster,
)
from aurastream.streams.events.imports import ImportFinished, ImportRowRejected

BUILT_IN: tuple[type[Event], ...] = (
    ClipViewsObserved,
    ImportRowRejected,
    ImportFinished,
    EffectParked,
    EffectRetried,
    EffectDiscarded,
    GroupForgotten,
    ProcessorAccepted,
    RebuildStarted,
    RebuildCompared,
    ViewSwapped,
    ViewRolledBack,
    GenerationRetired,
    SubjectRebuilt,
    LogArchived,
    SegmentSetAside,
    LogTrimmed,
    LogReplayed,
    CreatorErased,
)

__all__ = [
    "BUILT_IN",
    "COUNT_MAX",
    "IDENTIFIER",
    "SEALED_MAX",
    "TEXT_MAX",
    "ClipViewsObserved",
    "Count",
    "CreatorErased",
    "EffectDiscarded",
    "EffectParked",
    "EffectRetried",
    "Event",
    "GenerationRetired",
    "GroupForgotten",
    "ImportFinished",
    "ImportRowRejected",
    "Instant",
    "Json",
    "LogArchived",
    "LogReplayed",
    "LogTrimmed",
    "PersonalText",
    "ProcessorAccepted",
    "RebuildCompared",
    "RebuildStarted",
    "SegmentSetAside",
    "Sha256",
    "ShortText",
    "SubjectRebuilt",
    "Upcaster",
    "ViewRolledBack",
    "ViewSwapped",
]
