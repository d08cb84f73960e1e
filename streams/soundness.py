"""
Whether a stream's own keys fit its entries, as far as no view's check looks: partitions, versions, the index
of entities.

    History.spans of a partition -> subject of every entry -> is this its partition? how many events has it,
        and where?
        -> against the hashes versions and entities (streams that expect versions)

A flipped bit in one of those, or in the stream's row of the registry, changes no view, so that ``check`` of
the views is green: but a registry that says 5 partitions for 4 sends a subject's next events elsewhere, and a
wrong version refuses every decision, or lets a stale one through.

Always true: nothing is said of a sound stream, producers and the trimmer at work included: what is stated is
read before and after the entries, and both only grow. Where somebody has added to the log by hand, versions
do not count all events, and are not judged.
Memory: a position per event of one partition, in streams that expect versions; else nothing that grows.
Measured: 2 us of CPU an event, 4 with versions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from aurastream.streams.drive import sound
from aurastream.streams.entities import CHUNK, PLACE_BYTES
from aurastream.streams.entries import entries_json, entry_json, read_envelope, read_envelopes
from aurastream.streams.errors import DamagedEntry
from aurastream.streams.facts import is_row_whole
from aurastream.streams.history import History, Span
from aurastream.streams.index import unpack_position
from aurastream.streams.instant import at_once
from aurastream.streams.keys import STREAMS, Keys, partition_of
from aurastream.streams.stream import Stream

NAMED_MAX = 10  # complaints of one kind named per partition; all are counted
REMEDY = "Restore the partition from a copy."
_NOWHERE = bytes(PLACE_BYTES)


def unsound(history: History) -> Iterator[str]:
    """Complaints, each a sentence."""
    stream = history.stream
    yield from _misregistered(stream)
    if not stream.is_log_here:
        return
    for partition, keys in enumerate(stream.keys):
        audit = _Audit(history, partition)
        yield from _bounded(keys.where, audit.misplaced())
        if stream.versioned:
            yield from _bounded(keys.where, audit.miscounted())
            yield from _bounded(keys.where, audit.misindexed())


def _misregistered(stream: Stream) -> Iterator[str]:
    """What the registry says of a stream, against which keys it has."""
    for keys in stream.keys:
        for is_stated, key, what in (
            (stream.is_log_here, keys.log, "that its log is elsewhere"),
            (stream.versioned, keys.versions, "that it keeps no versions"),
        ):
            if not is_stated and stream.server.client.exists(key):
                yield (
                    f"aura:streams says of {stream.name!r} {what}, but there is {key}: the row was changed. "
                    "Put it right by a copy."
                )
    row: bytes | None = stream.server.client.hget(STREAMS, stream.name)  # type: ignore[assignment]
    if row is not None and not is_row_whole(row):
        yield (
            f"aura:streams has a row of {stream.name!r} as no build writes it ({row.decode()[:200]}): a name "
            "was changed, and its value is not read. Put it right by a copy."
        )
    yield from _out_of_range(stream)


def _out_of_range(stream: Stream) -> Iterator[str]:
    """Logs of partitions that the registry does not know."""
    log_key = re.compile(rf"aura:\{{{re.escape(stream.name)}\.([0-9]+)\}}:log")
    for name in sorted(stream.server.client.scan_iter(f"aura:{{{stream.name}.*}}:log", count=1_000)):
        log = log_key.fullmatch(name.decode(errors="backslashreplace"))
        if log is not None and int(log[1]) >= stream.partitions:
            yield (
                f"aura:streams says of {stream.name!r} that it has {stream.partitions} partitions, but there "
                f"is {log[0]}: the row was changed. Stop the producers and put the number right."
            )


def _bounded(where: str, complaints: Iterator[str]) -> Iterator[str]:
    for number, sentence in enumerate(complaints):
        if number == NAMED_MAX:
            yield f"{where}: {1 + sum(1 for _ in complaints)} more of the kind"
            return
        yield sentence


class _Audit:
    """One partition, read once. misplaced comes first: it reads the entries."""

    def __init__(self, history: History, partition: int) -> None:
        self._history, self._partition = history, partition
        self._stream, self._keys = history.stream, history.stream.keys[partition]
        self._before, self._is_pure = self._stated()
        self._places: dict[str, list[bytes]] = {}

    def misplaced(self) -> Iterator[str]:
        """Entries of subjects that belong into another partition; of the others, which subject is where."""
        for span in self._history.spans(self._partition):
            for position, subject in _subjects(self._keys, span):
                if (home := partition_of(subject, self._stream.partitions)) != self._partition:
                    yield (
                        f"{self._keys.where}/{position.decode()} is of {subject!r}, which belongs to "
                        f"partition {home} of {self._stream.partitions}: the number in aura:streams was "
                        "changed, or somebody added the entry by hand. Stop the producers and restore the "
                        "number."
                    )
                elif self._stream.versioned:
                    self._places.setdefault(subject, []).append(position)

    def miscounted(self) -> Iterator[str]:
        """Subjects whose version is not the number of their events."""
        self._after, is_still_pure = self._stated()
        self._is_pure = self._is_pure and is_still_pure
        subjects = self._before.keys() | self._after.keys() | self._places.keys()
        for subject in sorted(subjects) if self._is_pure else ():
            events = len(self._places.get(subject, ()))
            least, most = self._before.get(subject, 0), self._after.get(subject, 0)
            if not least <= events <= most:
                yield (
                    f"{self._keys.where}: {subject!r} is stated to be at version {most}, and has {events} "
                    f"events: decisions on it are refused, or judged by a wrong version. {REMEDY}"
                )

    def misindexed(self) -> Iterator[str]:
        """Rows of the index of entities that name another place than the event's."""
        if not self._is_pure:
            return
        index = f"{self._keys.where}: the index of entities"
        for field, row in self._stream.server.client.hscan_iter(self._keys.entities, count=1_000):
            subject, _, numbers = field.decode(errors="backslashreplace").partition("|")
            places = self._places.get(subject, [])
            if subject not in self._places and subject not in self._after:
                yield f"{index} has a row for {subject!r}, which has no events. {REMEDY}"
            elif not _fits(numbers, row, places) or self._is_beyond(subject, numbers):
                yield f"{index} does not name the places of {subject!r}'s events. {REMEDY}"

    def _is_beyond(self, subject: str, numbers: str) -> bool:
        """Whether the subject has no event yet that the row could be of; its version is read now, after the
        row.
        """
        chunk, _, slot = numbers.partition("|")
        version: bytes | None = self._stream.server.client.hget(self._keys.versions, subject)  # type: ignore[assignment]
        return _number(version or b"0") <= int(chunk) * CHUNK + int(slot or 0)

    def _stated(self) -> tuple[dict[str, int], bool]:
        """subject -> version, and whether append made every entry."""
        keys = self._keys
        pairs, (appended, trimmed), length = sound(
            at_once(
                self._stream.server,
                (keys.versions, keys.meta, keys.log),
                (("HGETALL", keys.versions), ("HMGET", keys.meta, "appended", "trimmed"), ("XLEN", keys.log)),
            )
        )
        stated = {
            name.decode(errors="backslashreplace"): _number(count)
            for name, count in zip(pairs[::2], pairs[1::2], strict=True)
        }
        return stated, int(appended or 0) == length + int(trimmed or 0)


