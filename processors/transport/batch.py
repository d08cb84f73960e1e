"""
Batches: entries of one partition, up to AURASTREAM_BATCH_MAX, as one Faust message, the measured fast way.

    topic = batch_topic(app, "clips")
    @app.agent(topic)
    async def apply(stream):
        async for batch in batches(stream):     # a RawBatch: entries as the server answered, not decoded
            ...
        # or: async for event in events(stream)

Works over every transport with ``batch_topics``: ours for Redis (driver.py) and for Kafka (kafka.py).

Always true: a batch is acknowledged after the body of the loop is done with it, never when the body raised.
What was handed out and not acknowledged is handed out again when the agent's function starts anew, before
anything newer of its partition.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, cast

import faust
from faust.types import TP, AppT, EventT, Message, StreamT, TopicT

from aurastream.processors import find_plugins
from aurastream.processors.transport.errors import NotOffered
from aurastream.streams import Codec, Cursor, DamagedEntry, Event, Logger, RawEntry, Settings, entry_json

QUEUED_MAX = (
    16  # batches waiting for an agent: Faust's own default of 4,096 would hold a whole stream in memory
)
log = Logger(__name__)


class RawBatch:
    """The next entries of one partition.

    epoch: of the lease they were read under; commit.lua refuses it once a newer owner exists. Of Kafka: the
    group's generation.
    entries: (position, [field, value, ..]) in order, never empty.
    """

    __slots__ = ("entries", "epoch", "partition", "stream")

    def __init__(self, stream: str, partition: int, epoch: int, entries: list[RawEntry]) -> None:
        self.stream, self.partition, self.epoch, self.entries = stream, partition, epoch, entries

    def __repr__(self) -> str:
        first, last = self.entries[0][0].decode(), self.entries[-1][0].decode()
        return f"RawBatch({self.stream}/{self.partition} epoch {self.epoch}: {len(self.entries)} entries, {first} .. {last})"


ResumeAt = Callable[[set[TP]], Awaitable[dict[TP, Cursor]]]  # of batch topics: the cursors to begin after


class Rewinding(Protocol):
    """A consumer that can hand out again what was not acknowledged."""

    async def rewind(self, topics: set[str]) -> None:
        """Everything of these topics that was handed out and not acknowledged comes again."""


class BatchSchema(faust.Schema[Any, Any]):
    """Passes the message through: nothing is decoded by Faust."""

    def compile(self, app: AppT, **_: Any) -> Any:
        """The decoder of one topic."""
        create_event = app.create_event

        async def decode(message: Message, *, propagate: bool = False) -> EventT[Any]:
            return create_event(None, message.value, message.headers, message)

        return decode


def batch_topic(app: AppT, name: str, *, partitions: int | None = None) -> TopicT:
    """A topic whose messages are RawBatch, for agents that loop over ``batches`` or ``events``. Raises
    NotOffered.
    """
    transport: Any = app.transport
    if not hasattr(transport, "batch_topics"):
        raise NotOffered(
            f"the broker {transport.url[0].scheme}:// hands out single events, not batches",
            "Use redis://, rediss:// or unix://, or kafka+batch:// in place of kafka://",
        )
    transport.batch_topics.add(name)
    topic: Any = app.topic(name, schema=BatchSchema(), partitions=partitions)
    topic.maxsize = QUEUED_MAX  # app.topic(maxsize=..) drops it silently (faust 0.15.3, app/base.py:826)
    return cast(TopicT, topic)


async def batches(stream: StreamT[Any]) -> AsyncIterator[RawBatch]:
    """The stream's batches, each acknowledged when the loop asks for the next one."""
    running: Any = stream
    running.enable_acks = False  # Faust acknowledges an event whose agent raised
    await cast(Rewinding, running.app.consumer).rewind(set(running.channel.topics))
    async for batch in running:
        event = running.current_event
        yield batch
        await running.ack(event)


async def events(stream: StreamT[Any], codec: Codec | None = None) -> AsyncIterator[Event]:
    """The stream's events one by one, in order; those of types the codec does not know are left out.

    codec: default: of all installed plugins. A damaged entry is logged and left out: it stays in the log for
    a person to see.
    """
    decode = (codec or find_plugins().codec()).decode
    async for batch in batches(stream):
        for position, fields in batch.entries:
            where = f"{batch.stream}/{batch.partition}/{position.decode()}"
            try:
                event = decode(entry_json(where, fields), where)
            except DamagedEntry as error:
                log.error("entry_damaged", where=where, reason=error.reason)
                continue
            if event is not None:
                yield event


def entries_max() -> int:
    """How many entries a batch may hold: AURASTREAM_BATCH_MAX."""
    return Settings().batch_max
