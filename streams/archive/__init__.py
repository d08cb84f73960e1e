"""
The archive: a partition's closed segments as Parquet files, chained by hash.

    log -> archiver.py: decide duplicates -> building.py: Parquet and manifest -> store.py: files
        -> archive.lua: the slot says so
    slot -> chain.py: manifests from its head back
        -> reading.py: spans, entries, scans        verify.py: is all of it true?
    files that the slot does not lead to -> orphans.py; ahead.py where the log lacks what they have

    <AURASTREAM_ARCHIVE>/<stream>/<partition>/<number>-<hash>.parquet    entries, readable as they are by
        DuckDB and pandas
                                             /<number>-<hash>.json       manifest: what is in it, and the
                                                 hash of the one before
                                             /checkpoints/..             other files of the partition; no
                                                 part of the chain
                                             /_aside/..                  segments that were set aside
                                             (ahead.py)

Always true: what the slot names is complete in the archive, byte for byte, each entry once; nothing in the
archive is overwritten, as a name holds the hash of its content; files the slot does not lead to are as good
as absent.

The face is light: pyarrow, fsspec and cryptography are imported by the modules that use them, and those when
a name is first used.

Decision (2026-11): the columns leave nothing of an entry out and say nothing twice: the JSON's usual
beginning is made again from type, event_id and subject, the rest is one column of JSON; an entry for which
that does not give the same bytes is kept as it was. Measured on 549,296 real observations in four partitions,
personal fields sealed: 17.0 bytes an event, raw JSON 440 (4 of the 17 are the checksum); in one partition 35,
as a row group then holds fewer looks at the same clip. Incremental encoding of positions, IDs and JSON,
zstd's level 3, a column of a row group in one page; refused, on 200,000 of them in the clear (24 bytes of
298): plain encoding (32), dictionaries for all columns (38), level 9 (27, for 3 times the time); pages of 1
MB, which end zstd's memory (70 of the 35); a column per field of the event (what a type's fields are changes;
JSON reads anywhere). Row groups of 10,000: 3 ms to read one for a single entry; of 20,000: a third smaller in
one partition, and twice that time.
Decision (2026-11): hashes of blocks of 250 entries in the manifest, 0.4 bytes an event, so that what was
changed is named within 250 entries where nothing else names it. Refused: a hash an entry (8 bytes of 24), one
for a segment (names nothing).
Decision (2026-11): the slot in Redis, not the newest file, says how far the archive goes: it moves by
compare-and-set, with the log.
Decision (2026-11): a reader compares a file's hash before it reads anything of it, 0.02 us an event of the
1.2 that reading takes, so that a disk's or a person's change is an error and never another number; whole
files are read for that, 17 bytes an event. Refused: range reads with the pages' checksums, which leave
footers and page headers unproved (in 185,000 flips of a bit 29 other entries).
Decision (2026-11): an archiver reads back what it has made and compares before it writes (1 of its 9 us an
event): nobody can later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurastream.streams import History, Settings, Stream, late
from aurastream.streams.archive.where import Where

if TYPE_CHECKING:
    from aurastream.streams.archive.ahead import SegmentAhead, WhoAndWhy, segments_ahead, take_back
    from aurastream.streams.archive.archiver import Archiver
    from aurastream.streams.archive.manifest import Manifest
    from aurastream.streams.archive.moving import move
    from aurastream.streams.archive.reading import StreamArchive
    from aurastream.streams.archive.signing import verify_key
    from aurastream.streams.archive.verify import Verified, audited_by, verify_partition

__all__ = [
    "Archiver",
    "Manifest",
    "SegmentAhead",
    "StreamArchive",
    "Verified",
    "Where",
    "WhoAndWhy",
    "audited_by",
    "history_of",
    "move",
    "open_archive",
    "segments_ahead",
    "take_back",
    "verify_key",
    "verify_partition",
]

__getattr__ = late(
    __name__,
    {
        "Archiver": "archiver",
        "Manifest": "manifest",
        "SegmentAhead": "ahead",
        "StreamArchive": "reading",
        "Verified": "verify",
        "WhoAndWhy": "ahead",
        "audited_by": "verify",
        "move": "moving",
        "segments_ahead": "ahead",
        "take_back": "ahead",
        "verify_key": "signing",
        "verify_partition": "verify",
    },
)


def open_archive(settings: Settings, stream: Stream) -> StreamArchive | None:
    """The stream's archive where the settings name one; None where they do not.

    Touches neither files nor server.
    """
    if not settings.archive:
        return None
    from aurastream.streams.archive.reading import StreamArchive
    from aurastream.streams.archive.store import Store

    return StreamArchive(stream, Store(settings.archive, settings.archive_options))


def history_of(stream: Stream, settings: Settings | None = None) -> History:
    """The stream's past with the archive that the settings name (default: the stream's own settings)."""
    return History(stream, open_archive(settings or stream.settings, stream))
