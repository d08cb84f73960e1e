"""Top: the 100 best of a ranking over 64 partitions, with their states, milliseconds a read."""

from __future__ import annotations

import time

from aurastream.projections import View
from aurastream.streams import InvariantBroken
from benchmarks.apply import consume
from benchmarks.feed import fill, opened
from benchmarks.measure import Meter, Plan, Report, Target, percentile
from benchmarks.reference import Pulse

TOP = 100
P99_MS = 5.0
WARM_UP = 20
POLLS = 4  # of every clip


def reads(url: str, plan: Plan) -> Report:
    """Reads one after the other, nothing being written."""
    server, stream = opened(url, plan.partitions_top)
    fill(stream, plan.seed, plan.top, clips=plan.top // POLLS)
    consume(server, stream, Pulse())
    view = View(stream, Pulse())
    found = [len(view.ranking("velocity", top=TOP).rows) for _ in range(WARM_UP)]
    if min(found) != TOP:
        raise InvariantBroken(f"the ranking gave {min(found)} rows of {TOP}")
    took_ms = []
    meter = Meter(server.client)
    with meter:
        for _ in range(plan.top_reads):
            begin = time.perf_counter()
            view.ranking("velocity", top=TOP)
            took_ms.append((time.perf_counter() - begin) * 1e3)
    client_us, server_us = meter.client_s * 1e6 / plan.top_reads, meter.server_s * 1e6 / plan.top_reads
    note = (
        f"p50 {percentile(took_ms, 0.5):.2f} ms; "
        f"CPU a read: client {client_us:,.0f} us, server {server_us:,.0f} us"
    )
    what = f"top {TOP} over {plan.partitions_top} partitions, p99"
    return Report(targets=[Target(what, P99_MS, "ms", percentile(took_ms, 0.99), note=note)])


WORK = (reads,)
