"""
Is the archive what was written, and does the live log go on from it?

    slot, audit trail -> manifests, each by the hash the next one names (links.py) -> files (tampering.py)
        -> the live log (live.py)

Always true: nothing is believed that can be computed. What is wrong is a Finding with partition and position:
of an entry where one can be told, else of the first and last entry it may be. An entry that was damaged
before it was archived is counted, not complained of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from aurastream.streams import (
    ArchiveDamaged,
    ArchiveNeeded,
    ArchiveRefused,
    DamagedEntry,
    History,
    LogArchived,
    Position,
    RawEntry,
    SegmentSetAside,
    Stream,
    entry_json,
)
from aurastream.streams.archive.finding import Finding, finding_in
from aurastream.streams.archive.links import Links
from aurastream.streams.archive.live import LiveLog, live_entries, overlap
from aurastream.streams.archive.manifest import Manifest
from aurastream.streams.archive.reading import StreamArchive
from aurastream.streams.archive.signing import is_signed_by
from aurastream.streams.archive.slot import slot_of
from aurastream.streams.archive.tampering import examine

if TYPE_CHECKING:  # who signs nothing does not wait for it
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Audited = dict[
    tuple[str, int], dict[int, LogArchived]
]  # (stream, partition) -> number -> the segment's event


class Verified(msgspec.Struct, frozen=True):
    """One partition.

    archived: entries of its segments; live: of the log; both: of the two, compared; damaged: known when
    archived.
    """

    stream: str
    partition: int
    segments: int
    archived: int
    live: int
    both: int
    damaged: int
    findings: list[Finding]


def audited_by(operations: History) -> Audited:
    """What the audit trail says of archived segments, without those that were set aside (ahead.py)."""
    archived: list[LogArchived] = []
    aside: set[tuple[str, int, str]] = set()
    stream = operations.stream
    for partition in range(stream.partitions):
        for position, fields in _entries(operations, partition):
            event = _readable(stream, partition, position, fields)
            if isinstance(event, LogArchived):
                archived.append(event)
            elif isinstance(event, SegmentSetAside):
                aside.add((event.subject, event.partition, event.head))
    audited: Audited = {}
    for event in archived:
        place = (event.subject, event.partition)
        if (*place, event.head) not in aside:
            audited.setdefault(place, {})[event.number] = event
    return audited


def _entries(operations: History, partition: int) -> Iterator[RawEntry]:
    """All of a partition; where its own archive is damaged, which its own verification says, what is before
    that, and the live log.
    """
    try:
        for span in operations.spans(partition):
            yield from span.raw
    except (ArchiveDamaged, ArchiveNeeded, ArchiveRefused):
        after = "0-0"
        while part := operations.stream.read_raw(partition, after):
            yield from part
            after = part[-1][0].decode()


def _readable(stream: Stream, partition: int, position: bytes, fields: list[bytes]) -> object:
    where = f"{stream.name}/{partition}/{position.decode()}"
    try:
        return stream.codec.decode(entry_json(where, fields), where)
    except DamagedEntry:
        return None


def verify_partition(
    stream: Stream,
    partition: int,
    archive: StreamArchive | None,
    audited: Audited,
    key: Ed25519PublicKey | None = None,
) -> Verified:
    """Check one partition's archive and live log.

    archive: None where it is not at hand. key: the newest must be signed by it.
    """
    slot = slot_of(stream, partition)
    findings: list[Finding] = []
    chain: dict[int, Manifest] = {}
    both = damaged = 0
    if archive is not None:
        links = Links(archive, partition, slot, audited.get((stream.name, partition), {}))
        chain = links.chain()
        findings += [*links.findings, *links.disagreements(chain), *_signatures(chain, key)]
        for _, manifest in sorted(chain.items()):
            live = live_entries(stream, manifest)
            examined = examine(archive, manifest, live)
            findings += examined.findings
            damaged += examined.damaged
            if examined.raw is not None:
                both += len(live)
                findings += overlap(stream, manifest, examined.raw, live)
    elif slot.number:
        problem = (
            f"archived up to {slot.position} at {slot.url}, which was not checked: set AURASTREAM_ARCHIVE"
        )
        findings.append(Finding(stream.name, partition, "", slot.position, 0, problem))
    log = LiveLog(stream, partition, slot)
    findings += log.check()
    findings.sort(key=lambda item: Position.parse(item.position))
    archived = sum(manifest.entries for manifest in chain.values())
    return Verified(stream.name, partition, len(chain), archived, log.entries, both, damaged, findings)


def _signatures(chain: dict[int, Manifest], key: Ed25519PublicKey | None) -> Iterator[Finding]:
    """The newest must be signed, as that vouches for all before it; no other may be signed wrongly."""
    if key is None:
        return
    for number, manifest in sorted(chain.items()):
        if manifest.signature and not is_signed_by(manifest, key):
            problem = f"segment {number} is signed by another key, or its signature was changed"
            yield finding_in(manifest, problem)
        elif not manifest.signature and number == max(chain):
            yield finding_in(manifest, f"segment {number}, the newest, is not signed")
