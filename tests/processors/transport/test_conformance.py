"""
What a Faust transport must do, whatever the broker: ours for Redis Streams, and Faust's own for Kafka.

Each test is a scenario over workers of one app. A new transport is added in conftest.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from tests.processors.transport.members import PARTITIONS, Broker, Group, Member, eventually, group_on

pytestmark = pytest.mark.slow


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """The scenario, in bounded time."""
    asyncio.run(asyncio.wait_for(scenario, 45))


async def all_of(group: Group, *wanted: int) -> None:
    await eventually(lambda: set(wanted) <= set(group.values()), f"{len(wanted)} events")


async def settled(*members: Member) -> None:
    """Until the members share all partitions."""

    def shared() -> bool:
        owned = [partition for member in members for partition in member.partitions]
        return sorted(owned) == list(range(PARTITIONS)) and all(member.partitions for member in members)

    await eventually(shared, "the members to share the partitions")


def test_an_event_arrives_with_its_key_value_headers_and_timestamp(broker: Broker, tmp_path: Path) -> None:
    """A stranger's app must not notice which broker carried its message."""

    async def scenario() -> None:
        async with group_on(broker, tmp_path) as group:
            member = await group.join()
            await member.send(7, headers={"trace": b"\xff\x00", "name": b"\xc3\xa9"})
            await all_of(group, 7)

            ((key, value, headers, timestamp),) = member.raw
            assert (key, value) == (b"k7", b"7")
            assert dict(headers) == {"trace": b"\xff\x00", "name": b"\xc3\xa9"}
            assert broker.kind == "kafka" or abs(timestamp - time.time()) < 60, (
                "the mock cluster's clock stands still"
            )

    run(scenario())


def test_events_of_a_key_stay_in_one_partition_and_in_order(broker: Broker, tmp_path: Path) -> None:
    """It is what keys are for, on every broker."""

    async def scenario() -> None:
        async with group_on(broker, tmp_path) as group:
            member = await group.join()
            await member.send(*range(200))
            await all_of(group, *range(200))

            for key in {key for key, _, _, _ in member.seen}:
                assert len({partition for name, _, partition, _ in member.seen if name == key}) == 1
                values = [value for name, value, _, _ in member.seen if name == key]
                assert values == sorted(values)

    run(scenario())


def test_offsets_of_a_partition_are_integers_without_gaps(broker: Broker, tmp_path: Path) -> None:
    """Faust commits by them."""

    async def scenario() -> None:
        async with group_on(broker, tmp_path) as group:
            member = await group.join()
            await member.send(*range(100))
            await all_of(group, *range(100))

            for partition in range(PARTITIONS):
                offsets = [offset for _, _, where, offset in member.seen if where == partition]
                assert offsets == list(range(len(offsets)))
                if offsets:
                    tp = TP(member.topic.get_topic_name(), partition)
                    assert (await member.app.consumer.highwaters(tp))[tp] == len(offsets)
                    assert (await member.app.consumer.earliest_offsets(tp))[tp] == 0

    run(scenario())


def test_what_was_committed_is_not_delivered_again(broker: Broker, tmp_path: Path) -> None:
    """Or every restart would repeat all work since the log began."""

    async def scenario() -> None:
        async with group_on(broker, tmp_path) as group:
            first = await group.join()
            await first.send(*range(50))
            await all_of(group, *range(50))
            await group.leave(first)

            second = await group.join()
            await second.send(50)
            await all_of(group, 50)

            assert second.values == [50]

    run(scenario())


def test_a_worker_that_stops_finishes_the_event_it_handles(broker: Broker, tmp_path: Path) -> None:
    """And leaves the others to the next one."""

    async def scenario() -> None:
        async with group_on(broker, tmp_path) as group:
            first = await group.join()
            first.gate.clear()
            await first.send(*range(20))
            await eventually(lambda: first.seen, "an event to be handled")

            stopping = asyncio.create_task(group.leave(first))
            await eventually(lambda: first.app.should_stop, "the stop to begin")
            first.gate.set()
            await stopping
            second = await group.join()
            await eventually(lambda: set(first.done) | set(second.values) == set(range(20)), "the others")

            assert set(first.done) & set(second.values) == set()

    run(scenario())


