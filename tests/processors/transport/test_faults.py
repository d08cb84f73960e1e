"""What happens to servers and connections, and what the app must not notice: no event lost, none handled by
two at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from aurastream.streams import Server, Settings, open_stream
from tests.cluster import Cluster
from tests.facts import observation
from tests.processors.transport.members import Broker, Group, Member, eventually, group_on
from tests.processors.transport.workers import LEASE_MS, workers
from tests.servers import ServerProcess, until

pytestmark = [pytest.mark.process, pytest.mark.slow]


async def handled(group: Group, wanted: set[int], patience_s: float = 20) -> None:
    await eventually(
        lambda: {value for member in group.members for value in member.done} >= wanted,
        f"{len(wanted)} events",
        patience_s,
    )


def test_killed_connections_cost_nothing(valkey_url: str, tmp_path: Path) -> None:
    """CLIENT KILL, again and again, while events are sent and handled: each is in the log once and handled
    once.
    """

    async def scenario(client: redis.Redis) -> None:
        async with group_on(Broker("redis", valkey_url), tmp_path) as group:
            member = await group.join()
            sending = asyncio.create_task(member.send(*range(3_000)))
            for _ in range(15):
                client.client_kill_filter(_type="normal", skipme=True)
                await asyncio.sleep(0.02)
            await sending
            await handled(group, set(range(3_000)))

            assert sorted(member.done) == list(range(3_000))
            assert sum(client.xlen(lane.keys.log) for lane in member.app.consumer.lanes.values()) == 3_000

    with redis.Redis.from_url(valkey_url) as client:
        asyncio.run(scenario(client))


def test_a_server_that_is_killed_and_restarted_loses_nothing(valkey: str, tmp_path: Path) -> None:
    """The worker waits for it; a send that was under way is repeated and in the log once."""
    process = ServerProcess(valkey, "--appendonly", "yes", "--appendfsync", "always")

    async def scenario() -> None:
        async with group_on(Broker("redis", process.url), tmp_path) as group:
            member = await group.join()
            await member.send(*range(200))
            sending = asyncio.create_task(member.send(*range(200, 1_200)))
            await eventually(lambda: len(member.done) > 250, "some of them")
            process.kill()
            await asyncio.to_thread(process.start)
            await sending
            await handled(group, set(range(1_200)))

            assert len(member.done) == 1_200
            assert not member.app.crashed

    try:
        asyncio.run(scenario())
    finally:
        process.stop()


@pytest.mark.parametrize("tamper", ["destroy", "setid", "delconsumer", "script_flush"])
def test_the_servers_group_may_be_tampered_with(valkey_url: str, tmp_path: Path, tamper: str) -> None:
    """It is a display: reading goes by position, and the cursor is a hash of ours."""

    async def scenario(client: redis.Redis) -> None:
        async with group_on(Broker("redis", valkey_url), tmp_path) as group:
            first = await group.join()
            await first.send(*range(100))
            await handled(group, set(range(100)))
            for lane in first.app.consumer.lanes.values():
                log = lane.keys.log
                if tamper == "destroy":
                    client.xgroup_destroy(log, group.name)
                elif tamper == "setid":
                    client.xgroup_setid(log, group.name, "$")
                elif tamper == "delconsumer":
                    client.xgroup_delconsumer(log, group.name, "owner")
                else:
                    client.script_flush()
            await first.send(*range(100, 200))
            await handled(group, set(range(200)))
            await group.leave(first)
            second = await group.join()
            await second.send(*range(200, 300))
            await eventually(lambda: len(second.done) >= 100, "the new ones")

            assert sorted(first.done + second.done) == list(range(300))

    with redis.Redis.from_url(valkey_url) as client:
        asyncio.run(scenario(client))


def test_a_slow_handler_stops_nothing_but_its_own_partition_when_a_member_joins(
    valkey_url: str, tmp_path: Path
) -> None:
    """Faust's own rebalance would stop every partition of every worker until it is done."""

    async def scenario() -> None:
        async with group_on(Broker("redis", valkey_url), tmp_path) as group:
            first = await group.join()
            first.gate.clear()
            await first.send(*range(100))
            await eventually(lambda: first.seen, "a handler to be busy")
            second = await group.join()
            await eventually(lambda: len(second.partitions) >= 1, "a partition to move", 1.0)

            assert first.done == [], "the handler is still busy"
            first.gate.set()
            await eventually(lambda: set(first.done) | set(second.done) == set(range(100)), "all events")
            assert sorted(first.done + second.done) == list(range(100))

    asyncio.run(scenario())


