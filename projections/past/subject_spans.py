"""
One subject's entries in the log's order: those the trail knows by position, the rest by reading on.

    trail: positions -> History.entries ---+
    what it has not read yet -> scanned ---+-> spans of the subject's entries alone

Always true: the trail names the entries that count and leaves duplicates out; of what is scanned, the
archive's marks or the ids index say it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import msgspec

from aurastream.projections.built_in import known_of_subject
from aurastream.streams import History, Position, RawEntry, Span, subject_of
from aurastream.streams.archive import Where

if TYPE_CHECKING:  # pyarrow takes its time: who has no archive does not wait for it
    from aurastream.streams.archive import StreamArchive

FETCH = 1_000  # entries fetched by position at a time


class SubjectSpan(msgspec.Struct, frozen=True):
    """Consecutive entries of a subject. duplicates: as in a Span. looked_at: entries read for it.

    is_indexed: named by the trail. gone: positions that it names and that are nowhere any more.
    """

    raw: list[RawEntry]
    duplicates: frozenset[bytes] | None
    looked_at: int
    is_indexed: bool = False
    gone: tuple[str, ...] = ()

    @property
    def entries(self) -> Span:
        """As a view decodes them."""
        return Span(self.raw, self.duplicates)


def spans_of_subject(
    history: History, subject: str, after: Position, until: Position
) -> Iterator[SubjectSpan]:
    """The subject's entries after a position, up to and including another."""
    known = known_of_subject(history.stream, subject)
    high = min(Position.parse(known.until), until)
    if high > after:
        named = [position for position in known.positions if after < Position.parse(position) <= high]
        yield from _indexed(history, subject, named)
        after = high
    if after < until:
        yield from _scanned(history, subject, after, until)


def _indexed(history: History, subject: str, positions: list[str]) -> Iterator[SubjectSpan]:
    partition = history.stream.partition_of(subject)
    for first in range(0, len(positions), FETCH):
        part = positions[first : first + FETCH]
        entries = history.entries(partition, part)
        raw = [entries[position] for position in part if position in entries]
        gone = tuple(position for position in part if position not in entries)
        yield SubjectSpan(raw, frozenset(), len(entries), is_indexed=True, gone=gone)


def _scanned(history: History, subject: str, after: Position, until: Position) -> Iterator[SubjectSpan]:
    for span in _unindexed(history, subject, after, until):
        raw = [entry for entry in span.raw if subject_of(entry[1]) == subject]
        yield SubjectSpan(raw, span.duplicates, len(span.raw))


def _unindexed(history: History, subject: str, after: Position, until: Position) -> Iterator[Span]:
    """Of the archive what can be the subject's; of the log all."""
    partition, archive = history.stream.partition_of(subject), cast("StreamArchive | None", history.archive)
    end = Position.parse("" if archive is None else archive.until(partition))
    if archive is not None and end > after:
        yield from archive.scan(partition, Where(subject=subject), str(after), str(min(end, until)))
        after = end
    if after < until:
        yield from history.spans(partition, str(after), str(until))
