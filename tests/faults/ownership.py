"""Rows 1, 2, 3, 35: workers that die, sleep, compete and end."""

from __future__ import annotations

import signal
import time
from typing import Any

from tests.faults.harness import Run, applied
from tests.faults.processes import Worker
from tests.faults.producers import STREAM
from tests.faults.rows import row
from tests.servers import until

LEASE_MS = 400
LOADED_S = 6.0  # what a busy machine may add to any bound
PARTITIONS = 4


def owners(client: Any, partitions: int = PARTITIONS) -> list[int]:
    """pid of every partition's owner by its lease; 0 for none."""
    names = [
        (client.hget(f"aura:{{{STREAM}.{number}}}:lease:counting", "owner") or b"").decode()
        for number in range(partitions)
    ]
    return [int(name.split("-")[-2]) if name else 0 for name in names]


@row(1, "kill -9 of a worker before, in and after a commit")
def a_worker_killed_at_any_point_of_a_commit(run: Run) -> None:
    url = run.server().url
    run.stream(url, PARTITIONS)
    client = run.client(url)
    steady = run.worker(url, "--lease-ms", str(LEASE_MS))
    run.producer(url)
    slowest = 0.0
    for number in range(50 if run.is_long else 4):
        where = ("before", "in", "after", "anywhere")[number % 4]
        broken = [] if where == "anywhere" else ["--break", f"{where}:{run.dice.randint(1, 9)}:KILL"]
        victim = run.worker(url, "--lease-ms", str(LEASE_MS), "--batch-max", "10", *broken)
        if where == "anywhere":
            goal = applied(client) + run.dice.randrange(200)
            until(
                lambda victim=victim, goal=goal: applied(client) >= goal and victim.pid in owners(client),
                "the victim to own",
            )
            victim.kill()
        until(lambda victim=victim: not victim.is_alive(), "the victim to die at its commit")
        began = time.monotonic()
        until(
            lambda: set(owners(client)) == {steady.pid},
            "the other worker to take over",
            LEASE_MS / 1000 + 1 + LOADED_S,
        )
        slowest = max(slowest, time.monotonic() - began)
        run.count(kills=1)
    run.count(slowest_takeover_ms=round(slowest * 1000))
    run.judge(url, rebuild=True)


@row(2, "a worker stopped past its lease, then resumed")
def a_worker_stopped_past_its_lease_is_refused(run: Run) -> None:
    url = run.server().url
    run.stream(url, PARTITIONS)
    client = run.client(url)
    other = run.worker(url, "--lease-ms", str(LEASE_MS))
    run.producer(url)
    for number in range(10 if run.is_long else 1):
        sleeper = run.worker(
            url, "--lease-ms", str(LEASE_MS), "--break", f"before:{run.dice.randint(2, 9)}:STOP"
        )
        until(sleeper.is_stopped, f"worker {number} to stop itself with a batch in its hands")
        until(lambda: set(owners(client)) == {other.pid}, "its lease to end")
        goal = applied(client) + 50
        until(lambda goal=goal: applied(client) >= goal, "the other to go on")
        sleeper.signal(signal.SIGCONT)
        until(lambda sleeper=sleeper: sleeper.pid in owners(client), "the sleeper to own again")
        report = sleeper.end()
        run.count(stops=1, fenced=report["fenced"], **report["refused"])
        if not report["refused"].get("FENCED", 0) + report["refused"].get("STALE", 0):
            run.complain("the worker that slept past its lease was not refused at its next commit")
    run.judge(url)


@row(3, "two owners of one partition")
def competing_workers_cost_refusals_and_nothing_else(run: Run) -> None:
    url = run.server().url
    run.stream(url, 2)
    client = run.client(url)
    workers = [run.worker(url, "--kind", kind, "--batch-max", "7") for kind in ("reader", "reader", "owner")]
    run.producer(url, pace_s=0.001)
    goal = 20_000 if run.is_long else 1_500
    until(lambda: applied(client) >= goal, "the events to be applied", 120)
    run.judge(url)
    answers = {name for name in run.counts if name.isupper()} - {"STALE", "GAP", "FENCED", "events"}
    if answers:
        run.complain(f"three owners of a partition were answered {answers}")
    assert workers


@row(35, "SIGTERM drain")
def a_terminated_worker_ends_soon_with_nothing_pending(run: Run) -> None:
    url = run.server().url
    run.stream(url, PARTITIONS)
    client = run.client(url)
    run.producer(url)
    for number in range(20 if run.is_long else 3):
        kind = ("owner", "reader", "owner")[number % 3]
        worker: Worker = run.worker(url, "--kind", kind)
        goal = applied(client) + run.dice.randrange(1, 300)
        until(lambda goal=goal: applied(client) >= goal, "the worker to work")
        began = time.monotonic()
        report = worker.end(10 + LOADED_S)
        run.count(
            ends=1,
            slowest_end_ms=max(0, round((time.monotonic() - began) * 1000) - run.counts["slowest_end_ms"]),
        )
        if not report:
            run.complain(f"a terminated {kind} ended without telling how")
        if kind == "owner" and any(owners(client)):
            run.complain("a terminated owner kept a lease")
        pending = (
            [client.xpending(f"aura:{{{STREAM}.{n}}}:log", "counting")["pending"] for n in range(PARTITIONS)]
            if number
            else []
        )
        if kind == "reader" and any(pending):
            run.count(
                delivered_and_not_applied=sum(pending)
            )  # read ahead with the last commit; the next start puts it right
    run.judge(url)
