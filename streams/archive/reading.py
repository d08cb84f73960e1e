"""
Reading a stream's archive.

    slot (Redis: how far, which head) -> manifests, from the head back (chain.py)
        -> row groups that matter -> spans, or entries by position

Always true: only what the slot leads to is read. A file that is missing or is not what was written is an
ArchiveDamaged, never a gap: each is compared with its hash before anything of it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from aurastream.streams import (
    READ_MAX,
    ArchiveDamaged,
    Position,
    RawEntry,
    Span,
    Stream,
    StreamError,
    last_of,
)
from aurastream.streams.archive.arrow import compute, texts_of
from aurastream.streams.archive.chain import Chains, folder_of
from aurastream.streams.archive.entries import NEEDED, entries_of
from aurastream.streams.archive.manifest import Manifest
from aurastream.streams.archive.matching import matching
from aurastream.streams.archive.ranges import bounded, by_group, distinct, groups_between, overlaps, spans_of
from aurastream.streams.archive.slot import Slot, slot_of
from aurastream.streams.archive.store import Store
from aurastream.streams.archive.where import Where

UNREADABLE = (OSError, pa.ArrowException, msgspec.MsgspecError, UnicodeDecodeError, KeyError, ValueError)
BLOBS = "checkpoints"
OPEN_MAX = 8  # files that are kept in memory, a few MB each


class StreamArchive:
    """A stream's archive.

    Made by ``open_archive``. Not for several threads; its server's connection is the stream's.
    """

    def __init__(self, stream: Stream, store: Store) -> None:
        self.stream, self.store = stream, store
        self._chains = Chains(stream, store)
        self._files: dict[str, pq.ParquetFile] = {}

    @property
    def url(self) -> str:
        """Where it is."""
        return self.store.url

    def folder(self, partition: int) -> str:
        """The partition's files, below the url."""
        return folder_of(self.stream, partition)

    def slot(self, partition: int) -> Slot:
        """What the slot says now."""
        return slot_of(self.stream, partition)

    def until(self, partition: int) -> str:
        """The last archived position; "" where nothing is archived."""
        return self.slot(partition).position

    def segments(self, partition: int) -> list[Manifest]:
        """The chain up to the slot's head, the oldest first.

        Raises ArchiveDamaged where a manifest is missing or not its hash's.
        """
        return self._chains.until(partition, self.slot(partition))

    def spans(
        self, partition: int, after: str = "0-0", until: str = "+", count: int = READ_MAX
    ) -> Iterator[Span]:
        """Archived entries after a position, up to and including `until`, in spans of at most `count`."""
        low, high = Position.parse(after), last_of(until)
        for manifest in self.segments(partition):
            if overlaps(manifest, low, high):
                for group in groups_between(manifest, low, high):
                    raw, duplicates, is_sound = self._read(manifest, group)
                    yield from spans_of(bounded(raw, low, high), duplicates, count, is_sound=is_sound)

    def entries(self, partition: int, positions: Iterable[str]) -> dict[str, RawEntry]:
        """The entries at these positions, as far as they are archived."""
        wanted = distinct(positions)
        entries: dict[str, RawEntry] = {}
        for manifest in self.segments(partition) if wanted else ():
            for group, here in by_group(manifest, wanted).items():
                raw, _, _ = self._read(manifest, group, here)
                entries |= {position.decode(): (position, fields) for position, fields in raw}
        return entries

    def scan(
        self, partition: int, where: Where, after: str = "0-0", until: str = "+", count: int = READ_MAX
    ) -> Iterator[Span]:
        """Events of that range with these values, in spans of at most `count`; duplicates are among them.

        Segments and row groups that cannot hold any are not read; of the others first the column of a value
        that is wanted. Damaged entries are in no answer but one for any value.
        """
        low, high = Position.parse(after), last_of(until)
        for manifest in [segment for segment in self.segments(partition) if overlaps(segment, low, high)]:
            if not where.can_be_in(manifest.min_occurred_at, manifest.max_occurred_at):
                continue
            for group in groups_between(manifest, low, high):
                raw, duplicates = self._matching(manifest, group, where)
                yield from spans_of(bounded(raw, low, high), duplicates, count)

    def read_blob(self, partition: int, name: str) -> bytes | None:
        """A file kept beside the segments; None where there is none."""
        try:
            return self.store.read(self._blob(partition, name))
        except FileNotFoundError:
            return None

    def write_blob(self, partition: int, name: str, content: bytes) -> None:
        """Keep a file beside the segments, whole or not at all; one of that name is replaced."""
        self.store.write(self._blob(partition, name), content)

    def list_blobs(self, partition: int, prefix: str = "") -> list[str]:
        """The names of the files kept that begin so, sorted."""
        names = self.store.names(f"{self.folder(partition)}/{BLOBS}")
        return [name for name in names if name.startswith(prefix) and name[0] != "."]

    def delete_blob(self, partition: int, name: str) -> None:
        """Remove a file kept beside the segments; one that is gone is fine."""
        self.store.delete(self._blob(partition, name))

    def _blob(self, partition: int, name: str) -> str:
        if name[:1] in ("", ".") or not all(
            char.isascii() and (char.isalnum() or char in "_.@:-") for char in name
        ):
            raise StreamError(
                f"{name!r} is no name for a file of the archive: use a-z A-Z 0-9 _ . @ : - and begin with no "
                "dot."
            )
        return f"{self.folder(partition)}/{BLOBS}/{name}"

    def file_of(self, manifest: Manifest) -> pq.ParquetFile:
        """The segment's Parquet file, compared with its hash and opened. Raises ArchiveDamaged."""
        path = self.path_of(manifest)
        if path not in self._files:
            content = self.check_file(manifest)
            while len(self._files) >= OPEN_MAX:
                self._files.pop(next(iter(self._files))).close()
            try:
                self._files[path] = pq.ParquetFile(pa.BufferReader(content))
            except UNREADABLE as error:
                raise self._damaged(manifest, error) from error
        return self._files[path]

    def check_file(self, manifest: Manifest) -> bytes:
        """The segment's file, when it is byte for byte what its manifest says. Raises ArchiveDamaged."""
        path = self.path_of(manifest)
        try:
            content = self.store.read(path)
        except FileNotFoundError as error:
            raise ArchiveDamaged(manifest.where, f"{self.url}/{path}", "the file is missing") from error
        if (digest := sha256(content).hexdigest()) != manifest.file_sha256:
            reason = f"its SHA-256 is {digest}, its manifest says {manifest.file_sha256}"
            raise ArchiveDamaged(manifest.where, f"{self.url}/{path}", reason)
        return content

    def path_of(self, manifest: Manifest) -> str:
        """The segment's Parquet file, below the url."""
        return f"{self.folder(manifest.partition)}/{manifest.name}.parquet"

    def close(self) -> None:
        """Close the files that are open."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _read(
        self, manifest: Manifest, group: int, positions: list[Position] | None = None
    ) -> tuple[list[RawEntry], frozenset[bytes], bool]:
        """A row group's entries, or those at these positions; which are duplicates; if all are sound."""
        file = self.file_of(manifest)
        try:
            if (rows := file.metadata.num_rows) != manifest.entries:
                raise ValueError(f"it has {rows} entries, its manifest says {manifest.entries}")
            table = file.read_row_group(group, columns=NEEDED, use_threads=False)
            if positions is not None:
                texts = texts_of([str(position).encode() for position in positions], pa.string())
                table = table.filter(compute.is_in(table["position"], texts))
            is_sound = table["raw"].null_count == table.num_rows  # what is damaged is kept raw
            return *entries_of(table), is_sound
        except UNREADABLE as error:
            raise self._damaged(manifest, error) from error

    def _matching(
        self, manifest: Manifest, group: int, where: Where
    ) -> tuple[list[RawEntry], frozenset[bytes]]:
        """The row group's entries with these values."""
        file = self.file_of(manifest)
        try:
            table = matching(file, group, where)
            return ([], frozenset()) if table is None else entries_of(table)
        except UNREADABLE as error:
            raise self._damaged(manifest, error) from error

    def _damaged(self, manifest: Manifest, error: BaseException) -> ArchiveDamaged:
        if isinstance(error, ArchiveDamaged):
            return error
        file = f"{self.url}/{self.path_of(manifest)}"
        return ArchiveDamaged(manifest.where, file, str(error) or type(error).__name__)
