"""
An archive that is ahead of the log: after a fail-over to a replica that lagged, or a restore from an older
copy, the files of segments that the server knows nothing of hold entries that its log has not.

    files the slot does not lead to, whose ends are neither in log nor archive (orphans.py)
        -> segments_ahead: each compared with its hashes; which of its events the log lacks, by event ID
        -> take_back, by a person's decision: SegmentSetAside in the audit trail
            -> the events appended again, byte for byte, each event ID once -> the files into _aside/

Always true: killed anywhere, the same decision repeated does the rest and nothing twice: the audit event's
ID is the segment's, an event is known by its ID, and files are copied before they are removed. Nothing of
the archive is lost: what was set aside keeps its bytes, with who decided and why beside it.

Decision (2026-11): the events come to the end of the log, as new entries. Refused: putting the entries
back at their positions, since others may have been appended there meanwhile, and consumers have read past
them; making the slot lead to the segments again, which only fits a log that nobody has written to since.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from aurastream.streams import (
    BATCH_MAX,
    READ_MAX,
    ArchiveDamaged,
    Outcome,
    RawEntry,
    SegmentSetAside,
    Stream,
    collided_field_of,
    field_of,
    named_id,
)
from aurastream.streams.archive import manifest as manifests
from aurastream.streams.archive.entries import NEEDED, entries_of
from aurastream.streams.archive.manifest import Manifest
from aurastream.streams.archive.orphans import ASIDE, orphans_ahead
from aurastream.streams.archive.reading import UNREADABLE, StreamArchive
from aurastream.streams.archive.segment import Identified, identify
from aurastream.streams.archive.signing import is_signed_by

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class MissingEvent(msgspec.Struct, frozen=True):
    """An event that the log lacks: where it was, and what it is."""

    position: str
    event_id: str
    type: str
    subject: str


class SegmentAhead(msgspec.Struct, frozen=True):
    """A segment of the archive that the server knows nothing of. name: of its files. head: its manifest's
    hash, its file's where there is no manifest. missing: its events that the log lacks. unreadable:
    positions of entries that the log lacks and that are no events, so that they cannot be appended.
    """

    stream: str
    partition: int
    number: int
    name: str
    head: str
    first: str
    last: str
    entries: int
    missing: list[MissingEvent]
    unreadable: list[str]


class WhoAndWhy(NamedTuple):
    """Of a decision."""

    by: str
    why: str


class _Stored(NamedTuple):
    """What the files hold."""

    head: str
    entries: Identified
    duplicates: frozenset[bytes]


def segments_ahead(
    archive: StreamArchive, partition: int, key: Ed25519PublicKey | None = None
) -> list[SegmentAhead]:
    """The partition's, the oldest first. key: each must be signed by it.

    Raises ArchiveDamaged where a file is not what its manifest says, or not signed.
    """
    names = orphans_ahead(archive, partition)
    return [_segment(archive, partition, name, _stored(archive, partition, name, key)) for name in names]


def take_back(archive: StreamArchive, operations: Stream, ahead: SegmentAhead, decision: WhoAndWhy) -> int:
    """Append the events that the log lacks, and set the files aside. Returns how many were appended.

    Raises ArchiveDamaged, and the errors of append, after which it may be repeated.
    """
    stored = _stored(archive, ahead.partition, ahead.name, None)
    operations.append([_fact(ahead, decision)])
    lacking = {event.position.encode() for event in ahead.missing}
    jsons = [
        json
        for (position, _), json in zip(stored.entries.raw, stored.entries.jsons, strict=True)
        if position in lacking and json is not None
    ]
    appended = 0
    for start in range(0, len(jsons), BATCH_MAX):
        placed = archive.stream.put_back(jsons[start : start + BATCH_MAX])
        appended += sum(item.outcome is Outcome.APPENDED for item in placed)
    _set_aside(archive, ahead, decision)
    return appended


def _fact(ahead: SegmentAhead, decision: WhoAndWhy) -> SegmentSetAside:
    """For the audit trail; the same for every repeat."""
    return SegmentSetAside(
        event_id=named_id(ahead.stream, ahead.partition, "set_aside", ahead.number, ahead.head[:16]),
        subject=ahead.stream,
        occurred_at=datetime.now(UTC),
        source=decision.by,
        partition=ahead.partition,
        number=ahead.number,
        first=ahead.first,
        last=ahead.last,
        entries=ahead.entries,
        events=len(ahead.missing),
        head=ahead.head,
        why=decision.why,
    )


def _read(archive: StreamArchive, partition: int, file: str) -> bytes | None:
    """A segment's file, where it was or where it is set aside; None where it is at neither."""
    folder = archive.folder(partition)
    for path in (f"{folder}/{file}", f"{folder}/{ASIDE}/{file}"):
        try:
            return archive.store.read(path)
        except FileNotFoundError:
            continue
    return None


