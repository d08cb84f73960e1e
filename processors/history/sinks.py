"""
Replay into another stream: appended by event ID, 500 at a time, personal fields sealed as they were.

How it goes on after a kill: the hash aura:replays says after each batch how far it is; what was appended but
not yet written down is appended again, which the target's index knows. The row goes when the replay is whole.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import cast

import msgspec

from aurastream.processors.history.selection import PastEvent, StreamPartition
from aurastream.projections import ProjectionError
from aurastream.streams import (
    BATCH_MAX,
    REPLAYS,
    Codec,
    Event,
    LogReplayed,
    Outcome,
    Server,
    StoredEvent,
    Stream,
    named_id,
    operator,
)

TEXT_MAX = 1_000  # of an operator event's field


class CannotReplay(ProjectionError):
    """The target cannot take the replay, or an event."""


def event_of(stored: PastEvent, codec: Codec) -> Event:
    """The event in today's form. Raises CannotReplay for a type that is not installed; what codec.decode
    raises.
    """
    event = codec.decode(stored.raw, stored.place)
    if event is None:
        raise CannotReplay(
            f"the event at {stored.place} is a {stored.envelope.type!r}, which is not installed. "
            "Install its package, name its module with --app, or choose other types with --type."
        )
    return event


class ReplayRow(msgspec.Struct):
    """An unfinished replay. began names it. after: "stream/partition" -> position. events: by stream."""

    began: datetime
    after: dict[str, str] = {}
    events: dict[str, int] = {}


class Journal:
    """How far a replay into a stream is, kept at the server until it is whole."""

    def __init__(self, server: Server, into: str, selection: str, *, is_afresh: bool = False) -> None:
        self._client, self._by = server.client, operator()
        self._field = named_id("replay", into, selection)
        if is_afresh:
            self._client.hdel(REPLAYS, self._field)
        self._client.hsetnx(REPLAYS, self._field, msgspec.json.encode(ReplayRow(datetime.now(UTC))))
        raw = cast(bytes, self._client.hget(REPLAYS, self._field))
        self.row = msgspec.json.decode(raw, type=ReplayRow)

    @property
    def after(self) -> dict[StreamPartition, str]:
        """Where to go on."""
        places = (text.rpartition("/") for text in self.row.after)
        return {
            (stream, int(partition)): self.row.after[f"{stream}/{partition}"]
            for stream, _, partition in places
        }

    def save(self, batch: list[PastEvent]) -> None:
        """The batch is in the target."""
        for event in batch:
            self.row.after[f"{event.stream}/{event.partition}"] = event.position
            self.row.events[event.stream] = self.row.events.get(event.stream, 0) + 1
        self._client.hset(REPLAYS, self._field, msgspec.json.encode(self.row))

    def close(self, operations: Stream, into: str, selection: str, why: str) -> None:
        """Say in the audit trail that the replay is whole, then forget the row. Repeated, it adds nothing."""
        began = self.row.began.isoformat()
        operations.append(
            LogReplayed(
                event_id=named_id("replayed", self._field, stream, began),
                subject=stream,
                occurred_at=self.row.began,
                source=self._by,
                into=into,
                events=events,
                selection=selection[:TEXT_MAX],
                why=why[:TEXT_MAX],
            )
            for stream, events in self.row.events.items()
        )
        self._client.hdel(REPLAYS, self._field)


class ToStream:
    """Appends to another stream, by the stored bytes. Waits where its producers must."""

    def __init__(self, target: Stream, journal: Journal) -> None:
        self._target, self._journal = target, journal
        self._batch: list[tuple[PastEvent, StoredEvent]] = []
        self.events: Counter[str] = Counter()
        self.duplicates = 0  # of them, what the target had already

    def put(self, event: PastEvent) -> None:
        """Take the event; every BATCH_MAX are appended together."""
        self._batch.append((event, StoredEvent(event.raw, event_of(event, self._target.codec))))
        if len(self._batch) >= BATCH_MAX:
            self.flush()

    def flush(self) -> None:
        """Append what is held back, then write down how far it is."""
        batch, self._batch = self._batch, []
        if not batch:
            return
        placed = self._target.append_stored([stored for _, stored in batch])
        self.duplicates += sum(item.outcome is Outcome.DUPLICATE for item in placed)
        self._journal.save([event for event, _ in batch])
        self.events.update(event.stream for event, _ in batch)
