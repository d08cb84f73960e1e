"""
Take-over: one of two hosts is killed (-9), milliseconds until the other applies an event of a partition the
dead one owned.

    equal shares -> kill -> append one event to a partition of the dead -> its cursor counts it = taken over
    -> a new host starts -> equal shares -> the next kill, of the older one

The event is appended as soon as the kill has returned and the dead process was waited for. The instant of
each kill is drawn from the seed, over one period of the lease's renewal: the ticks that made the shares equal
would else choose it. The cursor is polled.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from random import Random

from aurastream.streams import Event, Stream
from benchmarks.feed import observations, opened
from benchmarks.fleet import Cursors, Fleet, fleet, owners
from benchmarks.measure import Plan, Report, Target, percentile

NAME = "takeover"
PATIENCE_S = 30.0
BEYOND_LEASE_MS = 1_000
RENEWALS = 5  # in a lease's life


def kills(url: str, plan: Plan) -> Report:
    """One kill after the other."""
    server, stream = opened(url)
    cursors, feed, random = Cursors(server, stream), observations(plan.seed), Random(plan.seed)
    took_ms = []
    with fleet(url, plan.lease_ms) as hosts:
        hosts.start()
        for _ in range(plan.kills):
            hosts.start()
            hosts.await_shares(stream)
            due = time.monotonic() + random.uniform(0, plan.lease_ms / 1e3 / RENEWALS)
            hosts.until(lambda due=due: time.monotonic() >= due, "the instant of the kill")
            took_ms.append(_taken_over_ms(stream, hosts, cursors, feed))
        hosts.stop()
    bound = plan.lease_ms + BEYOND_LEASE_MS
    note = (
        f"{plan.kills} kills, lease {plan.lease_ms:,} ms; "
        f"p50 {percentile(took_ms, 0.5):,.0f} ms, most {max(took_ms):,.0f} ms"
    )
    return Report(
        targets=[
            Target(
                "take-over after kill -9: lease + 1 s, p99", bound, "ms", percentile(took_ms, 0.99), note=note
            )
        ]
    )


WORK = (kills,)


def _taken_over_ms(stream: Stream, hosts: Fleet, cursors: Cursors, feed: Iterator[Event]) -> float:
    """Kill the older host; from the kill to the sight of the event."""
    dead = hosts.hosts[0]
    partition = next(partition for partition, pid in owners(stream).items() if pid == dead.pid)
    event = next(event for event in feed if stream.partition_of(event.subject) == partition)
    before = cursors.each()[partition]
    began = time.monotonic()
    dead.kill()
    hosts.hosts.remove(dead)
    stream.append([event])
    hosts.until(
        lambda: cursors.each()[partition] > before, f"the take-over of partition {partition}", PATIENCE_S
    )
    return (time.monotonic() - began) * 1e3
