"""
The whole past of a stream: from the archive, then from the live log, without a seam.

    history = History(stream, archive)     archive: None where nothing is archived
    for span in history.spans(partition, after, until): ...

Always true: the spans of a partition are its entries in the log's order, each once, none left out, however often the trimmer runs
meanwhile: an entry leaves the log only after it is in the archive. A span comes from one of the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

from aurastream.streams.codec import RawEntry
from aurastream.streams.log import READ_MAX, Stream


class Span(msgspec.Struct, frozen=True):
    """Consecutive entries, undecoded, as the log has or had them.

    duplicates: of archived entries, the positions whose event ID another entry is canonical for; None for entries of the live log,
    where the ids index says so.
    """

    raw: list[RawEntry]
    duplicates: frozenset[bytes] | None = None

    @property
    def is_archived(self) -> bool:
        """Whether it comes from the archive."""
        return self.duplicates is not None


class Archive(Protocol):
    """What a stream's archive answers; made by ``archive.open_archive``."""

    def until(self, partition: int) -> str:
        """The last archived position; "" where nothing is archived."""

    def spans(self, partition: int, after: str, until: str, count: int) -> Iterator[Span]:
        """Archived entries after a position, up to and including `until`, in spans of at most `count`."""

    def entries(self, partition: int, positions: Iterable[str]) -> dict[str, RawEntry]:
        """The entries at these positions, as far as they are archived."""


class History:
    """Reads one stream's past. Not for several threads."""

    def __init__(self, stream: Stream, archive: Archive | None = None) -> None:
        self.stream, self.archive = stream, archive

    def spans(self, partition: int, after: str = "0-0", until: str = "+", count: int = READ_MAX) -> Iterator[Span]:
        """All entries after a position (not including it), up to and including `until`, in spans of at most `count`."""
        while raw := self.stream.read_raw(partition, after, until, count):
            yield Span(raw)
            after = raw[-1][0].decode()

    def entries(self, partition: int, positions: Iterable[str]) -> dict[str, RawEntry]:
        """The entries at these positions; what is nowhere is left out."""
        log = self.stream.keys[partition].log
        found: dict[str, RawEntry] = {}
        wanted = list(positions)
        for start in range(0, len(wanted), READ_MAX):
            part = wanted[start : start + READ_MAX]
            answers = self.stream.wire(partition).ask(*[("XRANGE", log, position, position) for position in part])
            found |= {position: answer[0] for position, answer in zip(part, answers, strict=True) if answer}
        return found
