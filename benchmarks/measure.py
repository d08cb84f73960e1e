"""
Clock and CPU around a piece of work, and what a workload reports.

    with Meter(client) as meter: work        meter.row("append", "ours", events=200_000)
    apart(work, plan) -> Report              the work in a fresh process, against a fresh server

A workload is a list of functions ``(url, plan) -> Report``; a Report is picklable and holds rows and targets.
"""

from __future__ import annotations

import math
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from benchmarks.server import running

ANSWER_TIMEOUT_S = 60.0
EXACT, IDEMPOTENT, AT_LEAST_ONCE, NONE = "exactly once", "idempotent", "at least once", "-"


class Plan(msgspec.Struct, frozen=True):
    """How much to measure. All counts are events unless named otherwise."""

    seed: int = 7
    server: str = "valkey"
    append: int = 200_000
    apply: int = 200_000
    one_by_one: int = 20_000  # for peers that handle a message at a time
    rounds: int = 3
    ratio_rounds: int = 7  # of each side, alternating
    latency_s: int = 12
    memory: int = 1_000_000
    scale: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    scale_least: int = 200_000  # measured in all at each size: shorter runs are repeated
    partitions_top: int = 64
    top: int = 64_000
    top_reads: int = 400
    hosts: int = 400_000
    hosts_rounds: int = 3
    kills: int = 50
    lease_ms: int = 3_000  # of the hosts that are killed
    starts: int = 5
    lease_hosts: int = 8  # processes
    history: int = 1_000_000  # archived, looked at as of a past time
    rebuild: int = 1_000_000
    rebuild_long: int = 10_000_000  # for its memory; 0: not measured
    swaps: int = 20


FULL = Plan()
QUICK = Plan(
    append=100_000,
    apply=100_000,
    one_by_one=5_000,
    ratio_rounds=5,
    latency_s=11,
    memory=100_000,
    scale=(10_000, 100_000),
    top=20_000,
    hosts=60_000,
    kills=5,
    lease_ms=600,
    history=100_000,
    rebuild=200_000,
    rebuild_long=0,
    swaps=5,
)


class Row(msgspec.Struct, frozen=True):
    """What one variant of a workload cost. client_us, server_us: CPU per event; None where there is no such
    figure.
    """

    workload: str
    variant: str
    guarantee: str
    events: int
    events_per_s: float
    client_us: float
    server_us: float | None
    note: str = ""


class Target(msgspec.Struct, frozen=True):
    """A figure of DESIGN.md section 13. measured: None where it could not be measured; `note` says why, or
    how.
    """

    what: str
    bound: float
    unit: str
    measured: float | None
    at_least: bool = False
    note: str = ""

    @property
    def is_met(self) -> bool:
        """Whether it was measured and holds."""
        if self.measured is None:
            return False
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound

    @property
    def missed_by(self) -> str:
        """In per cent of the bound; "" where it is met or was not measured."""
        if self.measured is None or self.is_met:
            return ""
        share = abs(self.measured - self.bound) / self.bound
        return f"{share:.0%}" if share >= 0.01 else f"{share:.2%}"


class Report(msgspec.Struct):
    """What one function of a workload found."""

    rows: list[Row] = []
    targets: list[Target] = []
    notes: list[str] = []


Work = Callable[[str, Plan], Report]
Client = redis.Redis | RedisCluster


def client_of(url: str) -> redis.Redis:
    """A plain client that repeats nothing."""
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), protocol=2, socket_timeout=ANSWER_TIMEOUT_S)


def server_cpu_s(client: Client) -> float:
    """CPU the server has used, all its threads, user and system."""
    used: dict[str, Any] = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def own_cpu_s() -> float:
    """CPU this process has used, all its threads, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Meter:
    """Adds up clock and CPU over one or more ``with`` blocks."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.wall_s = self.client_s = self.server_s = 0.0

    def __enter__(self) -> Meter:
        self._server, self._own, self._wall = server_cpu_s(self._client), own_cpu_s(), time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            return  # the server may be gone, and the figures with it
        self.wall_s += time.perf_counter() - self._wall
        self.client_s += own_cpu_s() - self._own
        self.server_s += server_cpu_s(self._client) - self._server

    def row(self, workload: str, variant: str, guarantee: str, events: int, note: str = "") -> Row:
        """The sums per event."""
        per_event = 1e6 / events
        rate, client, server = events / self.wall_s, self.client_s * per_event, self.server_s * per_event
        return Row(workload, variant, guarantee, events, rate, client, server, note)


def median_row(rows: Sequence[Row]) -> Row:
    """Every figure's median over repetitions of one variant: a neighbour's burst moves a mean."""
    return msgspec.structs.replace(
        rows[0],
        events_per_s=statistics.median(row.events_per_s for row in rows),
        client_us=statistics.median(row.client_us for row in rows),
        server_us=statistics.median(row.server_us or 0.0 for row in rows),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def has_faststream() -> bool:
    """Whether the optional dependency group `bench` is installed."""
    return find_spec("faststream") is not None


def apart(work: Work, plan: Plan) -> Report:
    """The work's report, from a fresh process against a fresh server. Raises RuntimeError when the process
    dies.
    """
    context = multiprocessing.get_context("spawn")
    with running(plan.server) as url:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_send_report, args=(theirs, work, url, plan))
        process.start()
        theirs.close()
        try:
            report: Report = ours.recv()
        except EOFError:
            process.join()
            raise RuntimeError(f"{work} failed with exit code {process.exitcode}; see above.") from None
        finally:
            if process.is_alive():
                process.join(1.0)
            if process.is_alive():
                process.kill()
            process.join()
    return report


def _send_report(pipe: Connection, work: Work, url: str, plan: Plan) -> None:
    pipe.send(work(url, plan))
    pipe.close()
