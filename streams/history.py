"""
The whole past of a stream: from the archive, then from the live log, without a seam.

    history = History(stream, archive)     archive: None where nothing is archived; archive.history_of takes
                                           the settings' one
    for span in history.spans(partition, after, until): ...

    archive up to its end -> log after that -> has the trimmer passed us meanwhile? -> archive again, which
        has grown

Always true: the spans of a partition are its entries in the log's order, each once, none left out, however
often the trimmer runs
meanwhile: an entry leaves the log only after it is in the archive. A span comes from one of the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import msgspec

from aurastream.streams.codec import RawEntry
from aurastream.streams.drive import retried
from aurastream.streams.errors import ArchiveNeeded, ArchiveRefused
from aurastream.streams.groups import as_pair
from aurastream.streams.stream import READ_MAX, Stream

LAST = 2**64 - 1  # the greatest number in a position


class Span(msgspec.Struct, frozen=True):
    """Consecutive entries, undecoded, as the log has or had them.

    duplicates: of archived entries, the positions whose event ID another entry is canonical for; None for
    entries of the live log,
    where the ids index says so. is_sound: every checksum was found right when they were archived, and the
    segment's hash just now.
    """

    raw: list[RawEntry]
    duplicates: frozenset[bytes] | None = None
    is_sound: bool = False

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
        after, high = after or "0-0", end_of(until)
        while as_pair(after) < high:
            for span in self._archived(partition, after, until, count):
                yield span
                after = span.raw[-1][0].decode()
            raw, trimmed_to = self._read(partition, after, until, count)
            while trimmed_to <= as_pair(after):
                if not raw:
                    return
                yield Span(raw)
                after = raw[-1][0].decode()
                raw, trimmed_to = self._read(partition, after, until, count)
            if self._has_ended(partition, after, high, trimmed_to):
                return

    def entries(self, partition: int, positions: Iterable[str]) -> dict[str, RawEntry]:
        """The entries at these positions, by the log, else by the archive; what is nowhere is left out.

        Raises ArchiveNeeded where one can only be in an archive and none is set; ArchiveDamaged.
        """
        wanted = list(positions)
        found: dict[str, RawEntry] = {}
        trimmed_to = (0, 0)
        for start in range(0, len(wanted), READ_MAX):
            part = wanted[start : start + READ_MAX]
            *answers, trimmed = self._ask(
                partition, [("XRANGE", self._log(partition), position, position) for position in part]
            )
            found |= {position: answer[0] for position, answer in zip(part, answers, strict=True) if answer}
            trimmed_to = trimmed
        missing = [position for position in wanted if position not in found]
        if missing and self.archive is not None:
            found |= self.archive.entries(partition, missing)
        elif any(as_pair(position) <= trimmed_to for position in missing):
            raise self._needed(partition, trimmed_to)
        return found

    def _archived(self, partition: int, after: str, until: str, count: int) -> Iterator[Span]:
        if self.archive is not None and as_pair(self.archive.until(partition)) > as_pair(after):
            yield from self.archive.spans(partition, after, until, count)

    def _has_ended(
        self, partition: int, after: str, high: tuple[int, int], trimmed_to: tuple[int, int]
    ) -> bool:
        """The trimmer has passed `after`: whether all up to `high` was read nevertheless. Raises where nobody
        has the rest.
        """
        if self.archive is None:
            raise self._needed(partition, trimmed_to)
        end = as_pair(self.archive.until(partition))
        if end < trimmed_to:
            raise ArchiveRefused(
                f"the log of {self.stream.name}/{partition} was trimmed up to {_text(trimmed_to)}, the "
                f"archive ends at {_text(end)}: "
                "what lies between is in neither. Restore the server and the archive from copies of one time."
            )
        return high <= end and not any(True for _ in self._archived(partition, after, _text(high), 1))

    def _read(
        self, partition: int, after: str, until: str, count: int
    ) -> tuple[list[RawEntry], tuple[int, int]]:
        """Entries of the log, and how far it was trimmed when they had been read."""
        raw, trimmed_to = self._ask(
            partition, [("XRANGE", self._log(partition), f"({after}", until, "COUNT", count)]
        )
        return raw, trimmed_to

    def _ask(self, partition: int, commands: list[tuple[Any, ...]]) -> list[Any]:
        """The answers, and behind them how far the log was trimmed: asked last, on the same wire, so that it
        holds for them all.
        """
        last = ("HGET", self.stream.keys[partition].meta, "trimmed_to")

        def ask() -> list[Any]:
            return self.stream.wire(partition).ask(*commands, last)

        what = f"read of {self.stream.name}/{partition}"
        *answers, trimmed = retried(what, self.stream.settings.attempts_max, ask, self.stream.reconnect)
        return [*answers, as_pair((trimmed or b"").decode())]

    def _log(self, partition: int) -> str:
        return self.stream.keys[partition].log

    def _needed(self, partition: int, trimmed_to: tuple[int, int]) -> ArchiveNeeded:
        command = ("HGET", self.stream.keys[partition].archive, "url")
        attempts = self.stream.settings.attempts_max
        url: bytes | None = retried(
            "asking where the archive is",
            attempts,
            lambda: self.stream.wire(partition).ask(command)[0],
            self.stream.reconnect,
        )
        return ArchiveNeeded(f"{self.stream.name}/{partition}", _text(trimmed_to), (url or b"").decode())


def end_of(until: str) -> tuple[int, int]:
    """The last position that `until` includes, in a form that compares: "+" is the end, milliseconds alone
    all of them.
    """
    if until == "+":
        return LAST, LAST
    milliseconds, dash, sequence = until.partition("-")
    return int(milliseconds or 0), int(sequence) if dash else LAST


def _text(pair: tuple[int, int]) -> str:
    return f"{pair[0]}-{pair[1]}"
