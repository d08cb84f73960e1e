"""Offsets to positions: where the entry of an offset is in a partition's log."""

from __future__ import annotations

from aurastream.processors.transport.lane import TopicLane
from aurastream.streams import Ask, AsyncWires

SCAN = 1_000  # entries a look


async def bounds(wires: AsyncWires, lanes: list[TopicLane]) -> list[tuple[int, int]]:
    """Of each partition the offset of its first entry, and the one after its last."""
    commands = [
        Ask(lane.keys.log, command)
        for lane in lanes
        for command in (("XLEN", lane.keys.log), ("HGET", lane.keys.meta, "trimmed"))
    ]
    answers = await wires.ask(commands)
    return [
        (int(trimmed or 0), int(trimmed or 0) + length)
        for length, trimmed in zip(answers[::2], answers[1::2], strict=True)
    ]


async def place_of(wires: AsyncWires, lane: TopicLane, offset: int) -> tuple[str, int]:
    """The position after which the entry of this offset comes, and its offset; the log's end where none is.

    Counted from the acknowledged position, or from the start for an offset before it: O(entries between).
    """
    position, at = lane.acknowledged.position, lane.acknowledged.following
    if offset < at:
        ((first, _),) = await bounds(wires, [lane])
        position, at = "", first
    while at < offset:
        count = min(SCAN, offset - at)
        command = ("XRANGE", lane.keys.log, f"({position or '0-0'}", "+", "COUNT", count)
        (entries,) = await wires.ask([Ask(lane.keys.log, command)])
        if not entries:
            break
        position, at = entries[-1][0].decode(), at + len(entries)
    return position, at
