"""
What is in a segment, and the chain: pure.

    entries -> blocks -> manifest -> its hash -> named by the next manifest, by the slot in Redis and by a
        LogArchived event

The hash is the SHA-256 of the manifest's JSON without its last two members, hash and signature, as msgspec
writes it (compact, in the order below). A block's is the SHA-256 of MessagePack [[[position, [field, value,
..]], ..], [index of a duplicate, ..]]. The signature is ed25519 over the 32 bytes of the hash.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import reduce
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from aurastream.streams import RawEntry, StreamError, as_pair

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

BLOCK_ENTRIES = 250
GROUP_ENTRIES = 10_000  # rows of a row group; whole blocks
FORMAT = 1
SHIFT = 64  # a position as one number: milliseconds, then 64 bits of sequence


class Block(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive entries of a segment. positions: of all of them as numbers, XORed, so that a single missing
    one is known by name.
    """

    first: str
    entries: int
    positions: str
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One segment. number: from 1. entries_before: in the segments before it. previous: hash of the manifest
    before, "" of the first.

    duplicates: how many of the entries another one is canonical for. json_bytes: of the events. file_bytes,
    file_sha256: of the Parquet
    file. min_occurred_at, max_occurred_at: microseconds since 1970 of the events; None where it holds none.
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
    marked = (
        [index for index, (position, _) in enumerate(part) if position in duplicates] if duplicates else []
    )
    digest = sha256(msgspec.msgpack.encode((part, marked))).hexdigest()
    return Block(part[0][0].decode(), len(part), xor_of([position for position, _ in part]), digest)


def xor_of(positions: list[bytes]) -> str:
    """All positions as one number, in hexadecimal."""
    return f"{reduce(lambda mixed, position: mixed ^ number_of(position.decode()), positions, 0):x}"


def number_of(position: str) -> int:
    """A position as one number."""
    milliseconds, sequence = as_pair(position)
    return milliseconds << SHIFT | sequence


def just_before(position: str) -> str:
    """The position before it: to read on from, so that it is read too."""
    milliseconds, sequence = as_pair(position)
    if sequence:
        return f"{milliseconds}-{sequence - 1}"
    return f"{milliseconds - 1}-{(1 << SHIFT) - 1}" if milliseconds else "0-0"


def position_of(number: int) -> str:
    """The position a number stands for."""
    return f"{number >> SHIFT}-{number & (1 << SHIFT) - 1}"


def sign(manifest: Manifest, key: Ed25519PrivateKey) -> Manifest:
    """The same with its signature."""
    return msgspec.structs.replace(manifest, signature=key.sign(bytes.fromhex(manifest.hash)).hex())


def is_signed_by(manifest: Manifest, key: Ed25519PublicKey) -> bool:
    """Whether the signature is this key's, and of this hash."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(bytes.fromhex(manifest.signature), bytes.fromhex(manifest.hash))
    except (InvalidSignature, ValueError):
        return False
    return True


def signing_key(path: str) -> Ed25519PrivateKey:
    """From a PEM file without a password. Raises StreamError where it is none."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(Path(path).read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise StreamError(_unfit("AURASTREAM_ARCHIVE_SIGNING_KEY", path, str(error))) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StreamError(_unfit("AURASTREAM_ARCHIVE_SIGNING_KEY", path, "it is a key of another kind"))
    return key


def verify_key(path: str) -> Ed25519PublicKey:
    """From a PEM file. Raises StreamError where it is none."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise StreamError(_unfit("AURASTREAM_ARCHIVE_VERIFY_KEY", path, str(error))) from error
    if not isinstance(key, Ed25519PublicKey):
        raise StreamError(_unfit("AURASTREAM_ARCHIVE_VERIFY_KEY", path, "it is a key of another kind"))
    return key


def _unfit(setting: str, path: str, reason: str) -> str:
    return f"{setting}={path} is no ed25519 key in PEM ({reason}). Make one with `openssl genpkey -algorithm ed25519`."
