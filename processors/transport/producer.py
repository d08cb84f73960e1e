"""
Messages into the log: what ``topic.send`` becomes.

    send -> the partition's outbox -> at the end of the loop's turn one send.lua call per partition ->
        RecordMetadata

Always true: one call per partition is under way, so messages of a partition go in the order they were sent; a
call whose answer was lost is repeated with the same sequence, and the server writes it once. While a call is
under way, what comes collects into the next.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable
from enum import IntEnum
from typing import Any, NamedTuple

import msgspec
from faust.exceptions import ProducerSendError
from faust.transport import base
from faust.types import TP, RecordMetadata
from xxhash import xxh3_64_intdigest

from aurastream.processors.transport.entries import Headers, fields_of
from aurastream.processors.transport.refusals import refuse_ask
from aurastream.streams import Ask, AsyncWires, Keys, Script

CHUNK_MAX = 500  # messages a script call: bounds how long the server is busy with one of them
CHUNK_BYTES_MAX = 4 * 2**20
WAITING_MAX = 10_000  # messages of a partition waiting to be sent: beyond, send waits
PRODUCERS_MAX = 1_000  # remembered per partition
FORGET_MS = 3_600_000  # a repeat comes within seconds; an hour of silence means that nothing is under way

_SEND = Script(__file__, "send.lua")


class Sent(IntEnum):
    """What send.lua says."""

    SENT = 0
    REPEATED = 1


class SendHead(msgspec.Struct, frozen=True):
    """See send.lua."""

    producer: str
    sequence: int
    producers_max: int = PRODUCERS_MAX
    forget_ms: int = FORGET_MS


class Waiting(NamedTuple):
    """A message on its way."""

    fields: list[bytes]
    size: int
    timestamp: float | None
    future: asyncio.Future[RecordMetadata]


class Outbox:
    """The messages for one partition."""

    def __init__(self, wires: AsyncWires, producer: str, tp: TP, keys: Keys) -> None:
        self._wires, self._producer, self._tp, self._keys = wires, producer, tp, keys
        self._waiting: deque[Waiting] = deque()
        self._sequence = 0
        self._sending: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()

    @property
    def sending(self) -> asyncio.Task[None] | None:
        """The task that empties it, while there is one."""
        return self._sending if self._sending is not None and not self._sending.done() else None

    async def put(self, message: Waiting) -> None:
        """Queue a message; waits while the outbox is full."""
        while len(self._waiting) >= WAITING_MAX:
            self._room.clear()
            await self._room.wait()
        self._waiting.append(message)
        if self.sending is None:
            self._sending = asyncio.create_task(self._empty())

    async def _empty(self) -> None:
        while self._waiting:
            chunk = self._chunk()
            self._room.set()
            try:
                answer = await self._send(chunk)
            except Exception as error:  # refused (memory, another type's key), or the server is away for good
                failure = ProducerSendError(f"sending to {self._keys.where} failed: {error}")
                failure.__cause__ = error
                for message in chunk:
                    if not message.future.done():  # its sender was cancelled
                        message.future.set_exception(failure)
            else:
                for number, message in enumerate(chunk):
                    if not message.future.done():
                        message.future.set_result(self._placed(message, number, answer))

    def _chunk(self) -> list[Waiting]:
        chunk = [self._waiting.popleft()]
        size = chunk[0].size
        while self._waiting and len(chunk) < CHUNK_MAX and size + self._waiting[0].size <= CHUNK_BYTES_MAX:
            chunk.append(self._waiting.popleft())
            size += chunk[-1].size
        return chunk

    async def _send(self, chunk: list[Waiting]) -> list[int]:
        self._sequence += 1
        args: list[Any] = [msgspec.msgpack.encode(SendHead(self._producer, self._sequence))]
        for message in chunk:
            args += (len(message.fields), *message.fields)
        command = _SEND.call((self._keys.log, self._keys.producers, self._keys.meta), args)
        answer: list[int] = (await self._wires.ask([Ask(self._keys.log, command)]))[0]
        Sent(answer[0])
        return answer

    def _placed(self, message: Waiting, number: int, answer: list[int]) -> RecordMetadata:
        timestamp = message.timestamp or answer[2] / 1000
        return RecordMetadata(
            topic=self._tp.topic,
            partition=self._tp.partition,
            topic_partition=self._tp,
            offset=answer[1] + number,
            timestamp=timestamp,
            timestamp_type=0 if message.timestamp else 1,
        )


class Producer(base.Producer):
    """Sends to streams, each message once."""

    _wires: AsyncWires | None = None

    def __post_init__(self) -> None:
        self._name = secrets.token_hex(8)
        self._outboxes: dict[TP, Outbox] = {}
        self._turn = 0

    async def on_start(self) -> None:
        """Call when the producer starts."""
        transport: Any = self.transport
        self._wires = await transport.open(lambda: self.should_stop or self.app.should_stop)
        await super().on_start()

    async def on_stop(self) -> None:
        """Call when the producer stops: what was sent is written first."""
        await self.flush()
        await super().on_stop()
        transport: Any = self.transport
        if self._wires is not None:
            wires, self._wires = self._wires, None
            await transport.close(wires)

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Headers,
        *,
        transactional_id: str | None = None,
    ) -> Awaitable[RecordMetadata]:
        """Schedule a message. Raises NotOffered for one that asks for a reply, ProducerSendError for one that
        is too large.
        """
        refuse_ask(headers)
        transport: Any = self.transport
        keys = transport.catalog.get(topic) or await transport.catalog.ensure(topic)
        tp = TP(topic, self._partition(keys, key, partition))
        fields = fields_of(key, value, headers, timestamp)
        size = sum(map(len, fields))
        if size > self.max_request_size:
            raise ProducerSendError(
                f"the message to {topic!r} has {size} bytes, producer_max_request_size is "
                f"{self.max_request_size}. "
                "Send a reference instead, or raise the setting."
            )
        message = Waiting(fields, size, timestamp, asyncio.get_running_loop().create_future())
        await self._outbox(tp, keys).put(message)
        return message.future

    async def send_and_wait(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Headers,
        *,
        transactional_id: str | None = None,
    ) -> RecordMetadata:
        """Send a message and wait until it is in the log."""
        return await (await self.send(topic, key, value, partition, timestamp, headers))

    async def flush(self) -> None:
        """Wait until everything sent so far is in the log."""
        if self.buffer.size:
            await self.buffer.flush()
        while sending := [task for outbox in self._outboxes.values() if (task := outbox.sending) is not None]:
            await asyncio.wait(sending)

    async def create_topic(self, topic: str, partitions: int, replication: int, **_: object) -> None:
        """Register the topic's stream. What Kafka would keep of it otherwise (retention, compaction) is not
        offered and ignored.
        """
        transport: Any = self.transport
        await transport.catalog.ensure(topic, partitions)

    def key_partition(self, topic: str, key: bytes) -> TP:
        """Where a key's messages of a topic go."""
        transport: Any = self.transport
        return TP(topic, self._partition(transport.catalog.get(topic), key, None))

    def supports_headers(self) -> bool:
        """They are."""
        return True

    def _outbox(self, tp: TP, keys: tuple[Keys, ...]) -> Outbox:
        outbox = self._outboxes.get(tp)
        if outbox is None:
            if self._wires is None:
                raise ProducerSendError(
                    "the producer is not running: start the app, or await app.maybe_start_producer(), "
                    "before sending."
                )
            outbox = self._outboxes[tp] = Outbox(self._wires, self._name, tp, keys[tp.partition])
        return outbox

    def _partition(self, keys: tuple[Keys, ...], key: bytes | None, partition: int | None) -> int:
        """As partition_of: a subject's events, a key's messages go to the same one; without a key in turn."""
        if partition is not None:
            if not 0 <= partition < len(keys):
                raise ProducerSendError(
                    f"{keys[0].stream} has the partitions 0 to {len(keys) - 1}, not {partition}."
                )
            return partition
        if self.partitioner is not None:
            every = list(range(len(keys)))
            return self.partitioner(key, every, every)
        if key is None:
            self._turn += 1
            return self._turn % len(keys)
        return xxh3_64_intdigest(key) % len(keys)
