"""What a kind asks a view for, live (engine/reads.py) or of a past time (past/), and what it answers with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from aurastream.streams import Cursor, Reply

State: TypeAlias = Any  # a projection's own frozen struct
Positions: TypeAlias = dict[int, str]  # partition -> position


class Rows(NamedTuple):
    """Asked for: the stored JSON of these rows, in order; None for those there are not."""

    table: str
    keys: list[str]


class Whole(NamedTuple):
    """Asked for: all of a table, as row, value, .. of a hash and member, score, .. of a sorted set."""

    table: str


class Top(NamedTuple):
    """Asked for: the first `most` members of a sorted set (-1: all), their scores and their states."""

    table: str
    part: str | None
    most: int


Read: TypeAlias = Whole | Rows | Top
Reads: TypeAlias = Mapping[int, Sequence[Read]]  # partition -> what is asked of it at one instant


class Answer(msgspec.Struct, frozen=True):
    """What was read, and the position of every partition it reflects."""

    rows: Any
    positions: Positions


class Ranked(msgspec.Struct, frozen=True):
    """A key's place in a ranking: its score as declared (the highest first) and its state."""

    key: str
    score: float
    state: State


class Reader(Protocol):
    """A view as a kind reads it."""

    @property
    def partitions(self) -> range:
        """All of the stream's."""
        ...

    def ask(self, reads: Reads, *, goes_on: bool = False) -> dict[int, tuple[Cursor, list[Reply]]]:
        """Each partition's cursor and answers of one instant. goes_on: of the last round's generation."""
        ...

    def decoder(self, kind: Any) -> Callable[[bytes], Any]:
        """Decodes stored JSON of a type, sealed fields opened."""
        ...

    def decode_state(self, raw: bytes) -> State:
        """A stored state."""
        ...


def whole(view: Reader, name: str) -> dict[int, tuple[Cursor, dict[str, bytes]]]:
    """A whole table of every partition, each of one instant."""
    answers = view.ask({partition: [Whole(name)] for partition in view.partitions})
    return {partition: (cursor, pairs(flat)) for partition, (cursor, (flat,)) in answers.items()}


def pairs(flat: list[bytes]) -> dict[str, bytes]:
    """field, value, .. as a dict. What is no text (a flipped bit) is shown as what it is."""
    return {flat[i].decode(errors="backslashreplace"): flat[i + 1] for i in range(0, len(flat), 2)}


def positions_of(answers: dict[int, tuple[Cursor, Reply]]) -> Positions:
    """Up to where the answers of partitions say anything."""
    return {partition: cursor.position for partition, (cursor, _) in answers.items()}
