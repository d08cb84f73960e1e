"""
What differs between a segment's file and its manifest, as exactly as can be told.

    file hash right, blocks right -> nothing
    a row group that cannot be decoded -> its first and last position, and of a column that no entry needs
        that one
    a block with a wrong hash -> by count and the XOR of positions: the entry that is missing, or was added
                              -> by order: the entry that was moved       -> by its own checksum: the entry
                                  that was changed
                              -> by the live log, where it still has it   -> by trying: two that were
                                  exchanged, a mark that was changed
                              -> else the block's first and last position
    all blocks right, the file's hash wrong -> the column that is not what its entries make it
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from hashlib import sha256
from itertools import combinations

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from aurastream.streams import DamagedEntry, RawEntry, as_pair, entry_json
from aurastream.streams.archive import manifest as manifests
from aurastream.streams.archive.manifest import Block, Manifest, block_of
from aurastream.streams.archive.reading import UNREADABLE, StreamArchive
from aurastream.streams.archive.segment import NEEDED, SCHEMA, entries_of, identify, table_of

POSITION = re.compile(rb"\d{1,20}-\d{1,20}")
TRIED_MAX = 3  # blocks of a segment whose entries are exchanged by trial: each takes a second or two


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it was written. position, until: of the first and the last entry it may be;
    equal where it is certain.

    segment: 0 for the live log.
    """

    stream: str
    partition: int
    position: str
    until: str
    segment: int
    problem: str


def findings_of(
    archive: StreamArchive, manifest: Manifest, live: dict[bytes, list[bytes]]
) -> tuple[list[Finding], list[RawEntry] | None, int]:
    """What is wrong with a segment; its entries where they are intact; how many of them were damaged when
    they were archived.

    live: entries of it that the live log still has: they tell which ones of a changed block were changed.
    """
    path = f"{archive.folder(manifest.partition)}/{manifest.name}.parquet"
    try:
        content = archive.store.read(path)
    except FileNotFoundError:
        problem = f"the file of segment {manifest.number}, {path}, is missing"
        return [_finding(manifest, problem, manifest.first, manifest.last)], None, 0
    return _Segment(manifest, path, content, live).check()


def _finding(manifest: Manifest, problem: str, position: str, until: str = "") -> Finding:
    return Finding(manifest.stream, manifest.partition, position, until or position, manifest.number, problem)


