"""
Hosts: Pulse by real `aurastream run` processes over a log of eight partitions, against the bare loop and
against stock Faust.

    backlog    a fresh process over a log that is there already
    standing   the processes hold their shares of a short log, stand still (SIGSTOP) while it is filled, and
               are woken as by live events
    bare loop  projections.Consumer in one process, on the same log, from an empty view, right after the
               host
    stock      a plain Faust app, an agent called event by event (stock.py)

Events and CPU are those between the first commit that a reader saw and the last, start and imports outside.
The reader polls every 2 ms, on the same cores. The ratios are medians of rounds, a host and a loop each.
"""

from __future__ import annotations

import multiprocessing
import signal
import statistics
import time
from collections.abc import Iterable
from itertools import islice
from multiprocessing.connection import Connection

import msgspec

from aurastream.processors.host.summary import tune_collector
from aurastream.projections import Consumer, Progress
from aurastream.streams import Event, InvariantBroken, Server, Stream
from benchmarks.apply import expect_read, expect_states, forget_views
from benchmarks.feed import batches, fill, observations, opened
from benchmarks.fleet import STOCK, Cursors, Fleet, Sight, fleet, owners, watched
from benchmarks.measure import (
    AT_LEAST_ONCE,
    EXACT,
    Meter,
    Plan,
    Report,
    Row,
    Target,
    median_row,
    own_cpu_s,
    server_cpu_s,
)
from benchmarks.plain import make_groups
from benchmarks.reference import Pulse

NAME = "hosts"
PARTITIONS = 8
CORES = "2 cores"
RATIO = 0.85
WARM_UP_BATCHES = 4  # applied before the processes stand still
STANDSTILL_SHARE = 0.7  # of the lease: they renewed it up to a fifth of it before
TICK_US = 1e-3  # below what the kernel counts: a run of a few milliseconds has no CPU
STANDSTILL_LEASE_MS = 30_000  # outlives the fill: a lapsed lease would be claimed by whoever wakes first
STOCK_MAX_S, LOOP_MAX_S = 600.0, 300.0


def backlog(url: str, plan: Plan) -> Report:
    """One process on a log that is there, and the loop on the same."""
    server, stream = opened(url, PARTITIONS)
    fill(stream, plan.seed, plan.hosts)
    ours, bare = [], []
    for _ in range(plan.hosts_rounds):
        forget_views(server, stream)
        with fleet(url) as hosts:
            hosts.start()
            ours.append(
                _row("1 process, backlog", *watched(server, hosts, Cursors(server, stream), 0, plan.hosts))
            )
            expect_read(server, stream, Pulse(), plan.hosts)
            hosts.stop()
        bare.append(_looped(url, server, stream, plan.hosts))
    return Report([median_row(ours), median_row(bare)], [_target("backlog", ours, bare)])


def standing(url: str, plan: Plan) -> Report:
    """One process that is woken by a filled log, and the loop on the same log."""
    ours, bare = [], []
    for _ in range(plan.hosts_rounds):
        server, stream, row = _woken(url, plan, 1)
        ours.append(row)
        bare.append(_looped(url, server, stream, plan.hosts))
        stream.close()
        server.close()
    return Report([median_row(ours)], [_target("woken from a standstill", ours, bare)])


def two(url: str, plan: Plan) -> Report:
    """Two processes."""
    return Report([_woken(url, plan, 2)[2]])


def four(url: str, plan: Plan) -> Report:
    """Four processes."""
    return Report([_woken(url, plan, 4)[2]])


def stock(url: str, plan: Plan) -> Report:
    """Stock Faust, event by event."""
    server, stream = opened(url, PARTITIONS)
    fill(stream, plan.seed, plan.one_by_one)
    with fleet(url) as hosts:
        path = hosts.directory / "report.json"
        meter = Meter(server.client)
        with meter:
            hosts.start(STOCK, BENCH_EVENTS=str(plan.one_by_one), BENCH_REPORT=str(path))
            hosts.until(path.exists, "stock Faust to handle all", patience_s=STOCK_MAX_S)
        wall_s, cpu_s = msgspec.json.decode(path.read_bytes(), type=tuple[float, float])
    make_groups(server, stream, Pulse.name)  # the check counts its pending events; Faust's place is its own
    expect_states(server, stream, Pulse(), plan.one_by_one)
    events = plan.one_by_one - 1
    row = Row(
        NAME,
        "stock Faust, single",
        AT_LEAST_ONCE,
        events,
        events / wall_s,
        cpu_s * 1e6 / events,
        meter.server_s * 1e6 / events,
    )
    return Report([row])


