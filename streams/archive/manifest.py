"""
What is in a segment, and the chain: pure.

    entries -> blocks -> manifest -> its hash
        -> named by the next manifest, by the slot in Redis, by a LogArchived event

The hash is the SHA-256 of the manifest's JSON without its last two members, hash and signature, as msgspec
writes it (compact, in the order below). A block's is the SHA-256 of MessagePack [[[position, [field, value,
..]], ..], [index of a duplicate, ..]].
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from hashlib import sha256

import msgspec

from aurastream.streams import Position, RawEntry

BLOCK_ENTRIES = 250
GROUP_ENTRIES = 10_000  # rows of a row group; whole blocks
FORMAT = 1
SHIFT = 64  # a position as one number: milliseconds, then 64 bits of sequence


class Block(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive entries of a segment.

    positions: of all of them as numbers, XORed, so that a single missing one is known by name.
    """

    first: str
    entries: int
    positions: str
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One segment. number: from 1. entries_before: in the segments before it. previous: hash of the manifest
    before, "" of the first.

    duplicates: how many of the entries another one is canonical for. json_bytes: of the events. file_bytes,
    file_sha256: of the Parquet file. min_occurred_at, max_occurred_at: microseconds since 1970 of the events;
    None where it holds none.
    """

    format: int = FORMAT
    stream: str
    partition: int
    number: int
    first: str
    last: str
    entries: int
    entries_before: int
    duplicates: int
    json_bytes: int
    file_bytes: int
    file_sha256: str
    previous: str
    min_occurred_at: int | None
    max_occurred_at: int | None
    block_entries: int = BLOCK_ENTRIES
    group_entries: int = GROUP_ENTRIES
    blocks: list[Block]
    hash: str = ""
    signature: str = ""

    @property
    def name(self) -> str:
        """Of its files, without the ending."""
        return segment_name(self.number, self.hash)

    @property
    def where(self) -> str:
        """For sentences."""
        return f"segment {self.number} of {self.stream}/{self.partition}"

    @property
    def range(self) -> tuple[Position, Position]:
        """Of its first and its last entry."""
        return Position.parse(self.first), Position.parse(self.last)

    @property
    def entries_through(self) -> int:
        """How many entries the archive has with this segment as its last."""
        return self.entries_before + self.entries

    def group_firsts(self) -> list[Position]:
        """The position of each row group's first entry."""
        return [
            Position.parse(block.first) for block in self.blocks[:: self.group_entries // self.block_entries]
        ]


def segment_name(number: int, head: str) -> str:
    """The name of the files of the manifest with this hash."""
    return f"{number:08d}-{head[:16]}"


def canonical(manifest: Manifest) -> bytes:
    """What is hashed."""
    content = msgspec.to_builtins(manifest)
    del content["hash"], content["signature"]
    return msgspec.json.encode(content)


def hash_of(manifest: Manifest) -> str:
    """The SHA-256 of its content."""
    return sha256(canonical(manifest)).hexdigest()


def encode(manifest: Manifest) -> bytes:
    """As it is stored."""
    return msgspec.json.encode(manifest)


def decode(content: bytes) -> Manifest:
    """From what is stored. Raises msgspec.MsgspecError, UnicodeDecodeError."""
    return msgspec.json.decode(content, type=Manifest)


def blocks_of(raw: list[RawEntry], duplicates: Collection[bytes]) -> Iterator[Block]:
    """The blocks of a segment's entries."""
    for start in range(0, len(raw), BLOCK_ENTRIES):
        yield block_of(raw[start : start + BLOCK_ENTRIES], duplicates)


def block_of(part: list[RawEntry], duplicates: Collection[bytes]) -> Block:
    """One block."""
    positions = mixed(position for position, _ in part)
    return Block(
        part[0][0].decode(), len(part), f"{positions:x}", digest_of(part, marks_of(part, duplicates))
    )


def marks_of(part: list[RawEntry], duplicates: Collection[bytes]) -> list[int]:
    """Which entries of a block are duplicates, by their index."""
    return [index for index, (position, _) in enumerate(part) if position in duplicates] if duplicates else []


def digest_of(part: list[RawEntry], marks: list[int]) -> str:
    """The SHA-256 of a block's entries and marks."""
    return sha256(msgspec.msgpack.encode((part, marks))).hexdigest()


def mixed(positions: Iterable[bytes]) -> int:
    """All positions as one number: each as a number of 128 bits, XORed."""
    ms = seq = 0
    for position in positions:
        left, _, right = position.partition(b"-")
        ms ^= int(left)
        seq ^= int(right)
    return ms << SHIFT | seq


def position_of(number: int) -> Position:
    """The position a number stands for."""
    return Position(number >> SHIFT, number & (1 << SHIFT) - 1)
