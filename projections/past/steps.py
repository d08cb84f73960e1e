"""
What the answer to a "why" is made of: one step for each event behind a row, and what it changed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from aurastream.projections.engine import Batch
from aurastream.streams import DamagedEntry, Envelope, Event, Span, entry_json, read_envelope

NOTHING, OTHER_COUNTS = "it changed nothing", "another entry of this event ID counts"
GONE = "the entry is gone from the log"

JsonValue: TypeAlias = Any  # as JSON has it, or a field of a state
Fields: TypeAlias = dict[str, JsonValue]  # of a row, by their names
Changed: TypeAlias = dict[str, tuple[JsonValue, JsonValue]]  # field -> before, after


class Step(msgspec.Struct, frozen=True):
    """One event. changed: field -> before and after, None for what was not there. remark: why it changed
    nothing, "" where it did.
    """

    partition: int
    position: str
    occurred_at: datetime | None
    type: str
    event_id: str
    source: str
    changed: Changed = {}
    remark: str = ""


class Why(msgspec.Struct):
    """The whole answer. value: what the steps lead to, None for no row; stored: what the view holds. Both as
    JSON values, opened.

    agrees: whether the two are the same, byte for byte; None as of a past time, which no view is kept of.
    positions: up to which the steps go. read: entries looked at; scanned: those of them that no index named.
    """

    steps: list[Step]
    value: JsonValue = None
    stored: JsonValue = None
    agrees: bool | None = None
    positions: dict[int, str] = {}
    read: int = 0
    scanned: int = 0


def step_of(partition: int, position: str, event: Event | Envelope, changed: Changed, remark: str) -> Step:
    """A step by its event, which may be no more than an envelope."""
    kind = event.type if isinstance(event, Envelope) else str(type(event).__struct_config__.tag)
    return Step(partition, position, event.occurred_at, kind, event.event_id, event.source, changed, remark)


def step_of_gone(partition: int, position: str) -> Step:
    """A step whose event is nowhere any more."""
    return Step(partition, position, None, "", "", "", {}, GONE)


def changes_between(before: Fields, after: Fields) -> Changed:
    """The fields that are not the same."""
    pairs = {name: (before.get(name), after.get(name)) for name in dict.fromkeys([*before, *after])}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def duplicates_of(span: Span, batch: Batch) -> frozenset[bytes]:
    """The positions of a batch whose event ID another entry is canonical for."""
    return span.duplicates if span.duplicates is not None else batch.duplicates


def envelope_of(fields: list[bytes]) -> Envelope | None:
    """What can be read of an entry; None where that is nothing."""
    try:
        return read_envelope("", entry_json("", fields))
    except DamagedEntry:
        return None
