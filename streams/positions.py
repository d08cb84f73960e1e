"""
Places in a log, and instants in microseconds: forms that compare, and the texts they are stored as.

    "1764417600000-3" -> Position(1764417600000, 3) -> comparisons, before(), next() -> str() ->
    "1764417600000-3"

A position is the ID of an entry: server milliseconds and a sequence number, each below 2^64 (the IDs of Redis
Streams). Texts are for keys, commands and people; wherever two are compared, they are Positions. Pure.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

PART_MAX = 2**64 - 1  # the greatest milliseconds and the greatest sequence an entry ID can have
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Position(NamedTuple):
    """An entry's place in a partition. ms: server time of the append, milliseconds since 1970. seq: among
    those of one ms.
    """

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: str | bytes) -> Position:
        """From "ms-seq" or "ms" (its first entry); "" is START, before the first entry. Raises ValueError."""
        if not text:
            return START
        ms, _, seq = (text if isinstance(text, str) else text.decode()).partition("-")
        return cls(int(ms), int(seq or 0))

    @classmethod
    def at(cls, instant: datetime) -> Position:
        """The first place an entry appended at the instant (or in its millisecond) can have."""
        return cls((instant - EPOCH) // timedelta(milliseconds=1), 0)

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"

    def before(self) -> Position:
        """The greatest place below this one; START stays where it is."""
        if self.seq:
            return Position(self.ms, self.seq - 1)
        return Position(self.ms - 1, PART_MAX) if self.ms else START

    def next(self) -> Position:
        """The least place above this one; END stays where it is."""
        if self.seq < PART_MAX:
            return Position(self.ms, self.seq + 1)
        return Position(self.ms + 1, 0) if self.ms < PART_MAX else END


START = Position(0, 0)  # before every entry: Redis allots no 0-0
END = Position(PART_MAX, PART_MAX)


def last_of(until: str) -> Position:
    """The last place that an end of a range includes: "+" is END, milliseconds alone are all of theirs.
    Raises ValueError.
    """
    if until == "+":
        return END
    ms, dash, seq = until.partition("-")
    return Position(int(ms or 0), int(seq) if dash else PART_MAX)


def microseconds(instant: datetime) -> int:
    """Since 1970, exact."""
    return (instant - EPOCH) // MICROSECOND
