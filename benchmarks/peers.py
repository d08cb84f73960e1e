"""
The same work in other people's hands: FastStream and a plain redis-py loop.

    append   plain_append     XADD in redis-py pipelines             apply   plain_apply   XREADGROUP,
             pipelined writes, XACK
             publish          FastStream, in pipelines or one by one         subscribe     FastStream, batches
                              or message by message

None of them knows an event ID, so a repeat is a second entry and a second effect: not idempotent, at least
once. The fold and the writes are plain.py's, the same as ours. FastStream runs without type conversion and
with a msgspec decoder, its fast path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any
from zlib import crc32

import msgspec
import redis

from aurastream.projections import Projection
from aurastream.streams import ClipViewsObserved, Event, Stream
from benchmarks.measure import Meter
from benchmarks.plain import BATCH_MAX, PlainView

CONSUMER = "bench"
STALL_MAX_S = 60.0  # without progress: a subscriber has died

_encode = msgspec.json.Encoder().encode


def plain_append(client: redis.Redis, stream: Stream, batch: Sequence[Event]) -> None:
    """One pipeline of XADDs, with the fields of our log."""
    with client.pipeline(transaction=False) as pipeline:
        for event in batch:
            raw = _encode(event)
            pipeline.xadd(
                stream.keys[stream.partition_of(event.subject)].log, {"event": raw, "crc32": crc32(raw)}
            )
        pipeline.execute()


def plain_apply(client: redis.Redis, stream: Stream, projection: Projection[Any]) -> None:
    """Partition by partition in turn, until all are read."""
    views = [PlainView(projection, keys) for keys in stream.keys]
    while views:
        views = [view for view in views if _plain_batch(client, view)]


def _plain_batch(client: redis.Redis, view: PlainView) -> bool:
    reply: Any = client.xreadgroup(view.group, CONSUMER, {view.keys.log: ">"}, count=BATCH_MAX)
    if not reply:
        return False
    entries = reply[0][1]
    raw = [(position, [part for pair in fields.items() for part in pair]) for position, fields in entries]
    steps = view.folded(view.events(raw))
    answers: Any = None
    try:
        while True:
            answers = _pipelined(client, steps.send(answers))
    except StopIteration as finished:
        _pipelined(
            client,
            [*finished.value, ("XACK", view.keys.log, view.group, *[position for position, _ in entries])],
        )
    return True


def _pipelined(client: redis.Redis, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
    with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = pipeline.execute()
    return answers


def broker_of(url: str) -> Any:
    """A silent FastStream broker."""
    from faststream.redis import RedisBroker

    return RedisBroker(url, logger=None, apply_types=False)


async def publish(
    client: Any, broker: Any, stream: Stream, batch: Sequence[Event], *, pipelined: bool
) -> None:
    """Publish to the partitions' logs. pipelined: all in one pipeline, else one round trip each."""
    pipeline = client.pipeline(transaction=False) if pipelined else None
    for event in batch:
        log = stream.keys[stream.partition_of(event.subject)].log
        await broker.publish(_encode(event), stream=log, pipeline=pipeline)
    if pipeline is not None:
        await pipeline.execute()


async def subscribe(
    url: str, stream: Stream, projection: Projection[Any], events: int, meter: Meter, *, batched: bool
) -> None:
    """Consume what ``publish`` left, a subscriber per partition, until `events` have been handled; start and
    end are metered.
    """
    broker = broker_of(url)
    client = await broker.connect()
    progress = _Progress(events)
    for keys in stream.keys:
        _subscribe(broker, client, PlainView(projection, keys), progress, batched)
    try:
        with meter:
            await broker.start()
            await progress.finished()
    finally:
        await broker.stop()


class _Progress:
    """Counts events down and tells when none is left."""

    def __init__(self, left: int) -> None:
        self.left = left
        self._done = asyncio.Event()

    def handled(self, count: int) -> None:
        self.left -= count
        if self.left <= 0:
            self._done.set()

    async def finished(self) -> None:
        while not self._done.is_set():
            before = self.left
            try:
                await asyncio.wait_for(self._done.wait(), STALL_MAX_S)
            except TimeoutError:
                if self.left == before:
                    raise


def _subscribe(broker: Any, client: Any, view: PlainView, progress: _Progress, batched: bool) -> None:
    from faststream.middlewares import AckPolicy
    from faststream.redis import StreamSub

    decoder: Any = msgspec.json.Decoder(list[ClipViewsObserved] if batched else ClipViewsObserved)

    async def decode(message: Any) -> Any:
        found = decoder.decode(message.body)
        events = found if batched else [found]
        return [
            (position.decode(), event)
            for position, event in zip(message.raw_message["message_ids"], events, strict=True)
        ]

    source = StreamSub(
        view.keys.log, group=view.group, consumer=CONSUMER, batch=batched, max_records=BATCH_MAX
    )

    @broker.subscriber(stream=source, decoder=decode, ack_policy=AckPolicy.NACK_ON_ERROR)
    async def handle(events: Any) -> None:
        steps = view.folded(events)
        answers: Any = None
        try:
            while True:
                answers = await sent(client, steps.send(answers))
        except StopIteration as finished:
            await sent(client, finished.value)
        progress.handled(len(events))


async def sent(client: Any, commands: list[tuple[Any, ...]]) -> list[Any]:
    """The answers to commands in one pipeline; an answer that is an error is raised."""
    if not commands:
        return []
    async with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await pipeline.execute()
    return answers
