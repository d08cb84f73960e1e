"""
Ranges of positions over a segment's entries: which row groups hold them, and which entries of those they are.
Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from aurastream.streams import Position, RawEntry, Span
from aurastream.streams.archive.manifest import Manifest


def overlaps(manifest: Manifest, after: Position, through: Position) -> bool:
    """Whether the segment may hold entries after the one, up to and including the other."""
    first, last = manifest.range
    return last > after and first <= through


def groups_between(manifest: Manifest, after: Position, through: Position) -> Iterator[int]:
    """The row groups that may hold such entries."""
    firsts = manifest.group_firsts()
    for group, first in enumerate(firsts):
        if first > through:
            return
        if group + 1 == len(firsts) or firsts[group + 1] > after:
            yield group


def by_group(manifest: Manifest, wanted: list[Position]) -> dict[int, list[Position]]:
    """Row group -> which of these positions it would hold.

    wanted: sorted; those outside of the segment are left out.
    """
    first, last = manifest.range
    here = wanted[bisect_left(wanted, first) : bisect_right(wanted, last)]
    groups: dict[int, list[Position]] = {}
    firsts = manifest.group_firsts() if here else []
    for position in here:
        groups.setdefault(bisect_right(firsts, position) - 1, []).append(position)
    return groups


def bounded(raw: list[RawEntry], after: Position, through: Position) -> list[RawEntry]:
    """The entries after the one, up to and including the other."""
    if raw and _place(raw[0]) <= after:
        raw = raw[bisect_right(raw, after, key=_place) :]
    if raw and _place(raw[-1]) > through:
        raw = raw[: bisect_right(raw, through, key=_place)]
    return raw


def spans_of(
    raw: list[RawEntry], duplicates: frozenset[bytes], count: int, *, is_sound: bool = False
) -> Iterator[Span]:
    """The entries in spans of at most `count`."""
    for start in range(0, len(raw), count):
        part = raw[start : start + count]
        yield Span(
            part, duplicates & {position for position, _ in part} if duplicates else duplicates, is_sound
        )


def distinct(positions: Iterable[str]) -> list[Position]:
    """As positions, sorted, each once; "" is none."""
    return sorted({Position.parse(position) for position in positions if position})


def _place(entry: RawEntry) -> Position:
    return Position.parse(entry[0])
