"""
Start and stop of a host: seconds from the process's start to the first event applied, and from SIGTERM in
full work to its end.

    a log that is there -> start -> the first commit a reader sees -> a tenth applied -> SIGTERM -> exit code
        0

Each round begins with an empty view. A host that had nothing left to do at the signal was not stopped in
full work: refused.
"""

from __future__ import annotations

import statistics
import time

from aurastream.streams import InvariantBroken
from benchmarks.apply import forget_views
from benchmarks.feed import fill, opened
from benchmarks.fleet import Cursors, fleet
from benchmarks.measure import Plan, Report, Target

NAME = "lifecycle"
START_S, STOP_S = 2.0, 2.0


def start_and_stop(url: str, plan: Plan) -> Report:
    """Rounds of both."""
    server, stream = opened(url)
    fill(stream, plan.seed, plan.hosts)
    cursors = Cursors(server, stream)
    starts, stops = [], []
    for _ in range(plan.starts):
        forget_views(server, stream)
        with fleet(url) as hosts:
            host = hosts.start()
            hosts.until(lambda: cursors.applied() > 0, "the first commit")
            starts.append(time.monotonic() - host.started_at)
            hosts.until(lambda: cursors.applied() > plan.hosts // 10, "full work")
            asked_at, left = time.monotonic(), plan.hosts - cursors.applied()
            host.stop()
            stops.append(time.monotonic() - asked_at)
            if left <= 0:
                raise InvariantBroken(
                    "everything was applied before the signal: the host was not stopped in full work"
                )
    return Report(
        targets=[
            _target("host, start to first event applied", START_S, starts),
            _target("host, SIGTERM to exit", STOP_S, stops),
        ]
    )


WORK = (start_and_stop,)


def _target(what: str, bound: float, took_s: list[float]) -> Target:
    note = f"median of {len(took_s)}; {min(took_s):.2f} to {max(took_s):.2f} s"
    return Target(what, bound, "s", statistics.median(took_s), note=note)
