"""
Closing segments: from the log into the archive.

    lease -> read the log after the slot's position -> which entries are duplicates, by the ids index (a raw
        entry that
    nobody is canonical for is adopted, as commit.lua adopts it) -> Parquet file -> manifest -> archive.lua:
        the slot says so
    -> LogArchived in the audit trail -> orphans away (orphans.py)

Always true, killed anywhere: the slot names only what is complete; what it does not name is written again by
the next run, and removed by it where it differs. The lease saves work and nothing more: of two archivers one
moves the slot, the other is STALE.
Decision (2026-11): a file that the slot does not lead to is removed once the chain has gone on without it,
never before: a stopped archiver may wake up and commit it. It is removed only when its first and last entry
are found in the archive or the log; else it may be the only copy of them (the server was restored from an
older copy, or another one archives to the same place), and the run is refused.
Decision (2026-11): the operations stream's own segments are in its slot and chain alone: an event for each
would be one more entry to archive, for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import IntEnum
from hashlib import sha256

import msgspec

from aurastream.streams import (
    READ_MAX,
    ArchiveRefused,
    InvariantBroken,
    LogArchived,
    RawEntry,
    Script,
    Stream,
    as_pair,
    end_of,
    leases,
    named_id,
    operator,
    retried,
)
from aurastream.streams.archive import manifest as manifests
from aurastream.streams.archive.duplicates import decide
from aurastream.streams.archive.manifest import Manifest
from aurastream.streams.archive.orphans import remove_orphans
from aurastream.streams.archive.reading import Slot, StreamArchive
from aurastream.streams.archive.segment import (
    Identified,
    collector_paused,
    identify,
    is_written,
    microseconds,
    table_of,
    to_parquet,
)

GROUP = "archive"
LEASE_MS = 10_000  # longer than a segment takes
WAIT_MAX_S = LEASE_MS / 1000 + 2  # for the lease of an archiver that was killed
SEGMENT_BYTES_MAX = (
    64 * 2**20
)  # of raw entries: bounds the memory of archiver and readers whatever the events weigh

_ARCHIVE = Script(__file__, "archive.lua")
_MOVE = Script(__file__, "move.lua")
_LEASE = Script(leases.__file__, "lease.lua")

STEPS = (
    "leased",
    "decided",
    "file",
    "manifest",
    "committed",
    "told",
    "cleaned",
)  # what `on_step` is called with, in this order
OnStep = Callable[[str], None]


def move(archive: StreamArchive, partition: int) -> int:
    """Let the slot name the archive's url, where all the partition's segments are found to be copied to.
    Returns how many they are.

    Raises ArchiveDamaged where one is missing or not what it was; ArchiveRefused where one was closed
    meanwhile.
    """
    chain = archive.segments(partition)
    for manifest in chain:
        archive.check_file(manifest)
    stream = archive.stream
    call = _MOVE.call((stream.keys[partition].archive,), (chain[-1].hash if chain else "", archive.url))
    what = f"moving the archive of {stream.name}/{partition}"
    if chain and not retried(
        what, stream.settings.attempts_max, lambda: stream.wire(partition).ask(call)[0], stream.reconnect
    ):
        raise ArchiveRefused(
            f"a segment of {stream.name}/{partition} was closed meanwhile. Copy what is new and repeat the "
            "command."
        )
    return len(chain)


class _Answer(IntEnum):
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
        self.archive, self.stream, self.operations, self._on_step = (
            archive,
            archive.stream,
            operations,
            on_step,
        )
        settings = self.stream.settings
        if not self.stream.is_log_here:
            raise ArchiveRefused(
                f"the log of stream {self.stream.name!r} is in Kafka: archive its topic there. Here are "
                "only its views."
            )
        self._segment_events = settings.segment_events
        self._key = (
            manifests.signing_key(settings.archive_signing_key) if settings.archive_signing_key else None
        )
        self._worker = leases.worker_name()

    def check_place(self) -> None:
        """Raise ArchiveRefused where a partition's archive is at another place: before any other is begun at
        this one.
        """
        for partition in range(self.stream.partitions):
            self._check_place(partition, self.archive.slot(partition))

    def run(self, partition: int, until: str = "+", min_events: int = 1) -> Iterator[Manifest]:
        """Close what the partition's log holds now, up to and including `until`, into segments; yields each
        once it is committed.

        min_events: no smaller segment is closed. Raises ArchiveRefused, ArchiveUnusable, ArchiveDamaged.
        """
        if not self._take_lease(partition):
            raise ArchiveRefused(
                f"another process is archiving {self.stream.name}/{partition} at this moment. Wait for it, "
                "or repeat the command."
            )
        try:
            self._on_step("leased")
            self._check(partition, self.archive.slot(partition))
            remove_orphans(self.archive, partition)
            self._tell(partition)
            end = self._end(partition, until)
            while (made := self._close_one(partition, end, min_events)) is not None:
                yield made
                self._lease(partition, "keep")
        finally:
            self._lease(partition, "release")

    def _close_one(self, partition: int, end: str, min_events: int) -> Manifest | None:
        """The next segment, committed; None when nothing is left to close."""
        slot = self.archive.slot(partition)
        with collector_paused():
            raw = self._read(partition, slot.position, end)
            if len(raw) < max(1, min_events):
                return None
            found = identify(raw)
            duplicates = decide(self.stream, partition, found)
            self._on_step("decided")
            manifest, file = self._built(partition, slot, found, duplicates)
        folder = self.archive.folder(partition)
        self.archive.store.write(f"{folder}/{manifest.name}.parquet", file)
        self._on_step("file")
        self.archive.store.write(f"{folder}/{manifest.name}.json", manifests.encode(manifest))
        self._on_step("manifest")
        self._commit(partition, slot, manifest, raw)
        self._on_step("committed")
        self._tell(partition)
        self._on_step("told")
        remove_orphans(self.archive, partition)
        self._on_step("cleaned")
        return manifest

    def _read(self, partition: int, after: str, end: str) -> list[RawEntry]:
        """The entries of one segment."""
        raw: list[RawEntry] = []
        size, after = 0, after or "0-0"
        while (room := self._segment_events - len(raw)) > 0 and size < SEGMENT_BYTES_MAX:
            part = self.stream.read_raw(partition, after, end, min(room, READ_MAX))
            if not part:
                break
            raw += part
            size += sum(len(value) for _, fields in part for value in fields)
            after = part[-1][0].decode()
        return raw

    def _built(
        self, partition: int, slot: Slot, found: Identified, duplicates: frozenset[bytes]
    ) -> tuple[Manifest, bytes]:
        """The manifest and the Parquet file, read back and compared before anyone relies on it."""
        raw = found.raw
        table = table_of(found, duplicates)
        file = to_parquet(table)
        if not is_written(file, raw, duplicates):
            raise InvariantBroken(
                f"entries of {self.stream.name}/{partition} from {raw[0][0].decode()} on do not come back "
                "from their columns as they "
                "were. Nothing was archived; keep the log and report it."
            )
        times = [microseconds(item.occurred_at) for item in found.envelopes if item is not None]
        manifest = Manifest(
            stream=self.stream.name,
            partition=partition,
            number=slot.number + 1,
            first=raw[0][0].decode(),
            last=raw[-1][0].decode(),
            entries=len(raw),
            entries_before=slot.entries,
            duplicates=len(duplicates),
            json_bytes=sum(len(json) for json in found.jsons if json is not None),
            file_bytes=len(file),
            file_sha256=sha256(file).hexdigest(),
            previous=slot.head,
            min_occurred_at=min(times, default=None),
            max_occurred_at=max(times, default=None),
            blocks=list(manifests.blocks_of(raw, duplicates)),
        )
        manifest = msgspec.structs.replace(manifest, hash=manifests.hash_of(manifest))
        return (manifests.sign(manifest, self._key) if self._key is not None else manifest), file

    def _commit(self, partition: int, slot: Slot, manifest: Manifest, raw: list[RawEntry]) -> None:
        keys, last = self.stream.keys[partition], raw[-1][1]
        call = _ARCHIVE.call(
            (keys.archive, keys.log),
            (
                slot.head,
                manifest.number,
                manifest.last,
                manifest.entries_before + manifest.entries,
                manifest.hash,
                self.archive.url,
                manifest.first,
                last[-1] if last else b"",
            ),
        )
        answer = self._asked(partition, call, f"committing {manifest.where}")
        code = _Answer(answer[0])
        if code is _Answer.OK:
            return
        # The files stay: the next run removes them, unless they are what another archiver has committed
        # meanwhile.
        if code is _Answer.STALE:
            raise ArchiveRefused(
                f"another process archived {self.stream.name}/{partition} meanwhile. Repeat the command."
            )
        if code is _Answer.ELSEWHERE:
            raise ArchiveRefused(self._elsewhere(partition, answer[1].decode()))
        raise ArchiveRefused(
            f"{self.stream.name}/{partition} no longer holds what was read from it: entries were deleted by "
            "hand, or the server failed "
            "over to an older copy. The segment was not committed; repeat the command."
        )

    def _check(self, partition: int, slot: Slot) -> None:
        """Raise ArchiveRefused where the log is not the one that was archived."""
        if not slot.number:
            return
        self._check_place(partition, slot)
        keys = self.stream.keys[partition]

        def ask() -> list[object]:
            return self.stream.wire(partition).ask(
                ("XRANGE", keys.log, slot.position, slot.position), ("HGET", keys.meta, "trimmed_to")
            )

        entry, trimmed = retried(
            "looking for the archive's end", self.stream.settings.attempts_max, ask, self.stream.reconnect
        )
        trimmed_to = trimmed.decode() if isinstance(trimmed, bytes) else ""
        if not entry and as_pair(trimmed_to) < as_pair(slot.position):
            raise ArchiveRefused(
                f"{self.stream.name}/{partition} is archived up to {slot.position}, which is neither in its "
                "log nor trimmed: the "
                "archive is ahead of the log, which was deleted or restored from an older copy. Nothing was "
                "archived. Restore a newer "
                "copy of the server; what the archive has is safe."
            )

    def _check_place(self, partition: int, slot: Slot) -> None:
        if slot.number and slot.url != self.archive.url:
            raise ArchiveRefused(self._elsewhere(partition, slot.url))

    def _elsewhere(self, partition: int, url: str) -> str:
        return (
            f"the archive of {self.stream.name}/{partition} is at {url}, the settings name "
            f"{self.archive.url}. To move it, copy all "
            f"that is below {url} to {self.archive.url} and run `aurastream archive move`; else set "
            "AURASTREAM_ARCHIVE back."
        )

    def _end(self, partition: int, until: str) -> str:
        """The log's last position now, or `until` where that is before: a run ends however fast producers
        are.
        """
        newest = self._asked(
            partition,
            ("XREVRANGE", self.stream.keys[partition].log, "+", "-", "COUNT", 1),
            "looking for the log's end",
        )
        last = newest[0][0].decode() if newest else "0-0"
        return until if end_of(until) < as_pair(last) else last

    def _tell(self, partition: int) -> None:
        """Put each committed segment that the audit trail does not have yet into it; what a kill left untold
        first.
        """
        slot = self.archive.slot(partition)
        if self.operations is not None and slot.told < slot.number:
            chain = self.archive.segments(partition)[slot.told :]
            self.operations.append([_archived(manifest) for manifest in chain])
        if slot.told < slot.number:
            told = ("HSET", self.stream.keys[partition].archive, "told", slot.number)
            self._asked(partition, told, "noting what the audit trail has")

    def _take_lease(self, partition: int) -> bool:
        """Whether the partition is ours to archive; waits until the lease of one that was killed has ended."""
        end = time.monotonic() + WAIT_MAX_S
        while not (state := self._lease(partition, "claim"))[0]:
            if time.monotonic() > end:
                return False
            time.sleep(min(0.2, max(0.01, state[1] / 1000)))
        return True

    def _lease(self, partition: int, verb: str) -> list[int]:
        key = self.stream.keys[partition].lease(GROUP)
        answer: list[list[int]] = self._asked(
            partition, _LEASE.call((key,), (self._worker, LEASE_MS, verb)), "the archive's lease"
        )
        return answer[0]

    def _asked(self, partition: int, command: tuple[object, ...], what: str) -> list:  # type: ignore[type-arg]
        def ask() -> list:  # type: ignore[type-arg]
            found: list = self.stream.wire(partition).ask(command)[0]  # type: ignore[type-arg]
            return found

        return retried(
            f"{what} of {self.stream.name}/{partition}",
            self.stream.settings.attempts_max,
            ask,
            self.stream.reconnect,
        )


def _archived(manifest: Manifest) -> LogArchived:
    """The fact; its ID is derived, so that a repeat after a kill is the same fact."""
    return LogArchived(
        event_id=named_id(
            manifest.stream, manifest.partition, "archived", manifest.number, manifest.hash[:16]
        ),
        subject=manifest.stream,
        occurred_at=datetime.now(UTC),
        source=operator(),
        partition=manifest.partition,
        number=manifest.number,
        first=manifest.first,
        last=manifest.last,
        entries=manifest.entries,
        head=manifest.hash,
    )
