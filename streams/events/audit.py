"""The audit trail: what persons did to log, views and creators, with who and why."""

from __future__ import annotations

from aurastream.streams.events.envelope import Count, Event, Sha256, ShortText


class GroupForgotten(Event, frozen=True, kw_only=True, tag="group.forgotten"):
    """A person decided that the producers of a stream and its trimmer no longer wait for somebody (the
    subject). source: who.

    behind_events: how far it was behind, over all partitions. kind: what it was, "" for a group of a view or
    a processor; else app (of Faust), foreign group (of the server), dead letter. group: its name, where that
    is no subject as it is.
    """

    producers_of: ShortText
    behind_events: Count
    why: ShortText = ""
    kind: ShortText = ""
    group: ShortText = ""


class ProcessorAccepted(Event, frozen=True, kw_only=True, tag="processor.accepted"):
    """A person let a processor (the subject) go on with a stream though its record did not fit: it handles
    other types, or part of the log was trimmed before it was handled. source: who.

    record: its number from now on. gained, lost: types, separated by spaces. since: from when on, as that
    person said it. passed: trimmed events that are never handled.
    """

    stream: ShortText
    record: Count
    gained: ShortText = ""
    lost: ShortText = ""
    since: ShortText = ""
    passed: Count = 0
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


class SegmentSetAside(Event, frozen=True, kw_only=True, tag="segment.set_aside"):
    """A person had a segment of the archive set aside that was ahead of the log, and its events appended
    again.

    The subject is the stream; number, first, last, entries and head are the segment's. events: how many of
    its events the log lacked. source: who.
    """

    partition: Count
    number: Count
    first: ShortText
    last: ShortText
    entries: Count
    events: Count
    head: Sha256
    why: ShortText = ""


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
