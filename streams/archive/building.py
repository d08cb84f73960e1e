"""
A segment in the making: entries of the log as a Parquet file, and the manifest that says what is in it.

    log after the slot's position -> up to so many entries and bytes -> Parquet, read back and compared
        -> manifest, signed
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from aurastream.streams import READ_MAX, InvariantBroken, RawEntry, Stream, microseconds
from aurastream.streams.archive.entries import is_written
from aurastream.streams.archive.manifest import Manifest, blocks_of, hash_of
from aurastream.streams.archive.segment import Identified, table_of, to_parquet
from aurastream.streams.archive.signing import sign
from aurastream.streams.archive.slot import Slot

if TYPE_CHECKING:  # who signs nothing does not wait for it
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SEGMENT_BYTES_MAX = (
    64 * 2**20
)  # of raw entries: bounds the memory of archiver and readers whatever the events weigh


def read_segment(stream: Stream, partition: int, after: str, until: str) -> list[RawEntry]:
    """The entries of the next segment: those after a position, up to another, of which one segment takes only
    so many.
    """
    raw: list[RawEntry] = []
    size = 0
    while (room := stream.settings.segment_events - len(raw)) > 0 and size < SEGMENT_BYTES_MAX:
        part = stream.read_raw(partition, after or "0-0", until, min(room, READ_MAX))
        if not part:
            break
        raw += part
        size += sum(len(value) for _, fields in part for value in fields)
        after = part[-1][0].decode()
    return raw


class Segment(msgspec.Struct, frozen=True):
    """One that is made, and not committed."""

    manifest: Manifest
    file: bytes
    checksum: bytes  # the last value of its last entry


class Builder:
    """Makes one partition's segments. key: signs them, if there is one."""

    def __init__(self, stream: Stream, partition: int, key: Ed25519PrivateKey | None) -> None:
        self._stream, self._partition, self._key = stream, partition, key

    def build(self, slot: Slot, entries: Identified, duplicates: frozenset[bytes]) -> Segment:
        """The segment after the slot. Raises InvariantBroken where its entries do not come back from it."""
        raw = entries.raw
        file = to_parquet(table_of(entries, duplicates))
        if not is_written(file, raw, duplicates):
            raise InvariantBroken(
                f"entries of {self._stream.name}/{self._partition} from {raw[0][0].decode()} on do not come "
                "back from their columns as they were. Nothing was archived; keep the log and report it."
            )
        manifest = self._manifest(slot, entries, duplicates, file)
        manifest = msgspec.structs.replace(manifest, hash=hash_of(manifest))
        if self._key is not None:
            manifest = sign(manifest, self._key)
        last = raw[-1][1]
        return Segment(manifest, file, last[-1] if last else b"")

    def _manifest(
        self, slot: Slot, entries: Identified, duplicates: frozenset[bytes], file: bytes
    ) -> Manifest:
        raw = entries.raw
        times = [microseconds(item.occurred_at) for item in entries.envelopes if item is not None]
        return Manifest(
            stream=self._stream.name,
            partition=self._partition,
            number=slot.number + 1,
            first=raw[0][0].decode(),
            last=raw[-1][0].decode(),
            entries=len(raw),
            entries_before=slot.entries,
            duplicates=len(duplicates),
            json_bytes=sum(len(json) for json in entries.jsons if json is not None),
            file_bytes=len(file),
            file_sha256=sha256(file).hexdigest(),
            previous=slot.head,
            min_occurred_at=min(times, default=None),
            max_occurred_at=max(times, default=None),
            blocks=list(blocks_of(raw, duplicates)),
        )
