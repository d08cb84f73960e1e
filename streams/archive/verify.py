"""
Is the archive what was written, and does the live log go on from it?

    slot, audit trail -> manifests, each by the hash the next one names -> files (tampering.py) -> the live
        log (live.py)

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
    RawEntry,
    Stream,
    as_pair,
    entry_json,
)
from aurastream.streams.archive import manifest as manifests
from aurastream.streams.archive.live import live_entries, look_at_log, overlap
from aurastream.streams.archive.manifest import Manifest, just_before, segment_name
from aurastream.streams.archive.reading import Slot, StreamArchive
from aurastream.streams.archive.tampering import Finding, findings_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Told = dict[
    tuple[str, int], dict[int, LogArchived]
]  # (stream, partition) -> number -> what the audit trail says


class Verified(msgspec.Struct, frozen=True):
    """One partition. archived: entries of its segments; live: of the log; both: of the two, compared;
    damaged: known when archived.
    """

    stream: str
    partition: int
    segments: int
    archived: int
    live: int
    both: int
    damaged: int
    findings: list[Finding]


def told_by(operations: History) -> Told:
    """What the audit trail says of archived segments."""
    told: Told = {}
    stream = operations.stream
    for partition in range(stream.partitions):
        for position, fields in _entries(operations, partition):
            event = _readable(stream, partition, position, fields)
            if isinstance(event, LogArchived):
                told.setdefault((event.subject, event.partition), {})[event.number] = event
    return told


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
    told: Told,
    key: Ed25519PublicKey | None = None,
) -> Verified:
    """Check one partition's archive and live log."""
    return _Check(stream, partition, archive, told.get((stream.name, partition), {}), key).run()