WORK = (backlog, standing, two, four, stock)


def _woken(url: str, plan: Plan, processes: int) -> tuple[Server, Stream, Row]:
    server, stream = opened(url, PARTITIONS)
    server.client.flushall()
    stream.close()
    server.close()
    server, stream = opened(url, PARTITIONS)
    cursors = Cursors(server, stream)
    feed = batches(observations(plan.seed), plan.hosts)
    with fleet(url, STANDSTILL_LEASE_MS) as hosts:
        for _ in range(processes):
            hosts.start()
        hosts.await_shares(stream)
        warm = _appended(stream, islice(feed, WARM_UP_BATCHES))
        hosts.until(lambda: cursors.applied() == warm, "the warm-up")
        _fill_behind(stream, hosts, feed)
        row = _row(_processes(processes), *watched(server, hosts, cursors, warm, plan.hosts))
        expect_read(server, stream, Pulse(), plan.hosts)
        hosts.stop()
    return server, stream, row


def _fill_behind(stream: Stream, hosts: Fleet, feed: Iterable[list[Event]]) -> None:
    """Append while the hosts stand still; they own what they owned when they go on."""
    held, began = owners(stream), time.monotonic()
    for host in hosts.hosts:
        host.send(signal.SIGSTOP)
    _appended(stream, feed)
    took_s = time.monotonic() - began
    if took_s * 1e3 > STANDSTILL_LEASE_MS * STANDSTILL_SHARE or owners(stream) != held:
        raise InvariantBroken(
            f"the fill took {took_s:.1f} s, too long for leases of {STANDSTILL_LEASE_MS} ms to be kept"
        )
    for host in hosts.hosts:
        host.send(signal.SIGCONT)


def _appended(stream: Stream, feed: Iterable[list[Event]]) -> int:
    count = 0
    for batch in feed:
        stream.append(batch)
        count += len(batch)
    return count


def _processes(count: int) -> str:
    return "1 process, woken" if count == 1 else f"{count} processes on {CORES}, woken"


def _row(variant: str, first: Sight, last: Sight) -> Row:
    """Between two sights, per event."""
    wall_s, cpu_s, server_s, events = (after - before for before, after in zip(first, last, strict=True))
    count = int(events)
    if count <= 0:
        raise InvariantBroken(f"{variant}: the first commit that was seen was the last; measure more events")
    return Row(NAME, variant, EXACT, count, count / wall_s, cpu_s * 1e6 / count, server_s * 1e6 / count)


def _target(what: str, ours: list[Row], bare: list[Row]) -> Target:
    pairs = list(zip(ours, bare, strict=True))
    by_rate = statistics.median(host.events_per_s / loop.events_per_s for host, loop in pairs)
    by_cpu = statistics.median(loop.client_us / max(host.client_us, TICK_US) for host, loop in pairs)
    note = f"by CPU of the process: {by_cpu:.2f}"
    return Target(f"host / bare loop, throughput, {what}", RATIO, "", by_rate, at_least=True, note=note)


def _looped(url: str, server: Server, stream: Stream, events: int) -> Row:
    """The bare loop on the stream as it is, from an empty view, in a process of its own."""
    forget_views(server, stream)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_loop, args=(theirs, url))
    process.start()
    theirs.close()
    try:
        if not ours.poll(LOOP_MAX_S):
            raise RuntimeError(f"the bare loop was not done within {LOOP_MAX_S} s")
        first, last = ours.recv()
    finally:
        process.join(1.0)
        process.kill()
        process.join()
    expect_read(server, stream, Pulse(), events)
    return _row("bare loop", first, last)


def _loop(pipe: Connection, url: str) -> None:
    """The loop's process: what there was at its first commit and at its last."""
    server, stream = opened(url, PARTITIONS)
    tune_collector()
    first: list[Sight] = []
    read = 0

    def on_commit(progress: Progress) -> None:
        nonlocal read
        read += progress.events
        if not first:
            first.append((time.perf_counter(), own_cpu_s(), server_cpu_s(server.client), read))

    Consumer(server, [Pulse()], lambda: [stream], on_commit=on_commit).run(until_idle=True)
    pipe.send((first[0], (time.perf_counter(), own_cpu_s(), server_cpu_s(server.client), read)))
