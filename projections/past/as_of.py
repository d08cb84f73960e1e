"""
A view as of a past time: the fold of the log cut at T.

    archive and log -> [what is not later than T] -> the live view's own fold, in memory -> tables at T
    checkpoint (checkpoints.py) -> folded on from its position      segments that begin after T -> not read

``by`` says what is not later than T:
    occurred  entries whose event time is at most T, in the log's order: what was true at T, by all that is
              known of it today
    appended  the log's prefix up to T by the server's clock: what the view said at T
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
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec

from aurastream.projections.engine import (
    EPOCH,
    MICROSECOND,
    AdoptingIndex,
    Batch,
    MemoryView,
    Projection,
    ProjectionError,
    microseconds,
)
from aurastream.projections.past.checkpoints import Checkpoints, Place, spacing
from aurastream.streams import AHEAD_MAX, UNDECODABLE, History, RawEntry, Span, Stream, as_pair

if TYPE_CHECKING:  # pyarrow takes its time: who has no archive does not wait for it
    from aurastream.streams.archive import Manifest, StreamArchive

ARCHIVE_SPAN = 2_500  # archived entries folded at a time
_AHEAD_US = AHEAD_MAX // MICROSECOND
_LATEST_US = microseconds(datetime(9999, 1, 1, tzinfo=UTC))
_SEQUENCE_MAX = 18446744073709551615

By = Literal["occurred", "appended"]
Tell = Callable[[int, int], None]  # partition, entries read since the last call


class AsOf(msgspec.Struct, frozen=True):
    """A past time, and by which clock."""

    at: datetime
    by: By = "occurred"

    @property
    def us(self) -> int:
        """Microseconds since 1970."""
        return microseconds(self.at)

    @property
    def until(self) -> str:
        """The last position that can be part of it; "+" where only event time decides."""
        if self.by == "occurred":
            return "+"
        return f"{self.us // 1000}-{_SEQUENCE_MAX}" if self.us >= 0 else "0-0"

    def has(self, position: str, occurred_at: datetime) -> bool:
        """Whether an event is part of it."""
        return occurred_at <= self.at if self.by == "occurred" else as_pair(position) <= as_pair(self.until)

    def __str__(self) -> str:
        shown = self.at.astimezone(UTC).isoformat().replace("+00:00", "Z")
        return f"{shown} ({'event time' if self.by == 'occurred' else 'appended'})"


class Past(msgspec.Struct):
    """One partition's view as of a time.

    position: by event time of the log's last entry, as any may be part of it; else of the last one appended
    by then.
    read: entries looked at. began: the checkpoint's position; "" for the log's beginning. is_whole: nothing
    up to the cursor was left
    out. latest_us: the latest believed event time of what was read. missing: entries gone from the log
    without the trimmer.
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


class LogFacts(msgspec.Struct, frozen=True):
    """A partition's log at one instant. last: position of its newest entry, archived or not; "" where there
    is none.

    is_pure: append made every entry, so that each event ID is in it once. missing: entries gone without the
    trimmer.
    """

    last: str
    is_pure: bool
    missing: int


class _When(msgspec.Struct):
    occurred_at: datetime


_when = msgspec.json.Decoder(_When).decode


