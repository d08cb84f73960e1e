"""
A fleet of real hosts, `aurastream run` in processes of their own, and the judgement of it.

    fleet = Fleet(run, url)            plug-ins of a row, streams, hosts, run --until-idle, a stranger's app
    fleet.host("--app", "faults_one")  one more host; kill, stop, suspend it
    fleet.watch                        a thread that looks at all cursors: how long each lane stood still
    fleet.judge()                      every acknowledged event is in, every lane at the log's end within a
                                       bound, view == fold(log), effects counted, who still held back

Groups: `counting` and `second` fold the same (so either is checked by tests/invariants.py), `noting` is a
processor that writes each call into a file and derives one event.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import redis

from aurastream.streams import Keys, Server, Settings, open_stream
from tests.commands import ROOT, Nursery, Running, environment
from tests.faults.harness import Run, client_of
from tests.faults.producers import STREAM
from tests.invariants import Held, check, check_acks, held_by
from tests.servers import until
from tests.simulation.fleet import as_counting

LEASE_MS = 1_000
LOADED_S = 8.0  # what a busy machine may add to any bound
DRAIN_S = 60.0
PARTITIONS = 4
NOTES = "notes"
LOOK_S = 0.02
LOOK_TIMEOUT_S = 1.0

COUNTING = """
from tests.projections.counting import Counting
"""
SECOND = """
from tests.simulation.actors import Second
"""
NOTING = """
import asyncio, os, time
from typing import Any
from aurastream.processors.effects import Processor
from aurastream.streams import ClipViewsObserved, Event

class ClipNoted(Event, frozen=True, kw_only=True, tag="test.clip_noted"):
    views: int = 0

class Noting(Processor):
    name = "noting"
    events = (ClipViewsObserved,)
    streams = ("clips",)
    into = "notes"
    start = "beginning"
    attempts_max = 20
    first_s, max_s = 0.01, 0.5
    parallel = 8

    def write(self, what: str, event: Any) -> None:
        with open(os.environ["FAULTS_CALLS"], "a") as file:
            file.write(f"{what} {event.event_id} {os.getpid()}\\n")

    async def handle(self, event: Any, attempt: Any) -> Any:
        self.write("begin", event)
        await asyncio.sleep(0.001)
        self.write("end", event)
        return [attempt.derive(ClipNoted, views=event.views)]
"""
VERSION = """
import tests.projections.counting as counting

class Counting(counting.Counting):
    version = %d
"""
PLUGINS = {
    "faults_v1": VERSION % 1,
    "faults_v2": VERSION % 2,
    "faults_one": COUNTING,
    "faults_two": SECOND,
    "faults_both": COUNTING + SECOND,
    "faults_all": COUNTING + SECOND + NOTING,
    "faults_noting": NOTING,
}

_nurseries: list[Nursery] = []


def nursery() -> Nursery:
    """One for all rows of this process; ended with it."""
    if not _nurseries:
        _nurseries.append(Nursery("faust", "aurastream.processors.host", "aurastream.processors.host.app"))
        atexit.register(_nurseries[0].close)
    return _nurseries[0]


class Host:
    """A process of the fleet. can_all: whether it was told to run everything."""

    def __init__(self, running: Running) -> None:
        self._running, self.pid = running, running.pid
        self.can_all = False

    @property
    def log(self) -> str:
        return self._running.out + self._running.err

    def is_alive(self) -> bool:
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state != "Z"

    def signal(self, number: int) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        until(lambda: not self.is_alive(), "a killed host to be gone")

    def terminate(self) -> None:
        """SIGTERM; does not wait."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)

    def code(self) -> int:
        """Its exit code, once it has ended."""
        return self._running.wait()

    def forget(self) -> None:
        self._running.forget()


