"""Rows 40 to 43: a server that refuses, is away, loading or silent, is failed over, or has its clock
moved.
"""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from tests.cluster import free_ports
from tests.faults.fleet import LOADED_S, Fleet
from tests.faults.harness import Run, Skipped
from tests.faults.network import interceptor
from tests.faults.processes import Port
from tests.faults.producers import Producer
from tests.faults.rows import row
from tests.refusing import REFUSALS, refusing
from tests.servers import ServerProcess, binaries, until

LEASE_S = 1.0
BOUND_S = LEASE_S + 1.0 + LOADED_S
ANSWER_TIMEOUT_S = 2.0
MINUTES_S = 300
LIBRARY = next(map(str, Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), "libfaketime.so.1")


def two_hosts(run: Run, url: str, **options: Any) -> tuple[Fleet, Producer]:
    """Two hosts that can run everything, under load."""
    fleet = Fleet(run, url)
    producer = run.producer(options.pop("producer_url", url), pace_s=0.06, attempts_max=4)
    for _ in range(2):
        fleet.host(**options)
    fleet.until_members(2)
    until(lambda: producer.acked > 100, "load")
    fleet.goes_on("at the beginning", BOUND_S + 5)
    return fleet, producer


def goes_on(run: Run, fleet: Fleet, producer: Producer, what: str, hosts: int = 2) -> None:
    """Healed: appends are acknowledged, every lane moves, no process has ended."""
    acked = producer.acked
    until(lambda: producer.acked > acked, f"appends to go on {what}", BOUND_S + 10)
    took_s = fleet.goes_on(what, BOUND_S)
    run.count(slowest_recovery_ms=max(0, round(1_000 * took_s) - run.counts["slowest_recovery_ms"]))
    if len(fleet.living()) != hosts:
        gone = [host for host in fleet.hosts if not host.is_alive()]
        run.complain(
            f"{what}: {hosts - len(fleet.living())} hosts had ended: {gone[0].log[-800:] if gone else ''}"
        )


@row(40, "the server refuses writes for 8 s: OOM, NOREPLICAS, MISCONF, READONLY", bound_s=150)
def a_server_that_refuses_ends_nobody(run: Run) -> None:
    process = run.server()
    fleet, producer = two_hosts(run, process.url)
    for word in sorted(REFUSALS) * (3 if run.is_long else 1):
        with refusing(process.url, word):
            threading.Event().wait(8.0 if run.is_long else 1.5)
        run.count(**{f"refused {word}": 1})
        goes_on(run, fleet, producer, f"after {word}")
    if bare := {name for name in producer.refused if name in ("ResponseError", "OutOfMemoryError")}:
        run.complain(f"the producer was given bare errors of redis-py: {bare}")
    fleet.judge(effects="repeated")  # leases lapse meanwhile, and what was done cannot be written down


@row(41, "the server is away, loading or silent, at the start and later", bound_s=180)
def a_server_that_is_not_there_is_waited_for(run: Run) -> None:
    loading = (
        "--key-load-delay",
        "100",
        "--loading-process-events-interval-bytes",
        "1024",
        "--appendonly",
        "yes",
    )
    process = run.server(*loading)
    proxy = interceptor(run, process.url, lambda command: "pass")
    fleet = Fleet(run, process.url)
    producer = run.producer(process.url, pace_s=0.06, attempts_max=4)
    until(lambda: producer.acked > 100, "load")
    pause = threading.Event()

    process.kill()  # away at the start
    early = [fleet.host(AURASTREAM_ANSWER_TIMEOUT_S=str(ANSWER_TIMEOUT_S))]
    pause.wait(2.0)
    _start_loading(process)
    proxy.silence()  # silent at the start, for this one
    early.append(fleet.host(url=proxy.url, AURASTREAM_ANSWER_TIMEOUT_S=str(ANSWER_TIMEOUT_S)))
    until(process.answers, "the server to have loaded", 60)
    pause.wait(3.0)
    proxy.redirect(process.url)
    fleet.until_members(2)
    goes_on(run, fleet, producer, "after a start without a server")
    for _ in range(4 if run.is_long else 1):
        process.kill()
        pause.wait(run.dice.uniform(0.5, 4))
        _start_loading(process)
        until(process.answers, "the server to have loaded", 60)
        run.count(away=1)
        goes_on(run, fleet, producer, "after it was away")
        proxy.silence()
        pause.wait(run.dice.uniform(1, 2 * ANSWER_TIMEOUT_S))
        proxy.redirect(process.url)
        run.count(silent=1)
        goes_on(run, fleet, producer, "after it was silent")
    fleet.judge(effects="repeated")