class _Check:
    """One partition's verification."""

    def __init__(
        self,
        stream: Stream,
        partition: int,
        archive: StreamArchive | None,
        told: dict[int, LogArchived],
        key: Ed25519PublicKey | None,
    ) -> None:
        self.stream, self.partition, self.archive, self.told, self.key = stream, partition, archive, told, key
        self.findings: list[Finding] = []
        self.damaged = self.both = self.live = 0

    def run(self) -> Verified:
        slot = StreamArchive.slot_of(self.stream, self.partition)
        chain: dict[int, Manifest] = {}
        if self.archive is not None:
            chain = self._chain(self.archive, slot)
            self._links(chain, slot)
            self._signatures(chain)
            for number in sorted(chain):
                self._segment(self.archive, chain[number])
        elif slot.number:
            self._find(
                f"archived up to {slot.position} at {slot.url}, which was not checked: set "
                "AURASTREAM_ARCHIVE",
                "",
                slot.position,
            )
        self.live, found = look_at_log(self.stream, self.partition, slot)
        self.findings += found
        archived = sum(manifest.entries for manifest in chain.values())
        self.findings.sort(key=lambda item: as_pair(item.position))
        return Verified(
            self.stream.name,
            self.partition,
            len(chain),
            archived,
            self.live,
            self.both,
            self.damaged,
            self.findings,
        )

    def _find(self, problem: str, position: str = "", until: str = "", segment: int = 0) -> None:
        self.findings.append(
            Finding(self.stream.name, self.partition, position, until or position, segment, problem)
        )

    def _chain(self, archive: StreamArchive, slot: Slot) -> dict[int, Manifest]:
        """The manifests that can be had, by number; from the slot's head, or what the audit trail names after
        it, back to the first.
        """
        found = self._stored(archive)
        newest = max([slot.number, *self.told])
        chain: dict[int, Manifest] = {}
        head = slot.head if newest == slot.number else self.told[newest].head
        missing: list[int] = []
        for number in range(newest, 0, -1):
            named = self.told.get(number)
            if not head and named is not None:
                head = named.head
            choices = found.get(number, {})
            manifest = (
                choices.get(head)
                if head
                else next(iter(choices.values()), None)
                if len(choices) == 1
                else None
            )
            if manifest is None:
                missing.append(number)
                head = ""
            else:
                chain[number], head = manifest, manifest.previous
        for number in reversed(missing):
            self._missing(number, chain, newest, slot)
        for manifest in found.get(newest + 1, {}).values():
            self._ahead(manifest)
        return chain

    def _ahead(self, manifest: Manifest) -> None:
        """A segment that neither slot nor audit trail names: one that was never committed, whose entries the
        log has, or evidence.
        """
        last = manifest.last
        if not self.stream.read_raw(self.partition, just_before(last), last, 1):
            self._find(
                f"segment {manifest.number} is in the archive, its entries are not in the log, and the "
                "server knows nothing of it: the "
                "server was set back to an older copy",
                manifest.first,
                last,
                manifest.number,
            )

    def _stored(self, archive: StreamArchive) -> dict[int, dict[str, Manifest]]:
        """All manifests of the folder whose content is what their hash stands for: number -> hash ->
        manifest.
        """
        folder = archive.folder(self.partition)
        found: dict[int, dict[str, Manifest]] = {}
        for name in archive.store.names(folder):
            if not name.endswith(".json") or name.startswith("."):
                continue
            try:
                content = archive.store.read(f"{folder}/{name}")
                manifest = manifests.decode(content)
            except (msgspec.MsgspecError, UnicodeDecodeError, FileNotFoundError):
                continue  # named as missing, where the chain leads to it
            is_named = name == f"{segment_name(manifest.number, manifest.hash)}.json"
            is_whole = (
                is_named
                and manifests.hash_of(manifest) == manifest.hash
                and manifests.encode(manifest) == content
            )
            if is_whole and (manifest.stream, manifest.partition) == (self.stream.name, self.partition):
                found.setdefault(manifest.number, {})[manifest.hash] = manifest
        return found

    def _missing(self, number: int, chain: dict[int, Manifest], newest: int, slot: Slot) -> None:
        before, after, told = chain.get(number - 1), chain.get(number + 1), self.told.get(number)
        first = told.first if told else f"after {before.last}" if before else "the beginning"
        last = (
            told.last
            if told
            else slot.position
            if number == slot.number
            else f"before {after.first}"
            if after
            else "where it ended"
        )
        by = (
            "the slot"
            if number == slot.number
            else "the audit trail"
            if number == newest
            else "the segment after it"
        )
        position = told.first if told else before.last if before else "0-0"
        until = (
            told.last if told else slot.position if number == slot.number else after.first if after else ""
        )
        self._find(
            f"segment {number}, which {by} names, is missing or its manifest was changed: entries from "
            f"{first} to {last}",
            position,
            until,
            number,
        )

    def _links(self, chain: dict[int, Manifest], slot: Slot) -> None:
        """Slot, audit trail and manifests agree."""
        if self.told and max(self.told) > slot.number:
            event = self.told[max(self.told)]
            self._find(
                f"the audit trail has segment {event.number}, up to {event.last}; the slot names "
                f"{slot.number}: it was set back",
                event.first,
                event.last,
                event.number,
            )
        for number, manifest in sorted(chain.items()):
            said, before = self.told.get(number), chain.get(number - 1)
            if said is not None and said.head != manifest.hash:
                self._find(
                    f"segment {number} has the hash {manifest.hash}, the audit trail says {said.head}",
                    manifest.first,
                    manifest.last,
                    number,
                )
            if before is not None and as_pair(before.last) >= as_pair(manifest.first):
                self._find(
                    f"segment {number} begins before segment {number - 1} ends",
                    manifest.first,
                    before.last,
                    number,
                )
            if (
                before is not None
                and (due := before.entries_before + before.entries) != manifest.entries_before
            ):
                told = f"segment {number} counts {manifest.entries_before} entries before it, not {due}"
                self._find(told, manifest.first, manifest.last, number)
        head = chain.get(slot.number)
        if head is not None and (head.last, due := head.entries_before + head.entries) != (
            slot.position,
            slot.entries,
        ):
            told = f"the slot says {slot.entries} entries up to {slot.position}, its segment {due} up to {head.last}"
            self._find(told, head.last, slot.position, slot.number)

    def _signatures(self, chain: dict[int, Manifest]) -> None:
        """The newest must be signed, as that vouches for all before it; no other may be signed wrongly."""
        if self.key is None:
            return
        for number, manifest in sorted(chain.items()):
            if manifest.signature and not manifests.is_signed_by(manifest, self.key):
                self._find(
                    f"segment {number} is signed by another key, or its signature was changed",
                    manifest.first,
                    manifest.last,
                    number,
                )
            elif not manifest.signature and number == max(chain):
                self._find(
                    f"segment {number}, the newest, is not signed", manifest.first, manifest.last, number
                )

    def _segment(self, archive: StreamArchive, manifest: Manifest) -> None:
        """One file against its manifest, and against the live log where that still has its entries."""
        live = live_entries(self.stream, manifest)
        found, entries, damaged = findings_of(archive, manifest, live)
        self.findings += found
        self.damaged += damaged
        if entries is not None:
            self.both += len(live)
            self.findings += overlap(self.stream, manifest, entries, live)