class Watch:
    """Looks at all lanes in a thread of its own, through a server's absence too. moved: lane -> when it last
    moved, or had nothing to do (monotonic).
    """

    def __init__(self, url: str) -> None:
        self._url, self._over = url, threading.Event()
        self._lock = threading.Lock()
        self._places: dict[tuple[str, str, int], tuple[bytes, float]] = {}
        self.moved: dict[tuple[str, str, int], float] = {}
        self.longest_s, self.longest_of = 0.0, ("", "", 0)
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join(30)

    def _live(self) -> None:
        client: Any = None
        lanes: list[tuple[str, str, int]] = []
        look_at = 0.0
        while not self._over.wait(LOOK_S):
            try:
                if client is None:
                    client = client_of(self._url, LOOK_TIMEOUT_S)
                if time.monotonic() >= look_at:
                    lanes, look_at = lanes_of(client), time.monotonic() + 1.0
                self._take(client, lanes)
            except (redis.RedisError, OSError):
                with self._lock:  # it is away: what stood, stands on
                    self._measure()
                if client is not None:
                    client.close()
                client = None
        if client is not None:
            client.close()

    def _take(self, client: Any, lanes: list[tuple[str, str, int]]) -> None:
        ends, cursors = _looked(client, lanes)
        now = time.monotonic()
        with self._lock:
            for lane, end, at in zip(lanes, ends, cursors, strict=True):
                before, _ = self._places.get(lane, (b"", 0.0))
                if end == at or at != before or lane not in self._places:
                    self._places[lane] = at, now
                    self.moved[lane] = now
            self._measure()

    def _measure(self) -> None:
        now = time.monotonic()
        for lane, (_, moved_at) in self._places.items():
            stood = now - moved_at
            if stood > self.longest_s:
                self.longest_s, self.longest_of = stood, lane


def _looked(client: Any, lanes: list[tuple[str, str, int]]) -> tuple[list[bytes], list[bytes]]:
    pipeline = client.pipeline(transaction=False)
    for stream, group, partition in lanes:
        pipeline.xrevrange(f"aura:{{{stream}.{partition}}}:log", count=1)
        pipeline.hget(f"aura:{{{stream}.{partition}}}:cursor:{group}", "position")
    answers = pipeline.execute()
    ends = [rows[0][0] if rows else b"" for rows in answers[::2]]
    return ends, [at or b"" for at in answers[1::2]]


def lanes_of(client: Any) -> list[tuple[str, str, int]]:
    """(stream, group, partition) of every group that has joined a stream of events."""
    lanes = []
    for name, row in client.hgetall("aura:streams").items():
        facts, stream = json.loads(row), name.decode()
        if facts.get("is_topic"):
            continue
        for partition in range(facts["partitions"]):
            for group in client.hkeys(f"aura:{{{stream}.{partition}}}:groups"):
                lanes.append((stream, group.decode(), partition))
    return sorted(lanes)


def lagging(client: Any) -> list[tuple[str, str, int]]:
    """Lanes that have not read their log to its end."""
    lanes = lanes_of(client)
    ends, cursors = _looked(client, lanes)
    return [lane for lane, end, at in zip(lanes, ends, cursors, strict=True) if end != at]