def _start_loading(process: ServerProcess) -> None:
    """Start it, without waiting for its answers: for a while it says LOADING."""
    process.process = subprocess.Popen(process._command, stdout=subprocess.DEVNULL)


@row(42, "fail-over to a replica while the old primary's machine is silent", bound_s=120)
def a_fail_over_from_a_silent_machine_is_met_once(run: Run) -> None:
    ports = free_ports(2)
    primary, replica = (run.port(port, "--repl-diskless-sync-delay", "0") for port in ports)
    proxy = interceptor(run, f"redis://127.0.0.1:{primary.port}/0", lambda command: "pass")
    follow(run, replica, primary)
    fleet, producer = two_hosts(
        run, proxy.url, producer_url=proxy.url, AURASTREAM_ANSWER_TIMEOUT_S=str(ANSWER_TIMEOUT_S)
    )
    for _ in range(4 if run.is_long else 1):
        client = run.client(f"redis://127.0.0.1:{primary.port}/0")
        fleet.client = run.client(f"redis://127.0.0.1:{replica.port}/0")
        proxy.silence()
        until(lambda: caught_up(client, fleet.client), "the replica to have everything")  # noqa: B023
        fleet.client.execute_command("REPLICAOF", "NO", "ONE")
        began = time.monotonic()
        proxy.move(f"redis://127.0.0.1:{replica.port}/0")  # a virtual address
        goes_on(run, fleet, producer, "after the fail-over")
        run.count(
            fail_overs=1,
            slowest_ms=max(0, round(1_000 * (time.monotonic() - began)) - run.counts["slowest_ms"]),
        )
        client.flushall()
        follow(run, primary, replica)
        primary, replica = replica, primary
    fleet.judge(effects="repeated")


def follow(run: Run, replica: Port, primary: Port) -> None:
    """Make one the replica of the other, and wait until it is."""
    client = run.client(f"redis://127.0.0.1:{replica.port}/0")
    client.execute_command("REPLICAOF", "127.0.0.1", primary.port)
    until(lambda: client.info("replication").get("master_link_status") == "up", "the replica to be linked")


def caught_up(primary: Any, replica: Any) -> bool:
    """Whether the replica has all that the primary has."""
    return bool(
        primary.info("replication")["master_repl_offset"] == replica.info("replication")["slave_repl_offset"]
    )


@row(43, "the server's clock is moved five minutes, back and forward", bound_s=150)
def a_clock_that_is_moved_stops_nobody(run: Run) -> None:
    clock = Clock(run)
    fleet, producer = two_hosts(run, clock.process.url)
    for number in range(12 if run.is_long else 2):
        by_s = (-MINUTES_S, MINUTES_S, MINUTES_S, -MINUTES_S)[number % 4]
        victim = fleet.hosts[number % 2]
        is_killed = run.dice.random() < 0.6
        if is_killed:
            victim.kill()
        clock.move(by_s)
        run.count(**{"moved back" if by_s < 0 else "moved forward": 1}, kills=is_killed)
        goes_on(run, fleet, producer, f"after the clock was moved by {by_s} s", 2 - is_killed)
        if is_killed:
            fleet.hosts.remove(victim)
            victim.forget()
            fleet.host()
            fleet.until_members(2)
    fleet.judge(effects="repeated")


class Clock:
    """A server under libfaketime, whose clock is moved while it runs. Valkey: Debian's Redis hangs
    with it.
    """

    def __init__(self, run: Run, *arguments: str) -> None:
        if not Path(LIBRARY).exists():
            raise Skipped("libfaketime is not here: apt-get install faketime")
        self._file = run.directory / "clock"
        self._file.write_text("+0")
        self._by_s = 0
        environ = {
            "LD_PRELOAD": LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.process = run.server(*arguments, binary=binaries()["valkey"], environ=environ)
        self._client = run.client(self.process.url)
        self.move(7)
        self.move(-7)

    def move(self, by_s: int) -> None:
        """Set it by so much. Done when the server says so."""
        self._by_s += by_s
        part = self._file.with_suffix(".part")
        part.write_text(f"{self._by_s:+d}")
        part.rename(self._file)
        until(lambda: abs(self._ahead_s() - self._by_s) < 2, f"the clock to be {self._by_s:+d} s ahead")

    def _ahead_s(self) -> float:
        seconds, _ = self._client.time()
        return float(seconds) - time.time()