def fold_past(
    history: History,
    projection: Projection[Any],
    partition: int,
    as_of: AsOf,
    checkpoints: Checkpoints | None = None,
    tell: Tell = lambda partition, entries: None,
) -> Past:
    """The partition's view as of a time. Leaves checkpoints at archived positions on the way, where it is
    given any.

    Raises ProjectionError for a log that is elsewhere, ArchiveNeeded where the past is in an archive that is
    not at hand, FoldFailed.
    """
    stream = history.stream
    if not stream.is_log_here:
        raise ProjectionError(
            f"the log of {stream.name!r} is in Kafka: its past cannot be folded from here. Rebuild from the "
            "topic."
        )
    past = Past(MemoryView(projection, stream.keys[partition].where), spacing=spacing(0))
    facts = log_facts(stream, partition)
    past.missing = facts.missing
    until = _earlier(as_of.until, facts.last) if facts.last else "0-0"
    if checkpoints is not None:
        _begin(past, checkpoints, partition, as_of)
    index = AdoptingIndex(stream, partition)
    for span in _spans(history, partition, past, as_of, until):
        chosen = _chosen(span.raw, as_of, past)
        past.read += len(span.raw)
        past.since_checkpoint += len(span.raw)
        if chosen:
            past.view.fold(settled(past.view, Span(chosen, span.duplicates), index, is_pure=facts.is_pure))
        if (
            checkpoints is not None
            and past.is_whole
            and span.is_archived
            and past.since_checkpoint >= past.spacing
        ):
            past.spacing = spacing(checkpoints.write(partition, past.view, past.latest_us))
            past.since_checkpoint = 0
        tell(partition, len(span.raw))
    past.position = facts.last if as_of.by == "occurred" else past.view.cursor.position
    return past


def entries_ahead(history: History, partition: int, as_of: AsOf, checkpoints: Checkpoints | None) -> int:
    """About how many entries ``fold_past`` will read: for progress, and to decide who shall do it."""
    after = as_pair(next((place.position for place in _usable(checkpoints, partition, as_of)), "0-0"))
    archive = cast("StreamArchive | None", history.archive)
    segments = archive.segments(partition) if archive is not None else []
    keys, client = history.stream.keys[partition], history.stream.server.client
    archived = segments[-1].entries_before + segments[-1].entries if segments else 0
    ahead = int(client.xlen(keys.log)) + int(client.hget(keys.meta, "trimmed") or 0) - archived
    for segment in segments:
        if as_pair(segment.last) > after:
            ahead += int(
                sum(block.entries for block in segment.blocks if as_pair(block.first) > after)
                * _share(segment, as_of)
            )
    return max(0, ahead)


def _share(segment: Manifest, as_of: AsOf) -> float:
    """About which part of a segment is not later than T, taking its events to come evenly."""
    low, high = segment.min_occurred_at, segment.max_occurred_at
    if as_of.by == "appended" or low is None or high is None:
        return 1.0
    return 0.0 if as_of.us < low else min(1.0, (as_of.us - low + 1) / (high - low + 1))


def settled(view: MemoryView, span: Span, index: AdoptingIndex, *, is_pure: bool = False) -> Batch:
    """A span as a batch to fold: which of its events count is decided, by the archive's marks or by the
    index.

    is_pure: the live log holds each event ID once, so that the index need not be asked.
    """
    batch = view.decode(span.raw, span.duplicates)
    if not span.is_archived and not is_pure:
        batch.judge(index)
    return batch


def log_facts(stream: Stream, partition: int) -> LogFacts:
    """In one step, so that what it says of the log holds up to `last`."""
    keys = stream.keys[partition]
    with stream.server.client.pipeline(transaction=True) as pipeline:
        pipeline.execute_command("XREVRANGE", keys.log, "+", "-", "COUNT", 1)
        pipeline.hmget(keys.meta, "appended", "trimmed")
        pipeline.hget(keys.archive, "position")
        pipeline.xlen(keys.log)
        pipeline.execute_command("XINFO", "STREAM", keys.log)
        answers = pipeline.execute(raise_on_error=False)
    for answer in answers[:-1]:  # XINFO of a log that is not there is an error, and says as much as nothing
        if isinstance(answer, Exception):
            raise answer
    newest, (appended, trimmed), archived, length, info = answers
    last = newest[0][0].decode() if newest else (archived or b"").decode()
    added = (
        int(info[2 * info[::2].index(b"entries-added") + 1])
        if isinstance(info, list) and b"entries-added" in info[::2]
        else None
    )
    missing = max(int(appended or 0), added or 0) - length - int(trimmed or 0)
    return LogFacts(last, added is not None and added == int(appended or 0), max(0, missing))


def _usable(checkpoints: Checkpoints | None, partition: int, as_of: AsOf) -> Iterator[Place]:
    """Those that hold nothing later than T, the farthest first."""
    for place in checkpoints.places(partition) if checkpoints is not None else ():
        if (place.latest_us if as_of.by == "occurred" else as_pair(place.position)[0] * 1000) <= as_of.us:
            yield place