def _stored(archive: StreamArchive, partition: int, name: str, key: Ed25519PublicKey | None) -> _Stored:
    """Raises ArchiveDamaged where it is not what its hashes stand for."""
    where = f"{archive.url}/{archive.folder(partition)}/{name}.parquet"
    segment = f"the segment {name} of {archive.stream.name}/{partition}"
    content, text = (_read(archive, partition, f"{name}.{ending}") for ending in ("parquet", "json"))
    if content is None:
        raise ArchiveDamaged(segment, where, "the file is missing")
    digest = sha256(content).hexdigest()
    manifest = _manifest(text) if text is not None else None
    if text is not None and (
        manifest is None
        or manifests.hash_of(manifest) != manifest.hash
        or (manifest.name, manifest.stream, manifest.partition) != (name, archive.stream.name, partition)
        or manifest.file_sha256 != digest
    ):
        raise ArchiveDamaged(segment, where, "its manifest and it are not what their hashes stand for")
    if key is not None and (manifest is None or not is_signed_by(manifest, key)):
        raise ArchiveDamaged(segment, where, "it is not signed by AURASTREAM_ARCHIVE_VERIFY_KEY")
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            raw, duplicates = entries_of(file.read(columns=NEEDED))
    except UNREADABLE as error:
        raise ArchiveDamaged(segment, where, str(error)) from error
    return _Stored(digest if manifest is None else manifest.hash, identify(raw), duplicates)


def _manifest(text: bytes) -> Manifest | None:
    try:
        return manifests.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _segment(archive: StreamArchive, partition: int, name: str, stored: _Stored) -> SegmentAhead:
    stream, raw = archive.stream, stored.entries.raw
    events, unreadable = [], []
    live = _live(stream, partition, raw)
    for (position, fields), envelope in zip(raw, stored.entries.envelopes, strict=True):
        if live.get(position) == fields or position in stored.duplicates:
            continue
        if envelope is None:
            unreadable.append(position.decode())
        else:
            events.append(MissingEvent(position.decode(), envelope.event_id, envelope.type, envelope.subject))
    return SegmentAhead(
        stream=stream.name,
        partition=partition,
        number=int(name.partition("-")[0]),
        name=name,
        head=stored.head,
        first=raw[0][0].decode(),
        last=raw[-1][0].decode(),
        entries=len(raw),
        missing=list(_unknown(stream, partition, events)),
        unreadable=unreadable,
    )


def _live(stream: Stream, partition: int, raw: list[RawEntry]) -> dict[bytes, list[bytes]]:
    """What the log has at the segment's positions, and between."""
    live: dict[bytes, list[bytes]] = {}
    first, last = raw[0][0].decode(), raw[-1][0].decode()
    if entry := stream.ask(partition, ("XRANGE", stream.keys[partition].log, first, first))[0]:
        live[entry[0][0]] = list(entry[0][1])
    after = first
    while part := stream.read_raw(partition, after, last, READ_MAX):
        live |= {position: list(fields) for position, fields in part}
        after = part[-1][0].decode()
    return live


def _unknown(stream: Stream, partition: int, events: list[MissingEvent]) -> Iterator[MissingEvent]:
    """Those whose ID the log does not know, as far as its index says; append compares the IDs themselves."""
    ids = stream.keys[partition].ids
    for start in range(0, len(events), BATCH_MAX):
        part = events[start : start + BATCH_MAX]
        short, long = stream.ask(
            partition,
            ("HMGET", ids, *[field_of(event.event_id) for event in part]),
            ("HMGET", ids, *[collided_field_of(event.event_id) for event in part]),
        )
        yield from (
            event
            for event, one, other in zip(part, short, long, strict=True)
            if one is None and other is None
        )


def _set_aside(archive: StreamArchive, ahead: SegmentAhead, decision: WhoAndWhy) -> None:
    """Copy, say why, and only then remove."""
    folder, store = archive.folder(ahead.partition), archive.store
    files = [f"{ahead.name}.{ending}" for ending in ("parquet", "json")]
    for file in files:
        content = _read(archive, ahead.partition, file)
        if content is not None:
            store.write(f"{folder}/{ASIDE}/{file}", content)
    said = {"by": decision.by, "why": decision.why, "at": datetime.now(UTC), "events": len(ahead.missing)}
    store.write(f"{folder}/{ASIDE}/{ahead.name}.why.json", msgspec.json.encode(said))
    for file in files:
        store.delete(f"{folder}/{file}")
