"""
What differs between a segment's file and its manifest, as exactly as can be told.

    file hash right, blocks right -> nothing
    a row group that cannot be decoded
        -> its first and last position, and of a column that no entry needs that one
    a block with a wrong hash          -> which of its entries (blocks.py)
    all blocks right, the file's hash wrong -> the column that is not what its entries make it
"""

from __future__ import annotations

import re
from hashlib import sha256

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from aurastream.streams import Position, RawEntry
from aurastream.streams.archive.blocks import Blocks, Suspect, is_sound
from aurastream.streams.archive.entries import NEEDED, entries_of
from aurastream.streams.archive.finding import Finding, finding_in
from aurastream.streams.archive.manifest import Manifest
from aurastream.streams.archive.reading import UNREADABLE, StreamArchive
from aurastream.streams.archive.segment import SCHEMA, identify, table_of

POSITION = re.compile(rb"\d{1,20}-\d{1,20}")


class Examined(msgspec.Struct):
    """A segment after its examination.

    raw: its entries, only where they are intact. damaged: how many were so when archived.
    """

    findings: list[Finding]
    raw: list[RawEntry] | None = None
    damaged: int = 0


def examine(archive: StreamArchive, manifest: Manifest, live: dict[bytes, list[bytes]]) -> Examined:
    """What is wrong with a segment.

    live: entries of it that the live log still has: they show which ones of a block were changed.
    """
    path = archive.path_of(manifest)
    try:
        content = archive.store.read(path)
    except FileNotFoundError:
        return Examined([finding_in(manifest, f"the file of segment {manifest.number}, {path}, is missing")])
    return _Examination(manifest, path, content, live).run()


class _Examination:
    """One segment's. content: of its file."""

    def __init__(self, manifest: Manifest, path: str, content: bytes, live: dict[bytes, list[bytes]]) -> None:
        self.manifest, self.path, self.content, self.live = manifest, path, content, live
        self.findings: list[Finding] = []
        self.damaged = 0

    def run(self) -> Examined:
        tables = self._tables()
        if tables is None:
            return Examined(self.findings)
        suspect, lost = self._suspect(tables)
        blocks = Blocks(self.manifest, suspect, lost)
        self.findings += [finding_in(self.manifest, *clue) for clue in blocks.clues()]
        if not self.findings and sha256(self.content).hexdigest() != self.manifest.file_sha256:
            try:
                self._columns(tables, suspect)
            except (*UNREADABLE, TypeError, OverflowError) as error:
                self._find(f"a column of {self.path} cannot be decoded ({_first_line(error)})")
        return Examined(self.findings, None if self.findings else suspect.raw, self.damaged)

    def _undecodable(self, group: int) -> tuple[Position, Position]:
        """The row group's range, which is named as a finding."""
        lost = self._range(group)
        rows = group * self.manifest.group_entries + 1
        self._find(f"rows {rows:,} and on of {self.path} cannot be decoded", *map(str, lost))
        return lost

    def _suspect(self, tables: list[pa.Table | None]) -> tuple[Suspect, list[tuple[Position, Position]]]:
        """What could be read, and the ranges of positions that nothing can be said of."""
        raw: list[RawEntry] = []
        duplicates: set[bytes] = set()
        lost: list[tuple[Position, Position]] = []
        for group, table in enumerate(tables):
            read = _entries(table)
            if read is None:
                lost.append(self._undecodable(group))
                continue
            # Of a garbled position its block knows that the entry is missing.
            raw += [entry for entry in read[0] if POSITION.fullmatch(entry[0])]
            duplicates |= read[1]
            self.damaged += sum(1 for _, fields in read[0] if not is_sound(fields))
        return Suspect(raw, frozenset(duplicates), self.live), lost

    def _find(self, problem: str, position: str = "", until: str = "") -> None:
        self.findings.append(finding_in(self.manifest, problem, position, until))

    def _tables(self) -> list[pa.Table | None] | None:
        """The row groups; None in the place of one that cannot be read; None for all where the file is no
        Parquet file.
        """
        try:
            with pq.ParquetFile(pa.BufferReader(self.content)) as file:
                return [self._group(file, group) for group in range(file.metadata.num_row_groups)]
        except UNREADABLE as error:
            self._find(f"{self.path} is no Parquet file any more ({_first_line(error)})")
            return None

    def _group(self, file: pq.ParquetFile, group: int) -> pa.Table | None:
        """A row group, or what of its columns makes the entries; None where neither can be read."""
        whole = _columns_of(file, group, SCHEMA.names)
        if whole is not None:
            return whole
        needed = _columns_of(file, group, NEEDED)
        if needed is not None:
            others = [name for name in SCHEMA.names if name not in NEEDED]
            broken = [name for name in others if _columns_of(file, group, [name]) is None]
            column = ", ".join(broken) or "layout"
            self._find(f"the column {column} of {self.path} cannot be decoded", *map(str, self._range(group)))
        return needed

    def _range(self, group: int) -> tuple[Position, Position]:
        """First position of a row group, and the first of the next, or the segment's last."""
        firsts = self.manifest.group_firsts()
        first = firsts[min(group, len(firsts) - 1)]
        return first, firsts[group + 1] if group + 1 < len(firsts) else self.manifest.range[1]

    def _columns(self, tables: list[pa.Table | None], suspect: Suspect) -> None:
        """All entries are intact: which column is not what they make it."""
        stored = pa.concat_tables([table for table in tables if table is not None]).select(SCHEMA.names)
        made = table_of(identify(suspect.raw), suspect.duplicates)
        for name in SCHEMA.names:
            pairs = zip(stored[name].to_pylist(), made[name].to_pylist(), strict=True)
            for (position, _), (held, due) in zip(suspect.raw, pairs, strict=True):
                if held != due:
                    self._find(f"the column {name} was changed", position.decode())
                    return
        self._find(f"{self.path} is not the file that was written, though all its entries are")


def _entries(table: pa.Table | None) -> tuple[list[RawEntry], frozenset[bytes]] | None:
    if table is None:
        return None
    try:
        return entries_of(table)
    except (*UNREADABLE, TypeError, IndexError):
        return None


def _columns_of(file: pq.ParquetFile, group: int, names: list[str]) -> pa.Table | None:
    try:
        table = file.read_row_group(group, columns=names, use_threads=False)
    except UNREADABLE:
        return None
    return table if set(names) <= set(table.column_names) else None  # one that is absent is left out silently


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
