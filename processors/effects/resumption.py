"""
Dead letters that run again, because a person said so, and audit events that a process did not get to append.

    due: lines -> first_letter -> attempt (lane.py) -> the letter that follows it -> letter -> ..
"""

from __future__ import annotations

import msgspec

from aurastream.processors.effects.items import UNREAD, Item, item_of
from aurastream.processors.effects.lane import EffectLane
from aurastream.processors.effects.letters import AUDIT_TYPES
from aurastream.streams import Asking, Codec, Position

_AUDIT = Codec(AUDIT_TYPES)


def due(lane: EffectLane) -> Asking[list[str]]:
    """The lines a person let run again, after the audit events that were left behind."""
    lines, outbox = yield from lane.ask(("HKEYS", lane.at.due), ("HVALS", lane.at.outbox))
    for raw in outbox:
        event = _AUDIT.decode(raw, lane.at.outbox)
        if event is not None:
            yield from lane.record(event)
    return [line.decode() for line in lines]


def first_letter(lane: EffectLane, line: str) -> Asking[Item | None]:
    """The first dead letter of a line, ready to attempt; None when there is none."""
    command = ("ZRANGEBYLEX", lane.at.line, f"[{line} ", f"({line}!", "LIMIT", 0, 1)
    first = (yield from lane.ask(command))[0]
    if not first:
        return None
    return (yield from letter(lane, line, str(Position.parse(first[0].decode().rpartition(" ")[2]))))


def letter(lane: EffectLane, line: str, position: str) -> Asking[Item | None]:
    """The dead letter at a position; None when it is gone."""
    text, raw = yield from lane.ask(
        ("HGET", lane.at.dead, position), ("XRANGE", lane.keys.log, position, position)
    )
    if text is None or not raw:
        return None
    item = item_of(raw[0], lane.codec, lane.keys.where)
    if item is None:  # this build no longer handles its type: nothing to do is done
        item = Item(position, line, b"", UNREAD, f"{lane.group} no longer handles its type")
    return msgspec.structs.replace(item, line=line, letter=text)
