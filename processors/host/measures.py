"""
What the host tells of itself: Prometheus metrics, and whether it is healthy.

Healthy means: the cursor advances while there is lag. A lane is sick when an error keeps it from advancing,
or when events have waited and nothing was committed for STALL_S. Counters count what this process did since
it started; lag is asked of the server when somebody asks us. A series of a view's later generation has its
group's name, as in clips@2, so that it and the kept one before it are not added up. Names follow Prometheus'
conventions: base units but for commit_milliseconds, which is what readers compare.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from aurastream.processors.effects import LaneRunner
from aurastream.processors.host.supervised import SupervisedLane
from aurastream.projections.engine import CommitAnswer, Progress
from aurastream.streams import Lag, Server, generation_group, is_passing

STALL_S = 15.0
BUCKETS_MS = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
LABELS = ("projection", "stream", "partition")
# A series of start times beside every counter, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]


class LaneHealth(msgspec.Struct, frozen=True):
    """One lane, as /health shows it. trouble: "" when it is well."""

    projection: str
    stream: str
    partition: int
    position: str
    lag_events: int
    lag_seconds: float
    trouble: str
    generation: int = 1


class Health(msgspec.Struct, frozen=True):
    """The process. reason: "" when healthy."""

    healthy: bool
    reason: str
    lanes: list[LaneHealth]


class AllLanes(Protocol):
    """The lanes of a host. owned: how many leases it holds. takeovers: of them, from hosts that did not give
    them back.
    """

    @property
    def view_lanes(self) -> Sequence[SupervisedLane]: ...

    @property
    def effect_lanes(self) -> Sequence[LaneRunner]: ...

    @property
    def owned(self) -> int: ...

    @property
    def takeovers(self) -> int: ...


class Measures:
    """The process's metrics."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.registry = CollectorRegistry()
        counter: Any = {"registry": self.registry, "namespace": "aurastream"}
        self._applied = Counter("events_applied", "Events folded into a view, each once.", LABELS, **counter)
        self._duplicates = Counter(
            "events_duplicate", "Entries whose event ID was counted before.", LABELS, **counter
        )
        self._dead = Counter("events_dead", "Entries set aside as unusable: dead letters.", LABELS, **counter)
        self._commits = Counter("commits", "Batches committed.", LABELS, **counter)
        self._refused = Counter(
            "commits_refused", "Commits refused, by the script's answer.", ("answer",), **counter
        )
        self._takeovers = Counter(
            "takeovers", "Partitions taken over from a host that did not give them back.", **counter
        )
        self._commit_ms = Histogram(
            "commit_milliseconds", "One commit, as the host waits for it.", buckets=BUCKETS_MS, **counter
        )
        self._lag_events = Gauge("lag_events", "Events in the log after the cursor.", LABELS, **counter)
        self._lag_seconds = Gauge("lag_seconds", "How long the oldest of them has waited.", LABELS, **counter)
        self._owned = Gauge("partitions_owned", "Lanes (of Kafka: partitions) this host owns.", **counter)
        self._parked = Gauge(
            "dead_letters", "Events of processors that are parked, or wait behind one that is.", **counter
        )
        self._healthy = Gauge("healthy", "1 while every cursor with lag advances.", **counter)
        self._seen_takeovers = 0
        self.read: Tally[str] = Tally()
        for answer in CommitAnswer:
            if answer is not CommitAnswer.OK:
                self._refused.labels(answer.name)

    def watch(self, hosted: SupervisedLane) -> None:
        """Count what this lane does."""
        labels = (hosted.lane.view.group, hosted.lane.stream.name, str(hosted.lane.partition))
        applied, duplicates, dead = (
            counter.labels(*labels) for counter in (self._applied, self._duplicates, self._dead)
        )
        commits = self._commits.labels(*labels)

        def committed(progress: Progress) -> None:
            before, after = progress.previous, progress.cursor
            self.read[progress.projection] += progress.events
            applied.inc(after.applied - before.applied)
            duplicates.inc(after.duplicates - before.duplicates)
            dead.inc(after.dead + after.quarantined - before.dead - before.quarantined)
            commits.inc()

        def refused(answer: CommitAnswer) -> None:
            self._refused.labels(answer.name).inc()

        hosted.lane.on_commit, hosted.lane.on_refusal = committed, refused
        hosted.on_commit = lambda seconds: self._commit_ms.observe(seconds * 1_000)

    async def exposition(self, lanes: AllLanes) -> bytes:
        """The text of /metrics."""
        health = await self.health(lanes)
        self._owned.set(lanes.owned)
        self._takeovers.inc(lanes.takeovers - self._seen_takeovers)
        self._seen_takeovers = lanes.takeovers
        self._healthy.set(health.healthy)
        self._lag_events.clear()
        self._lag_seconds.clear()
        for lane in health.lanes:
            labels = (generation_group(lane.projection, lane.generation), lane.stream, str(lane.partition))
            self._lag_events.labels(*labels).set(lane.lag_events)
            self._lag_seconds.labels(*labels).set(lane.lag_seconds)
        return generate_latest(self.registry)

    async def health(self, lanes: AllLanes) -> Health:
        """Every lane with its lag, and the verdict."""
        running, effects = list(lanes.view_lanes), list(lanes.effect_lanes)
        try:
            lags = await asyncio.to_thread(self._lags, running)
            self._parked.set(await asyncio.to_thread(self._letters, effects))
        except Exception as error:
            if not is_passing(error):
                raise
            return Health(False, f"the server does not answer ({type(error).__name__})", [])
        shown = [_judged(lane, lag, time.monotonic()) for lane, lag in zip(running, lags, strict=True)]
        sick = [lane for lane in shown if lane.trouble]
        reasons = [
            f"{lane.projection} at {lane.stream}/{lane.partition}: {lane.trouble}" for lane in sick
        ] + [
            f"{lane.lane.group} at {lane.lane.keys.where}: {lane.trouble}" for lane in effects if lane.trouble
        ]
        return Health(not reasons, "; ".join(reasons[:5]), shown)

    def _letters(self, runners: list[LaneRunner]) -> int:
        return sum(int(self._server.client.hlen(runner.lane.at.dead)) for runner in runners)

    def _lags(self, lanes: Sequence[SupervisedLane]) -> list[Lag]:
        return [lane.lag(self._server) for lane in lanes]


def _judged(hosted: SupervisedLane, lag: Lag, now: float) -> LaneHealth:
    lane = hosted.lane
    return LaneHealth(
        lane.projection.name,
        lane.stream.name,
        lane.partition,
        lane.cursor.position,
        lag.events,
        lag.seconds,
        hosted.trouble or _trouble_of(lag, now - hosted.moved_at),
        lane.generation,
    )


def _trouble_of(lag: Lag, still_s: float) -> str:
    """What the cursor itself says is wrong; "" when nothing. still_s: how long it has not moved."""
    if lag.rewound:
        return "the log ends before the cursor: it was restored or re-created; see aurastream check"
    if min(lag.seconds, still_s) > STALL_S:
        return f"{lag.events} events wait and the cursor has not moved for {still_s:.0f} s"
    return ""
