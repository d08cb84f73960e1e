"""
Reading a stream's archive.

    slot (Redis: how far, which head) -> manifests, from the head back -> row groups that matter -> spans, or
        entries by position

Always true: only what the slot leads to is read. Manifests are kept once read, as a chain only grows. A file
that is missing or is not what was written is an ArchiveDamaged, never a gap: each file is compared with its
hash before anything of it is read.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from hashlib import sha256

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from aurastream.streams import (
    READ_MAX,
    ArchiveDamaged,
    RawEntry,
    Span,
    Stream,
    StreamError,
    as_pair,
    end_of,
    retried,
)
from aurastream.streams.archive import manifest as manifests
from aurastream.streams.archive.arrow import texts_of
from aurastream.streams.archive.manifest import Manifest, segment_name
from aurastream.streams.archive.segment import NEEDED, entries_of, microseconds
from aurastream.streams.archive.store import Store
from aurastream.streams.archive.where import Where, matching

Pair = tuple[int, int]
UNREADABLE = (OSError, pa.ArrowException, msgspec.MsgspecError, UnicodeDecodeError, KeyError, ValueError)
BLOBS = "checkpoints"
OPEN_MAX = 8  # files that are kept in memory, a few MB each


class Slot(msgspec.Struct, frozen=True):
    """What the partition's slot says of its archive. number and entries: of segments and entries in all.
    head: the newest's hash.

    told: up to which segment the audit trail has it.
    """

    number: int = 0
    position: str = ""
    entries: int = 0
    head: str = ""
    url: str = ""
    told: int = 0


class StreamArchive:
    """A stream's archive. Made by ``open_archive``. Not for several threads; its server's connection is the
    stream's.
    """

    def __init__(self, stream: Stream, store: Store) -> None:
        self.stream, self.store = stream, store
        self._chains: dict[int, list[Manifest]] = {}
        self._files: dict[str, pq.ParquetFile] = {}

    @property
    def url(self) -> str:
        """Where it is."""
        return self.store.url

    def folder(self, partition: int) -> str:
        """The partition's files, below the url."""
        return f"{self.stream.name}/{partition:04d}"

    def slot(self, partition: int) -> Slot:
        """What the slot says now."""
        return self.slot_of(self.stream, partition)

    @staticmethod
    def slot_of(stream: Stream, partition: int) -> Slot:
        """The same of a stream whose archive is not open."""
        names = Slot.__struct_fields__

        def ask() -> list[bytes | None]:
            found: list[bytes | None] = stream.wire(partition).ask(
                ("HMGET", stream.keys[partition].archive, *names)
            )[0]
            return found

        what = f"reading how far {stream.name}/{partition} is archived"
        values = retried(what, stream.settings.attempts_max, ask, stream.reconnect)
        known = {name: value.decode() for name, value in zip(names, values, strict=True) if value is not None}
        return msgspec.convert(known, Slot, strict=False)

    def until(self, partition: int) -> str:
        """The last archived position; "" where nothing is archived."""
        return self.slot(partition).position

    def segments(self, partition: int) -> list[Manifest]:
        """The chain up to the slot's head, the oldest first. Raises ArchiveDamaged where a manifest is
        missing or not its hash's.
        """
        slot, known = self.slot(partition), self._chains.get(partition, [])
        if slot.number and (not known or known[-1].hash != slot.head):
            known = self._chains[partition] = self._chain(partition, slot, known)
        return known[: slot.number] if slot.number else []

    def spans(
        self, partition: int, after: str = "0-0", until: str = "+", count: int = READ_MAX
    ) -> Iterator[Span]:
        """Archived entries after a position, up to and including `until`, in spans of at most `count`."""
        low, high = as_pair(after), end_of(until)
        for manifest in self.segments(partition):
            if as_pair(manifest.last) > low and as_pair(manifest.first) <= high:
                for group in _groups(manifest, low, high):
                    raw, duplicates, is_sound = self._read(manifest, group)
                    yield from _cut(_bounded(raw, low, high), duplicates, count, is_sound=is_sound)

    def entries(self, partition: int, positions: Iterable[str]) -> dict[str, RawEntry]:
        """The entries at these positions, as far as they are archived."""
        wanted = sorted({position for position in positions if position}, key=as_pair)
        pairs = [as_pair(position) for position in wanted]
        found: dict[str, RawEntry] = {}
        for manifest in self.segments(partition) if wanted else ():
            start, end = (
                bisect_left(pairs, as_pair(manifest.first)),
                bisect_right(pairs, as_pair(manifest.last)),
            )
            for group, names in _by_group(manifest, wanted[start:end], pairs[start:end]).items():
                raw, _, _ = self._read(manifest, group, names)
                found |= {position.decode(): (position, fields) for position, fields in raw}
        return found

    def scan(
        self,
        partition: int,
        *,
        after: str = "0-0",
        until: str = "+",
        subject: str | None = None,
        type: str | None = None,
        source: str | None = None,
        correlation: str | None = None,
        since: datetime | None = None,
        until_time: datetime | None = None,
        count: int = READ_MAX,
    ) -> Iterator[Span]:
        """The entries of that range that are events with these values, in spans of at most `count`;
        duplicates are among them.

        since, until_time: of occurred_at, the second not included. Segments and row groups that cannot hold
        any are not read; of the others first the column of a value that was asked for. Damaged entries are in
        no answer but one that asks for no value.
        """
        instants = tuple(
            None if instant is None else microseconds(instant) for instant in (since, until_time)
        )
        where = Where(
            subject=subject,
            type=type,
            source=source,
            correlation_id=correlation,
            occurred=(instants[0], instants[1]),
        )
        low, high = as_pair(after), end_of(until)
        for manifest in self.segments(partition):
            if as_pair(manifest.last) <= low or as_pair(manifest.first) > high:
                continue
            if not where.can_be_in(manifest.min_occurred_at, manifest.max_occurred_at):
                continue
            for group in _groups(manifest, low, high):
                raw, duplicates = self._matching(manifest, group, where)
                yield from _cut(_bounded(raw, low, high), duplicates, count)

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
        return [
            name
            for name in self.store.names(f"{self.folder(partition)}/{BLOBS}")
            if name.startswith(prefix) and name[0] != "."
        ]

    def delete_blob(self, partition: int, name: str) -> None:
        """Remove a file kept beside the segments; one that is gone is fine."""
        self.store.delete(self._blob(partition, name))

    def _blob(self, partition: int, name: str) -> str:
        if (
            not name
            or name.startswith(".")
            or not all(char.isascii() and (char.isalnum() or char in "_.@:-") for char in name)
        ):
            raise StreamError(
                f"{name!r} is no name for a file of the archive: use a-z A-Z 0-9 _ . @ : - and begin with "
                "no dot."
            )
        return f"{self.folder(partition)}/{BLOBS}/{name}"

    def _chain(self, partition: int, slot: Slot, known: list[Manifest]) -> list[Manifest]:
        """The manifests from the slot's head back to one that is known, or to the first."""
        heads = {manifest.hash for manifest in known}
        new: list[Manifest] = []
        number, head = slot.number, slot.head
        while number and head not in heads:
            new.append(self._read_manifest(partition, number, head, slot.url))
            number, head = number - 1, new[-1].previous
        return [*known[:number], *reversed(new)]

    def _read_manifest(self, partition: int, number: int, head: str, url: str) -> Manifest:
        """The manifest with this number and hash. url: where the server says the archive is. Raises
        ArchiveDamaged.
        """
        name = f"{segment_name(number, head)}.json"
        where, file = (
            f"segment {number} of {self.stream.name}/{partition}",
            f"{self.url}/{self.folder(partition)}/{name}",
        )
        try:
            found = manifests.decode(self.store.read(f"{self.folder(partition)}/{name}"))
        except FileNotFoundError as error:
            elsewhere = "" if url == self.url else f" (the server says that the archive is at {url})"
            raise ArchiveDamaged(where, file, f"the file is missing{elsewhere}") from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ArchiveDamaged(where, file, f"it is no manifest ({error})") from error
        if manifests.hash_of(found) != head or (found.stream, found.partition, found.number) != (
            self.stream.name,
            partition,
            number,
        ):
            raise ArchiveDamaged(where, file, "its content is not what its hash stands for")
        return found

    def file_of(self, manifest: Manifest) -> pq.ParquetFile:
        """The segment's Parquet file, compared with its hash and opened. Raises ArchiveDamaged."""
        path = f"{self.folder(manifest.partition)}/{manifest.name}.parquet"
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
        path = f"{self.folder(manifest.partition)}/{manifest.name}.parquet"
        try:
            content = self.store.read(path)
        except FileNotFoundError as error:
            raise ArchiveDamaged(manifest.where, f"{self.url}/{path}", "the file is missing") from error
        if (found := sha256(content).hexdigest()) != manifest.file_sha256:
            reason = f"its SHA-256 is {found}, its manifest says {manifest.file_sha256}"
            raise ArchiveDamaged(manifest.where, f"{self.url}/{path}", reason)
        return content

    def close(self) -> None:
        """Close the files that are open."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _read(
        self, manifest: Manifest, group: int, positions: list[str] | None = None
    ) -> tuple[list[RawEntry], frozenset[bytes], bool]:
        """A row group's entries, or those at these positions of it; which are duplicates; whether all
        checksums are right.
        """
        file = self.file_of(manifest)
        try:
            if file.metadata.num_rows != manifest.entries:
                raise ValueError(
                    f"it has {file.metadata.num_rows} entries, its manifest says {manifest.entries}"
                )
            table = file.read_row_group(group, columns=list(NEEDED), use_threads=False)
            if positions is not None:
                table = table.filter(
                    pc.is_in(
                        table["position"],
                        texts_of([position.encode() for position in positions], pa.string()),
                    )
                )
            return *entries_of(table), table[
                "raw"
            ].null_count == table.num_rows  # what is damaged is kept raw
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
        file = f"{self.url}/{self.folder(manifest.partition)}/{manifest.name}.parquet"
        return (
            error
            if isinstance(error, ArchiveDamaged)
            else ArchiveDamaged(manifest.where, file, str(error) or type(error).__name__)
        )


def _groups(manifest: Manifest, low: Pair, high: Pair) -> Iterator[int]:
    """The row groups that may hold entries after `low`, up to `high`."""
    step = manifest.group_entries // manifest.block_entries
    firsts = [as_pair(block.first) for block in manifest.blocks[::step]]
    for group, first in enumerate(firsts):
        if first > high:
            return
        if group + 1 == len(firsts) or firsts[group + 1] > low:
            yield group


def _by_group(manifest: Manifest, wanted: list[str], pairs: Sequence[Pair]) -> dict[int, list[str]]:
    """Row group -> which of these positions it would hold."""
    if not wanted:
        return {}
    step = manifest.group_entries // manifest.block_entries
    firsts = [as_pair(block.first) for block in manifest.blocks[::step]]
    found: dict[int, list[str]] = {}
    for position, pair in zip(wanted, pairs, strict=True):
        found.setdefault(bisect_right(firsts, pair) - 1, []).append(position)
    return found


def _bounded(raw: list[RawEntry], low: Pair, high: Pair) -> list[RawEntry]:
    """The entries after `low`, up to `high`."""
    if raw and _pair(raw[0]) <= low:
        raw = raw[bisect_right(raw, low, key=_pair) :]
    if raw and _pair(raw[-1]) > high:
        raw = raw[: bisect_right(raw, high, key=_pair)]
    return raw


def _cut(
    raw: list[RawEntry], duplicates: frozenset[bytes], count: int, *, is_sound: bool = False
) -> Iterator[Span]:
    for start in range(0, len(raw), count):
        part = raw[start : start + count]
        marked = (
            frozenset(position for position, _ in part if position in duplicates)
            if duplicates
            else duplicates
        )
        yield Span(part, marked, is_sound)


def _pair(entry: RawEntry) -> Pair:
    return as_pair(entry[0].decode())
