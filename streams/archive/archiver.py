"""
Closing segments: from the log into the archive.

    lease -> read the log after the slot's position -> which entries are duplicates (duplicates.py)
        -> Parquet file and manifest
    (building.py) -> archive.lua: the slot says so -> LogArchived in the audit trail
        -> orphans away (orphans.py)

Always true, killed anywhere: the slot names only what is complete; what it does not name is written again by
the next run, and removed by it where it differs. The lease saves work and nothing more: of two archivers one
moves the slot, the other is STALE.
Decision (2026-11): a file that the slot does not lead to is removed once the chain has gone on without it,
never before: a stopped archiver may wake up and commit it. It is removed only when its first and last entry
are in the archive or the log; else it may be the only copy of them (the server was restored from an older
copy, or another one archives to the same place), and the run is refused.
Decision (2026-11): the operations stream's own segments are in its slot and chain alone: an event for each
would be one more entry to archive, for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import IntEnum

import msgspec

from aurastream.streams import (
    ArchiveRefused,
    LogArchived,
    Position,
    Script,
    Stream,
    beyond,
    host_name,
    last_of,
    named_id,
    operator,
)
from aurastream.streams.archive import manifest as manifests
from aurastream.streams.archive.building import Builder, Segment, read_segment
from aurastream.streams.archive.duplicates import decide
from aurastream.streams.archive.entries import collector_paused
from aurastream.streams.archive.lease import ArchiveLease
from aurastream.streams.archive.manifest import Manifest
from aurastream.streams.archive.orphans import remove_orphans
from aurastream.streams.archive.reading import StreamArchive
from aurastream.streams.archive.segment import identify
from aurastream.streams.archive.signing import signing_key
from aurastream.streams.archive.slot import Slot, trimmed_to

_ARCHIVE = Script(__file__, "archive.lua")

# What `on_step` is called with, in this order.
STEPS = ("leased", "decided", "file", "manifest", "committed", "audited", "cleaned")
OnStep = Callable[[str], None]


class ArchiveAnswer(IntEnum):
    """What archive.lua says."""

    OK = 0
    STALE = 1
    GAP = 2
    ELSEWHERE = 3


class Archiver:
    """Archives one stream. operations: the stream the audit trail is in; None for the operations stream
    itself.

    on_step: called with each of STEPS as it is passed (tests kill there).
    """

    def __init__(
        self, archive: StreamArchive, operations: Stream | None, on_step: OnStep = lambda step: None
    ) -> None:
        self.archive, self.stream, self.operations = archive, archive.stream, operations
        self._on_step, self._worker, self._by = on_step, host_name(), operator()
        if not self.stream.is_log_here:
            raise ArchiveRefused(
                f"the log of stream {self.stream.name!r} is in Kafka: archive its topic there. Here are only "
                "its views."
            )
        path = self.stream.settings.archive_signing_key
        self._key = signing_key(path) if path else None

    def check_place(self) -> None:
        """Raise ArchiveRefused where a partition's archive is at another place: before any other is begun at
        this one.
        """
        for partition in range(self.stream.partitions):
            self._check_place(partition, self.archive.slot(partition))

    def run(self, partition: int, until: str = "+", min_events: int = 1) -> Iterator[Manifest]:
        """Close what the log holds up to and including `until` into segments; yields each once committed.

        min_events: no smaller segment is closed. Raises ArchiveRefused, ArchiveUnusable, ArchiveDamaged.
        """
        lease = ArchiveLease(self.stream, partition, self._worker)
        lease.claim()
        try:
            self._on_step("leased")
            self._prepare(partition)
            end = self._end(partition, until)
            while (made := self._close_one(partition, end, min_events)) is not None:
                yield made
                lease.keep()
        finally:
            lease.release()

    def _prepare(self, partition: int) -> None:
        """Make sure that a segment may be closed: the log and the archive are those that belong together."""
        self._check(partition, self.archive.slot(partition))
        remove_orphans(self.archive, partition)
        self._audit(partition)

    def _close_one(self, partition: int, end: str, min_events: int) -> Manifest | None:
        """The next segment, committed; None when nothing is left to close."""
        slot = self.archive.slot(partition)
        with collector_paused():
            raw = read_segment(self.stream, partition, slot.position, end)
            if len(raw) < max(1, min_events):
                return None
            entries = identify(raw)
            duplicates = decide(self.stream, partition, entries)
            self._on_step("decided")
            segment = Builder(self.stream, partition, self._key).build(slot, entries, duplicates)
        path = f"{self.archive.folder(partition)}/{segment.manifest.name}"
        self.archive.store.write(f"{path}.parquet", segment.file)
        self._on_step("file")
        self.archive.store.write(f"{path}.json", manifests.encode(segment.manifest))
        self._on_step("manifest")
        self._commit(segment)
        self._on_step("committed")
        self._audit(partition)
        self._on_step("audited")
        remove_orphans(self.archive, partition)
        self._on_step("cleaned")
        return segment.manifest

    def _commit(self, segment: Segment) -> None:
        manifest = segment.manifest
        head = {
            "previous": manifest.previous,
            "number": manifest.number,
            "position": manifest.last,
            "entries": manifest.entries_through,
            "head": manifest.hash,
            "url": self.archive.url,
            "first": manifest.first,
        }
        keys = self.stream.keys[manifest.partition]
        call = _ARCHIVE.call((keys.archive, keys.log), (msgspec.msgpack.encode(head), segment.checksum))
        answer = self.stream.ask(manifest.partition, call, what=f"committing {manifest.where}")[0]
        code = ArchiveAnswer(answer[0])
        if code is ArchiveAnswer.OK:
            return
        # The files stay: the next run removes them, unless another archiver has committed what they are
        # meanwhile.
        if code is ArchiveAnswer.STALE:
            raise ArchiveRefused(f"another process archived {keys.where} meanwhile. Repeat the command.")
        if code is ArchiveAnswer.ELSEWHERE:
            raise ArchiveRefused(self._elsewhere(manifest.partition, answer[1].decode()))
        raise ArchiveRefused(
            f"{keys.where} no longer holds what was read from it: entries were deleted by hand, or the "
            "server failed over to an older copy. The segment was not committed; repeat the command."
        )

    def _check(self, partition: int, slot: Slot) -> None:
        """Raise ArchiveRefused where the log is not the one that was archived."""
        if not slot.number:
            return
        self._check_place(partition, slot)
        question = ("XRANGE", self.stream.keys[partition].log, slot.position, slot.position)
        what = self._what(partition, "looking for the archive's end")
        last = self.stream.ask(partition, question, what=what)[0]
        if not last and trimmed_to(self.stream, partition) < slot.end:
            raise ArchiveRefused(
                f"{self.stream.name}/{partition} is archived up to {slot.position}, which is neither in its "
                "log nor trimmed: the archive is ahead of the log, which was deleted or restored from an "
                "older copy. Nothing was archived. Restore a newer copy of the server; what the archive "
                "has is safe."
            )

    def _check_place(self, partition: int, slot: Slot) -> None:
        if slot.number and slot.url != self.archive.url:
            raise ArchiveRefused(self._elsewhere(partition, slot.url))

    def _elsewhere(self, partition: int, url: str) -> str:
        here = self.archive.url
        return (
            f"the archive of {self.stream.name}/{partition} is at {url}, the settings name {here}. To move "
            f"it, copy all that is below {url} to {here} and run `aurastream archive move`; else set "
            "AURASTREAM_ARCHIVE back."
        )

    def _end(self, partition: int, until: str) -> str:
        """The log's last position now, or `until` where that is before: a run ends however fast producers
        are.
        """
        question = ("XREVRANGE", self.stream.keys[partition].log, "+", "-", "COUNT", 1)
        newest = self.stream.ask(
            partition, question, what=self._what(partition, "looking for the log's end")
        )[0]
        last = newest[0][0].decode() if newest else "0-0"
        return until if last_of(until) < Position.parse(last) else last

    def _audit(self, partition: int) -> None:
        """Put each committed segment that the audit trail does not have yet into it; what a kill kept from it
        first.
        """
        slot = self.archive.slot(partition)
        if slot.audited >= slot.number:
            return
        if self.operations is not None:
            chain = self.archive.segments(partition)[slot.audited :]
            self.operations.append([_archived(manifest, self._by) for manifest in chain])
        note = beyond(self.stream.keys[partition].archive, "HSET", "told", slot.number)
        self.stream.ask(partition, note, what=self._what(partition, "noting what the audit trail has"))

    def _what(self, partition: int, what: str) -> str:
        return f"{what} of {self.stream.name}/{partition}"


def _archived(manifest: Manifest, by: str) -> LogArchived:
    """The fact; its ID is derived, so that a repeat after a kill is the same fact."""
    names = (manifest.stream, manifest.partition, "archived", manifest.number, manifest.hash[:16])
    return LogArchived(
        event_id=named_id(*names),
        subject=manifest.stream,
        occurred_at=datetime.now(UTC),
        source=by,
        partition=manifest.partition,
        number=manifest.number,
        first=manifest.first,
        last=manifest.last,
        entries=manifest.entries,
        head=manifest.hash,
    )