def _begin(past: Past, checkpoints: Checkpoints, partition: int, as_of: AsOf) -> None:
    """Go to the farthest checkpoint that can be trusted."""
    for place in _usable(checkpoints, partition, as_of):
        if size := checkpoints.load(partition, place, past.view):
            past.began, past.latest_us, past.spacing = place.position, place.latest_us, spacing(size)
            return


def _spans(history: History, partition: int, past: Past, as_of: AsOf, until: str) -> Iterator[Span]:
    """What has to be read, from the archive without what is later than T as far as that is known there, then
    from the log.
    """
    after = past.view.cursor.position or "0-0"
    archive = cast("StreamArchive | None", history.archive)
    for segment in archive.segments(partition) if archive is not None else ():
        if as_pair(segment.last) <= as_pair(after):
            continue
        if as_pair(segment.first) > as_pair(until):
            return
        if as_of.by == "appended":
            yield from history.spans(partition, after, _earlier(segment.last, until), ARCHIVE_SPAN)
        elif segment.min_occurred_at is not None and segment.min_occurred_at > as_of.us:
            past.is_whole = False
        else:
            yield from _straddled(history, partition, past, as_of, (after, segment.last))
        after = segment.last
    if as_pair(after) < as_pair(until):
        yield from history.spans(partition, after, until)


def _straddled(
    history: History, partition: int, past: Past, as_of: AsOf, bounds: tuple[str, str]
) -> Iterator[Span]:
    """A segment that has something not later than T: all of it, until there is something to leave out; then
    what the archive picks.
    """
    after, last = bounds
    if past.is_whole:
        for span in history.spans(partition, after, last, ARCHIVE_SPAN):
            yield span
            after = span.raw[-1][0].decode()
            if not past.is_whole:
                break
    if not past.is_whole:
        archive = cast("StreamArchive", history.archive)
        until = as_of.at + MICROSECOND if as_of.us < _LATEST_US else None
        yield from archive.scan(partition, after=after, until=last, until_time=until, count=ARCHIVE_SPAN)


def _chosen(raw: list[RawEntry], as_of: AsOf, past: Past) -> list[RawEntry]:
    """The entries that are not later than T; notes what was left out and the latest event time."""
    instants = [_occurred(fields) for _, fields in raw]
    limit = _limit_of(
        raw[0][0]
    )  # positions only grow: what the first entry's clock allows, the others' allow as well
    believed = instants
    if any(at is None or at > limit for at in instants):
        pairs = zip(instants, raw, strict=True)
        believed = [
            at if at is not None and at <= _limit_of(position) else None for at, (position, _) in pairs
        ]
    known = [at for at in believed if at is not None]
    if known:
        past.latest_us = max(past.latest_us, microseconds(max(known)))
    if as_of.by == "appended" or not known or max(known) <= as_of.at:
        return raw
    past.is_whole = False
    return [entry for entry, at in zip(raw, believed, strict=True) if at is None or at <= as_of.at]


def _occurred(fields: list[bytes]) -> datetime | None:
    """An entry's event time, by decoding no more than that; None where there is none to be read."""
    try:
        if len(fields) == 4 and fields[0] == b"event":
            at = _when(fields[1]).occurred_at
        else:
            at = _when(fields[fields[::2].index(b"event") * 2 + 1]).occurred_at
    except (*UNDECODABLE, ValueError, IndexError):
        return None
    return at if at.tzinfo is not None else None


def _limit_of(position: bytes) -> datetime:
    """The latest event time that an entry of this position is believed to have: see intake.py."""
    return EPOCH + min(as_pair(position.decode())[0] * 1000 + _AHEAD_US, _LATEST_US) * MICROSECOND


def _earlier(one: str, other: str) -> str:
    """The earlier of two positions; "+" is the last."""
    if "+" in (one, other):
        return other if one == "+" else one
    return min(one, other, key=as_pair)
