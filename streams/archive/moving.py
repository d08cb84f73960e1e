"""
Moving an archive: the files are copied by whoever moves them, then the slot names the new place.
"""

from __future__ import annotations

from enum import IntEnum

from aurastream.streams import ArchiveRefused, Script
from aurastream.streams.archive.reading import StreamArchive

_MOVE = Script(__file__, "move.lua")


class MoveAnswer(IntEnum):
    """What move.lua says."""

    STALE = 0
    OK = 1


def move(archive: StreamArchive, partition: int) -> int:
    """Let the slot name the archive's url, once all the partition's segments are there; how many they are.

    Raises ArchiveDamaged where one is missing or changed; ArchiveRefused where one was closed meanwhile.
    """
    chain = archive.segments(partition)
    if not chain:
        return 0
    for manifest in chain:
        archive.check_file(manifest)
    _rename(archive, partition, chain[-1].hash)
    return len(chain)


def _rename(archive: StreamArchive, partition: int, head: str) -> None:
    """The slot names the archive's url from now on, if the newest segment is still that of this hash."""
    stream = archive.stream
    call = _MOVE.call((stream.keys[partition].archive,), (head, archive.url))
    code = MoveAnswer(stream.ask(partition, call, what=f"moving the archive of {stream.name}/{partition}")[0])
    if code is MoveAnswer.STALE:
        raise ArchiveRefused(
            f"a segment of {stream.name}/{partition} was closed meanwhile. Copy what is new and repeat the "
            "command."
        )
