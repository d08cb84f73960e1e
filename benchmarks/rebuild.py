"""
Rebuild: a view folded anew beside the live one, one process, from the live log and from Parquet alone.

    ours          Rebuild's build step: Pulse from both sources, Clips from both
    bare limit    reading the same entries and nothing else: XRANGE; the archive's spans
    peer          a redis-py loop that reads, folds and writes as the product does, at least once (the one of
                  the apply workload)

And the swap: milliseconds from the call to the record's change, with readers at a thousand reads a second,
who must see no error.
"""

from __future__ import annotations

import gc
import resource
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aurastream.projections import Projection, View
from aurastream.projections.built_in.clips import Clips
from aurastream.projections.rebuild import Decision, Rebuild, abandon
from aurastream.streams import InvariantBroken, Server, Stream
from aurastream.streams.archive import history_of
from benchmarks import peers
from benchmarks.apply import consume, expect_states, forget_views
from benchmarks.feed import CLIPS, opened
from benchmarks.measure import (
    AT_LEAST_ONCE,
    EXACT,
    NONE,
    Meter,
    Plan,
    Report,
    Row,
    Target,
    client_of,
    median_row,
)
from benchmarks.past import archived_stream
from benchmarks.plain import make_groups
from benchmarks.reference import Pulse

NAME = "rebuild"
PER_CORE = 250_000.0
MEMORY_BYTES = 1e9
SWAP_MS = 50.0
READS_PER_S, READERS = 1_000, 2
KEEP_MS = 60_000
BY = "bench"


def from_log(url: str, plan: Plan) -> Report:
    """Pulse and Clips from the live log, beside reading it and the peer."""
    with archived_stream(url, plan.seed, plan.rebuild, clips=CLIPS, is_archived=False) as (server, stream):
        pulse = _built(server, stream, Pulse(), plan, "log")
        clips = _built(server, stream, Clips(), plan, "log")
        bare = _read(server, stream, plan, "bare server: XRANGE")
        forget_views(server, stream)
        make_groups(server, stream, Pulse.name)
        meter = Meter(server.client)
        with meter:
            peers.plain_apply(client_of(url), stream, Pulse())
        expect_states(server, stream, Pulse(), plan.rebuild)
        peer = meter.row(NAME, "redis-py loop: pulse", AT_LEAST_ONCE, plan.rebuild)
    return Report([pulse, clips, bare, peer], [_target(pulse, "the log")])


def from_parquet(url: str, plan: Plan) -> Report:
    """The same when the log is empty and all is in the archive."""
    with archived_stream(url, plan.seed, plan.rebuild, clips=CLIPS) as (server, stream):
        pulse = _built(server, stream, Pulse(), plan, "Parquet")
        clips = _built(server, stream, Clips(), plan, "Parquet")
        bare = _read(server, stream, plan, "archive: spans")
    return Report([pulse, clips, bare], [_target(pulse, "Parquet")])


def memory(url: str, plan: Plan) -> Report:
    """The most memory a long rebuild takes; its log is in the archive, as it would be."""
    with archived_stream(url, plan.seed, plan.rebuild_long) as (server, stream):
        with _collector_off():
            _build(stream, Pulse())
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        server.client.ping()
    note = "this process's peak, the archiving of the events before included"
    return Report(
        targets=[
            Target(f"rebuild of {plan.rebuild_long:,} events, memory", MEMORY_BYTES, "bytes", most, note=note)
        ]
    )


