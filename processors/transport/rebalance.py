"""
Partitions that come and go, and how the app hears of it.

    the first time  Faust's own rebalance: on_rebalance_start, revoked, generation, assigned, recovery, flow
    later           only what changes: its queued events are taken out, its handlers finish, it is
                    acknowledged and let go;
                    the conductor, the agents, the sensors and the signals hear the same as from Faust's own

Always true: the app hears on_partitions_revoked before another worker can have the partition; partitions that
stay run on.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from faust.types import TP

from aurastream.processors.transport.lane import TopicLane, acquiring
from aurastream.processors.transport.names import is_leader_topic, topic_of
from aurastream.processors.transport.partitions import Partitions
from aurastream.processors.transport.queues import is_busy, purge
from aurastream.streams import Claim, Logger, adrive

# of every message: a partition's queued events are taken out when it goes, so none is ever of an older one
GENERATION = 1
# for handlers under way, when a partition goes or the worker stops; what is not done by then comes again
DRAIN_MAX_S = 30.0
LOOK_S = 0.005  # between looks whether they are done

log = Logger(__name__)


class Rebalance:
    """The owner that the coordinator speaks to."""

    def __init__(self, consumer: Partitions) -> None:
        self._consumer = consumer
        self._app: Any = consumer.app
        self._cuts: dict[TP, list[int]] = {}
        self._changing = asyncio.Lock()
        self._is_begun = False

    async def take(self, claims: dict[Claim, int]) -> None:
        """Begin with these partitions; the first call, maybe of none, begins the app."""
        lanes = await self._acquired(
            {claim: epoch for claim, epoch in claims.items() if not is_leader_topic(topic_of(claim.stream))}
        )
        alone = {tp_of(claim) for claim in claims if is_leader_topic(topic_of(claim.stream))}
        async with self._changing:
            if self._is_begun:
                await self._add(lanes, alone)
            else:
                self._is_begun = True
                await self._begin(lanes, alone)
        self._consumer.reader.interrupt()

    async def give(self, claims: set[Claim]) -> None:
        """Let these go when the work under way on them is done."""
        lanes = self._lanes_of(claims)
        for lane in lanes.values():
            lane.is_leaving = True
        tps = set(lanes)
        await self.finish(tps, purge(self._app.topics, tps))
        await self._consumer.commit_now(tps)
        await self._remove(claims, lanes)

    async def lose(self, claims: set[Claim]) -> None:
        """These are another worker's: what is queued is dropped, what is under way can no longer be
        acknowledged.
        """
        lanes = self._lanes_of(claims)
        for lane in lanes.values():
            lane.is_leaving = True
        purge(self._app.topics, set(lanes))
        await self._remove(claims, lanes)

    async def finish(self, tps: set[TP], taken: dict[Any, int], most_s: float = DRAIN_MAX_S) -> None:
        """Wait until no handler works on these, at most so long."""
        end = time.monotonic() + most_s
        while is_busy(self._consumer.unacked, tps, taken):
            if time.monotonic() > end:
                log.warning("handlers_still_running", partitions=sorted(tps), waited_s=round(most_s, 3))
                return
            await asyncio.sleep(LOOK_S)

    async def _acquired(self, claims: dict[Claim, int]) -> dict[TP, TopicLane]:
        from_end = self._app.conf.consumer_auto_offset_reset == "latest"
        ask = self._consumer.wires.ask
        acquired = await asyncio.gather(
            *[adrive(acquiring(claim, epoch, from_end=from_end), ask) for claim, epoch in claims.items()]
        )
        lanes = {
            tp_of(lane.claim): lane for lane in acquired if lane is not None
        }  # what is not: the next tick says so
        for tp, lane in lanes.items():
            lane.cuts.extend(self._cuts.pop(tp, []))
        for tp, cursor in (await self._consumer.resume_at(set(lanes))).items():
            lanes[tp].start(cursor.position, cursor.read)
        return lanes

    async def _begin(self, lanes: dict[TP, TopicLane], alone: set[TP]) -> None:
        consumer, app = self._consumer, self._app
        app.consumer_generation_id = GENERATION
        app.on_rebalance_start()
        await consumer.on_partitions_revoked(set())
        consumer.lanes.update(lanes)
        consumer.alone.update(alone)
        await consumer.on_partitions_assigned(consumer.assignment(), GENERATION)

    async def _add(self, lanes: dict[TP, TopicLane], alone: set[TP]) -> None:
        self._consumer.lanes.update(lanes)
        self._consumer.alone.update(alone)
        self._consumer.begin(lanes)
        await self._announce(set())
        self._consumer.resume_partitions(set(lanes))

    async def _remove(self, claims: set[Claim], lanes: dict[TP, TopicLane]) -> None:
        """Forget them, unless the partition was taken again under another lease meanwhile."""
        async with self._changing:
            consumer = self._consumer
            gone = {tp for tp, lane in lanes.items() if consumer.lanes.get(tp) is lane}
            alone = {tp_of(claim) for claim in claims} & consumer.alone
            if not gone | alone:
                return
            self._app.on_rebalance_start()
            for tp in gone:
                self._cuts[tp] = consumer.lanes.pop(tp).ends()
            consumer.alone -= alone
            consumer.forget(gone)
            await self._app.on_partitions_revoked.send(gone | alone)
            await self._announce(gone | alone, is_started=True)

    async def _announce(self, revoked: set[TP], *, is_started: bool = False) -> None:
        """What faust.App does of a rebalance (faust 0.15.3, app/base.py:1851), without stopping anything."""
        app, assigned = self._app, self._consumer.assignment()
        if not is_started:
            app.on_rebalance_start()
        app.unassigned = not assigned
        gone, added = app._update_assignment(assigned)
        await app.agents.on_rebalance(gone | revoked, added)
        await app.topics.on_partitions_assigned(assigned)
        await app.on_partitions_assigned.send(assigned)
        await app.on_rebalance_complete.send()
        app.on_rebalance_return()
        app.tables.on_actives_ready()
        app.tables.on_standbys_ready()
        app.on_rebalance_end()
        app.topics.notice_missed()

    def _lanes_of(self, claims: set[Claim]) -> dict[TP, TopicLane]:
        tps = map(tp_of, claims)
        return {tp: lane for tp in tps if (lane := self._consumer.lanes.get(tp)) is not None}


def tp_of(claim: Claim) -> TP:
    """Faust's name for a partition."""
    return TP(topic_of(claim.stream), claim.partition)