class _Segment:
    def __init__(self, manifest: Manifest, path: str, content: bytes, live: dict[bytes, list[bytes]]) -> None:
        self.manifest, self.path, self.content, self.live = manifest, path, content, live
        self.findings: list[Finding] = []
        self.tried = 0

    def check(self) -> tuple[list[Finding], list[RawEntry] | None, int]:
        is_same = sha256(self.content).hexdigest() == self.manifest.file_sha256
        tables = self._tables()
        if tables is None:
            return self.findings, None, 0
        raw: list[RawEntry] = []
        duplicates: set[bytes] = set()
        lost: list[tuple[str, str]] = []  # ranges of positions that nothing can be said of
        damaged = 0
        for group, table in enumerate(tables):
            read = self._entries(table)
            if read is None:
                lost.append(self._range(group))
                self._find(
                    f"rows {group * self.manifest.group_entries + 1:,} and on of {self.path} cannot be "
                    "decoded",
                    *lost[-1],
                )
                continue
            raw += [
                entry for entry in read[0] if POSITION.fullmatch(entry[0])
            ]  # of a garbled one its block knows that it is missing
            duplicates |= read[1]
            damaged += sum(1 for _, fields in read[0] if not _is_sound(fields))
        self._blocks(raw, duplicates, lost)
        if not is_same and not self.findings:
            try:
                self._columns(tables, raw, duplicates)
            except (*UNREADABLE, TypeError, OverflowError) as error:
                self._find(
                    f"a column of {self.path} cannot be decoded ({_told(error)})",
                    self.manifest.first,
                    self.manifest.last,
                )
        return self.findings, None if self.findings else raw, damaged

    def _find(self, problem: str, position: str, until: str = "") -> None:
        self.findings.append(_finding(self.manifest, problem, position, until))

    def _tables(self) -> list[pa.Table | None] | None:
        """The row groups; None in the place of one that cannot be read; None for all where the file is no
        Parquet file.
        """
        try:
            with pq.ParquetFile(pa.BufferReader(self.content)) as file:
                return [self._group(file, group) for group in range(file.metadata.num_row_groups)]
        except UNREADABLE as error:
            self._find(
                f"{self.path} is no Parquet file any more ({_told(error)})",
                self.manifest.first,
                self.manifest.last,
            )
            return None

    def _group(self, file: pq.ParquetFile, group: int) -> pa.Table | None:
        """A row group, or what of its columns makes the entries; None where neither can be read."""
        whole, needed = _columns_of(file, group, SCHEMA.names), None
        if whole is None and (needed := _columns_of(file, group, list(NEEDED))) is not None:
            broken = [
                name
                for name in SCHEMA.names
                if name not in NEEDED and _columns_of(file, group, [name]) is None
            ]
            self._find(
                f"the column {', '.join(broken) or 'layout'} of {self.path} cannot be decoded",
                *self._range(group),
            )
        return needed if whole is None else whole

    @staticmethod
    def _entries(table: pa.Table | None) -> tuple[list[RawEntry], frozenset[bytes]] | None:
        if table is None:
            return None
        try:
            return entries_of(table)
        except (*UNREADABLE, TypeError, IndexError):
            return None

    def _range(self, group: int) -> tuple[str, str]:
        """First position of a row group, and the first of the next, or the segment's last."""
        step = self.manifest.group_entries // self.manifest.block_entries
        firsts = [block.first for block in self.manifest.blocks[::step]]
        first = firsts[min(group, len(firsts) - 1)]
        return first, firsts[group + 1] if group + 1 < len(firsts) else self.manifest.last

    def _blocks(
        self, raw: list[RawEntry], duplicates: Collection[bytes], lost: list[tuple[str, str]]
    ) -> None:
        """Each block against its hash, its entries found by position."""
        starts = [as_pair(block.first) for block in self.manifest.blocks]
        parts: list[list[RawEntry]] = [[] for _ in starts]
        place = 0
        for entry in raw:
            pair = as_pair(entry[0].decode())
            while place + 1 < len(starts) and pair >= starts[place + 1]:
                place += 1
            while place and pair < starts[place]:
                place -= 1
            parts[place].append(entry)
        for number, (block, part) in enumerate(zip(self.manifest.blocks, parts, strict=True)):
            until = self.manifest.blocks[number + 1].first if number + 1 < len(starts) else self.manifest.last
            if any(as_pair(low) <= as_pair(block.first) <= as_pair(high) for low, high in lost) and not part:
                continue  # named as undecodable
            if not part or block_of(part, duplicates) != block:
                for problem, position, end in self._told(block, part, duplicates, until):
                    self._find(problem, position, end)

    def _told(
        self, block: Block, part: list[RawEntry], duplicates: Collection[bytes], until: str
    ) -> Iterator[tuple[str, str, str]]:
        """What is wrong with a block: problem, position, last position."""
        pairs = [as_pair(position.decode()) for position, _ in part]
        unordered = [index for index in range(1, len(pairs)) if pairs[index] <= pairs[index - 1]]
        changed = list(self._changed(part))
        mixed = (
            manifests.number_of("0-0")
            if not part
            else int(manifests.xor_of([position for position, _ in part]), 16)
        )
        odd = manifests.position_of(int(block.positions, 16) ^ mixed)
        if len(part) == block.entries - 1:
            yield "the entry is missing, or its position was changed", odd, ""
        elif len(part) == block.entries + 1:
            yield "the entry was added, or its position was changed", odd, ""
        elif len(part) != block.entries:
            yield f"there are {len(part)} entries where {block.entries} were written", block.first, until
        elif unordered:
            index = unordered[0]
            yield (
                "the entry was moved: its position is before that of the entry before it",
                _text(part[index]),
                _text(part[index - 1]),
            )
        elif changed:
            for position, reason in changed:
                yield f"the entry was changed: {reason}", position, ""
        elif (pair := self._exchanged(block, part, duplicates)) is not None:
            yield f"the contents of the entries {pair[0]} and {pair[1]} were exchanged", pair[0], pair[1]
        elif (marked := self._mark(block, part, duplicates)) is not None:
            yield "the mark whether the entry is a duplicate was changed", marked, ""
        else:
            yield f"an entry of these {block.entries} was changed", block.first, until

    def _changed(self, part: list[RawEntry]) -> Iterator[tuple[str, str]]:
        """Entries that are not those of the live log, or whose checksum does not hold though they were
        archived as sound.
        """
        for position, fields in part:
            if position in self.live and self.live[position] != fields:
                yield position.decode(), "the live log has another"
            elif position not in self.live and not _is_sound(fields) and _is_plain(fields):
                yield position.decode(), "its checksum does not hold"

    def _exchanged(
        self, block: Block, part: list[RawEntry], duplicates: Collection[bytes]
    ) -> tuple[str, str] | None:
        if self.tried == TRIED_MAX:
            return None
        self.tried += 1
        for one, other in combinations(range(len(part)), 2):
            tried = list(part)
            tried[one], tried[other] = (part[one][0], part[other][1]), (part[other][0], part[one][1])
            if block_of(tried, duplicates).sha256 == block.sha256:
                return _text(part[one]), _text(part[other])
        return None

    @staticmethod
    def _mark(block: Block, part: list[RawEntry], duplicates: Collection[bytes]) -> str | None:
        marked = frozenset(duplicates)
        return next(
            (_text(entry) for entry in part if block_of(part, marked ^ {entry[0]}).sha256 == block.sha256),
            None,
        )

    def _columns(
        self, tables: list[pa.Table | None], raw: list[RawEntry], duplicates: Collection[bytes]
    ) -> None:
        """All entries are intact: which column is not what they make it."""
        stored = pa.concat_tables([table for table in tables if table is not None]).select(SCHEMA.names)
        made = table_of(identify(raw), duplicates)
        for name in SCHEMA.names:
            pairs = zip(stored[name].to_pylist(), made[name].to_pylist(), strict=True)
            for (position, _), (held, due) in zip(raw, pairs, strict=True):
                if held != due:
                    self._find(f"the column {name} was changed", position.decode())
                    return
        self._find(
            f"{self.path} is not the file that was written, though all its entries are",
            self.manifest.first,
            self.manifest.last,
        )


def _columns_of(file: pq.ParquetFile, group: int, names: list[str]) -> pa.Table | None:
    try:
        table = file.read_row_group(group, columns=names, use_threads=False)
    except UNREADABLE:
        return None
    return (
        table if set(names) <= set(table.column_names) else None
    )  # a column that is not there is left out without a word


def _is_plain(fields: list[bytes]) -> bool:
    return len(fields) == 4 and fields[0] == b"event" and fields[2] == b"crc32"


def _is_sound(fields: list[bytes]) -> bool:
    try:
        return entry_json("", fields) is not None
    except DamagedEntry:
        return False


def _text(entry: RawEntry) -> str:
    return entry[0].decode()


def _told(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
