"""Rows 44 to 47: fleets whose slots move, whose handlers misbehave, whose hosts are killed, and all at
once.
"""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import redis
from redis.crc import key_slot

from aurastream.streams import Keys
from tests.cluster import Cluster
from tests.faults.clusters import move
from tests.faults.disk import ALWAYS
from tests.faults.fleet import LOADED_S, PARTITIONS, Fleet, Host
from tests.faults.harness import Run
from tests.faults.network import interceptor
from tests.faults.producers import STREAM
from tests.faults.refusals import ANSWER_TIMEOUT_S, BOUND_S, LIBRARY, MINUTES_S, Clock, goes_on, two_hosts
from tests.faults.rows import row
from tests.processors.transport.workers import workers
from tests.refusing import REFUSALS, refusing
from tests.servers import until

ORDERS = 240
MISBEHAVING = """
import asyncio, time
from faults_all import *

class Blocking(Noting):
    "Blocks the event loop for longer than a lease, now and then."
    name = "blocking"
    into = None

    async def handle(self, event, attempt):
        if hash(event.event_id) % 400 == 0 and attempt.number == 1:
            self.write("blocked", event)
            time.sleep(1.5)
        return []

class Cancelling(Noting):
    "An inner task was cancelled: CancelledError comes out of the handler."
    name = "cancelling"
    into = None

    async def handle(self, event, attempt):
        if hash(event.event_id) % 20 == 0 and attempt.number == 1:
            self.write("cancelled", event)
            raise asyncio.CancelledError
        return []

class Hanging(Noting):
    "A socket without a time-out."
    name = "hanging"
    into = None
    attempts_max = 1
    timeout_s = 0.5

    def handle(self, event, attempt):
        if event.event_id.endswith("07"):
            self.write("hung", event)
            time.sleep(3600)
        return []
"""


@row(44, "slots moved one by one under hosts, processors and a stranger's app", bound_s=180)
def slots_that_move_stop_no_lane(run: Run) -> None:
    cluster = Cluster(run.binary)
    run.on_end(cluster.stop)
    fleet, producer = two_hosts(run, cluster.url)
    (run.directory / "stranger").mkdir()
    with workers(cluster.url, run.directory / "stranger", HANDLING_S="0.03") as stranger:
        stranger.start("a")
        stranger.command("order", str(ORDERS))
        topics = ["quoted._4frders", "totals"]
        keys = [Keys(name, n).log for name in (STREAM, *topics) for n in range(PARTITIONS)]
        keys.append("aura:{fleet}:hosts")
        run.dice.shuffle(keys)
        for key in keys * (4 if run.is_long else 1):
            source = cluster.owner_of(key)
            target = run.dice.choice([node for node in cluster.nodes if node is not source])
            run.count(slots=1, keys=move(cluster, key_slot(key.encode()), source, target, run))
        goes_on(run, fleet, producer, "after the slots were moved")
        until(lambda: len({*stranger.amounts()}) == ORDERS, "the stranger's orders", 60)
        until(lambda: len(stranger.reports("total")) >= ORDERS, "the stranger's totals", 60)
        run.count(orders=ORDERS, orders_again=len(stranger.amounts()) - ORDERS)
    fleet.judge(effects="repeated")


@row(45, "handlers that block the loop, are cancelled from within, or hang in a thread", bound_s=120)
def handlers_that_misbehave_harm_their_own_events(run: Run) -> None:
    url = run.server().url
    fleet = Fleet(run, url, lease_ms=1_000)  # shorter than a handler blocks
    (fleet.apps / "faults_bad.py").write_text(MISBEHAVING)
    producer = run.producer(url, pace_s=0.06, events_max=4_000 if run.is_long else 900)
    env = {"PYTHONHASHSEED": str(run.seed % 1_000), "AURASTREAM_PATIENCE_S": "3"}
    for _ in range(2):
        fleet.host(app="faults_bad", **env)
    fleet.until_members(2)
    until(lambda: producer.sent >= producer._events_max, "the events to be sent", 120)
    fleet.judge(effects="once")
    calls = fleet.calls()
    run.count(**{name: len(calls[name]) for name in ("blocked", "cancelled", "hung")})
    parked = sum(fleet.client.hlen(Keys(STREAM, n).dead("hanging")) for n in range(PARTITIONS))
    waiting = set(calls["hung"])
    if parked < len(waiting):
        run.complain(f"{len(waiting)} handlers hung, {parked} events are parked")
    for name in ("blocking", "cancelling"):
        if dead := sum(fleet.client.hlen(Keys(STREAM, n).dead(name)) for n in range(PARTITIONS)):
            run.complain(f"{name} has {dead} dead letters, whose handlers did end")
    again = [event_id for event_id, count in calls["blocked"].items() if count > 1]
    if again:
        run.complain(f"{len(again)} handlers that blocked the loop were called again: {again[:5]}")


