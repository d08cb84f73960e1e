"""
The manifests of a stream's archive: from the slot's head back, each by the hash that the one after it names.

Always true: only what the slot leads to is read. Manifests are kept once read, as a chain only grows. One
that is missing or is not what was written is an ArchiveDamaged, never a gap.
"""

from __future__ import annotations

import msgspec

from aurastream.streams import ArchiveDamaged, Stream
from aurastream.streams.archive import manifest as manifests
from aurastream.streams.archive.manifest import Manifest, segment_name
from aurastream.streams.archive.slot import Slot
from aurastream.streams.archive.store import Store


def folder_of(stream: Stream, partition: int) -> str:
    """The partition's files, below the archive's url."""
    return f"{stream.name}/{partition:04d}"


class Chains:
    """The chains of one stream's partitions."""

    def __init__(self, stream: Stream, store: Store) -> None:
        self._stream, self._store = stream, store
        self._known: dict[int, list[Manifest]] = {}

    def until(self, partition: int, slot: Slot) -> list[Manifest]:
        """The chain up to the slot's head, the oldest first. Raises ArchiveDamaged."""
        known = self._known.get(partition, [])
        if slot.number and (not known or known[-1].hash != slot.head):
            known = self._known[partition] = self._extended(partition, slot, known)
        return known[: slot.number] if slot.number else []

    def _extended(self, partition: int, slot: Slot, known: list[Manifest]) -> list[Manifest]:
        """The manifests from the slot's head back to one that is known, or to the first."""
        heads = {manifest.hash for manifest in known}
        new: list[Manifest] = []
        number, head = slot.number, slot.head
        while number and head not in heads:
            new.append(self._read(partition, number, head, slot.url))
            number, head = number - 1, new[-1].previous
        return [*known[:number], *reversed(new)]

    def _read(self, partition: int, number: int, head: str, url: str) -> Manifest:
        """The manifest with this number and hash. url: where the server says the archive is."""
        path = f"{folder_of(self._stream, partition)}/{segment_name(number, head)}.json"
        where, file = f"segment {number} of {self._stream.name}/{partition}", f"{self._store.url}/{path}"
        try:
            manifest = manifests.decode(self._store.read(path))
        except FileNotFoundError as error:
            elsewhere = "" if url == self._store.url else f" (the server says that the archive is at {url})"
            raise ArchiveDamaged(where, file, f"the file is missing{elsewhere}") from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ArchiveDamaged(where, file, f"it is no manifest ({error})") from error
        place = (manifest.stream, manifest.partition, manifest.number)
        if manifests.hash_of(manifest) != head or place != (self._stream.name, partition, number):
            raise ArchiveDamaged(where, file, "its content is not what its hash stands for")
        return manifest
