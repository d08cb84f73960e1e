"""Offsets to positions: where the entry of an offset is in a partition's log."""

from __future__ import annotations

from aurastream.processors.transport.link import Link
from aurastream.processors.transport.share import Share
from aurastream.streams import Ask

SCAN = 1_000  # entries a look


async def bounds(link: Link, shares: list[Share]) -> list[tuple[int, int]]:
    """Of each partition the offset of its first entry, and the one after its last."""
    commands = [
        Ask(share.keys.log, command)
        for share in shares
        for command in (("XLEN", share.keys.log), ("HGET", share.keys.meta, "trimmed"))
    ]
    answers = await link.ask_each(commands) if commands else []
    return [
        (int(trimmed or 0), int(trimmed or 0) + length)
        for length, trimmed in zip(answers[::2], answers[1::2], strict=True)
    ]


async def place_of(link: Link, share: Share, offset: int) -> tuple[str, int]:
    """The position after which the entry of this offset comes, and its offset; the end of the log where it
    has no such entry.

    Counted from the acknowledged position, or from the start where the offset lies before that. cost
    O(entries between)
    """
    position, at = share.acknowledged.position, share.acknowledged.following
    if offset < at:
        ((first, _),) = await bounds(link, [share])
        position, at = "", first
    while at < offset:
        count = min(SCAN, offset - at)
        command = ("XRANGE", share.keys.log, f"({position or '0-0'}", "+", "COUNT", count)
        (entries,) = await link.ask(share.keys.log, command)
        if not entries:
            break
        position, at = entries[-1][0].decode(), at + len(entries)
    return position, at