def _subjects(keys: Keys, span: Span) -> Iterator[tuple[bytes, str]]:
    """Position and subject of every entry that has one; the damaged are check's."""
    jsons = entries_json([fields for _, fields in span.raw])
    envelopes = [None] * len(span.raw) if jsons is None else read_envelopes(jsons)
    for (position, fields), envelope in zip(span.raw, envelopes, strict=True):
        if envelope is not None:
            yield position, envelope.subject
            continue
        try:
            yield position, read_envelope(keys.where, entry_json(keys.where, fields)).subject
        except DamagedEntry:
            continue  # listed as dead by every view


def _fits(numbers: str, row: bytes, places: list[bytes]) -> bool:
    """Whether a row is what append.lua would have written; places that came after the entries were read are
    passed over.
    """
    chunk, _, slot = numbers.partition("|")
    if not chunk.isdecimal() or not (slot.isdecimal() or slot == ""):
        return False
    first = int(chunk) * CHUNK
    if slot:
        return first + int(slot) >= len(places) or places[first + int(slot)] == row
    named = [row[at : at + PLACE_BYTES] for at in range(0, len(row), PLACE_BYTES)]
    return len(named) <= CHUNK and all(
        packed == _NOWHERE or (len(packed) == PLACE_BYTES and unpack_position(packed) == place)
        for packed, place in zip(named, places[first:], strict=False)
    )


def _number(count: bytes) -> int:
    """A version as stored; -1, which is none, for what is no number."""
    return int(count) if count.isdigit() else -1
