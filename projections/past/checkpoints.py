"""
Checkpoints: views as they were at a position of the archive, so that a past time is not folded from the log's
beginning.

    fold of the archived log[.. position] -> tables and cursor -> a blob (blobs.py) beside the partition's
        segments
    as of T: the farthest one that holds nothing later than T -> go on folding from there

A checkpoint is a cache and never the truth: it is used only when its hash holds, it was made by this very
code, and of this very log, which it proves by the hash of the segment it stands in (the chain has all before
in it); what fails is warned of and passed over. Deleting all of them costs time alone.

Always true: a checkpoint equals the fold of the whole log up to its position. It is for one partition, and
for one projection by its fingerprint and its source: a fold that was mended folds anew, though its version is
the same.

Decision (2026-11): zlib and one blob per partition. Refused: Parquet and zstd, which are 15 % smaller, but
cost every command that needs nothing else of pyarrow 0.1 s to import it; a blob per table, as whoever folds
on needs all of them. Measured, 2,485 clips after 99,400 events: 1.67 MB of tables are 0.17 MB, packed in 13
ms, unpacked in 5.
Decision (2026-11): they lie at least EVERY entries apart, and farther where they are large (the trail's grow
with the log): all of them together have at most BYTES_MAX bytes per entry, what the archive itself has. Half
as many would be twice as slow a question, which folds on from one to the next at 11 us an event.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from aurastream.projections.engine import AnyProjection, MemoryView
from aurastream.projections.past.blobs import CheckpointContent, made_by, packed, unpacked
from aurastream.streams import Position, StreamError

EVERY = 5_000  # entries between two checkpoints, at least
BYTES_MAX = 30  # of a checkpoint, per entry since the one before
SUFFIX = ".checkpoint"


class KeptSegment(Protocol):
    """What is read of a segment's manifest."""

    @property
    def first(self) -> str: ...
    @property
    def last(self) -> str: ...
    @property
    def hash(self) -> str: ...


class Keeper(Protocol):
    """Where checkpoints are kept: a stream's archive."""

    def segments(self, partition: int) -> Sequence[KeptSegment]:
        """A partition's segments, in order."""
        ...

    def list_blobs(self, partition: int, prefix: str = "") -> list[str]:
        """The names of a partition's blobs that begin so."""
        ...

    def read_blob(self, partition: int, name: str) -> bytes | None:
        """A blob's content; None where there is none. Raises OSError or StreamError where unreadable."""
        ...

    def write_blob(self, partition: int, name: str, content: bytes) -> None:
        """Keep a blob, whole or not at all."""
        ...


class Checkpoint(msgspec.Struct, frozen=True):
    """What a checkpoint's name says. latest_us: the latest event time of anything up to its position,
    microseconds since 1970.
    """

    name: str
    position: str
    latest_us: int


class Checkpoints:
    """One projection's checkpoints of one stream. warn: called with a sentence for each passed over."""

    def __init__(
        self, keeper: Keeper, stream: str, projection: AnyProjection, warn: Callable[[str], None]
    ) -> None:
        self._keeper, self._stream, self._projection, self._warn = keeper, stream, projection, warn
        self._made_by = made_by(projection)
        self._is_writable = True

    def of(self, partition: int) -> list[Checkpoint]:
        """Those this code may use, the farthest first."""
        if not self._made_by:
            return []
        prefix = f"{self._projection.name}.{self._made_by}."
        named = [_named(name, prefix) for name in self._keeper.list_blobs(partition, prefix)]
        usable = [checkpoint for checkpoint in named if checkpoint is not None]
        return sorted(usable, key=lambda checkpoint: Position.parse(checkpoint.position), reverse=True)

    def load(self, partition: int, checkpoint: Checkpoint, view: MemoryView) -> int:
        """Put the view where the checkpoint is; its bytes, or 0 after a warning when it cannot be trusted."""
        try:
            blob = self._keeper.read_blob(partition, checkpoint.name)
            content, segment = unpacked(blob), self._segment(partition, checkpoint.position)
        except (OSError, StreamError, ValueError, zlib.error, msgspec.MsgspecError) as error:
            return self._refuse(partition, checkpoint, str(error) or type(error).__name__)
        position = content.cursor.position
        stated = (content.stream, content.partition, content.made_by, position, content.latest_us)
        if stated != (self._stream, partition, self._made_by, checkpoint.position, checkpoint.latest_us):
            return self._refuse(partition, checkpoint, "it is another one's under this name")
        if content.segment != segment:
            reason = "it is of another log: the archive has another segment there"
            return self._refuse(partition, checkpoint, reason)
        view.restore(content.cursor, content.tables, content.dead)
        return len(blob or b"")

    def write(self, partition: int, view: MemoryView, latest_us: int) -> int:
        """Keep the view as a checkpoint at its cursor; returns its size in bytes, 0 where none can be kept.

        That is a projection whose source cannot be read, or a place that takes no file: warned of once, as
        the answer needs none.
        """
        if not self._made_by or not self._is_writable:
            return 0
        cursor = view.cursor
        segment, made = self._segment(partition, cursor.position), self._made_by
        blob = packed(
            CheckpointContent(
                self._stream, partition, made, segment, latest_us, cursor, view.tables, view.dead
            )
        )
        name = f"{self._projection.name}.{made}.{cursor.position}.{latest_us}{SUFFIX}"
        try:
            self._keeper.write_blob(partition, name, blob)
        except (OSError, StreamError) as error:
            self._is_writable = False
            self._warn(
                f"no checkpoint of {self._stream}/{partition} could be kept ({error}); the next question "
                "takes as long as this one."
            )
            return 0
        return len(blob)

    def _segment(self, partition: int, position: str) -> str:
        """The hash of the segment that holds the position. Raises StreamError where it is not archived."""
        place = Position.parse(position)
        for segment in self._keeper.segments(partition):
            if Position.parse(segment.first) <= place <= Position.parse(segment.last):
                return segment.hash
        raise StreamError(
            f"{position} of {self._stream}/{partition} is not in the archive: a checkpoint has no place "
            "there."
        )

    def _refuse(self, partition: int, checkpoint: Checkpoint, reason: str) -> int:
        self._warn(
            f"the checkpoint {checkpoint.name} of {self._stream}/{partition} is not used ({reason}); the log "
            "is folded instead."
        )
        return 0


def spacing(size: int) -> int:
    """How many entries there must be from a checkpoint of this size to the next."""
    return max(EVERY, size // BYTES_MAX)


def _named(name: str, prefix: str) -> Checkpoint | None:
    position, _, latest = name.removeprefix(prefix).removesuffix(SUFFIX).partition(".")
    try:
        Position.parse(position)
        return Checkpoint(name, position, int(latest))
    except ValueError:
        return None