def test_a_partition_moves_without_a_pause_of_a_second(valkey_url: str, tmp_path: Path) -> None:
    """A member joins and leaves while events are sent all the time; no event waits for long."""

    async def scenario() -> float:
        waits: list[float] = []
        sent_at: dict[int, float] = {}
        async with group_on(Broker("redis", valkey_url), tmp_path) as group:
            first = await group.join()

            async def feed() -> None:
                for number in range(100_000):
                    sent_at[number] = time.monotonic()
                    await first.send(number)
                    await asyncio.sleep(0.002)

            async def watch(member: Member) -> None:
                at = 0
                while True:
                    for value in member.done[at:]:
                        waits.append(time.monotonic() - sent_at[value])
                    at = len(member.done)
                    await asyncio.sleep(0.002)

            tasks = [asyncio.create_task(feed()), asyncio.create_task(watch(first))]
            second = await group.join()
            tasks.append(asyncio.create_task(watch(second)))
            await eventually(
                lambda: len(second.partitions) == 2 and len(second.done) > 50, "the second to work"
            )
            await group.leave(second)
            await eventually(lambda: len(first.partitions) == 4, "the first to have all again")
            mark = len(first.done)
            await eventually(lambda: len(first.done) > mark + 100, "it to work on")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return max(waits)

    assert asyncio.run(scenario()) < 1.0


def test_a_topic_that_is_added_while_the_app_runs_is_taken_up_soon(valkey_url: str, tmp_path: Path) -> None:
    """Faust's own conductor collects changes for 45 s."""

    async def scenario() -> None:
        async with group_on(Broker("redis", valkey_url), tmp_path) as group:
            member = await group.join()
            seen: list[int] = []
            topic = member.app.topic("added-later", key_type=str, value_type=int)

            async def handle(stream: Any) -> None:
                async for value in stream:
                    seen.append(value)

            agent = member.app.agent(topic, name="later")(handle)
            await agent.start()
            await topic.send(key="k", value=5)
            await eventually(lambda: seen == [5], "the event", 3)

    asyncio.run(scenario())


def test_events_of_our_own_streams_reach_a_strangers_agent(valkey_url: str, tmp_path: Path) -> None:
    """key is the subject, value the event's JSON; an entry that is damaged is left out and passed."""
    server = Server(valkey_url)

    async def scenario() -> None:
        async with group_on(Broker("redis", valkey_url), tmp_path) as group:
            stream = open_stream(server, f"{group.name}-events", create=True, settings=Settings(partitions=4))
            stream.append([observation(views=3, clip="clip-7")])
            partition = stream.partition_of("clip-7")
            server.client.xadd(stream.keys[partition].log, {"event": "{}", "crc32": "0"})
            stream.append([observation(views=4, clip="clip-7")])
            stream.close()
            member = await group.join(value_type=None)
            await eventually(lambda: len(member.seen) >= 2, "both events")
            assert [(key, value["views"]) for key, value, _, _ in member.seen] == [
                ("clip-7", 3),
                ("clip-7", 4),
            ]
            assert [offset for _, _, _, offset in member.seen] == [0, 2]

    try:
        asyncio.run(scenario())
    finally:
        server.close()


def test_a_worker_that_slept_through_its_lease_cannot_acknowledge(valkey_url: str, tmp_path: Path) -> None:
    """SIGSTOP past the lease: the other takes over; the sleeper wakes, learns that it owns less, and harms
    nothing.
    """
    with workers(valkey_url, tmp_path, HANDLING_S="0.02") as found:
        sleeper = found.start("a")
        found.command("order", "100")
        until(lambda: len(found.amounts()) > 5, "some orders")
        sleeper.process.send_signal(signal.SIGSTOP)
        found.start("b")
        until(
            lambda: set(found.amounts()) == set(range(100)), "the other to handle them", LEASE_MS / 1000 + 20
        )

        os.kill(sleeper.process.pid, signal.SIGCONT)

        until(
            lambda: "partitions_lost" in sleeper.log() or "Discarded commit" in sleeper.log(),
            "the sleeper to learn it",
        )
        found.command("order", "100", "1000")
        until(lambda: {n for n in found.amounts() if n >= 1000} == set(range(1000, 1100)), "new orders")
        fresh = [n for n in found.amounts() if n >= 1000]
        assert sorted(fresh) == list(range(1000, 1100)), "they share again, nothing twice"
        assert sleeper.process.poll() is None


@pytest.fixture(scope="module")
def cluster(valkey: str) -> Iterator[Cluster]:
    found = Cluster(valkey, primaries=3, replicas=True)
    yield found
    found.stop()


@pytest.mark.slow
def test_a_cluster_is_used_as_one_server_and_a_fail_over_costs_a_pause(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partitions lie on several nodes, of which any may fail."""
    monkeypatch.setenv("AURASTREAM_LEASE_MS", str(LEASE_MS))

    async def scenario() -> None:
        async with group_on(Broker("redis", cluster.url), tmp_path) as group:
            members = [await group.join()]
            members.append(await group.join())
            await members[0].send(*range(200))
            await handled(group, set(range(200)))
            await eventually(
                lambda: all(len(member.partitions) == 2 for member in members), "the members to share"
            )
            assert sorted(value for member in members for value in member.done) == list(range(200))
            victim = cluster.owner_of(next(iter(members[0].app.consumer.lanes.values())).keys.log)
            victim.kill()
            await asyncio.to_thread(until, cluster.is_whole, "the replica to take over")
            await members[0].send(*range(200, 400))
            await handled(group, set(range(200, 400)), 40)
            assert not any(member.app.crashed for member in members)

    asyncio.run(scenario())
