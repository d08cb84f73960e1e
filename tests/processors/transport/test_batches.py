"""Batches: the same agent over Redis and over Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import faust
import pytest
from faust.types import TP

from aurastream.processors.transport import RawBatch, batch_topic, batches, events
from aurastream.processors.transport.unrolled import entries_max
from aurastream.streams import Codec, Server, Settings, open_stream
from aurastream.streams.entries import entry_json, read_envelope
from tests.facts import observation
from tests.processors.transport.members import Broker, eventually

pytestmark = pytest.mark.slow

EVENTS = 2_500
Handler = Callable[[Any], Any]
_names = iter(f"batches-{number}" for number in range(1_000))


def feed_redis(url: str, name: str, observations: list[Any]) -> None:
    server = Server(url)
    stream = open_stream(server, name, create=True, settings=Settings(partitions=4))
    stream.append(observations)
    stream.close()
    server.close()


async def feed_kafka(app: faust.App, name: str, observations: list[Any]) -> None:
    producer = await app.maybe_start_producer()
    for event in observations:
        await producer.send(name, event.subject.encode(), Codec().encode(event), None, None, None)
    await producer.flush()


class Batching:
    """An app with a batch topic. feed puts observations into its log."""

    def __init__(self, broker: Broker, directory: Path) -> None:
        self._broker, self._directory, self.name = broker, directory, next(_names)
        self.apps: list[faust.App] = []

    async def start(self, handler: Handler) -> faust.App:
        url = self._broker.url.replace("kafka://", "kafka+batch://")
        options = {
            "broker_commit_interval": 0.1,
            "web_enabled": False,
            "autodiscover": False,
            **self._broker.settings,
        }
        app = faust.App(self.name, broker=url, topic_partitions=4, datadir=str(self._directory), **options)
        app.agent(batch_topic(app, self.name), name="handle")(handler)
        self.apps.append(app)
        await app.start()
        return app

    async def feed(self, observations: list[Any]) -> None:
        if self._broker.kind == "kafka":
            await feed_kafka(self.apps[-1], self.name, observations)
        else:
            await asyncio.to_thread(feed_redis, self._broker.url, self.name, observations)

    async def stop(self) -> None:
        while self.apps:
            await self.apps.pop().stop()


@asynccontextmanager
async def batching_on(broker: Broker, directory: Path) -> AsyncIterator[Batching]:
    found = Batching(broker, directory)
    try:
        yield found
    finally:
        await found.stop()


def observations(count: int) -> list[Any]:
    return [
        observation(views=number, minute=number / 100, clip=f"clip-{number % 50}") for number in range(count)
    ]


def test_batches_hold_every_entry_once_in_order_and_no_more_than_the_setting(
    broker: Broker, tmp_path: Path
) -> None:
    """Projections trust the order, and their memory the bound."""

    async def scenario() -> None:
        seen: list[RawBatch] = []

        async def handle(stream: Any) -> None:
            async for batch in batches(stream):
                seen.append(batch)

        async with batching_on(broker, tmp_path) as batching:
            app = await batching.start(handle)
            await batching.feed(observations(EVENTS))
            await eventually(lambda: sum(len(batch.entries) for batch in seen) >= EVENTS, "all entries")

            assert sum(len(batch.entries) for batch in seen) == EVENTS
            assert max(len(batch.entries) for batch in seen) <= entries_max()
            assert {batch.stream for batch in seen} == {batching.name}
            for partition in range(4):
                found = [batch for batch in seen if batch.partition == partition]
                positions = [entry[0].split(b"-") for batch in found for entry in batch.entries]
                assert all(
                    [int(part) for part in one] < [int(part) for part in other]
                    for one, other in pairwise(positions)
                )
            decoded = {
                read_envelope("", entry_json("", fields)).event_id
                for batch in seen
                for _, fields in batch.entries
            }
            assert len(decoded) == EVENTS
            if broker.kind == "redis":
                tp = TP(batching.name, seen[0].partition)
                assert app.consumer.epoch_of(tp) == 1 == seen[0].epoch

    asyncio.run(scenario())


def test_events_are_unrolled_one_by_one(broker: Broker, tmp_path: Path) -> None:
    """An agent that wants single events need not know of batches."""

    async def scenario() -> None:
        seen: list[Any] = []

        async def handle(stream: Any) -> None:
            async for event in events(stream, Codec()):
                seen.append(event)

        async with batching_on(broker, tmp_path) as batching:
            await batching.start(handle)
            sent = observations(300)
            await batching.feed(sent)
            await eventually(lambda: len(seen) >= 300, "all events")

            assert sorted(event.views for event in seen) == list(range(300))
            assert {event.event_id for event in seen} == {event.event_id for event in sent}

    asyncio.run(scenario())


def test_a_batch_whose_handler_raised_comes_again_before_anything_newer(
    broker: Broker, tmp_path: Path
) -> None:
    """Faust acknowledges an event whose agent raised; these are not."""

    async def scenario() -> None:
        done: list[bytes] = []
        failures = 0

        async def handle(stream: Any) -> None:
            nonlocal failures
            async for batch in batches(stream):
                if failures == 0:
                    failures += 1
                    raise RuntimeError("the handler is broken")
                done.extend(b"%d:" % batch.partition + position for position, _ in batch.entries)

        async with batching_on(broker, tmp_path) as batching:
            await batching.start(handle)
            await batching.feed(observations(500))
            await eventually(lambda: len(set(done)) == 500, "all entries, those of the failed batch too")
            assert failures == 1

    asyncio.run(scenario())


def test_what_was_handled_is_not_handed_to_the_next_worker(broker: Broker, tmp_path: Path) -> None:
    """A graceful hand-over is once, so that deployments repeat nothing."""

    async def scenario() -> None:
        seen: list[RawBatch] = []

        async def handle(stream: Any) -> None:
            async for batch in batches(stream):
                seen.append(batch)

        async with batching_on(broker, tmp_path) as batching:
            await batching.start(handle)
            await batching.feed(observations(400))
            await eventually(lambda: sum(len(batch.entries) for batch in seen) == 400, "all entries")
            await batching.stop()
            seen.clear()
            await batching.start(handle)
            await batching.feed([observation(views=1, clip="later")])
            await eventually(lambda: seen, "the new entry")

            assert sum(len(batch.entries) for batch in seen) == 1

    asyncio.run(scenario())


def test_little_is_read_ahead_of_a_slow_agent(valkey_url: str, tmp_path: Path) -> None:
    """Faust alone would read the whole stream into memory."""

    async def scenario() -> None:
        gate = asyncio.Event()

        async def handle(stream: Any) -> None:
            async for _ in batches(stream):
                await gate.wait()

        async with batching_on(Broker("redis", valkey_url), tmp_path) as batching:
            await asyncio.to_thread(feed_redis, valkey_url, batching.name, observations(40 * entries_max()))
            app = await batching.start(handle)
            lanes = app.consumer.lanes.values()
            await eventually(lambda: sum(len(lane.unacked) for lane in lanes) > 16, "the queue to be full")

            assert sum(lane.offset for lane in lanes) <= 24 * entries_max()
            gate.set()

    asyncio.run(scenario())


@pytest.mark.parametrize("size", [10])
def test_the_size_of_a_batch_is_a_setting(
    valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """It is the trade of memory against speed, and the operator's to make."""
    monkeypatch.setenv("AURASTREAM_BATCH_MAX", str(size))

    async def scenario() -> None:
        seen: list[int] = []

        async def handle(stream: Any) -> None:
            async for batch in batches(stream):
                seen.append(len(batch.entries))

        async with batching_on(Broker("redis", valkey_url), tmp_path) as batching:
            await asyncio.to_thread(feed_redis, valkey_url, batching.name, observations(200))
            await batching.start(handle)
            await eventually(lambda: sum(seen) == 200, "all entries")
            assert max(seen) == size

    asyncio.run(scenario())