def test_a_seek_delivers_again_from_there(broker: Broker, tmp_path: Path) -> None:
    """Apps go back to handle anew what they handled wrongly."""

    async def scenario() -> None:
        async with group_on(broker, tmp_path) as group:
            member = await group.join()
            await member.send(*range(0, 200, 10))  # one key, one partition
            await all_of(group, *range(0, 200, 10))
            tp = TP(member.topic.get_topic_name(), member.seen[0][2])
            if (
                broker.kind == "kafka"
                # Faust notes an offset as read after handing it over, and that note would undo a seek in
                # between
            ):
                await eventually(
                    lambda: member.app.consumer._read_offset[tp] == 19, "Faust to note the last one as read"
                )
            before = len(member.seen)

            await member.app.consumer.seek(tp, 15)

            await eventually(lambda: len(member.seen) == before + 5, "five events again")
            assert [value for _, value, _, _ in member.seen[before:]] == [150, 160, 170, 180, 190]
            await eventually(
                lambda: member.app.consumer._committed_offset[tp] == 20, "the commit, which never goes back"
            )

    run(scenario())


def test_members_share_the_partitions_and_hear_of_every_change(broker: Broker, tmp_path: Path) -> None:
    """An app keeps state by partition, so it must hear before another one has it."""

    async def scenario() -> None:
        async with group_on(broker, tmp_path) as group:
            first = await group.join()
            await settled(first)
            second = await group.join()
            await settled(first, second)
            await first.send(*range(100))
            await all_of(group, *range(100))
            moved = set(second.partitions)
            assert moved <= {tp.partition for revoked in first.revoked for tp in revoked}
            assert {tp.partition for tp in second.assigned[-1] if "__assignor" not in tp.topic} == moved

            await group.leave(second)
            await settled(first)
            await first.send(*range(100, 200))

            await all_of(group, *range(100, 200))
            twice = len(first.values + second.values) - 200
            assert twice == 0 or broker.kind == "kafka", f"{twice} were handled twice"
            assert all(of_message == of_app for of_message, of_app in first.generations + second.generations)

    run(scenario())


def test_events_flow_while_members_come_and_go(broker: Broker, tmp_path: Path) -> None:
    """Nothing is lost; and here nothing is handled twice, where Kafka may refuse a commit while it
    rebalances.
    """

    async def scenario() -> None:
        async with group_on(broker, tmp_path) as group:
            first = await group.join()
            everyone = [first]
            last = 0
            for change in ("join", "join", "leave", "leave"):
                sending = asyncio.create_task(first.send(*range(last, last + 300)))
                if change == "join":
                    everyone.append(await group.join())
                else:
                    await group.leave(group.members[-1])
                await sending
                last += 300

            await eventually(
                lambda: {v for member in everyone for v in member.done} == set(range(last)), "all events"
            )
            total = sum(len(member.done) for member in everyone)
            assert total == last or broker.kind == "kafka", f"{total - last} were handled twice"

    run(scenario())


def test_there_is_one_leader_and_another_follows(broker: Broker, tmp_path: Path) -> None:
    """Timers on the leader run once in a group, and go on when it leaves."""

    async def scenario() -> None:
        async with group_on(broker, tmp_path) as group:
            members = [await group.join()]
            await settled(*members)
            members.append(await group.join())
            await settled(*members)
            await eventually(lambda: sum(member.app.is_leader() for member in members) == 1, "one leader")
            leader, other = sorted(members, key=lambda member: not member.app.is_leader())

            await group.leave(leader)

            await eventually(other.app.is_leader, "the other to lead")

    run(scenario())
