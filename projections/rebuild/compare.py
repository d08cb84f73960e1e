"""
One partition of two generations at one position: every row and every count, compared.

    the live one, at one instant -> its cursor -> the new one is built to exactly there -> its rows, at one
        instant -> compare

The rebuild is the new one's only writer, so it stands still while it is read; the live one moves on, and its
answer names where it was.
"""

from __future__ import annotations

import msgspec

from aurastream.projections.engine import (
    COUNTED,
    DIFFERENCES_MAX,
    LOOKS_MAX,
    AnyProjection,
    Difference,
    View,
    compare,
    stored_tables,
    table_names,
)
from aurastream.projections.rebuild.builder import BuildLane
from aurastream.streams import Cursor, InvariantBroken, Position, Stream


class Compared(msgspec.Struct, frozen=True):
    """A partition of two generations at one position. differences: of the rows, the first DIFFERENCES_MAX;
    view is the live one.
    """

    partition: int
    position: str
    events: int
    rows: int
    differing: int
    differences: list[Difference]


def compare_partition(builder: BuildLane, projection: AnyProjection, live: int) -> Compared | None:
    """Bring the builder's generation to where the live one is, and compare. None when it was stopped.

    Raises InvariantBroken when it is ahead of the live one, which it never is before it was compared.
    """
    stream, partition = builder.stream, builder.partition
    old, new = (View(stream, projection, generation=number) for number in (live, builder.generation))
    names = table_names(old, partition)
    for _ in range(LOOKS_MAX):
        cursor, stored = stored_tables(old, partition, sorted(names))
        if cursor.position:
            reached = builder.build(cursor.position)
            if reached.position != cursor.position and builder.stopping():
                return None
        folded_names = table_names(new, partition)
        at, folded = stored_tables(new, partition, sorted(folded_names))
        if at.position != cursor.position:
            raise InvariantBroken(_apart(stream, partition, builder, cursor, at))
        if not (unlisted := folded_names - names):
            break
        # a table that the live one made after its tables were listed, or one that only the new one has
        names |= unlisted
    differences = [*compare(stored, folded), *_counts(cursor, at)]
    rows = sum(len(table) for table in folded.values())
    return Compared(
        partition, cursor.position, cursor.read, rows, len(differences), differences[:DIFFERENCES_MAX]
    )


def _counts(old: Cursor, new: Cursor) -> list[Difference]:
    """The cursors' counts that are not equal."""
    pairs = [(name, str(getattr(old, name)), str(getattr(new, name))) for name in COUNTED]
    return [Difference("cursor", name, ours, theirs) for name, ours, theirs in pairs if ours != theirs]


def _apart(stream: Stream, partition: int, builder: BuildLane, live: Cursor, new: Cursor) -> str:
    is_ahead = Position.parse(new.position) > Position.parse(live.position)
    where = stream.keys[partition].where
    relation = "ahead of" if is_ahead else "not able to reach"
    ours, theirs = new.position or "the start", live.position or "the start"
    return (
        f"generation {builder.generation} of {builder.projection.name} at {where} is {relation} the live "
        f"one: it is at {ours}, that at {theirs}. The live view or its log was changed by hand, or restored: "
        "run `aurastream check`, or give the new generation up "
        f"(`aurastream rebuild {builder.projection.name} --abandon`) and build it anew."
    )
