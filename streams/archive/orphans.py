"""
Files of the archive that the slot does not lead to: what a killed archiver, or one that was too late, has
left.

    numbered after the slot's segment    may be committed yet, by whoever made it: looked at, and left
    up to it                             never: the chain went on without it. Removed

So whoever reads all `*.parquet` of a folder reads each entry once. What may be somebody's only copy is never
removed.
"""

from __future__ import annotations

import re

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from aurastream.streams import ArchiveNeeded, ArchiveRefused, History
from aurastream.streams.archive import manifest as manifests
from aurastream.streams.archive.reading import UNREADABLE, StreamArchive
from aurastream.streams.archive.store import PART

ASIDE = "_aside"  # the folder of segments that were set aside (ahead.py); data-set readers pass over it
OURS = re.compile(rf"\.?(\d{{8,}})-([0-9a-f]{{16}})\.(json|parquet)(\.[0-9a-f]+\{PART})?")


def remove_orphans(archive: StreamArchive, partition: int) -> list[str]:
    """Remove those that can go; returns their names.

    Raises ArchiveRefused where one holds entries that neither archive nor log has.
    """
    orphans, chained = _orphans(archive, partition)
    for match in orphans:
        if not match[4] and _is_only_copy(archive, partition, match[0]):
            raise _ahead(archive, partition, match[0])
    gone = [match[0] for match in orphans if int(match[1]) <= chained]
    for name in gone:
        archive.store.delete(f"{archive.folder(partition)}/{name}")
    return gone


def orphans_ahead(archive: StreamArchive, partition: int) -> list[str]:
    """The segments, by the name of their files without the ending, that hold entries which neither archive
    nor log has; the oldest first.
    """
    return sorted(
        {
            f"{match[1]}-{match[2]}"
            for match in _orphans(archive, partition)[0]
            if not match[4] and not match[0].startswith(".") and _is_only_copy(archive, partition, match[0])
        }
    )


def _orphans(archive: StreamArchive, partition: int) -> tuple[list[re.Match[str]], int]:
    """The files of ours that the slot does not lead to, and how many segments it leads to."""
    chained = {manifest.name for manifest in archive.segments(partition)}
    names = archive.store.names(archive.folder(partition))
    ours = [match for name in names if (match := OURS.fullmatch(name)) is not None]
    return [match for match in ours if f"{match[1]}-{match[2]}" not in chained or match[4]], len(chained)


def _is_only_copy(archive: StreamArchive, partition: int, name: str) -> bool:
    ends = _ends(archive, partition, name)
    try:
        held = History(archive.stream, archive).entries(partition, ends)
    except ArchiveNeeded:
        held = {}
    return not ends or len(held) < len(set(ends))


def _ahead(archive: StreamArchive, partition: int, name: str) -> ArchiveRefused:
    return ArchiveRefused(
        f"{archive.url}/{archive.folder(partition)}/{name} is not among the segments that the server "
        "knows of, and holds entries that are not in its log: the server failed over to a replica that "
        "lagged, was restored from an older copy, or another one archives to the same place. Nothing was "
        f"archived or removed. `aurastream archive ahead --stream {archive.stream.name}` shows what the log "
        "lacks, and appends it again where you decide so. Of another server it is none of ours: give each an "
        "AURASTREAM_ARCHIVE of its own."
    )


def _ends(archive: StreamArchive, partition: int, name: str) -> list[str]:
    """The positions of a file's first and last entry; none where it is not what an archiver writes."""
    path = f"{archive.folder(partition)}/{name}"
    try:
        if name.endswith(".json"):
            manifest = manifests.decode(archive.store.read(path))
            return [manifest.first, manifest.last]
        with pq.ParquetFile(pa.BufferReader(archive.store.read(path))) as file:
            positions = file.read(columns=["position"])["position"]
            return [positions[0].as_py(), positions[-1].as_py()] if len(positions) else []
    except (*UNREADABLE, msgspec.MsgspecError):
        return []
