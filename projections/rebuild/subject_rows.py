"""
One key's rows in the live view: read at one instant, and written if the view is still there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum

import msgspec

from aurastream.projections.engine import (
    AnyProjection,
    Change,
    Operation,
    ProjectionError,
    TableKind,
    View,
    ViewBroken,
    may_go_on,
    table_names,
    written,
)
from aurastream.projections.rebuild.subject_fold import Rows
from aurastream.projections.rebuild.subject_tables import SubjectTables
from aurastream.streams import (
    Codec,
    Cursor,
    Reply,
    Script,
    Stream,
    SubjectRebuilt,
    cursor_of,
    generation_group,
)

_REPAIR = Script(__file__, "subject.lua")
_FACT = b"fact "  # begins the fields of facts, before their IDs
FACTS = Codec((SubjectRebuilt,))


class RepairAnswer(IntEnum):
    """What subject.lua answers."""

    OK = 0
    STALE = 1
    BROKEN = 2
    RETIRED = 3


class _RepairHead(msgspec.Struct):
    """What subject.lua takes first. types: of the tables. event_id, fact: of the audit event, and its
    JSON.
    """

    position: str
    event_id: str
    fact: str
    types: list[str]
    writes: list[Operation]


def _stored(names: dict[str, Sequence[str]], answers: list[Reply]) -> Rows:
    """The rows that are there. names: of each table's rows, in the order of the answers."""
    stored = Rows()
    for (table, rows), values in zip(names.items(), answers, strict=True):
        pairs = zip(rows, values, strict=True)
        if held := {row: _text(value) for row, value in pairs if value is not None}:
            stored[table] = held
    return stored


class SubjectRows:
    """One key's rows in the live generation of a view."""

    def __init__(self, stream: Stream, projection: AnyProjection, subject: str) -> None:
        self.stream, self.projection, self.subject = stream, projection, subject
        self.partition = stream.partition_of(subject)
        self.keys = stream.keys[self.partition]
        self.set_aside: frozenset[str] = frozenset()  # positions that the view lists, as last read
        self.facts: list[bytes] = []  # of repairs, that the audit trail may not have yet; as last read
        self._view, self._tables = View(stream, projection), SubjectTables(projection, subject)

    def read(self) -> tuple[Cursor, Rows]:
        """The live cursor and the key's rows at one instant. Raises ProjectionError at another definition."""
        self._view.cursor(self.partition)  # follows the live generation
        names = sorted(filter(self._tables.may_have_rows, table_names(self._view, self.partition)))
        rows = {name: self._row_names(name) for name in names}
        with self.stream.server.client.pipeline(transaction=True) as pipeline:
            pipeline.execute_command("HGETALL", self.keys.cursor(self._group))
            pipeline.execute_command("HKEYS", self.keys.dead(self._group))
            for name in names:
                read = "HMGET" if self._tables.kind(name) is TableKind.HASH else "ZMSCORE"
                pipeline.execute_command(read, self._view.key(self.partition, name), *rows[name])
            reply, dead, *answers = pipeline.execute()
        self.set_aside = frozenset(position.decode() for position in dead)
        flat = _flat(reply)
        cursor = self._own(cursor_of(flat))
        self.facts = [
            fact for name, fact in zip(flat[::2], flat[1::2], strict=True) if name.startswith(_FACT)
        ]
        return cursor, _stored(rows, answers)

    def _changes(self, stored: Rows, folded: Rows) -> Iterator[Change]:
        for name in sorted(stored.keys() | folded.keys()):
            put = folded.get(name, {})
            drop = [row for row in stored.get(name, {}) if row not in put]
            yield Change(name, self._tables.kind(name), None, dict(put), drop)

    def told(self, event_id: str) -> None:
        """The fact of that ID is in the audit trail."""
        field = _FACT + event_id.encode()
        self.stream.ask(self.partition, ("HDEL", self.keys.cursor(self._group), field))

    def write(self, cursor: Cursor, stored: Rows, folded: Rows, fact: SubjectRebuilt) -> bool:
        """Make the stored rows the folded ones, and note the fact with them. False when the view has moved
        on, or another generation is live by now: look again. Raises ViewBroken.
        """
        changes = list(self._changes(stored, folded))
        writes, operands = written(changes, key=2, first=2)
        kinds = [change.kind.value for change in changes]
        head = _RepairHead(cursor.position, fact.event_id, FACTS.encode(fact).decode(), kinds, writes)
        prefix = self._view.key(self.partition, "")
        names = [self.keys.cursor(self._group), *(prefix + change.table for change in changes)]
        reply = self.stream.ask(
            self.partition, _REPAIR.call(names, (msgspec.msgpack.encode(head), *operands))
        )[0]
        answer = RepairAnswer(reply[0])
        if answer is RepairAnswer.BROKEN:
            raise ViewBroken(self.projection.name, reply[1].decode(), reply[2].decode())
        return answer is RepairAnswer.OK

    @property
    def _group(self) -> str:
        return generation_group(self.projection.name, self._view.generation)

    def _own(self, cursor: Cursor) -> Cursor:
        if cursor.fingerprint and not may_go_on(cursor.fingerprint, self.projection.fingerprint):
            raise ProjectionError(
                f"the live view {self.projection.name!r} of {self.keys.where} was folded by another "
                "definition than this process has: one key of it cannot be put right by ours. `aurastream "
                f"rebuild {self.projection.name}` folds it anew."
            )
        return cursor

    def _row_names(self, table: str) -> Sequence[str]:
        """The key's rows in a table: one, or of a listing its open end and the full rows, with room for what
        comes meanwhile.
        """
        if self._tables.row_names(table, None) == [self.subject]:
            return [self.subject]
        raw = self.stream.ask(self.partition, ("HGET", self._view.key(self.partition, table), self.subject))[
            0
        ]
        return self._tables.row_names(table, raw)


def _flat(reply: Reply) -> list[bytes]:
    """HGETALL as the server answers it, whether or not redis-py made a dict of it."""
    return [part for pair in reply.items() for part in pair] if isinstance(reply, dict) else reply


def _text(value: bytes | float) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
