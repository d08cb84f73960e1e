"""
What may enter the log: every event of a call passes every check, or nothing of it is sent.

    events -> JSON (codec.py) -> are their names legal? -> is their time one, and not ahead? -> JSON, in their
    order
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from aurastream.streams.codec import Codec
from aurastream.streams.entries import check_identifiers
from aurastream.streams.errors import InvalidEvent
from aurastream.streams.events import Event

AHEAD_MAX = timedelta(hours=24)  # event time further ahead of the clock is a broken clock, not an early fact


def admitted(codec: Codec, batch: list[Event]) -> list[bytes]:
    """Every event's JSON. Raises InvalidEvent, naming the first that must not enter."""
    encoded = codec.encode_each(batch) or _encoded_singly(codec, batch)
    check_identifiers(batch)
    _check_times(batch)
    return encoded


def _encoded_singly(codec: Codec, batch: list[Event]) -> list[bytes]:
    encoded: list[bytes] = []
    for index, event in enumerate(batch):
        try:
            encoded.append(codec.encode(event))
        except InvalidEvent as error:
            raise InvalidEvent(error.event_id, error.reason, index) from error.__cause__
    return encoded


def _check_times(batch: list[Event]) -> None:
    """Raise InvalidEvent for the first event from the future, or whose time is none (a struct checks no
    types).
    """
    latest = datetime.now(UTC) + AHEAD_MAX
    times = [event.occurred_at for event in batch]
    try:
        if max(times) <= latest:
            return
    except TypeError as error:
        index = next(index for index, at in enumerate(times) if not isinstance(at, datetime))
        raise InvalidEvent(
            batch[index].event_id, f"occurred_at {times[index]!r} is no datetime", index
        ) from error
    index = next(index for index, at in enumerate(times) if at > latest)
    raise InvalidEvent(batch[index].event_id, f"occurred_at {times[index]} is more than 24 h ahead", index)
