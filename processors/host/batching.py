"""
Batches: entries of one partition, up to AURASTREAM_BATCH_MAX, as one Faust message, the measured fast way.

    topic = batch_topic(app, "clips")
    @app.agent(topic)
    async def apply(stream):
        async for batch in batches(stream):     # a RawBatch: entries as the server answered, not decoded
            ...

What a host asks of a transport stands here, as protocols; transport/ offers it for Redis (driver.py) and for
Kafka (kafka.py).

Always true: a batch is acknowledged after the body of the loop is done with it, never when the body raised.
What was handed out and not acknowledged is handed out again when the agent's function starts anew, before
anything newer of its partition.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, cast

import faust
from faust.exceptions import ImproperlyConfigured
from faust.types import TP, AppT, EventT, Message, StreamT, TopicT

from aurastream.processors import ProcessorError
from aurastream.streams import Cursor, RawEntry

QUEUED_MAX = (
    16  # batches waiting for an agent: Faust's own default of 4,096 would hold a whole stream in memory
)

ResumeAt = Callable[[set[TP]], Awaitable[dict[TP, Cursor]]]  # of batch topics: the cursors to begin after


class NotOffered(ProcessorError, ImproperlyConfigured):
    """A feature of Faust that a transport does not have. Raised at definition or at start, never later."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}. {remedy}.")
        self.what, self.remedy = what, remedy


class BatchTransport(Protocol):
    """A transport that hands out batches. resume_at: set by an app with cursors of its own."""

    batch_topics: set[str]
    resume_at: ResumeAt | None


class BatchConsumer(Protocol):
    """Its consumer. takeovers: partitions taken over from processes that did not give them back."""

    takeovers: int

    async def rewind(self, topics: set[str]) -> None:
        """Everything of these topics that was handed out and not acknowledged comes again."""
        ...

    def epoch_of(self, tp: TP) -> int | None:
        """Of the lease under which this process owns the partition; None where there are no leases."""
        ...


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
        where = f"{self.stream}/{self.partition} epoch {self.epoch}"
        return f"RawBatch({where}: {len(self.entries)} entries, {first} .. {last})"


class BatchSchema(faust.Schema[Any, Any]):
    """Passes the message through: nothing is decoded by Faust."""

    def compile(self, app: AppT, **_: Any) -> Any:
        """The decoder of one topic."""
        create_event = app.create_event

        async def decode(message: Message, *, propagate: bool = False) -> EventT[Any]:
            return create_event(None, message.value, message.headers, message)

        return decode


def batch_topic(app: AppT, name: str, *, partitions: int | None = None) -> TopicT:
    """A topic whose messages are RawBatch, for agents that loop over ``batches``. Raises NotOffered."""
    transport: Any = app.transport
    if not hasattr(transport, "batch_topics"):
        raise NotOffered(
            f"the broker {transport.url[0].scheme}:// hands out single events, not batches",
            "Use redis://, rediss:// or unix://, or kafka+batch:// in place of kafka://",
        )
    cast(BatchTransport, transport).batch_topics.add(name)
    topic: Any = app.topic(name, schema=BatchSchema(), partitions=partitions)
    topic.maxsize = QUEUED_MAX  # app.topic(maxsize=..) drops it silently (faust 0.15.3, app/base.py:826)
    return cast(TopicT, topic)


async def batches(stream: StreamT[Any]) -> AsyncIterator[RawBatch]:
    """The stream's batches, each acknowledged when the loop asks for the next one."""
    running: Any = stream
    running.enable_acks = False  # Faust acknowledges an event whose agent raised
    await cast(BatchConsumer, running.app.consumer).rewind(set(running.channel.topics))
    async for batch in running:
        event = running.current_event
        yield batch
        await running.ack(event)
