"""
The chain of an archive as it can still be had, and whether slot, audit trail and manifests agree on it.

    the slot's head, or what the audit trail names after it -> the manifest of that hash
        -> the one before, .. -> the first

Where a manifest is missing, the audit trail names the hash of the one before it; without that, a number with
one manifest is it.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from aurastream.streams import LogArchived
from aurastream.streams.archive import manifest as manifests
from aurastream.streams.archive.finding import Finding, finding_in
from aurastream.streams.archive.manifest import Manifest, segment_name
from aurastream.streams.archive.reading import StreamArchive
from aurastream.streams.archive.slot import Slot


def _chosen(stored: dict[str, Manifest], head: str) -> Manifest | None:
    """The manifest of that hash; where the hash is not known, the only one there is."""
    if head:
        return stored.get(head)
    return next(iter(stored.values())) if len(stored) == 1 else None


class Links:
    """One partition's.

    audited: number -> the event of that segment. findings: what is missing, once the chain was made.
    """

    def __init__(
        self, archive: StreamArchive, partition: int, slot: Slot, audited: dict[int, LogArchived]
    ) -> None:
        self._archive, self._stream, self._partition = archive, archive.stream, partition
        self._slot, self._audited = slot, audited
        self._newest = max([slot.number, *audited])
        self.findings: list[Finding] = []

    def chain(self) -> dict[int, Manifest]:
        """The manifests that can be had, by number."""
        stored = self._stored()
        chain: dict[int, Manifest] = {}
        head = self._slot.head if self._newest == self._slot.number else self._audited[self._newest].head
        for number in range(self._newest, 0, -1):
            if not head and number in self._audited:
                head = self._audited[number].head
            manifest = _chosen(stored.get(number, {}), head)
            if manifest is not None:
                chain[number] = manifest
            head = manifest.previous if manifest is not None else ""
        missing = [number for number in range(1, self._newest + 1) if number not in chain]
        self.findings += [self._missing(number, chain) for number in missing]
        self.findings += self._ahead(stored.get(self._newest + 1, {}))
        return chain

    def disagreements(self, chain: dict[int, Manifest]) -> Iterator[Finding]:
        """Where slot, audit trail and manifests say different things."""
        if self._newest > self._slot.number:
            event = self._audited[self._newest]
            yield self._finding(
                event.number,
                f"the audit trail has segment {event.number}, up to {event.last}; the slot names "
                f"{self._slot.number}: it was set back",
                (event.first, event.last),
            )
        for number, manifest in sorted(chain.items()):
            yield from self._with_neighbours(manifest, self._audited.get(number), chain.get(number - 1))
        head = chain.get(self._slot.number)
        if head is not None and (head.last, head.entries_through) != (
            self._slot.position,
            self._slot.entries,
        ):
            yield self._finding(
                head.number,
                f"the slot says {self._slot.entries} entries up to {self._slot.position}, its segment "
                f"{head.entries_through} up to {head.last}",
                (head.last, self._slot.position),
            )

    @staticmethod
    def _with_neighbours(
        manifest: Manifest, event: LogArchived | None, before: Manifest | None
    ) -> Iterator[Finding]:
        number = manifest.number
        if event is not None and event.head != manifest.hash:
            problem = f"segment {number} has the hash {manifest.hash}, the audit trail says {event.head}"
            yield finding_in(manifest, problem)
        if before is None:
            return
        if before.range[1] >= manifest.range[0]:
            problem = f"segment {number} begins before segment {number - 1} ends"
            yield finding_in(manifest, problem, manifest.first, before.last)
        if (due := before.entries_through) != manifest.entries_before:
            problem = f"segment {number} counts {manifest.entries_before} entries before it, not {due}"
            yield finding_in(manifest, problem)

    def _stored(self) -> dict[int, dict[str, Manifest]]:
        """The folder's manifests whose content is what their hash stands for: number -> hash -> manifest."""
        folder = self._archive.folder(self._partition)
        stored: dict[int, dict[str, Manifest]] = {}
        for name in self._archive.store.names(folder):
            if not name.endswith(".json") or name.startswith("."):
                continue
            try:
                content = self._archive.store.read(f"{folder}/{name}")
                manifest = manifests.decode(content)
            except (msgspec.MsgspecError, UnicodeDecodeError, FileNotFoundError):
                continue  # named as missing, where the chain leads to it
            if self._is_whole(manifest, name, content):
                stored.setdefault(manifest.number, {})[manifest.hash] = manifest
        return stored

    def _is_whole(self, manifest: Manifest, name: str, content: bytes) -> bool:
        """Whether it is what its hash and its name stand for, and of this partition."""
        return (
            name == f"{segment_name(manifest.number, manifest.hash)}.json"
            and manifests.hash_of(manifest) == manifest.hash
            and manifests.encode(manifest) == content
            and (manifest.stream, manifest.partition) == (self._stream.name, self._partition)
        )

    def _ahead(self, stored: dict[str, Manifest]) -> Iterator[Finding]:
        """Segments that neither slot nor audit trail names: never committed, and the log has their entries;
        or evidence.
        """
        for manifest in stored.values():
            before = str(manifest.range[1].before())
            if not self._stream.read_raw(self._partition, before, manifest.last, 1):
                yield finding_in(
                    manifest,
                    f"segment {manifest.number} is in the archive, its entries are not in the log, and the "
                    "server knows nothing of it: the server was set back to an older copy. See "
                    "`aurastream archive "
                    "ahead`",
                )

    def _missing(self, number: int, chain: dict[int, Manifest]) -> Finding:
        """A segment whose manifest cannot be had: which entries it held, as far as others say."""
        event, before, after = self._audited.get(number), chain.get(number - 1), chain.get(number + 1)
        is_slots = number == self._slot.number
        by = (
            "the slot"
            if is_slots
            else "the audit trail"
            if number == self._newest
            else "the segment after it"
        )
        if event is not None:
            low, high = (event.first, event.first), (event.last, event.last)
        else:
            low = (f"after {before.last}", before.last) if before else ("the beginning", "0-0")
            high = (f"before {after.first}", after.first) if after else ("where it ended", "")
            if is_slots:
                high = (self._slot.position, self._slot.position)
        problem = (
            f"segment {number}, which {by} names, is missing or its manifest was changed: entries from "
            f"{low[0]} to {high[0]}"
        )
        return self._finding(number, problem, (low[1], high[1] or low[1]))

    def _finding(self, number: int, problem: str, ends: tuple[str, str]) -> Finding:
        return Finding(self._stream.name, self._partition, *ends, number, problem)
