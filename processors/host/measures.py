"""
What the host tells of itself and of the fleet: Prometheus metrics.

Counters count what this process did since it started. Gauges of lanes are of those this host owns, and of
those that nobody owns, which every host says: take the greatest over the instances, not the sum. Those of the
fleet are the same at every host. A view's later generation is a series of its own, by the label generation.
Names follow Prometheus' conventions: base units but for commit_milliseconds, which is what readers compare.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from aurastream.processors.fleet import Colour, Fleet, FleetLane, LaneState
from aurastream.processors.host.health import AllLanes, Health
from aurastream.processors.host.supervised import SupervisedLane
from aurastream.projections.engine import CommitAnswer, Progress

BUCKETS_MS = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
LANES = ("group", "generation", "stream")
LABELS = (*LANES, "partition")
OWNERLESS = (LaneState.UNOWNED, LaneState.FREE)
# A series of start times beside every counter, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Measures:
    """The process's metrics."""

    def __init__(self) -> None:
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
            "takeovers", "Lanes taken over from a host that did not give them back.", **counter
        )
        self._commit_ms = Histogram(
            "commit_milliseconds", "One commit, as the host waits for it.", buckets=BUCKETS_MS, **counter
        )
        self._of_host(counter)
        self._of_lanes(counter)
        self._of_fleet(counter)
        self._seen_takeovers = 0
        self.read: Tally[str] = Tally()
        for answer in CommitAnswer:
            if answer is not CommitAnswer.OK:
                self._refused.labels(answer.name)

    def _of_host(self, gauge: dict[str, Any]) -> None:
        self._owned = Gauge("partitions_owned", "Lanes (of Kafka: partitions) this host owns.", **gauge)
        self._parked = Gauge(
            "dead_letters",
            "Events of this host's processors that are parked, or wait behind one that is.",
            **gauge,
        )
        self._hung = Gauge(
            "hung_calls", "Calls of handlers that did not end when they should have.", ("processor",), **gauge
        )
        self._refusing = Gauge(
            "server_refuses_seconds",
            "How long the server has refused this host something, or not answered it; 0 while all is well.",
            **gauge,
        )
        self._healthy = Gauge("healthy", "1 unless a restart of this host would mend something.", **gauge)

    def _of_lanes(self, gauge: dict[str, Any]) -> None:
        self._lag_events = Gauge(
            "lag_events",
            "Events in the log after the cursor, of lanes of this host and of nobody.",
            LABELS,
            **gauge,
        )
        self._lag_seconds = Gauge("lag_seconds", "How long the oldest of them has waited.", LABELS, **gauge)

    def _of_fleet(self, gauge: dict[str, Any]) -> None:
        self._colour = Gauge("fleet_colour", "Of the fleet: 0 green, 1 amber, 2 red.", **gauge)
        self._hosts = Gauge("fleet_hosts", "Hosts that live.", **gauge)
        self._unowned = Gauge("lanes_unowned", "Lanes that nobody runs.", LANES, **gauge)
        self._stuck = Gauge("lanes_stuck", "Lanes that cannot advance.", LANES, **gauge)
        self._aside = Gauge(
            "events_set_aside",
            "Entries that a group could not use: of a processor until they are retried or discarded.",
            LANES,
            **gauge,
        )

    def watch(self, hosted: SupervisedLane) -> None:
        """Count what this lane does."""
        lane = hosted.lane
        labels = (lane.projection.name, str(lane.generation), lane.stream.name, str(lane.partition))
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

    def exposition(self, lanes: AllLanes, health: Health, fleet: Fleet) -> bytes:
        """The text of /metrics."""
        self._owned.set(lanes.owned)
        self._takeovers.inc(lanes.takeovers - self._seen_takeovers)
        self._seen_takeovers = lanes.takeovers
        self._healthy.set(health.healthy)
        since_ms = lanes.waits_since_ms
        self._refusing.set(0 if since_ms is None else max(0.001, time.time() - since_ms / 1000))
        letters = {(runner.lane.group, runner.lane.keys.where) for runner in lanes.effect_lanes}
        self._parked.set(
            sum(
                lane.set_aside
                for lane in health.lanes
                if (lane.group, f"{lane.stream}/{lane.partition}") in letters
            )
        )
        self._hung.clear()
        for runner in lanes.effect_lanes:
            self._hung.labels(runner.lane.group).inc(len(runner.hung))
        self._set_lags(health, fleet)
        self._set_fleet(fleet)
        return generate_latest(self.registry)

    def _set_lags(self, health: Health, fleet: Fleet) -> None:
        """Of our lanes, and of those that nobody has."""
        self._lag_events.clear()
        self._lag_seconds.clear()
        for lane in fleet.lanes:
            if lane.state in OWNERLESS:
                self._lag_events.labels(*_labels(lane), str(lane.partition)).set(lane.lag_events)
                self._lag_seconds.labels(*_labels(lane), str(lane.partition)).set(lane.lag_seconds)
        for ours in health.lanes:
            labels = (ours.group, str(ours.generation), ours.stream, str(ours.partition))
            self._lag_events.labels(*labels).set(ours.lag_events)
            self._lag_seconds.labels(*labels).set(ours.lag_seconds)

    def _set_fleet(self, fleet: Fleet) -> None:
        self._colour.set(list(Colour).index(fleet.colour))
        self._hosts.set(len(fleet.hosts))
        for gauge in (self._unowned, self._stuck, self._aside):
            gauge.clear()
        for lane in fleet.lanes:
            labels = _labels(lane)
            is_unowned = lane.state is LaneState.UNOWNED or (
                lane.state is LaneState.FREE and lane.colour is Colour.RED
            )
            self._unowned.labels(*labels).inc(is_unowned)
            self._stuck.labels(*labels).inc(lane.state is LaneState.STUCK)
            self._aside.labels(*labels).inc(lane.set_aside)


def _labels(lane: FleetLane) -> tuple[str, str, str]:
    group, _, generation = lane.group.partition("@")
    return group, generation or "1", lane.stream
