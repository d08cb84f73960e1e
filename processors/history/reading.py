"""
The reading of the past: the events a selection chooses, in order.

    History.spans per partition (archive, then log) -> checksum, envelope -> canonical? -> chosen? -> merged
        by position
    only some subjects: the trail's positions of them -> History.entries -> the same, and a scan of what the
        trail has not read

Always true: every canonical entry that fits the selection comes once, in the order of (position, stream,
partition), up to where the logs ended at one instant when the reading began (ends.py). Entries that are
damaged, quarantined or another one's duplicate are left out and counted.
Memory: one span a partition, and eight bytes for every entry that no index row names (a raw XADD that nobody
has folded yet).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import merge
from typing import TYPE_CHECKING, cast

import msgspec

from aurastream.processors.history.ends import ends_of
from aurastream.processors.history.selection import PastEvent, Selection, StreamPartition, Tally
from aurastream.projections.built_in import known_of_subject
from aurastream.projections.engine import AdoptingIndex, Batch
from aurastream.streams import READ_MAX, START, Codec, History, Position, RawEntry, Span, Stream

if TYPE_CHECKING:
    from aurastream.streams.archive import StreamArchive

SPANS_MAX = 16_384  # entries held of all partitions together
LEAST_SPAN = 64
LOOK_MAX = 500  # entries a look by positions

_ANY_TYPE = Codec(())


class Search(msgspec.Struct, frozen=True):
    """What is looked for, where it is counted, and how. stopping: asked between spans; True ends the reading.
    count: entries a span.
    """

    selection: Selection
    tally: Tally
    stopping: Callable[[], bool] = lambda: False
    count: int = READ_MAX


def read_past(
    histories: list[History],
    selection: Selection,
    *,
    after: dict[StreamPartition, str] | None = None,
    tally: Tally | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[PastEvent]:
    """The chosen entries, in order. after: where to go on in a partition. stopping: asked between spans; True
    ends the reading.
    """
    places = [
        (history, partition) for history in histories for partition in _partitions(history.stream, selection)
    ]
    ends, tally = ends_of(places), tally or Tally()
    count = max(LEAST_SPAN, min(READ_MAX, SPANS_MAX // max(1, len(places))))
    search, readings = Search(selection, tally, stopping, count), []
    for history, partition in places:
        place = (history.stream.name, partition)
        began = Position.parse((after or {}).get(place, ""))
        begin, end = max(selection.after(), began), min(ends[place], selection.last())
        tally.ends[place] = str(max(began, end))
        if begin < end:
            readings.append(Reading(history, partition, search).between(begin, end))
    return readings[0] if len(readings) == 1 else merge(*readings, key=lambda event: event.order)


def scan(
    history: History, partition: int, after: str, selection: Selection, tally: Tally
) -> Iterator[PastEvent]:
    """The chosen entries of a partition after a position, to the log's end, whatever index there is."""
    end = ends_of([(history, partition)])[history.stream.name, partition]
    begin, end = max(selection.after(), Position.parse(after)), min(end, selection.last())
    if begin >= end:
        return iter(())
    return Reading(history, partition, Search(selection, tally)).scanned(begin, end)


class Reading:
    """The reading of one partition."""

    def __init__(self, history: History, partition: int, search: Search) -> None:
        self._history, self._partition, self._search = history, partition, search
        self._stream, self._tally = history.stream, search.tally
        self._index = AdoptingIndex(self._stream, partition)

    def between(self, after: Position, until: Position) -> Iterator[PastEvent]:
        """Chosen entries after a position, up to and including `until`: by the trail where it helps, else by
        a scan.
        """
        if self._search.selection.subjects:
            listed, after = self._listed(after, until)
            for start in range(0, len(listed), LOOK_MAX):
                if self._search.stopping():
                    return
                yield from self._at(listed[start : start + LOOK_MAX])
        if after < until:
            yield from self.scanned(after, until)

    def scanned(self, after: Position, until: Position) -> Iterator[PastEvent]:
        """The same, entry by entry."""
        for span in self._spans(after, until):
            if self._search.stopping():
                return
            yield from self._chosen(self._canonical(span), span.raw)

    def _at(self, positions: list[str]) -> Iterator[PastEvent]:
        """The chosen ones there. The trail folded them, so they are canonical; one that is gone or damaged by
        now is no event any more.
        """
        held = self._history.entries(self._partition, positions)
        raw = [held[position] for position in positions if position in held]
        self._tally.damaged += len(positions) - len(raw)
        yield from self._chosen(self._batch(raw, frozenset()), raw)

    def _spans(self, after: Position, until: Position) -> Iterator[Span]:
        """All entries, but of the archive only those row groups that can hold chosen ones."""
        archive = cast("StreamArchive | None", self._history.archive)
        where = self._search.selection.where() if archive is not None else None
        if archive is not None and where is not None:
            archived = Position.parse(archive.until(self._partition))
            if archived > after:
                last = str(min(archived, until))
                yield from archive.scan(self._partition, where, str(after), last, self._search.count)
                after = archived
        if after < until:
            yield from self._history.spans(self._partition, str(after), str(until), self._search.count)

    def _listed(self, after: Position, until: Position) -> tuple[list[str], Position]:
        """The positions the trail knows of the chosen subjects, and from where on it knows nothing."""
        subjects = self._search.selection.subjects
        here = [subject for subject in subjects if self._stream.partition_of(subject) == self._partition]
        known = [known_of_subject(self._stream, subject) for subject in here]
        # Of several, the one read first bounds what all know; what comes after it is scanned.
        read_to = min((Position.parse(item.until) for item in known), default=START)
        positions = [Position.parse(place) for item in known for place in item.positions]
        end = min(until, read_to)
        listed = sorted(position for position in positions if after < position <= end)
        return [str(position) for position in listed], max(after, read_to)

    def _batch(self, raw: list[RawEntry], duplicates: frozenset[bytes] | None) -> Batch:
        batch = Batch(Span(raw, duplicates), _ANY_TYPE, self._stream.keys[self._partition].where, True)
        self._tally.scanned += len(raw)
        self._tally.damaged += len(batch.dead)
        return batch

    def _canonical(self, span: Span) -> Batch:
        """The span's entries with the duplicates left out of its events."""
        batch = self._batch(span.raw, span.duplicates)
        before = len(span.raw) - len(batch.dead)
        batch.judge(self._index)
        self._tally.duplicates += before - len(batch.events)
        return batch

    def _chosen(self, batch: Batch, raw: list[RawEntry]) -> Iterator[PastEvent]:
        fits, by_position = self._search.selection.fits, None
        for position, envelope in batch.events:
            if fits(envelope):
                by_position = by_position or {place.decode(): fields for place, fields in raw}
                event = json_of(by_position[position])
                yield PastEvent(self._stream.name, self._partition, position, envelope, event)


def json_of(fields: list[bytes]) -> bytes:
    """The event's JSON of an entry that was checked."""
    return fields[1] if fields[0] == b"event" else dict(zip(fields[::2], fields[1::2], strict=True))[b"event"]


def _partitions(stream: Stream, selection: Selection) -> list[int]:
    if selection.subjects and stream.is_log_here:
        return sorted({stream.partition_of(subject) for subject in selection.subjects})
    return list(range(stream.partitions))
