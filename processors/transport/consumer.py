"""
Faust's consumer over Redis Streams: what is read and handed to the agents.

    coordinator -> rebalance: lanes -> reader -> _drain_messages -> conductor -> queues -> agents

Always true: a record is handed out only while it is the next one of its lane, so nothing that was read before
a seek, a rewind or a change of owner is handed out after it. What is acknowledged is in partitions.py, who
owns what in coordinator.py and rebalance.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from faust.types import TP, ConsumerMessage
from mode import Service

from aurastream.processors.host import RawBatch
from aurastream.processors.transport.coordinator import Coordinator
from aurastream.processors.transport.entries import content_of
from aurastream.processors.transport.lane import TopicLane
from aurastream.processors.transport.names import stream_of
from aurastream.processors.transport.partitions import Partitions
from aurastream.processors.transport.queues import purge
from aurastream.processors.transport.reader import TopicReader
from aurastream.processors.transport.rebalance import DRAIN_MAX_S, Rebalance
from aurastream.processors.transport.refusals import refuse_at_start
from aurastream.processors.transport.seeking import bounds
from aurastream.processors.transport.unrolled import entries_max
from aurastream.streams import Claim, DamagedEntry, Logger, RawEntry, ServerAway, Settings

EVENTS_READ = 500  # entries a read, of a topic whose messages are single events
READ_WAIT_S = 1.0
ENDS_EVERY_S = 1.0  # between looks at how long the logs are, for Faust's monitor
STOP_PATIENCE_S = 5.0  # for a server that is away while the worker stops
YIELD_EVERY = 100  # messages handed out before other tasks get a turn

log = Logger(__name__)


class Fetched(NamedTuple):
    """Entries that were read and are to be handed out as one message."""

    lane: TopicLane
    offset: int
    entries: list[RawEntry]


class RedisConsumer(Partitions):
    """Reads and hands out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._topics: set[str] = set()
        self._subscribed = asyncio.Event()
        self._taken: dict[Any, int] = {}
        self._batch_max = entries_max()
        self._is_open = False  # a server was reached
        self._drain_s = DRAIN_MAX_S  # for handlers under way when the worker stops, all waits together

    # Life

    async def on_start(self) -> None:
        """Call when the consumer starts."""
        refuse_at_start(self.app)
        self._group = stream_of(self.app.conf.id)
        self.wires = await self._driver.open(lambda: self.should_stop or self.app.should_stop)
        self.reader = TopicReader(self.wires)
        self._rebalance = Rebalance(self)
        self._coordinator = Coordinator(
            self.wires.server, self._rebalance, self._claims, Settings().lease_ms, self.add_future
        )
        self._is_open = True
        await super().on_start()

    async def on_stop(self) -> None:
        """Call when the consumer stops; also where its start was refused."""
        if not self._is_open:
            return
        await self.wait_empty()
        await self.reader.close()
        await self._driver.close(self.wires)

    @Service.task
    async def _coordinate(self) -> None:
        await self.wait(self._subscribed)  # type: ignore[arg-type]
        try:
            if not self.should_stop:
                await self._coordinator.run()
        except ServerAway:
            return  # we are stopping; the leases end by themselves

    @Service.timer(ENDS_EVERY_S)
    async def _look_at_ends(self) -> None:
        lanes = dict(self.lanes)
        try:
            edges = await bounds(self.wires, list(lanes.values()))
        except ServerAway:
            return  # we are stopping
        for (tp, lane), (_, end) in zip(lanes.items(), edges, strict=True):
            lane.highwater = end
            self.app.monitor.track_tp_end_offset(tp, end)

    async def wait_empty(self) -> None:
        """Wait, bounded, for handlers under way and acknowledge; a stopping worker then leaves the group."""
        if not self._is_open:  # the start was refused: there is nothing to wait for
            return
        is_stopping = self.app.should_stop or self.should_stop
        if is_stopping:
            self._coordinator.stop_claiming()
        if self.app.conf.stream_wait_empty:
            await self._drain(is_stopping)
        if is_stopping:
            self.wires.hurry(STOP_PATIENCE_S)
        try:
            await self.commit_now(set(self.lanes))
            if is_stopping:
                await self._coordinator.leave()
        except ServerAway as error:
            log.warning("left_without_goodbye", reason=str(error))

    async def _drain(self, is_stopping: bool) -> None:
        """Wait for handlers under way. Faust asks for it twice when it stops: it is one patience for both,
        as what an agent holds back (``stream.take``) is done by neither.
        """
        began = time.monotonic()
        await self._rebalance.finish(
            set(self.lanes), self._taken, self._drain_s if is_stopping else DRAIN_MAX_S
        )
        if is_stopping:
            self._drain_s = max(0.0, self._drain_s - (time.monotonic() - began))

    def stop_flow(self) -> None:
        """Hand out nothing more; what waits in queues is dropped, as Faust is about to do."""
        super().stop_flow()
        self._taken = purge(self.app.topics, set(self.lanes))

    # Topics

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Consume these topics from now on, and no others."""
        wanted = set(topics)
        for topic in wanted:
            await self._driver.catalog.ensure(topic)
        self._topics = wanted  # only now: a tick asks the catalog for each
        self._subscribed.set()
        self._coordinator.poke()

    async def create_topic(self, topic: str, partitions: int, replication: int, **_: Any) -> None:
        """Register the topic's stream."""
        await self._driver.catalog.ensure(topic, partitions)

    def topic_partitions(self, topic: str) -> int | None:
        """How many partitions the topic has, once it was used."""
        keys = self._driver.catalog.get(topic)
        return None if keys is None else len(keys)

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        """Where a key's messages go."""
        return (
            partition
            if partition is not None
            else self.app.producer.key_partition(topic, key or b"").partition
        )

    def _claims(self) -> list[Claim]:
        get = self._driver.catalog.get
        return [
            Claim(self._group, keys.stream, keys.partition) for topic in self._topics for keys in get(topic)
        ]

    # Reading

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self.should_stop or fetcher.should_stop):
                if not self.flow_active:
                    await self.wait(self.can_resume_flow)  # type: ignore[arg-type]
                    continue
                records = await self._getmany(self._get_active_partitions(), READ_WAIT_S)
                for number, (tp, record) in enumerate(self.scheduler.iterate(records), start=1):
                    await self._hand(tp, record)
                    if number % YIELD_EVERY == 0:
                        await asyncio.sleep(0)
                if self._commit_every is not None and self._n_acked >= self._commit_every:
                    self._n_acked = 0
                    await self.commit()
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise

    async def _getmany(
        self,
        active_partitions: set[TP] | None,
        timeout: float,  # noqa: ASYNC109 - Faust's signature
    ) -> dict[TP, list[Fetched]]:
        active = {
            tp: lane for tp, lane in self.lanes.items() if self._is_readable(tp, lane, active_partitions)
        }
        counts = [self._batch_max if tp.topic in self._driver.batch_topics else EVENTS_READ for tp in active]
        fresh = await self.reader.read(list(active.values()), counts, timeout)
        return {tp: self._records(tp, lane, fresh[lane]) for tp, lane in active.items() if lane in fresh}

    def _records(self, tp: TP, lane: TopicLane, entries: list[RawEntry]) -> list[Fetched]:
        """One for all of them where the topic's messages are batches, else one each."""
        if tp.topic in self._driver.batch_topics:
            return [Fetched(lane, lane.offset, entries)]
        return [Fetched(lane, offset, [entry]) for offset, entry in enumerate(entries, start=lane.offset)]

    def _is_readable(self, tp: TP, lane: TopicLane, active: set[TP] | None) -> bool:
        return (active is None or tp in active) and not lane.is_leaving and not lane.is_full

    async def _hand(self, tp: TP, record: Fetched) -> None:
        lane = record.lane
        is_next = record.offset == lane.offset and self.lanes.get(tp) is lane
        if not is_next or lane.is_leaving or not self.flow_active:
            return
        lane.hand(record.entries, is_tracked=self.app.topics.acks_enabled_for(tp.topic))
        try:
            message = self._to_message(tp, record)
        except DamagedEntry as error:
            log.error("entry_damaged", where=error.where, reason=error.reason)
            self._acked_index[tp].add(record.offset)
            self._acked[tp].append(record.offset)
            return
        await self.callback(message)
        if lane.is_leaving:  # it went while the message was on its way into a queue
            purge(self.app.topics, {tp})

    def _to_message(self, tp: TP, record: Fetched) -> ConsumerMessage:
        lane, offset, entries = record
        if tp.topic in self._driver.batch_topics:
            keys = lane.keys
            value: Any = RawBatch(keys.stream, keys.partition, lane.epoch, entries)
            key, headers, timestamp = None, None, int(entries[-1][0].partition(b"-")[0]) / 1000
        else:
            key, value, headers, timestamp = content_of(lane.keys.where, entries[0])
        generation = self.app.consumer_generation_id
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            offset,
            timestamp,
            0,
            headers,
            key,
            value,
            None,
            tp=tp,
            generation_id=generation,
        )

    def on_buffer_drop(self, tp: TP) -> None:
        """There is room for the partition's messages again."""
        if tp in self._buffered_partitions:
            super().on_buffer_drop(tp)
            self.reader.interrupt()
