"""
Append to visible: 1,000 events/s from one process, Pulse consumed elsewhere, milliseconds until the view has
the event.

    visible    the bare loop in another process                  of_hosts    two `aurastream run` processes

    falls due -> (append begins -> script -> wake-up -> read -> fold -> commit answered) = visible

The producer appends what has fallen due as soon as it has fallen due, one call for all of it. An event is
visible when the consumer holds the answer of the commit that moved the cursor to or past it: a reader could
have seen it a little earlier, never later.
Hosts tell nobody of their commits: there a third process polls all cursors in one pipeline, and an event is
visible when that reader holds an answer at or past it. Nothing is subtracted for the poll, nor for the CPU
the reader takes from the others. It rests 0.5 ms
between two polls: without, it takes one of two cores and its share of the server, and p50 was 3.8 ms instead
of 1.6. All processes read the same monotonic clock. The first second is not counted: it pays for imports and
first connections.
"""

from __future__ import annotations

import multiprocessing
import time
from bisect import bisect_left
from itertools import islice
from multiprocessing.connection import Connection

import msgspec

from aurastream.projections import Consumer, Progress
from aurastream.streams import Position, Stream, UnknownOutcome
from benchmarks.apply import expect_read
from benchmarks.feed import observations, opened
from benchmarks.fleet import Cursors, fleet, sight
from benchmarks.measure import EXACT, IDEMPOTENT, Meter, Plan, Report, Row, Target, percentile
from benchmarks.reference import Pulse

NAME = "latency"
EVENTS_PER_S = 1_000
WARM_UP_S = 1
P50_MS, P99_MS = 2.0, 10.0
WORKERS = 2
POLL_REST_S = 0.0005
DONE_EVERY = 16  # polls between two looks whether all is applied
PATIENCE_S = 30.0  # of the consumer, beyond the feed's own duration

Commit = tuple[int, tuple[int, int], float]  # partition, cursor, clock
Sent = tuple[
    int, tuple[int, int], float, float
]  # partition, position, clock when due, clock when its append began


def visible(url: str, plan: Plan) -> Report:
    """Both processes' work, joined by position."""
    server, stream = opened(url)
    total = plan.latency_s * EVENTS_PER_S
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    consumer = context.Process(target=_consume, args=(theirs, url, total, plan.latency_s + PATIENCE_S))
    consumer.start()
    try:
        ours.recv()  # it runs
        meter = Meter(server.client)
        with meter:
            sent = _produce(stream, plan.seed, total)
            commits: list[Commit] = ours.recv()
        consumer_us: float = ours.recv()
    finally:
        consumer.join(PATIENCE_S)
        consumer.kill()
    return _report(
        sent[WARM_UP_S * EVENTS_PER_S :],
        commits,
        meter.row(NAME, "producer, and server", IDEMPOTENT, total),
        consumer_us,
    )


def of_hosts(url: str, plan: Plan) -> Report:
    """The same of host processes, as a reader sees it."""
    server, stream = opened(url)
    total = plan.latency_s * EVENTS_PER_S
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    reader = context.Process(target=_watch, args=(theirs, url, total, plan.latency_s + PATIENCE_S))
    with fleet(url) as hosts:
        for _ in range(WORKERS):
            hosts.start()
        hosts.await_shares(stream)
        reader.start()
        try:
            ours.recv()  # it polls
            before = sight(server, hosts, 0)
            sent = _produce(stream, plan.seed, total)
            commits, polls = ours.recv()
            after = sight(server, hosts, total)
        finally:
            reader.join(PATIENCE_S)
            reader.kill()
        expect_read(server, stream, Pulse(), total)
        hosts.stop()
    variant = f"consumers: {WORKERS} hosts, pulse"
    row = Row(
        NAME,
        variant,
        EXACT,
        total,
        total / (after[0] - before[0]),
        (after[1] - before[1]) * 1e6 / total,
        None,
    )
    late, targets, note = _judged(
        sent[WARM_UP_S * EVENTS_PER_S :], commits, f"append to visible, {WORKERS} hosts, at 1,000 events/s"
    )
    mean_ms = (after[0] - before[0]) * 1e3 / polls
    return Report(
        [row], targets, [f"{note}; {late or 'all became visible'}; the reader polled every {mean_ms:.2f} ms"]
    )


WORK = (visible, of_hosts)


