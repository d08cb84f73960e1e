"""
Notes of trims: who removes and why, kept beside the counts until it is an event of the audit trail.

    trim.lua opens a run's note with its first entries -> settle.lua closes it, with the counts
        -> LogTrimmed -> settle.lua drops it

Whoever settles next does the rest of what a killed run has left; the event's ID is derived, so that it is
there once.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from aurastream.streams import Keys, LogTrimmed, Script, Stream, checked_words, named_id, operator, shortened

_SETTLE = Script(__file__, "settle.lua")


class TrimNote(msgspec.Struct, frozen=True):
    """Who trims, as the script keeps it until it is in the audit trail. run: no other run has it."""

    run: str
    who: str
    why: str
    at: datetime


def new_note(why: str) -> str:
    """The note of a new run, as trim.lua takes it. Raises StreamError for a reason that no event can hold."""
    note = TrimNote(secrets.token_hex(8), operator(), checked_words("the reason", why), datetime.now(UTC))
    return msgspec.json.encode(note).decode()


def settle(stream: Stream, partition: int, operations: Stream) -> Iterator[str]:
    """Put into the audit trail what was removed under the notes there are: of this run, or of one that was
    killed.

    Yields the steps: closed and audited of each note, settled at the end.
    """
    keys, closed = stream.keys[partition], b""
    while True:
        call = _SETTLE.call((keys.meta,), (closed,))
        closed = stream.ask(partition, call, what=f"trim of {keys.where}")[0]
        if not closed:
            break
        yield "closed"
        operations.append([_event(keys, closed.decode())])
        yield "audited"
    yield "settled"


def _event(keys: Keys, closed: str) -> LogTrimmed:
    """The audit event of a closed note: the same, however often it is made. Earlier builds did not bound the
    words of a note.
    """
    before, after, until, text = closed.split(" ", 3)
    note = msgspec.json.decode(text, type=TrimNote)
    return LogTrimmed(
        event_id=named_id(keys.stream, keys.partition, "trimmed", until),
        subject=keys.stream,
        occurred_at=note.at,
        source=shortened(note.who),
        partition=keys.partition,
        until=until,
        entries=int(after) - int(before),
        why=shortened(note.why),
    )
