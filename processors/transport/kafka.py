"""
Batches over Kafka: broker URL kafka+batch://host:port, the stock aiokafka driver with RawBatch for the topics
of ``batch_topic``.

A batch is the records of one fetch of one partition; its entries look like those of Redis, with the offset as
position: (b"<offset>-0", [b"received_ms", timestamp, b"event", value, b"crc32", b"<CRC-32 of value>"]). Other
topics keep single events.

Always true: a batch's acknowledgement commits the offset after its last record. Only for one stream per
partition, in order: what overlapped would be acknowledged by the same first offset, so agents of batch topics
have concurrency 1.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar
from zlib import crc32

from faust.transport.drivers import aiokafka
from faust.types import TP, AppT, ConsumerMessage
from yarl import URL

from aurastream.processors.host import RawBatch, ResumeAt
from aurastream.processors.transport.conductor import Conductor
from aurastream.processors.transport.queues import purge
from aurastream.processors.transport.unrolled import entries_max
from aurastream.streams import Position, RawEntry


class KafkaConsumer(aiokafka.Consumer):
    """The stock consumer, handing out batches."""

    takeovers = 0  # Kafka does not say

    def __post_init__(self) -> None:
        super().__post_init__()
        self._handed: dict[
            TP, deque[tuple[int, int]]
        ] = {}  # first offset of each batch handed out, and the one after its last
        self._driver: Any = self.transport
        self._batch_max = entries_max()

    async def _getmany(
        self,
        active_partitions: set[TP] | None,
        timeout: float,  # noqa: ASYNC109 - Faust's signature
    ) -> Any:
        fetched = await super()._getmany(active_partitions, timeout)
        return {
            tp: self._batched(records) if self._is_batch(tp) else records for tp, records in fetched.items()
        }

    def _batched(self, records: list[Any]) -> list[list[Any]]:
        return [records[start : start + self._batch_max] for start in range(0, len(records), self._batch_max)]

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        if not self._is_batch(tp):
            return super()._to_message(tp, record)
        first, last, generation = record[0], record[-1], self.app.consumer_generation_id
        handed = self._handed.setdefault(TP(*tp), deque())
        while handed and handed[-1][1] > first.offset:
            handed.pop()  # fetched again after a seek
        handed.append((first.offset, last.offset + 1))
        batch: Any = RawBatch(tp.topic, tp.partition, generation, [_entry(item) for item in record])
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            first.offset,
            last.timestamp / 1000,
            last.timestamp_type,
            None,
            None,
            batch,
            None,
            tp=tp,
            generation_id=generation,
        )

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Continue where the app's views are: what the broker has committed is a hint."""
        offsets = dict(await super().seek_to_committed())
        tps = {TP(*tp) for tp in self.assignment() if self._is_batch(tp)}
        if self._driver.resume_at is not None and tps:
            for tp, cursor in (await self._driver.resume_at(tps)).items():
                offset = Position.parse(cursor.position).ms + 1 if cursor.position else 0
                await self.seek(tp, offset)
                offsets[tp] = offset
        return offsets

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        if not self._is_batch(tp):
            await super()._add_gap(tp, offset_from, offset_to)

    def _new_offset(self, tp: TP) -> int | None:
        if not self._is_batch(tp):
            return super()._new_offset(tp)
        self._acked[tp].clear()  # the index has them too
        handed, acked, reached = self._handed.get(TP(*tp), deque()), self._acked_index[tp], None
        while handed and handed[0][0] in acked:
            first, reached = handed.popleft()
            acked.discard(first)
        return reached

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Call when partitions go."""
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self._handed.pop(TP(*tp), None)

    async def rewind(self, topics: set[str]) -> None:
        """Hand out again what was handed out of these topics and not acknowledged."""
        for tp in [tp for tp in self.assignment() if tp.topic in topics and self._handed.get(tp)]:
            first = self._handed.pop(tp)[0][0]
            purge(self.app.topics, {tp})
            self._acked_index[tp].clear()
            await self.seek(tp, first)

    def epoch_of(self, tp: TP) -> int | None:
        """None: Kafka's group has generations instead of leases."""
        return None

    def _is_batch(self, tp: TP) -> bool:
        return tp.topic in self._driver.batch_topics


class KafkaTransport(aiokafka.Transport):
    """The stock transport with the consumer above."""

    Conductor: ClassVar[Any] = Conductor
    Consumer: ClassVar[Any] = KafkaConsumer

    def __init__(self, url: list[URL], app: AppT, loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(url, app, loop)
        self.batch_topics: set[str] = set()
        self.resume_at: ResumeAt | None = None  # set by an app with cursors of its own


Transport = KafkaTransport  # as the entry points of faust.transports name it


def _entry(record: Any) -> RawEntry:
    value = record.value or b""
    return b"%d-0" % record.offset, [
        b"received_ms",
        b"%d" % record.timestamp,
        b"event",
        value,
        b"crc32",
        b"%d" % crc32(value),
    ]