class Fleet:
    """See the module. partitions: of the stream."""

    def __init__(self, run: Run, url: str, *, partitions: int = PARTITIONS, lease_ms: int = LEASE_MS) -> None:
        self.run, self.url, self.lease_ms = run, url, lease_ms
        self.apps = run.directory / "apps"
        self.apps.mkdir()
        self.calls_path = run.directory / "calls"
        self.calls_path.touch()
        for name, text in PLUGINS.items():
            (self.apps / f"{name}.py").write_text(text)
        server = Server(url)
        for name in (STREAM, NOTES):
            open_stream(server, name, create=True, settings=Settings(partitions=partitions))
        server.close()
        self.client = run.client(url)
        self.hosts: list[Host] = []
        self.watch = Watch(url)
        run.on_end(self._end)

    def host(self, *words: str, url: str = "", app: str = "faults_all", **env: str) -> Host:
        """A host under way. url: where it reaches the server, if not there."""
        return self.start("--app", app, "run", "--web-port", "off", *words, url=url, **env)

    def until_idle(self, *words: str, app: str = "faults_all") -> Host:
        return self.start("--app", app, "run", "--until-idle", *words)

    def start(self, *words: str, url: str = "", **env: str) -> Host:
        """Any verb."""
        files = nursery().start(words, self._environment(url, env), self.run.directory, b"", None)
        host = Host(files)
        self.hosts.append(host)
        return host

    def verb(self, *words: str) -> tuple[int, str]:
        """A verb to its end."""
        done = self.start(*words)
        self.hosts.remove(done)
        code = done.code()
        text = done.log
        done.forget()
        return code, text

    def _environment(self, url: str, env: dict[str, str]) -> dict[str, str]:
        return environment(
            self.run.directory / "home",
            {
                "AURASTREAM_REDIS_URL": url or self.url,
                "AURASTREAM_LEASE_MS": str(self.lease_ms),
                "PYTHONPATH": f"{ROOT}:{self.apps}",
                "FAULTS_CALLS": str(self.calls_path),
                **env,
            },
        )

    def living(self) -> list[Host]:
        return [host for host in self.hosts if host.is_alive()]

    def members(self) -> int:
        """Living hosts that have said so."""
        return int(self.client.zcard("aura:{fleet}:hosts"))

    def until_members(self, count: int) -> None:
        until(lambda: self.members() >= count, f"{count} hosts to be members")

    def goes_on(self, what: str, patience_s: float) -> float:
        """Wait until every lane that has a lag has moved since now. Returns how long it took, in seconds."""
        began = time.monotonic()
        lanes = dict.fromkeys(self.watch.moved)

        def has_moved() -> bool:
            return all(self.watch.moved[lane] > began for lane in lanes)

        try:
            until(has_moved, what, patience_s)
        except AssertionError:
            stand = [lane for lane in lanes if self.watch.moved[lane] <= began]
            told = [self.standing(*lane) for lane in stand[:4]]
            self.run.complain(f"{what}: {len(stand)} lanes stood still for {patience_s:.0f} s: {told}")
        return time.monotonic() - began

    def standing(self, stream: str, group: str, partition: int) -> str:
        """Where a lane is, who has it, and what that host says last."""
        tag = f"aura:{{{stream}.{partition}}}:"
        owner = (self.client.hget(f"{tag}lease:{group}", "owner") or b"").decode()
        left_ms = int(self.client.hget(f"{tag}lease:{group}", "until") or 0) - time.time() * 1_000
        at = self.client.hget(f"{tag}cursor:{group}", "position")
        end = self.client.xrevrange(f"{tag}log", count=1)
        mine = [host for host in self.hosts if f"-{host.pid}-" in owner]
        logs = mine[0].log[-400:] if mine else "no living host's"
        kept = {
            part: self.client.hgetall(f"{tag}{part}:{group}") for part in ("attempts", "begun", "done", "due")
        }
        logs += f" { ({name: rows for name, rows in kept.items() if rows}) }"
        return (
            f"{stream}/{partition} {group} at {at} of {end[0][0] if end else ''}, "
            f"lease of {owner or 'nobody'} for {left_ms:.0f} ms: {logs}"
        )

    def owned_by(self, host: Host) -> list[tuple[str, str, int]]:
        """The lanes it has by their leases."""
        lanes = lanes_of(self.client)
        pipeline = self.client.pipeline(transaction=False)
        for stream, group, partition in lanes:
            pipeline.hget(f"aura:{{{stream}.{partition}}}:lease:{group}", "owner")
        owners = [(owner or b"").decode() for owner in pipeline.execute()]
        return [lane for lane, owner in zip(lanes, owners, strict=True) if f"-{host.pid}-" in owner]

    def calls(self) -> dict[str, Counter[str]]:
        """What -> event -> how often."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for line in self.calls_path.read_text().splitlines():
            what, event_id, _ = line.split(" ")
            counts[what][event_id] += 1
        return counts

    def drained(self, patience_s: float = DRAIN_S) -> None:
        """Every lane at the end of its log."""
        try:
            until(lambda: not lagging(self.client), "every lane to have no lag", patience_s)
        except AssertionError:
            told = [self.standing(*lane) for lane in lagging(self.client)[:4]]
            self.run.complain(f"after {patience_s:.0f} s there is a lag: {told}")

    def judge(self, *, effects: str = "once", groups: tuple[str, ...] = ("counting", "second")) -> None:
        """effects: once; repeated, where processes were killed; none, where nobody handles."""
        self.run.stop_producers()
        self.drained()
        partitions = self.judge_views(groups)
        if effects != "none":
            self._judge_effects(sum(len(held.log) for held in partitions), effects)

    def positions(self, group: str) -> list[bytes]:
        """Of the group's cursors."""
        keys = [Keys(STREAM, n).cursor(group) for n in range(self._partitions())]
        return [self.client.hget(key, "position") or b"" for key in keys]

    def ends(self) -> list[bytes]:
        """Of the logs."""
        rows = [self.client.xrevrange(Keys(STREAM, n).log, count=1) for n in range(self._partitions())]
        return [entries[0][0] if entries else b"" for entries in rows]

    def judge_views(self, groups: tuple[str, ...]) -> list[Held]:
        """End the hosts; view == fold(log) for each group, every acknowledged event is in."""
        run = self.run
        self.end_hosts()
        self.watch.close()
        partitions = [held_by(self.client, STREAM, n) for n in range(self._partitions())]
        for group in groups:
            for held in partitions:
                wrong = [text for text in check(as_counting(held, group)) if "are pending in" not in text]
                run.complain(*[f"{group}: {text}" for text in wrong])
        acks = run.acks()
        run.complain(*check_acks(partitions, acks))
        run.count(
            events=sum(len(held.log) for held in partitions),
            acked=len({ack.event_id for ack in acks if ack.outcome == "acked"}),
            longest_standstill_ms=round(1_000 * self.watch.longest_s),
        )
        return partitions

    def _judge_effects(self, events: int, effects: str) -> None:
        run, calls = self.run, self.calls()
        often = {name: count for name, count in calls["end"].items() if count > 1}
        run.count(handled=len(calls["end"]), handled_again=len(often))
        if len(calls["end"]) != events:
            run.complain(f"{events} events are in the log, {len(calls['end'])} were handled")
        if effects == "once" and often:
            run.complain(f"{len(often)} events were handled more than once: {sorted(often)[:5]}")
        dead = [
            key for key in self.client.scan_iter("aura:*:dead:noting", count=1_000) if self.client.hlen(key)
        ]
        if dead:
            run.complain(f"there are dead letters of noting: {dead}")
        notes = sum(self.client.xlen(f"aura:{{{NOTES}.{n}}}:log") for n in range(self._partitions()))
        if notes != events:
            run.complain(f"{events} events were handled, {notes} derived events are in the log")

    def _partitions(self) -> int:
        return int(json.loads(self.client.hget("aura:streams", STREAM))["partitions"])

    def end_hosts(self) -> None:
        """SIGTERM to all; each ends with 0, soon."""
        living = self.living()
        began = time.monotonic()
        for host in living:
            host.terminate()
        try:
            until(lambda: not any(host.is_alive() for host in living), "hosts to end", 15 + LOADED_S)
        except AssertionError:
            self.run.complain(f"{sum(host.is_alive() for host in living)} hosts did not end within 15 s")
            return
        self.run.count(ended=len(living), slowest_end_ms=round(1_000 * (time.monotonic() - began)))
        codes = Counter(host.code() for host in living)
        if set(codes) - {0}:
            self.run.complain(f"hosts ended with {dict(codes)}: {living[0].log[-600:]}")

    def _end(self) -> None:
        self.watch.close()
        for host in self.hosts:
            host.forget()