def swap(url: str, plan: Plan) -> Report:
    """Swaps under readers."""
    took_ms: list[float] = []
    reads = worst = 0
    with archived_stream(url, plan.seed, plan.top, is_archived=False) as (server, stream):
        consume(server, stream, Pulse())
        rows = len(View(stream, Pulse()).states().rows)
        for _ in range(plan.swaps):
            with Rebuild(history_of(stream), Pulse(), Decision(BY)) as job:
                job.begin()
                job.build()
                job.compare()
                with _readers(url, rows) as (seen, latencies):
                    begin = time.perf_counter()
                    job.swap(KEEP_MS)
                    took_ms.append((time.perf_counter() - begin) * 1e3)
                    wanted = len(latencies) + READS_PER_S // 5
                    while len(latencies) < wanted and not seen:
                        time.sleep(0.005)
                if seen:
                    raise InvariantBroken(f"a reader saw {seen[0]}")
                reads, worst = reads + len(latencies), max([worst, *latencies])
    note = (
        f"worst {max(took_ms):.1f} ms; "
        f"{reads:,} reads meanwhile, none empty or refused, the slowest {worst * 1e3:.1f} ms"
    )
    what = f"swap of a generation, median of {plan.swaps}, last catch-up and audit event included"
    return Report(targets=[Target(what, SWAP_MS, "ms", statistics.median(took_ms), note=note)])


def work(plan: Plan) -> tuple[Any, ...]:
    """The functions; the long one only where the plan has a length for it."""
    return (from_log, from_parquet, swap, memory) if plan.rebuild_long else (from_log, from_parquet, swap)


def _target(row: Row, source: str) -> Target:
    note = (
        f"one process, {row.events_per_s:,.0f} events/s by the clock; server {row.server_us:.2f} us an event"
    )
    return Target(
        f"rebuild from {source}, pulse, a core",
        PER_CORE,
        "events/s",
        1e6 / row.client_us,
        at_least=True,
        note=note,
    )


def _built(server: Server, stream: Stream, projection: Projection[Any], plan: Plan, source: str) -> Row:
    rows = []
    for _ in range(plan.rounds):
        meter = Meter(server.client)
        with _collector_off(), meter:
            _build(stream, projection)
        rows.append(meter.row(NAME, f"aurastream: {projection.name} from {source}", EXACT, plan.rebuild))
        abandon(stream, projection, Decision(BY))
    return median_row(rows)


def _build(stream: Stream, projection: Projection[Any]) -> None:
    with Rebuild(history_of(stream), projection, Decision(BY)) as job:
        job.begin()
        job.build()
        read = sum(cursor.applied for cursor in job.cursors().values())
    ever = sum(int(stream.server.client.hget(keys.meta, "appended") or 0) for keys in stream.keys)
    if read != ever:
        raise InvariantBroken(f"the rebuild of {projection.name} has applied {read} of {ever} events")


def _read(server: Server, stream: Stream, plan: Plan, variant: str) -> Row:
    history, meter = history_of(stream), Meter(server.client)
    with _collector_off(), meter:
        found = sum(
            len(span.raw) for p in range(stream.partitions) for span in history.spans(p, count=10_000)
        )
    if found != plan.rebuild:
        raise InvariantBroken(f"{found} entries where {plan.rebuild} were expected")
    return meter.row(NAME, variant, NONE, plan.rebuild)


@contextmanager
def _collector_off() -> Iterator[None]:
    """As the processes of a rebuild run (processors/rebuilding.py)."""
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@contextmanager
def _readers(url: str, rows: int) -> Iterator[tuple[list[str], list[float]]]:
    """Readers, together READS_PER_S reads a second, each of a ranking and a state. Yields what they saw
    amiss, and their latencies.
    """
    seen: list[str] = []
    latencies: list[float] = []
    is_over = threading.Event()

    def read() -> None:
        server, stream = opened(url)
        view, due = View(stream, Pulse()), time.perf_counter()
        while not is_over.is_set():
            begin = time.perf_counter()
            try:
                found = len(view.ranking("velocity", top=5).rows)
            except Exception as error:
                seen.append(f"{type(error).__name__}: {error}")
                return
            latencies.append(time.perf_counter() - begin)
            if found != 5:
                seen.append(f"{found} rows of a ranking of {rows}")
            due += READERS / READS_PER_S
            is_over.wait(max(0.0, due - time.perf_counter()))
        stream.close()
        server.close()

    threads = [threading.Thread(target=read) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    try:
        yield seen, latencies
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
