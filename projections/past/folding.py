"""
Fold a view as of a past time: the log cut at T.

    archive and log -> [what is not later than T] -> the live view's own fold, in memory -> tables at T
    checkpoint (checkpoints.py) -> folded on from its position      segments that begin after T -> not read

An entry whose event time cannot be read or believed (damaged, quarantined) is part of no view, of this one
neither.

Always true: each event ID counts once, and the entry that counts is the one the ids index names today, or for
archived entries the one it named when they were archived. What is appended while the past is folded is not
part of it.

Decision (2026-11): of the live log every entry is looked at, by decoding its occurred_at alone: 0.9 us an
entry (measured, 248,500 entries), a twelfth of folding it. Refused: an index of event times in Redis, which
every append would pay for; a bound by the position's clock, as an import may tell of any time. Who has a long
log archives it: segments and row groups are then skipped by their statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import msgspec

from aurastream.projections.engine import AdoptingIndex, AnyProjection, MemoryView, ProjectionError
from aurastream.projections.past.as_of import AsOf
from aurastream.projections.past.checkpoints import Checkpoint, Checkpoints, spacing
from aurastream.projections.past.facts import log_facts, settled
from aurastream.streams import (
    AHEAD_MAX,
    EPOCH,
    MICROSECOND,
    START,
    History,
    Position,
    RawEntry,
    Span,
    microseconds,
    occurred_at_of,
)
from aurastream.streams.archive import Where

if TYPE_CHECKING:  # pyarrow takes its time: who has no archive does not wait for it
    from aurastream.streams.archive import Manifest, StreamArchive

ARCHIVE_SPAN = 2_500  # archived entries folded at a time
_AHEAD_US = AHEAD_MAX // MICROSECOND
_LATEST_US = microseconds(datetime(9999, 1, 1, tzinfo=UTC))

OnRead = Callable[[int, int], None]  # partition, entries read since the last call


class Past(msgspec.Struct):
    """One partition's view as of a time.

    position: by event time of the log's last entry, as any may be part of it; else of the last one appended
        by then. began: the checkpoint's position; "" for the log's beginning.
    read: entries looked at. missing: entries gone from the log without the trimmer.
    is_whole: nothing up to the cursor was left out. latest_us: the latest believed event time of what was
        read.
    spacing: how many entries there must be from one checkpoint to the next; since_checkpoint: how many there
        are.
    """

    view: MemoryView
    position: str = ""
    read: int = 0
    began: str = ""
    is_whole: bool = True
    latest_us: int = 0
    missing: int = 0
    since_checkpoint: int = 0
    spacing: int = 0


class PastFold:
    """Folds the partitions of one view as of one time. on_read: called with every span.

    checkpoints: where the fold may begin, and leaves some at archived positions on its way; None does
    neither.
    """

    def __init__(
        self,
        history: History,
        projection: AnyProjection,
        as_of: AsOf,
        checkpoints: Checkpoints | None = None,
        on_read: OnRead = lambda partition, entries: None,
    ) -> None:
        self._history, self._stream, self._projection = history, history.stream, projection
        self._as_of, self._checkpoints, self._on_read = as_of, checkpoints, on_read

    def fold(self, partition: int) -> Past:
        """The partition's view.

        Raises ProjectionError for a log that is elsewhere, ArchiveNeeded where the past is in an archive that
        is not at hand, FoldFailed.
        """
        stream = self._stream
        if not stream.is_log_here:
            raise ProjectionError(
                f"the log of {stream.name!r} is in Kafka: its past cannot be folded from here. Rebuild from "
                "the topic."
            )
        facts, view = log_facts(stream, partition), MemoryView(self._projection, stream.keys[partition].where)
        past = Past(view, missing=facts.missing, spacing=spacing(0))
        self._begin(past, partition)
        index = AdoptingIndex(stream, partition)
        for span in self._spans(partition, past, min(self._as_of.last, Position.parse(facts.last))):
            chosen = self._chosen(span.raw, past)
            past.read += len(span.raw)
            past.since_checkpoint += len(span.raw)
            if chosen:
                view.fold(settled(view, Span(chosen, span.duplicates), index, is_pure=facts.is_pure))
            if span.is_archived:
                self._leave_checkpoint(partition, past)
            self._on_read(partition, len(span.raw))
        past.position = facts.last if self._as_of.by == "occurred" else view.cursor.position
        return past

    def ahead(self, partition: int) -> int:
        """About how many entries ``fold`` will read: for progress, and to decide who shall do it."""
        begin = next(self._usable(partition), None)
        after = Position.parse(begin.position) if begin else START
        segments = self._segments(partition)
        keys, client = self._stream.keys[partition], self._stream.server.client
        archived = segments[-1].entries_before + segments[-1].entries if segments else 0
        ahead = int(client.xlen(keys.log)) + int(client.hget(keys.meta, "trimmed") or 0) - archived
        for segment in segments:
            entries = sum(block.entries for block in segment.blocks if Position.parse(block.first) > after)
            ahead += int(entries * _share(segment, self._as_of))
        return max(0, ahead)

    def _usable(self, partition: int) -> Iterator[Checkpoint]:
        """Checkpoints that hold nothing later than T, the farthest first."""
        checkpoints = self._checkpoints.of(partition) if self._checkpoints is not None else []
        is_by_event_time = self._as_of.by == "occurred"
        for checkpoint in checkpoints:
            received_us = Position.parse(checkpoint.position).ms * 1000
            if (checkpoint.latest_us if is_by_event_time else received_us) <= self._as_of.us:
                yield checkpoint

    def _begin(self, past: Past, partition: int) -> None:
        """Go to the farthest checkpoint that can be trusted."""
        for checkpoint in self._usable(partition):
            if self._checkpoints and (size := self._checkpoints.load(partition, checkpoint, past.view)):
                past.began, past.latest_us = checkpoint.position, checkpoint.latest_us
                past.spacing = spacing(size)
                return

    def _leave_checkpoint(self, partition: int, past: Past) -> None:
        """Where one is due, and the view is the fold of the whole log up to its cursor."""
        is_due = past.is_whole and past.since_checkpoint >= past.spacing
        if self._checkpoints is not None and is_due:
            past.spacing = spacing(self._checkpoints.write(partition, past.view, past.latest_us))
            past.since_checkpoint = 0

    def _spans(self, partition: int, past: Past, until: Position) -> Iterator[Span]:
        """What has to be read: of the archive without what it knows to be later than T, then of the log."""
        as_of, after = self._as_of, Position.parse(past.view.cursor.position)
        for segment in self._segments(partition):
            first, last = Position.parse(segment.first), Position.parse(segment.last)
            if last <= after:
                continue
            if first > until:
                return
            if as_of.by == "appended":
                yield from self._history.spans(partition, str(after), str(min(last, until)), ARCHIVE_SPAN)
            elif segment.min_occurred_at is not None and segment.min_occurred_at > as_of.us:
                past.is_whole = False
            else:
                yield from self._straddled(partition, past, str(after), segment.last)
            after = last
        if after < until:
            yield from self._history.spans(partition, str(after), str(until))

    def _straddled(self, partition: int, past: Past, after: str, last: str) -> Iterator[Span]:
        """A segment that has something not later than T: all of it, until there is something to leave out;
        then what the archive picks.
        """
        if past.is_whole:
            for span in self._history.spans(partition, after, last, ARCHIVE_SPAN):
                yield span
                after = span.raw[-1][0].decode()
                if not past.is_whole:
                    break
        if not past.is_whole:
            archive = cast("StreamArchive", self._history.archive)
            until = self._as_of.at + MICROSECOND if self._as_of.us < _LATEST_US else None
            yield from archive.scan(partition, Where(until=until), after, last, ARCHIVE_SPAN)

    def _segments(self, partition: int) -> list[Manifest]:
        archive = cast("StreamArchive | None", self._history.archive)
        return archive.segments(partition) if archive is not None else []

    def _chosen(self, raw: list[RawEntry], past: Past) -> list[RawEntry]:
        """The entries that are not later than T; notes what was left out and the latest event time."""
        believed = _believed(raw)
        known = [at for at in believed if at is not None]
        if known:
            past.latest_us = max(past.latest_us, microseconds(max(known)))
        if self._as_of.by == "appended" or not known or max(known) <= self._as_of.at:
            return raw
        past.is_whole = False
        return [entry for entry, at in zip(raw, believed, strict=True) if at is None or at <= self._as_of.at]


def _share(segment: Manifest, as_of: AsOf) -> float:
    """About which part of a segment is not later than T, taking its events to come evenly."""
    low, high = segment.min_occurred_at, segment.max_occurred_at
    if as_of.by == "appended" or low is None or high is None:
        return 1.0
    return 0.0 if as_of.us < low else min(1.0, (as_of.us - low + 1) / (high - low + 1))


def _believed(raw: list[RawEntry]) -> list[datetime | None]:
    """The entries' event times; None where there is none to be read or to be believed."""
    instants = [occurred_at_of(fields) for _, fields in raw]
    limit = _limit_of(
        raw[0][0]
    )  # positions only grow: what the first one's clock allows, the others' allow too
    if all(at is not None and at <= limit for at in instants):
        return instants
    pairs = zip(instants, raw, strict=True)
    return [at if at is not None and at <= _limit_of(position) else None for at, (position, _) in pairs]


def _limit_of(position: bytes) -> datetime:
    """The latest event time that an entry of this position is believed to have: see intake.py."""
    return EPOCH + min(Position.parse(position).ms * 1000 + _AHEAD_US, _LATEST_US) * MICROSECOND