def _watch(pipe: Connection, url: str, total: int, patience_s: float) -> None:
    """The reader's process: sends a sign of life; every move of a cursor, with the clock when it held the
    answer; its polls.
    """
    server, stream = opened(url)
    cursors = Cursors(server, stream)
    moves: list[Commit] = []
    held: list[tuple[int, int] | None] = [None] * stream.partitions
    polls = 0
    end = time.monotonic() + patience_s
    pipe.send("polling")
    while time.monotonic() < end:
        found = cursors.positions()
        clock = time.monotonic()
        polls += 1
        changed = [
            (number, new)
            for number, (old, new) in enumerate(zip(held, found, strict=True))
            if new is not None and new != old
        ]
        moves += [(number, position, clock) for number, position in changed]
        held = found
        if not changed and polls % DONE_EVERY == 0 and cursors.applied() >= total:
            break
        time.sleep(POLL_REST_S)
    pipe.send((moves, polls))


def _produce(stream: Stream, seed: int, total: int) -> list[Sent]:
    """Append every event when it falls due; the pace is the clock's."""
    events = list(islice(observations(seed), total))
    sent: list[Sent] = []
    begin, done = time.monotonic(), 0
    while done < total:
        now = time.monotonic()
        due = min(total, int((now - begin) * EVENTS_PER_S))
        if due <= done:
            time.sleep(max(0.0, begin + (done + 1) / EVENTS_PER_S - now))
            continue
        for number, placed in enumerate(stream.append(events[done:due]), start=done + 1):
            sent.append(
                (placed.partition, Position.parse(placed.position), begin + number / EVENTS_PER_S, now)
            )
        done = due
    return sent


def _consume(pipe: Connection, url: str, total: int, patience_s: float) -> None:
    """The consumer's process: sends a sign of life, all commits, and its CPU per event."""
    server, stream = opened(url)
    commits: list[Commit] = []
    counted = 0
    end = time.monotonic() + patience_s

    def on_commit(progress: Progress) -> None:
        nonlocal counted
        commits.append((progress.partition, Position.parse(progress.cursor.position), time.monotonic()))
        counted += progress.events

    pipe.send("running")
    meter = Meter(server.client)
    consumer = Consumer(server, [Pulse()], lambda: [stream], on_commit=on_commit)
    try:
        with meter:
            consumer.run(stopping=lambda: counted >= total or time.monotonic() > end)
    except UnknownOutcome as error:
        raise SystemExit(f"the benchmark was ended: {error}") from None
    pipe.send(commits)
    pipe.send(meter.client_s * 1e6 / total)


def _report(sent: list[Sent], commits: list[Commit], producer: Row, consumer_us: float) -> Report:
    _, targets, note = _judged(sent, commits, "append to visible at 1,000 events/s")
    consumer = msgspec.structs.replace(
        producer, variant="consumer: pulse", guarantee=EXACT, client_us=consumer_us, server_us=None
    )
    rows = [producer, consumer]
    return Report(rows, targets, [note, f"batches committed: {len(commits)}"])


def _judged(sent: list[Sent], commits: list[Commit], what: str) -> tuple[str, list[Target], str]:
    """What never became visible, both targets, and a note of the latency from the instant due."""
    from_append, from_due = latencies_ms(sent, commits)
    late = (
        f"{len(sent) - len(from_append)} of {len(sent)} events never became visible"
        if len(from_append) < len(sent)
        else ""
    )
    bounds = ((0.5, "p50", P50_MS), (0.99, "p99", P99_MS))
    targets = [
        Target(f"{what}, {name}", bound, "ms", percentile(from_append, share), note=late)
        for share, name, bound in bounds
    ]
    due = f"{percentile(from_due, 0.5):.2f}, {percentile(from_due, 0.99):.2f}"
    return (
        late,
        targets,
        f"{what}, p50 and p99 in ms, from the instant due, waiting for the producer included: {due}",
    )


def latencies_ms(sent: list[Sent], commits: list[Commit]) -> tuple[list[float], list[float]]:
    """Milliseconds to the first commit at or past each event: from the begin of its append, and from when it
    fell due. Pure.
    """
    cursors: dict[int, list[tuple[int, int]]] = {}
    clocks: dict[int, list[float]] = {}
    for partition, cursor, clock in commits:
        cursors.setdefault(partition, []).append(cursor)
        clocks.setdefault(partition, []).append(clock)
    from_append, from_due = [], []
    for partition, position, due, begun in sent:
        place = bisect_left(cursors.get(partition, []), position)
        if place < len(clocks.get(partition, [])):
            seen = clocks[partition][place]
            from_append.append((seen - begun) * 1e3)
            from_due.append((seen - due) * 1e3)
    return from_append, from_due
