"""
One key of the live view, folded anew from its own events, and put right where it differs.

    positions of the subject's events (by the trail as far as it has come, then by reading the partition on)
        -> fold them alone
        -> the key's rows at one instant, beside what was folded -> listed; with accept written, if the view
            is still there

Looked at: the key's state, its places in rankings, its own listings. Not looked at are rows that add up
several keys (totals, roll-ups, listings under another name): one key's events do not say what they should be;
the whole rebuild does.

Always true: rows are written by one script that compares the live cursor, so that a worker who goes on
meanwhile loses nothing, and whoever keeps the key's state in memory is refused once and reads it anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from aurastream.projections.built_in import known_of_subject
from aurastream.projections.engine import (
    CommitAnswer,
    Difference,
    ListRow,
    MemoryView,
    Projection,
    ProjectionError,
    ServerIndex,
    View,
    ViewBroken,
    compare,
    flat,
    microseconds,
    now_ms,
    table_names,
)
from aurastream.streams import (
    OPERATIONS,
    UNDECODABLE,
    Cursor,
    History,
    InvariantBroken,
    Keys,
    RawEntry,
    Script,
    Span,
    SubjectRebuilt,
    as_pair,
    cursor_of,
    generation_group,
    named_id,
    open_stream,
)

TRIES_MAX = 50  # looks at a view that moves on between the look and the writing
ROWS_MORE = 64  # full rows of a listing that may come between two looks
CHUNK = 1_000  # entries asked for by position at once

_REPAIR = Script(__file__, "subject.lua")


class _Named(msgspec.Struct):
    subject: str = ""


_named = msgspec.json.Decoder(_Named).decode


class SubjectRebuiltAnew(msgspec.Struct, frozen=True):
    """What came of it. rows: of the key, compared. shared: tables that were not looked at. is_written: the
    rows are right now.
    """

    subject: str
    partition: int
    position: str
    events: int
    rows: int
    differing: int
    differences: list[Difference]
    shared: list[str]
    is_written: bool


def rebuild_subject(
    history: History, projection: Projection[Any], subject: str, *, accept: bool, by: str, why: str = ""
) -> SubjectRebuiltAnew:
    """Fold one key anew. accept: write what differs.

    Raises ProjectionError where keys are not subjects, or the view was folded by another definition.
    """
    if type(projection).key is not Projection.key:
        raise ProjectionError(
            f"the keys of {projection.name!r} are not subjects, so the events of one are not known before "
            "all are read. "
            f"Rebuild the whole view: `aurastream rebuild {projection.name}`."
        )
    work = _Repair(history, projection, subject)
    for _ in range(TRIES_MAX):
        cursor, stored = work.look()
        work.fold_to(cursor)
        folded = work.folded(cursor.watermark)
        differences = list(compare(stored, folded))
        is_written = bool(differences) and accept and work.write(cursor, stored, folded)
        if is_written or not (differences and accept):
            if is_written:
                work.tell(len(differences), cursor, by, why)
            return SubjectRebuiltAnew(
                subject,
                work.partition,
                cursor.position,
                work.events,
                sum(len(table) for table in folded.values()),
                len(differences),
                differences,
                work.shared(),
                is_written,
            )
    raise InvariantBroken(
        f"the view {projection.name} of {work.keys.where} moved on {TRIES_MAX} times before it could be "
        "written to."
    )


class _Repair:
    """One key's fold, and its rows in the live view."""

    def __init__(self, history: History, projection: Projection[Any], subject: str) -> None:
        self.history, self.stream, self.projection, self.subject = (
            history,
            history.stream,
            projection,
            subject,
        )
        self.partition = self.stream.partition_of(subject)
        self.keys: Keys = self.stream.keys[self.partition]
        self.events = 0
        self._view = View(self.stream, projection)
        self._folded = MemoryView(projection, self.keys.where)
        self._read_to = ""
        self._rankings = {spec.name: spec for spec in projection.rankings}

    def look(self) -> tuple[Cursor, dict[str, dict[str, str]]]:
        """The live cursor and the key's rows, at one instant. Raises ProjectionError for a view of another
        definition.
        """
        self._view.cursor(self.partition)  # follows the live generation
        names = sorted(name for name in table_names(self._view, self.partition) if self._of_key(name))
        ranked = [name for name in names if _plain(name) in self._rankings]
        hashes = [name for name in names if name not in ranked]
        rows, head = {name: self._row_names(name) for name in hashes}, self.keys.cursor(self._group)
        with self.stream.server.client.pipeline(transaction=True) as pipeline:
            pipeline.execute_command("HGETALL", head)
            for name in ranked:
                pipeline.execute_command("ZSCORE", self._view.key(self.partition, name), self.subject)
            for name in hashes:
                pipeline.execute_command("HMGET", self._view.key(self.partition, name), *rows[name])
            reply, *values = pipeline.execute()
        cursor = cursor_of(_flat(reply))
        if cursor.fingerprint not in ("", self.projection.fingerprint):
            raise ProjectionError(
                f"the live view {self.projection.name!r} of {self.keys.where} was folded by another "
                "definition than this process has: "
                f"one key of it cannot be put right by ours. `aurastream rebuild {self.projection.name}` "
                "folds it anew."
            )
        stored: dict[str, dict[str, str]] = {}
        for name, value in zip([*ranked, *hashes], values, strict=True):
            given = {self.subject: value} if name in ranked else dict(zip(rows[name], value, strict=True))
            if held := {row: _text(raw) for row, raw in given.items() if raw is not None}:
                stored[name] = held
        return cursor, stored

    def fold_to(self, cursor: Cursor) -> None:
        """The subject's events up to the cursor, those that were folded before left out."""
        if not cursor.position or as_pair(cursor.position) <= as_pair(self._read_to):
            return
        index = ServerIndex(self.stream, self.partition)
        for span in self._spans(cursor.position):
            batch = self._folded.decode(span.raw, span.duplicates)
            batch.judge(index)
            self.events += len(batch.events)
            self._folded.fold(batch)
        self._read_to = cursor.position

    def folded(self, watermark: int) -> dict[str, dict[str, str]]:
        """The key's rows as they should be when the partition's event time is the watermark: that is what
        others' events say of it.
        """
        expired = self._expired(watermark)
        found: dict[str, dict[str, str]] = {}
        for name, table in flat(self._folded).items():
            rows = {row: value for row, value in table.items() if self._is_ours(name, row)}
            if rows and _plain(name) not in expired:
                found[name] = rows
        return found

    def _expired(self, watermark: int) -> set[str]:
        """The rankings that the key has left by that time."""
        raw = self._folded.tables.get(self.projection.table, {}).get(self.subject)
        if raw is None:
            return set()
        state = msgspec.json.decode(raw, type=self.projection.state)
        ends = {
            spec.name: spec.expires_at(state)
            for spec in self.projection.rankings
            if spec.expires_at is not None
        }
        return {name for name, end in ends.items() if end is not None and microseconds(end) <= watermark}

    def shared(self) -> list[str]:
        """The tables that add up several keys."""
        listed = [spec.name for spec in self.projection.listings if not self._has_own(spec.name)]
        return [
            *(spec.name for spec in self.projection.totals),
            *(spec.name for spec in self.projection.rollups),
            *listed,
        ]

    def write(
        self, cursor: Cursor, stored: dict[str, dict[str, str]], folded: dict[str, dict[str, str]]
    ) -> bool:
        """Write the rows that differ. False when the view has moved on. Raises ViewBroken."""
        keys, kinds, operations, operands = [self.keys.cursor(self._group)], "", "", list[str]()
        for name in sorted(stored.keys() | folded.keys()):
            ours, theirs = folded.get(name, {}), stored.get(name, {})
            is_ranking = _plain(name) in self._rankings
            keys.append(self._view.key(self.partition, "") + name)
            kinds += "z" if is_ranking else "h"
            put = [
                part for row, value in ours.items() for part in ((value, row) if is_ranking else (row, value))
            ]
            drop = [row for row in theirs if row not in ours]
            for verb, parts in (
                ("ZADD" if is_ranking else "HSET", put),
                ("ZREM" if is_ranking else "HDEL", drop),
            ):
                if parts:
                    first = 4 + len(operands)
                    operations += f"{len(keys)} {verb} {first} {first + len(parts) - 1}\n"
                    operands += parts
        reply = self.stream.server.run(_REPAIR, keys, (cursor.position, kinds, operations, *operands))
        answer = CommitAnswer(reply[0])
        if answer is CommitAnswer.BROKEN:
            raise ViewBroken(self.projection.name, reply[1].decode(), reply[2].decode())
        return (
            answer is CommitAnswer.OK
        )  # else it moved on, or another generation is the live one by now: look again

    def tell(self, differing: int, cursor: Cursor, by: str, why: str) -> None:
        """Append the fact to the audit trail."""
        at_ms = now_ms(self.stream.server)
        event = SubjectRebuilt(
            event_id=named_id(
                "rebuild",
                self.stream.name,
                self.projection.name,
                self.subject,
                cursor.position,
                cursor.repairs,
            ),
            subject=self.subject,
            source=by,
            occurred_at=datetime.fromtimestamp(at_ms / 1000, UTC),
            stream=self.stream.name,
            projection=self.projection.name,
            differing=differing,
            why=why,
        )
        operations = open_stream(self.stream.server, OPERATIONS, settings=self.stream.settings, create=True)
        try:
            operations.append([event])
        finally:
            operations.close()

    @property
    def _group(self) -> str:
        return generation_group(self.projection.name, self._view.generation)

    def _spans(self, until: str) -> Iterator[Span]:
        """The subject's entries after those that were read: those the trail knows by position, the rest by
        reading the partition.
        """
        known = known_of_subject(self.stream, self.subject)
        after = self._read_to or "0-0"
        high = min(known.until or "0-0", until, key=as_pair)
        wanted = [
            position for position in known.positions if as_pair(after) < as_pair(position) <= as_pair(high)
        ]
        if as_pair(high) > as_pair(after):
            yield from self._known(wanted)
            after = high
        if as_pair(after) < as_pair(until):
            for span in self.history.spans(self.partition, after, until):
                raw = [entry for entry in span.raw if self._is_subjects(entry)]
                if raw:
                    yield Span(raw, span.duplicates)

    def _known(self, wanted: list[str]) -> Iterator[Span]:
        """Entries by position: the trail names the ones that count and leaves duplicates out."""
        for first in range(0, len(wanted), CHUNK):
            part = wanted[first : first + CHUNK]
            found = self.history.entries(self.partition, part)
            raw = [found[position] for position in part if position in found]
            if raw:
                yield Span(raw, frozenset())

    def _is_subjects(self, entry: RawEntry) -> bool:
        fields = dict(zip(entry[1][::2], entry[1][1::2], strict=False))
        raw = fields.get(b"event", b"")
        if self.subject.encode() not in raw:
            return False
        try:
            return _named(raw).subject == self.subject
        except UNDECODABLE:
            return False

    def _has_own(self, listing: str) -> bool:
        return self.subject in self._folded.tables.get(listing, {})

    def _of_key(self, name: str) -> bool:
        plain = _plain(name)
        return (
            plain == self.projection.table
            or plain in self._rankings
            or any(spec.name == plain for spec in self.projection.listings)
        )

    def _is_ours(self, name: str, row: str) -> bool:
        return self._of_key(name) and row.partition("|")[0] == self.subject

    def _row_names(self, table: str) -> list[str]:
        """The key's rows in a hash: one, or of a listing its open end and the full rows, with room for what
        comes meanwhile.
        """
        if table == self.projection.table:
            return [self.subject]
        wire, key = self.stream.wire(self.partition), self._view.key(self.partition, table)
        raw = wire.ask(("HGET", key, self.subject))[0]
        stored = 0 if raw is None else msgspec.json.decode(raw, type=ListRow).stored
        return [self.subject, *(f"{self.subject}|{number}" for number in range(stored + ROWS_MORE))]


def _plain(name: str) -> str:
    """The declared name of a table: without a part, and of the table of ends the ranking's."""
    return name.partition(":")[0].removesuffix(".expiry")


def _flat(reply: Any) -> list[bytes]:
    """HGETALL as the server answers it, whether or not redis-py made a dict of it."""
    return [part for pair in reply.items() for part in pair] if isinstance(reply, dict) else reply


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