@row(47, "50 hosts killed, and how long until their lanes go on", bound_s=180)
def lanes_of_a_killed_host_go_on_within_its_lease(run: Run) -> None:
    fleet = Fleet(run, run.server().url)
    producer = run.producer(fleet.url, pace_s=0.06)
    for _ in range(3):
        fleet.host()
    fleet.until_members(3)
    until(lambda: producer.acked > 100, "load")
    took: list[float] = []
    for number in range(50 if run.is_long else 3):
        until(lambda: all(fleet.owned_by(host) for host in fleet.hosts), "everybody to have lanes")
        victim = fleet.hosts.pop(run.dice.randrange(3))
        lanes = [lane for lane in fleet.owned_by(victim) if lane[0] == STREAM]
        victim.kill()
        began = time.monotonic()
        until(
            lambda lanes=lanes, began=began: all(fleet.watch.moved.get(lane, 0.0) > began for lane in lanes),
            f"the lanes of host {number} to go on",
            BOUND_S + 10,
        )
        took.append(time.monotonic() - began)
        victim.forget()
        fleet.host()
    percentiles = statistics.quantiles(took, n=100, method="inclusive") if len(took) > 1 else took * 99
    run.count(
        kills=len(took),
        takeover_p50_ms=round(1_000 * percentiles[49]),
        takeover_p99_ms=round(1_000 * percentiles[98]),
        slowest_takeover_ms=round(1_000 * max(took)),
    )
    if max(took) > BOUND_S:
        run.complain(f"the slowest of {len(took)} take-overs lasted {max(took):.1f} s")
    fleet.judge(effects="repeated")


