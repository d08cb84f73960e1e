"""Row 36: everything at once, by seed."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import redis

from tests.faults.disk import ALWAYS
from tests.faults.harness import Run, kill_server
from tests.faults.network import interceptor
from tests.faults.operators import group_hazards
from tests.faults.processes import Worker
from tests.faults.producers import STREAM
from tests.faults.proxy import DOUBLE, DROP, HOLD, LOSE, PASS
from tests.faults.rows import row

PARTITIONS = 3
LEASE_MS = 500


@row(36, "a full storm", bound_s=150)
def a_storm_of_everything_leaves_log_and_views_whole(run: Run) -> None:
    process = run.server(*ALWAYS)
    run.stream(process.url, PARTITIONS)

    def fate(command: list[bytes]) -> str:
        if command[0] not in {b"EVALSHA", b"XRANGE", b"XREADGROUP", b"HGETALL"}:
            return PASS
        return run.dice.choices((PASS, LOSE, DROP, HOLD, DOUBLE), (0.96, 0.01, 0.01, 0.01, 0.01))[0]

    proxy = interceptor(run, process.url, fate)
    client = run.client(process.url)
    workers: list[Worker] = []
    for kind in ("owner", "owner", "reader"):
        workers.append(_worker(run, proxy.url, kind))
    for _ in range(2):
        run.producer(proxy.url, level="disk", pace_s=0.004)
    end = time.monotonic() + run.lasts(10, 60)
    pause = threading.Event()
    while time.monotonic() < end:
        pause.wait(run.dice.uniform(0.05, 0.35))
        try:
            _misfortune(run, process, proxy, client, workers)
        except redis.RedisError:
            run.count(faults_refused=1)  # the server is away: misfortune enough
    proxy.decide = lambda command: PASS
    for worker in workers:
        worker.signal(signal.SIGCONT)
    run.stop_producers()
    run.count(late=proxy.deliver())
    run.judge(process.url, rebuild=True)
    run.counts.update({f"requests {name}": count for name, count in proxy.fates.items()})


def _worker(run: Run, url: str, kind: str) -> Worker:
    batch_max = str(run.dice.choice((1, 7, 50, 500)))
    return run.worker(
        url, "--kind", kind, "--lease-ms", str(LEASE_MS), "--batch-max", batch_max, "--answer-timeout-s", "2"
    )


def _misfortune(run: Run, process: Any, proxy: Any, client: Any, workers: list[Worker]) -> None:
    dice = run.dice
    kind = dice.choice(
        (
            "kill",
            "kill",
            "stop",
            "wake",
            "server",
            "freeze",
            "connections",
            "flush",
            "group",
            "group",
            "late",
            "rewrite",
            "glimpse",
        )
    )
    run.count(**{kind: 1})
    if kind == "kill":
        place = dice.randrange(len(workers))
        workers[place].kill()
        workers[place] = _worker(run, proxy.url, dice.choice(("owner", "owner", "reader")))
    elif kind == "stop":
        dice.choice(workers).signal(signal.SIGSTOP)
    elif kind == "wake":
        for worker in workers:
            worker.signal(signal.SIGCONT)
    elif kind == "server":
        kill_server(process)
    elif kind == "freeze":
        os.kill(process.process.pid, signal.SIGSTOP)
        threading.Event().wait(dice.uniform(0, 0.3))
        os.kill(process.process.pid, signal.SIGCONT)
    elif kind == "connections":
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    elif kind == "flush":
        client.script_flush()
    elif kind == "group":
        group_hazards(client, dice, f"aura:{{{STREAM}.{dice.randrange(PARTITIONS)}}}:log")()
    elif kind == "late":
        run.count(late=proxy.deliver())
    elif kind == "rewrite":
        client.bgrewriteaof()
    else:
        run.glimpse(client)
