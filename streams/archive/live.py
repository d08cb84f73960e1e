"""
The live log beside the archive: what both have is equal, nothing is gone but by the trimmer, checksums hold,
counts add up.

Safe beside producers, archiver and trimmer: whatever may move is read in the order in which it can only have
grown.
"""

from __future__ import annotations

from collections.abc import Iterator

from aurastream.streams import (
    READ_MAX,
    Cursor,
    DamagedEntry,
    RawEntry,
    Stream,
    as_pair,
    entry_json,
    lag_of,
    retried,
)
from aurastream.streams.archive.manifest import Manifest, just_before
from aurastream.streams.archive.reading import Slot, StreamArchive
from aurastream.streams.archive.tampering import Finding

DAMAGED_MAX = 20  # named per partition; all are counted


def live_entries(stream: Stream, manifest: Manifest) -> dict[bytes, list[bytes]]:
    """The segment's entries that the live log still has, by position."""
    live: dict[bytes, list[bytes]] = {}
    after = just_before(manifest.first)
    while part := stream.read_raw(manifest.partition, after, manifest.last, READ_MAX):
        live |= {position: list(fields) for position, fields in part}
        after = part[-1][0].decode()
    return live


def overlap(
    stream: Stream, manifest: Manifest, entries: list[RawEntry], live: dict[bytes, list[bytes]]
) -> Iterator[Finding]:
    """The live log's entries are the archived ones; those that are in the archive alone were trimmed."""
    archived = dict(entries)
    for position, fields in live.items():
        if position not in archived:
            yield _finding(
                manifest, f"the live log has an entry that segment {manifest.number} has not", position
            )
        elif archived[position] != fields:
            yield _finding(
                manifest, f"the live log's entry is not the one in segment {manifest.number}", position
            )
    trimmed_to = trimmed(stream, manifest.partition)
    gone = [
        position
        for position, _ in entries
        if position not in live and as_pair(position.decode()) > trimmed_to
    ]
    if gone:
        told = f"{len(gone)} entries are in the archive, but gone from the live log without the trimmer"
        yield _finding(manifest, told, gone[0], gone[-1])


def look_at_log(stream: Stream, partition: int, slot: Slot) -> tuple[int, list[Finding]]:
    """How many entries the log has, and what is wrong with it by itself. slot: as it was before.

    An entry that was archived already is no finding for being damaged: it was, and the archive has it as it
    is.
    """
    findings: list[Finding] = []

    def find(problem: str, position: str = "", until: str = "") -> None:
        findings.append(Finding(stream.name, partition, position, until or position, 0, problem))

    entries = damaged = 0
    after = "0-0"
    while part := stream.read_raw(partition, after, "+", READ_MAX):
        for position, fields in part:
            if (reason := _damage(fields)) and as_pair(position.decode()) > as_pair(slot.position):
                damaged += 1
                if damaged <= DAMAGED_MAX:
                    find(f"the live log's entry is damaged: {reason}", position.decode())
        entries += len(part)
        after = part[-1][0].decode()
    if damaged > DAMAGED_MAX:
        find(
            f"{damaged - DAMAGED_MAX} more entries of the live log are damaged", slot.position or "0-0", after
        )
    if missing := lag_of(stream.server, stream.keys[partition], Cursor()).missing:
        find(f"{missing} entries of the live log are gone without the trimmer: XDEL, XTRIM or DEL by hand")
    trimmed_to, end = trimmed(stream, partition), StreamArchive.slot_of(stream, partition).position
    if as_pair(after) < as_pair(slot.position) and trimmed_to < as_pair(slot.position):
        find(
            "the archive is ahead of the live log, which was deleted or restored from an older copy",
            slot.position,
        )
    if trimmed_to > as_pair(end):
        until = f"{trimmed_to[0]}-{trimmed_to[1]}"
        find(f"the live log was trimmed up to {until}, past the end of the archive", end or "0-0", until)
    return entries, findings


def trimmed(stream: Stream, partition: int) -> tuple[int, int]:
    """Up to where the log is trimmed, in a form that compares."""

    def ask() -> bytes | None:  # by the wire that is open then
        found: bytes | None = stream.wire(partition).ask(("HGET", stream.keys[partition].meta, "trimmed_to"))[
            0
        ]
        return found

    what = f"reading how far {stream.name}/{partition} is trimmed"
    return as_pair((retried(what, stream.settings.attempts_max, ask, stream.reconnect) or b"").decode())


def _finding(manifest: Manifest, problem: str, position: bytes, until: bytes = b"") -> Finding:
    return Finding(
        manifest.stream,
        manifest.partition,
        position.decode(),
        (until or position).decode(),
        manifest.number,
        problem,
    )


def _damage(fields: list[bytes]) -> str:
    """Why an entry that claims to be one of ours is none; "" for a sound one."""
    if b"crc32" not in fields[::2] or b"event" not in fields[::2]:
        return ""  # somebody else's entry, whole for all we know
    try:
        entry_json("", fields)
    except DamagedEntry as error:
        return error.reason
    return ""
