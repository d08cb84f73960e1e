"""
The whole past of a stream: from the archive, then from the live log, without a seam.

    history = History(stream, archive)     archive: None where there is none; history_of takes the settings'
    for span in history.spans(partition, after, until): ...

    archive up to its end -> log after that -> has the trimmer passed us meanwhile? -> archive, it has grown

Always true: the spans of a partition are its entries in the log's order, each once, none left out, however
often the trimmer runs meanwhile: an entry leaves the log only after it is in the archive. A span comes from
one of the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

from aurastream.streams.drive import Command
from aurastream.streams.entries import RawEntry
from aurastream.streams.errors import ArchiveNeeded, ArchiveRefused
from aurastream.streams.positions import START, Position, last_of
from aurastream.streams.stream import READ_MAX, Stream


class Span(msgspec.Struct, frozen=True):
    """Consecutive entries, undecoded, as the log has or had them.

    duplicates: of archived entries, the positions whose event ID another entry is canonical for; None for
    entries of the live log, where the ids index says so. is_sound: every checksum was right when they were
    archived, and the segment's hash just now.
    """

    raw: list[RawEntry]
    duplicates: frozenset[bytes] | None = None
    is_sound: bool = False

    @property
    def last(self) -> Position:
        """Of its last entry."""
        return Position.parse(self.raw[-1][0])

    @property
    def is_archived(self) -> bool:
        """Whether it comes from the archive."""
        return self.duplicates is not None


class Archive(Protocol):
    """What a stream's archive answers; made by ``archive.open_archive``."""

    def until(self, partition: int) -> str:
        """The last archived position; "" where nothing is archived."""
        ...

    def spans(self, partition: int, after: str, until: str, count: int) -> Iterator[Span]:
        """Archived entries after a position, up to and including `until`, in spans of at most `count`."""
        ...

    def entries(self, partition: int, positions: Iterable[str]) -> dict[str, RawEntry]:
        """The entries at these positions, as far as they are archived."""
        ...


class History:
    """Reads one stream's past. Not for several threads."""

    def __init__(self, stream: Stream, archive: Archive | None = None) -> None:
        self.stream, self.archive = stream, archive

    def spans(
        self, partition: int, after: str = "0-0", until: str = "+", count: int = READ_MAX
    ) -> Iterator[Span]:
        """All entries after a position (not including it), up to and including `until`, in spans of at most
        `count`.

        Raises ArchiveNeeded where the log was trimmed after that position and no archive is set;
        ArchiveDamaged.
        """
        at, high = Position.parse(after), last_of(until)
        while at < high:
            for span in self._archived(partition, at, until, count):
                yield span
                at = span.last
            raw, trimmed_to = self._read(partition, at, until, count)
            while trimmed_to <= at:
                if not raw:
                    return
                yield (span := Span(raw))
                at = span.last
                raw, trimmed_to = self._read(partition, at, until, count)
            if self._has_ended(partition, at, high, trimmed_to):
                return

    def entries(self, partition: int, positions: Iterable[str]) -> dict[str, RawEntry]:
        """The entries at these positions, by the log, else by the archive; what is nowhere is left out.

        Raises ArchiveNeeded where one can only be in an archive and none is set; ArchiveDamaged.
        """
        wanted = list(positions)
        entries, trimmed_to = self._in_log(partition, wanted)
        missing = [position for position in wanted if position not in entries]
        if missing and self.archive is not None:
            entries |= self.archive.entries(partition, missing)
        elif any(Position.parse(position) <= trimmed_to for position in missing):
            raise self._needed(partition, trimmed_to)
        return entries

    def _archived(self, partition: int, after: Position, until: str, count: int) -> Iterator[Span]:
        if self.archive is not None and Position.parse(self.archive.until(partition)) > after:
            yield from self.archive.spans(partition, str(after), until, count)

    def _has_ended(self, partition: int, after: Position, high: Position, trimmed_to: Position) -> bool:
        """The trimmer has passed `after`: whether all up to `high` was read nevertheless. Raises where nobody
        has the rest.
        """
        if self.archive is None:
            raise self._needed(partition, trimmed_to)
        end = Position.parse(self.archive.until(partition))
        if end < trimmed_to:
            raise ArchiveRefused(
                f"the log of {self.stream.name}/{partition} was trimmed up to {trimmed_to}, the archive ends "
                f"at {end}: what lies between is in neither. Restore the server and the archive from copies "
                "of one time."
            )
        return high <= end and not any(True for _ in self._archived(partition, after, str(high), 1))

    def _read(
        self, partition: int, after: Position, until: str, count: int
    ) -> tuple[list[RawEntry], Position]:
        """Entries of the log, and how far it was trimmed when they had been read."""
        command = ("XRANGE", self.stream.keys[partition].log, f"({after}", until, "COUNT", count)
        (raw,), trimmed_to = self._ask(partition, [command])
        return raw, trimmed_to

    def _in_log(self, partition: int, wanted: list[str]) -> tuple[dict[str, RawEntry], Position]:
        """Those of the entries that are in the log, and how far it was trimmed."""
        entries: dict[str, RawEntry] = {}
        trimmed_to = START
        log = self.stream.keys[partition].log
        for start in range(0, len(wanted), READ_MAX):
            part = wanted[start : start + READ_MAX]
            commands: list[Command] = [("XRANGE", log, position, position) for position in part]
            answers, trimmed_to = self._ask(partition, commands)
            entries |= {position: answer[0] for position, answer in zip(part, answers, strict=True) if answer}
        return entries, trimmed_to

    def _ask(self, partition: int, commands: list[Command]) -> tuple[list[list[RawEntry]], Position]:
        """The answers, and how far the log was trimmed: asked last, on the same wire, so that it holds for
        them all.
        """
        keys = self.stream.keys[partition]
        last = ("HGET", keys.meta, "trimmed_to")
        *answers, trimmed = self.stream.ask(partition, *commands, last, what=f"read of {keys.where}")
        return answers, Position.parse(trimmed or b"")

    def _needed(self, partition: int, trimmed_to: Position) -> ArchiveNeeded:
        keys = self.stream.keys[partition]
        url: bytes | None = self.stream.ask(
            partition, ("HGET", keys.archive, "url"), what="asking where the archive is"
        )[0]
        return ArchiveNeeded(keys.where, str(trimmed_to), (url or b"").decode())
