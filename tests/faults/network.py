"""Rows 7 to 11: lost answers, late duplicates, a frozen server, connections that are killed."""

from __future__ import annotations

import os
import signal
import threading
import time

from aurastream.projections.engine import commit
from aurastream.streams import appending as log
from tests.faults.harness import Run, short_answers
from tests.faults.proxy import DOUBLE, HOLD, LOSE, PASS, Interceptor
from tests.faults.rows import row


def is_append(command: list[bytes]) -> bool:
    return command[0] == b"EVALSHA" and command[1].decode() == log.APPEND.sha


def is_commit(command: list[bytes]) -> bool:
    return command[0] == b"EVALSHA" and command[1].decode() == commit._COMMIT.sha


def interceptor(run: Run, url: str, decide: object) -> Interceptor:
    proxy = Interceptor(url, decide)  # type: ignore[arg-type]
    run.on_end(proxy.close)
    return proxy


def tell_fates(run: Run, *proxies: Interceptor) -> None:
    for proxy in proxies:
        run.counts.update({f"answers or requests {name}": count for name, count in proxy.fates.items()})


@row(7, "the answer of an append is lost")
def an_append_whose_answer_is_lost_is_one_entry(run: Run) -> None:
    url = run.server().url
    run.stream(url, 2)
    proxy = interceptor(
        run, url, lambda command: LOSE if is_append(command) and run.dice.random() < 0.3 else PASS
    )
    run.worker(url)
    run.producer(proxy.url, pace_s=0)
    run.producer(proxy.url, pace_s=0, attempts_max=1)
    threading.Event().wait(run.lasts(1.2, 10))
    helds = run.judge(url)
    tell_fates(run, proxy)
    run.count(duplicates=sum(int(held.hashes["meta"].get(b"duplicates", 0)) for held in helds))


@row(8, "the answer of a commit or of a read is lost")
def a_commit_or_read_whose_answer_is_lost_counts_once(run: Run) -> None:
    url = run.server().url
    run.stream(url, 2)
    names = {b"XREADGROUP", b"XRANGE", b"HMGET", b"HGETALL"}
    proxy = interceptor(
        run,
        url,
        lambda command: (
            LOSE if (is_commit(command) or command[0] in names) and run.dice.random() < 0.15 else PASS
        ),
    )
    for kind in ("owner", "reader"):
        run.worker(proxy.url, "--kind", kind, "--batch-max", "10")
    run.producer(url)
    threading.Event().wait(run.lasts(1.2, 10))
    run.stop_producers()
    run.judge(url)
    tell_fates(run, proxy)


@row(9, "an append or a commit is delivered again, late")
def a_late_duplicate_changes_nothing(run: Run) -> None:
    url = run.server().url
    run.stream(url, 2)

    def fate(command: list[bytes]) -> str:
        if not (is_append(command) or is_commit(command)):
            return PASS
        return run.dice.choices((PASS, HOLD, DOUBLE), (0.8, 0.1, 0.1))[0]

    proxy = interceptor(run, url, fate)
    run.worker(proxy.url, "--batch-max", "10")
    run.worker(proxy.url, "--kind", "reader", "--batch-max", "10")
    run.producer(proxy.url)
    end = time.monotonic() + run.lasts(1.2, 10)
    pause = threading.Event()
    while time.monotonic() < end:
        pause.wait(run.dice.uniform(0.05, 0.3))
        run.count(late=proxy.deliver(run.dice.randrange(5)))
    run.stop_producers()
    run.count(late=proxy.deliver())
    proxy.decide = lambda command: PASS
    run.judge(url)
    tell_fates(run, proxy)


@row(10, "a server frozen past the time-out")
def a_server_frozen_past_the_time_out_doubles_nothing(run: Run) -> None:
    timeout_s, frozen_s = (1.5, 6.0) if run.is_long else (0.3, 1.0)
    short_answers(run, timeout_s)
    process = run.server()
    run.on_end(_thaw, process.process.pid)
    run.stream(process.url, 2)
    run.worker(process.url, "--answer-timeout-s", str(timeout_s))
    run.worker(process.url, "--kind", "reader", "--answer-timeout-s", str(timeout_s))
    run.producer(process.url)
    pause = threading.Event()
    for _ in range(3 if run.is_long else 1):
        pause.wait(run.dice.uniform(0.2, 0.5))
        os.kill(process.process.pid, signal.SIGSTOP)
        pause.wait(frozen_s)
        os.kill(process.process.pid, signal.SIGCONT)
        run.count(freezes=1)
    pause.wait(0.2)
    run.stop_producers()
    run.judge(process.url)


def _thaw(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return


@row(11, "connections killed every 50 ms")
def connections_killed_all_the_time_lose_and_double_nothing(run: Run) -> None:
    url = run.server().url
    run.stream(url, 2)
    client = run.client(url)
    run.worker(url)
    run.worker(url, "--kind", "reader")
    run.producer(url)
    run.producer(url, attempts_max=1)
    end = time.monotonic() + run.lasts(1.2, 10)
    pause = threading.Event()
    while time.monotonic() < end:
        pause.wait(0.05)
        run.count(connections=client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
    run.judge(url)
