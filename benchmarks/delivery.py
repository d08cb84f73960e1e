"""
What exactly once costs: the same log folded by the product and by plain.py, which promises at least once.

One process, one server, one log; the two sides alternate, each round from an empty view, and the order turns
every round. The ratio is the median of the rounds' ratios: two neighbouring runs share the machine's mood.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from aurastream.projections import Projection
from aurastream.streams import Server, Stream
from benchmarks import plain
from benchmarks.apply import consume, expect_read, expect_states, forget_views
from benchmarks.feed import fill, opened
from benchmarks.measure import AT_LEAST_ONCE, EXACT, Meter, Plan, Report, Row, Target, median_row
from benchmarks.reference import Pulse

NAME = "delivery"
RATIO = 0.9


def ratio(url: str, plan: Plan) -> Report:
    """Throughput exactly once / at least once."""
    server, stream = opened(url)
    fill(stream, plan.seed, plan.apply)

    def exactly() -> Row:
        row = _measured(server, stream, consume, EXACT, plan.apply)
        expect_read(server, stream, Pulse(), plan.apply)
        return row

    def at_least() -> Row:
        row = _measured(server, stream, plain.consume, AT_LEAST_ONCE, plan.apply)
        expect_states(server, stream, Pulse(), plan.apply)
        return row

    exact, loose = [], []
    for number in range(plan.ratio_rounds):
        if number % 2:
            exact.append(exactly())
            loose.append(at_least())
        else:
            loose.append(at_least())
            exact.append(exactly())
    by_rate = statistics.median(a.events_per_s / b.events_per_s for a, b in zip(exact, loose, strict=True))
    by_cpu = statistics.median(_cpu_us(b) / _cpu_us(a) for a, b in zip(exact, loose, strict=True))
    note = f"by CPU, client and server together: {by_cpu:.2f}"
    target = Target("exactly once / at least once, throughput", RATIO, "", by_rate, at_least=True, note=note)
    return Report([median_row(exact), median_row(loose)], [target])


WORK = (ratio,)


def _measured(
    server: Server,
    stream: Stream,
    run: Callable[[Server, Stream, Projection[Any]], None],
    guarantee: str,
    events: int,
) -> Row:
    forget_views(server, stream)
    meter = Meter(server.client)
    with meter:
        run(server, stream, Pulse())
    return meter.row(NAME, "our fold: pulse", guarantee, events)


def _cpu_us(row: Row) -> float:
    return row.client_us + (row.server_us or 0.0)
