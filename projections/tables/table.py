"""
What every kind of table is: declared over a projection's state, a part of its fold, and rows that are read,
explained and repaired.

    declared: Table (ranking.py, totals.py ..) -> fold: TableFold.see, event by event where the table wants
    them
        -> changes: what it needs is loaded (Need), what it writes is said (Change)
    stored: plain hashes and sorted sets with JSON values -> read by the kind itself (reading.py), of now or
    of a past time

A new kind is one file with a Table and its TableFold; a projection names it in ``tables``, and nothing else
knows it. Pure; all I/O is the caller's. Imports nothing of projections.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar

import msgspec

from aurastream.projections.tables.reading import Answer, Reader, Rows, State

FoldedEvent: TypeAlias = Any  # an event of a type it folds, or an Envelope
Row: TypeAlias = Any  # as a kind holds it in memory, or as JSON
Stored: TypeAlias = Any  # as it is written: bytes of JSON, or a score as text
T = TypeVar("T")


class ProjectionError(Exception):
    """Base of every error of projections."""


class TableKind(StrEnum):
    """What a table is in the server, by the server's word."""

    HASH = "hash"  # row -> JSON
    SORTED = "zset"  # member -> score


class Change(msgspec.Struct):
    """What to write to one table: absolute values, no row both put and dropped. part: of a split ranking."""

    table: str
    kind: TableKind
    part: str | None = None
    put: dict[str, Stored] = {}
    drop: list[str] = []

    def writes(self) -> list[tuple[str, list[Stored]]]:
        """As commands and their operands.

        What is put comes first: a key that loses its last row is gone, and in a slot that is being moved a
        cluster refuses to make it again, in the middle of a script.
        """
        is_hash = self.kind is TableKind.HASH
        writes: list[tuple[str, list[Stored]]] = []
        if self.put and is_hash:
            writes.append(("HSET", [part for pair in self.put.items() for part in pair]))
        elif self.put:
            writes.append(("ZADD", [part for key, score in self.put.items() for part in (score, key)]))
        if self.drop:
            writes.append(("HDEL" if is_hash else "ZREM", self.drop))
        return writes


class Due(NamedTuple):
    """Needed: the members of a sorted set whose score is at most `until`."""

    table: str
    until: int


Need: TypeAlias = Rows | Due
Loading: TypeAlias = Generator[Need, list[Stored], T]  # yields what it needs, is sent that


class Cached:
    """Rows of one table as far as they were needed; None for one there is not."""

    def __init__(self, table: str, decode: Callable[[bytes], Row]) -> None:
        self.table, self._decode = table, decode
        self.rows: dict[str, Row] = {}

    def load(self, keys: Iterable[str]) -> Loading[None]:
        """Have these in ``rows``."""
        missing = list(set(keys).difference(self.rows))
        if missing:
            stored: list[bytes | None] = yield Rows(self.table, missing)
            for key, raw in zip(missing, stored, strict=True):
                self.rows[key] = None if raw is None else self._decode(raw)

    def bound(self, most: int, kept: Iterable[str] = ()) -> None:
        """Where it has more rows than that, begin anew with those to be kept."""
        if len(self.rows) > most:
            self.rows = {key: self.rows[key] for key in kept}


# A key, its state before a batch (None: there was none) and after it; a plain tuple, as there is one a key.
Touched: TypeAlias = tuple[str, State, State]
Move: TypeAlias = tuple[State, State]  # a state or None, and a later one of the same key


class Batched(NamedTuple):
    """What a batch did to the states. touched: once a key. moves: from each state to the next at which one
    of the tables' windows was another, so one or more a key. watermark: the latest event time, microseconds
    since 1970.
    """

    touched: list[Touched]
    moves: list[Move]
    watermark: int
    states: Cached


class TableFold:
    """A table's part in the fold of one partition.

    see: wanted of every event where it is not None: see(key, old, new, event, position), the states as the
    fold saw them; the same object twice where nothing changed. window: a field or function of the state at
    whose change the table wants to see the states before and after (``Batched.moves``); otherwise a key's
    first and last state of a batch are enough.
    """

    see: Callable[[str, State, State, FoldedEvent, str], None] | None = None
    window: str | Callable[[State], Row] | None = None

    def begin(self) -> None:
        """A batch begins: what was seen of one that came to nothing is forgotten."""

    def changes(self, batch: Batched) -> Loading[list[Change]]:
        """What follows from the batch, and from what was seen."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget every row: the log moved without us."""

    def bound(self, most: int) -> None:
        """Keep no more rows than that."""


class Table(msgspec.Struct, frozen=True):
    """A table that a projection declares. Its rows are a hash of JSON unless the kind says otherwise."""

    name: str

    kind: ClassVar[TableKind] = TableKind.HASH

    def check(self, state: type[msgspec.Struct], events: tuple[type, ...]) -> None:
        """Raise ProjectionError where it cannot work over this state and these events."""

    def fold(self) -> TableFold:
        """Its part in a fold."""
        raise NotImplementedError

    def read(self, view: Reader, *options: Any, **named: Any) -> Answer:
        """The table's own answer, over all partitions; options are the kind's."""
        raise NotImplementedError

    def listed(self, view: Reader) -> Answer:
        """All rows for people: row -> value."""
        return self.read(view)

    def stored_as(self, name: str) -> bool:
        """Whether a stored table, by its name without the partition's prefix, is this one or a part of it."""
        return name.partition(":")[0] == self.name

    def value(self, raw: bytes) -> Row:
        """A stored row's value for people."""
        return msgspec.json.decode(raw)

    def of_state(self) -> Callable[[State], Row] | None:
        """What the table says of a key where its state alone decides that, else None."""
        return None

    def own_rows(self, key: str, raw: bytes | None) -> list[str] | None:
        """The rows that a subject's own events decide; None where they are shared. raw: its row."""
        return None

    def has_left(self, state: State, watermark: int) -> bool:
        """Whether others' event time, in microseconds, has taken the key out of the table."""
        return False
