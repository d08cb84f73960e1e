"""Workers of a Faust app inside the test's own event loop, and the brokers they run on."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import faust
from aiokafka.consumer.group_coordinator import CoordinatorGroupRebalance
from confluent_kafka import Producer

from tests.servers import PATIENCE_S

LEADER_WAITS_S = 0.3
PARTITIONS = 4  # what the mock cluster gives every topic
_numbers = itertools.count()


class Broker:
    """Where the apps of a test run. settings: what Faust needs for it. url: as broker= has it."""

    def __init__(self, kind: str, url: str, **settings: Any) -> None:
        self.kind, self.url, self.settings = kind, url, settings


def mock_kafka() -> Iterator[Broker]:
    """librdkafka's mock cluster, which any client can use while its producer lives.

    It knows no CreateTopics, and a member that left is waited for until its session ends. A follower that
    syncs after the leader is refused (a broker would answer it; rdkafka_mock_cgrp.c, check_state), so here
    the leader waits for the followers.
    """
    unhurried = CoordinatorGroupRebalance._on_join_leader

    async def behind_the_followers(self: Any, response: Any) -> Any:
        await asyncio.sleep(LEADER_WAITS_S)
        return await unhurried(self, response)

    CoordinatorGroupRebalance._on_join_leader = behind_the_followers
    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock"})
    (address,) = {
        str(broker).partition("/")[0] for broker in producer.list_topics(timeout=10).brokers.values()
    }
    yield Broker(
        "kafka",
        f"kafka://{address}",
        topic_allow_declare=False,
        broker_session_timeout=3.0,
        broker_heartbeat_interval=1.0,
        broker_rebalance_timeout=4.0,
        broker_request_timeout=10.0,
    )
    producer.flush(0)
    CoordinatorGroupRebalance._on_join_leader = unhurried


class Member:
    """One worker. seen: (key, value, partition, offset) of every event, when its handling began."""

    def __init__(self, app: faust.App, topic: Any) -> None:
        self.app, self.topic = app, topic
        self.seen: list[tuple[str, int, int, int]] = []
        self.raw: list[
            tuple[bytes, bytes, Any, float]
        ] = []  # the same as it came: key, value, headers, timestamp
        self.done: list[int] = []
        self.generations: list[tuple[int, int]] = []  # of each message, and the app's then
        self.revoked: list[set[Any]] = []
        self.assigned: list[set[Any]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def handle(self, stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            self.seen.append((event.key, event.value, message.partition, message.offset))
            self.raw.append((message.key, message.value, message.headers, message.timestamp))
            self.generations.append((message.generation_id, self.app.consumer_generation_id))
            await self.gate.wait()
            self.done.append(event.value)

    @property
    def values(self) -> list[int]:
        return [value for _, value, _, _ in self.seen]

    @property
    def partitions(self) -> set[int]:
        """Of the test's topic, now."""
        name = self.topic.get_topic_name()
        return {tp.partition for tp in self.app.consumer.assignment() if tp.topic == name}

    async def send(self, *values: int, **options: Any) -> None:
        """Send each value under the key k<value % 10>."""
        for sent in [await self.topic.send(key=f"k{value % 10}", value=value, **options) for value in values]:
            await sent

    async def stop(self) -> None:
        await self.app.stop()
        await self.app.http_client.close() if self.app._http_client else None


class Group:
    """Workers of one app on one broker."""

    def __init__(self, broker: Broker, directory: Path) -> None:
        self.name = f"conformance-{os.getpid()}-{next(_numbers)}"
        self._broker, self._directory = broker, directory
        self.members: list[Member] = []

    async def join(self, value_type: Any = int, **settings: Any) -> Member:
        """One more worker; returns once it may get events."""
        options = {
            "broker_commit_interval": 0.2,
            "web_enabled": False,
            "autodiscover": False,
            **self._broker.settings,
            **settings,
        }
        app = faust.App(
            self.name,
            broker=self._broker.url,
            topic_partitions=PARTITIONS,
            datadir=str(self._directory),
            **options,
        )
        topic = app.topic(f"{self.name}-events", key_type=str, value_type=value_type)
        member = Member(app, topic)
        app.agent(topic, name="handle")(member.handle)
        app.on_partitions_revoked.connect(_noting(member.revoked), weak=False)
        app.on_partitions_assigned.connect(_noting(member.assigned), weak=False)
        self.members.append(member)
        await app.start()
        return member

    async def leave(self, member: Member) -> None:
        """A graceful end."""
        self.members.remove(member)
        await member.stop()

    def values(self) -> list[int]:
        return [value for member in self.members for value in member.values]


def _noting(into: list[set[Any]]) -> Callable[..., Any]:
    async def note(_: Any, partitions: set[Any], **__: Any) -> None:
        into.append(set(partitions))

    return note


@asynccontextmanager
async def group_on(broker: Broker, directory: Path) -> AsyncIterator[Group]:
    """A group whose members are stopped at the end."""
    group = Group(broker, directory)
    try:
        yield group
    finally:
        for member in list(group.members):
            member.gate.set()
            await group.leave(member)


async def eventually(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Await a condition."""
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, f"waited {patience_s} s for {what}"
        await asyncio.sleep(0.005)