class Storm:
    """Everything at once. Hosts of all choices, half of them through a proxy."""

    CHOICES: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("faults_all", ()),
        ("faults_all", ()),
        ("faults_one", ("--projection", "counting")),
        ("faults_two", ()),
        ("faults_noting", ("--stream", STREAM)),
        ("faults_both", ()),
    )

    def __init__(self, run: Run) -> None:
        self.run, self.dice = run, run.dice
        self.clock = Clock(run, *ALWAYS) if Path(LIBRARY).exists() else None
        self.process = self.clock.process if self.clock else run.server(*ALWAYS)
        self.proxy = interceptor(run, self.process.url, lambda command: "pass")
        self.fleet = Fleet(run, self.process.url)
        self.producer = run.producer(self.process.url, pace_s=0.06, level="disk", attempts_max=4)
        self.guests: list[Host] = []
        self.pause = threading.Event()
        self.slowest_s = 0.0
        for app, words in (self.CHOICES[0], self.CHOICES[3], self.CHOICES[4]):
            self._join(app, words)
        self.fleet.until_members(3)

    def go_on(self, seconds: float) -> None:
        """Misfortune after misfortune; after some of them all must go on."""
        end, least = time.monotonic() + seconds, self._misfortunes()
        kinds = self.dice.sample(sorted(least), len(least))
        while time.monotonic() < end:
            kind = kinds.pop() if kinds and not self.run.is_long else self.dice.choice(sorted(least))
            self.run.count(**{kind: 1})
            try:
                least[kind]()
            except redis.RedisError:
                self.run.count(faults_refused=1)
            self.pause.wait(self.dice.uniform(0.1, 1.5))
            if self.dice.random() < 0.4:
                self.heal()
        self.heal()

    def heal(self) -> None:
        """No fault from here on: a host that can run everything, and every lane goes on."""
        fleet = self.fleet
        if self.proxy.is_silent:
            self.proxy.redirect(self.process.url)
        for host in fleet.hosts:
            host.signal(signal.SIGCONT)
        for guest in [guest for guest in self.guests if not guest.is_alive()]:
            self._forget(guest)
            self.guests.remove(guest)
        while sum(host.is_alive() for host in fleet.hosts) < 3:
            self._join(*self.CHOICES[0])
        if not any(host.is_alive() and host.can_all for host in fleet.hosts):
            self._join(*self.CHOICES[0])
        until(fleet.client.ping, "the server")
        acked = self.producer.acked
        until(lambda: self.producer.acked > acked, "appends to go on", BOUND_S + 20)
        took_s = fleet.goes_on("after the faults", BOUND_S + 2 * ANSWER_TIMEOUT_S + 5)
        self.slowest_s = max(self.slowest_s, took_s)
        self.run.count(healed=1)

    def _misfortunes(self) -> dict[str, Callable[[], None]]:
        kinds = {
            "killed": self._kill,
            "terminated": self._terminate,
            "suspended": self._suspend,
            "joined": lambda: self._join(*self.dice.choice(self.CHOICES)),
            "guest until idle": self._guest,
            "server killed": self._kill_server,
            "server frozen": self._freeze,
            "machine silent": self._silence,
            "connections killed": self._cut,
            "scripts flushed": self.fleet.client.script_flush,
        }
        for word in REFUSALS:
            kinds[f"refused {word}"] = lambda word=word: self._refuse(word)
        if self.clock is not None:
            kinds["clock moved"] = self._move_clock
        return kinds

    def _join(self, app: str, words: tuple[str, ...]) -> None:
        if len(self.fleet.living()) >= 6:
            return
        url = self.dice.choice((self.proxy.url, self.process.url))
        host = self.fleet.host(
            *words,
            app=app,
            url=url,
            AURASTREAM_ANSWER_TIMEOUT_S=str(ANSWER_TIMEOUT_S),
            AURASTREAM_PATIENCE_S="3",
        )
        host.can_all = (app, words) == self.CHOICES[0]

    def _forget(self, host: Host) -> None:
        self.fleet.hosts.remove(host)
        # A guest gives up, and says why, where the server refuses for longer than it waits.
        gave_up = host in self.guests and host.code() == 3 and "refuses for now" in host.log
        if host.code() not in (0, -9, -15, 130) and not gave_up:
            self.run.complain(f"a host ended with {host.code()}: {host.log[-800:]}")
        host.forget()

    def _pick(self) -> Host | None:
        living = [host for host in self.fleet.living() if host not in self.guests]
        return self.dice.choice(living) if living else None

    def _kill(self) -> None:
        if victim := self._pick():
            victim.kill()
            self._forget(victim)

    def _terminate(self) -> None:
        if leaver := self._pick():
            leaver.terminate()
            until(lambda: not leaver.is_alive(), "a host to end after SIGTERM", 3 + 10 + LOADED_S)
            self._forget(leaver)

    def _suspend(self) -> None:
        if sleeper := self._pick():
            sleeper.signal(signal.SIGSTOP)

    def _guest(self) -> None:
        self.guests.append(self.fleet.until_idle())

    def _kill_server(self) -> None:
        self.process.kill()
        self.pause.wait(self.dice.uniform(0, 2))
        self.process.start()

    def _freeze(self) -> None:
        os.kill(self.process.process.pid, signal.SIGSTOP)
        self.pause.wait(self.dice.uniform(0, 1.5 * ANSWER_TIMEOUT_S))
        os.kill(self.process.process.pid, signal.SIGCONT)

    def _silence(self) -> None:
        self.proxy.silence()
        self.pause.wait(self.dice.uniform(0, 1.5 * ANSWER_TIMEOUT_S))

    def _cut(self) -> None:
        self.fleet.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def _refuse(self, word: str) -> None:
        with refusing(self.process.url, word):
            self.pause.wait(self.dice.uniform(0.1, 4.0))

    def _move_clock(self) -> None:
        assert self.clock is not None
        self.clock.move(self.dice.choice((-MINUTES_S, MINUTES_S, -3, 3)))


@row(46, "a storm of a mixed fleet: kills, SIGTERM, refusals, silence, clocks, guests", bound_s=240)
def a_storm_of_a_mixed_fleet_ends_with_everything_handled(run: Run) -> None:
    storm = Storm(run)
    storm.go_on(run.lasts(12, 300))
    run.count(slowest_recovery_ms=round(1_000 * storm.slowest_s))
    storm.fleet.judge(effects="repeated")
