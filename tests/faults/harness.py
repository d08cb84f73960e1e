"""
What every row of the fault matrix needs: servers, producers, workers, and the judgement at the end.

    with Run(row, seed, is_long=..) as run:  servers and processes are started through it and ended with it,
                                             by pid
    run.judge(url)                           drain, then tests/invariants.py; what it has to say is in
                                             run.found

A producer is a thread that appends and writes down what it was told (JSON lines: event_id, level, outcome); a
worker is a process (worker.py). Everything random comes from run.dice.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from aurastream.projections import Consumer
from aurastream.streams import (
    Ack,
    ClipViewsObserved,
    Codec,
    Event,
    Server,
    Settings,
    Stream,
    StreamError,
    connection,
    open_stream,
)
from tests.invariants import (
    Held,
    check,
    check_acks,
    check_keys,
    check_prefix,
    check_rebuilt,
    every_partition,
    lost,
    read_acks,
)
from tests.projections.counting import Counting
from tests.servers import ServerProcess, binaries, until

ROOT = Path(__file__).parent.parent.parent
STREAM = "clips"
NOON = datetime(2026, 4, 15, 12, tzinfo=UTC)
DRAIN_S = 30.0
END_S = 15.0


class Skipped(Exception):
    """The row cannot be provoked on this machine; the reason is the message."""


class Port(ServerProcess):
    """A server on a loopback port, as replicas need."""

    def __init__(self, binary: str, port: int, *arguments: str) -> None:
        self.port = port
        super().__init__(binary, "--bind", "127.0.0.1", *arguments)

    def start(self) -> None:
        self._command[self._command.index("--port") + 1] = str(self.port)
        super().start()


class Nursery:
    """Forks workers; see worker.py."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.worker", "--nursery"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def fork(self, arguments: list[str]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Worker:
    """A worker process."""

    def __init__(self, pid: int, report: Path, process: subprocess.Popen[bytes] | None) -> None:
        self.pid, self._report, self._process = pid, report, process
        self.troubles = report.with_suffix(".troubles")  # what it ran into so far

    def signal(self, number: int) -> None:
        if self.is_alive():
            os.kill(self.pid, number)

    def is_alive(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return Path(f"/proc/{self.pid}").exists()

    def is_stopped(self) -> bool:
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        except OSError:
            return False

    def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        until(lambda: not self.is_alive(), "a killed worker to be gone", END_S)

    def end(self, patience_s: float = END_S) -> dict[str, Any]:
        """SIGTERM, and what it told at its end; empty when it was killed before."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        until(lambda: not self.is_alive(), "a worker to end", patience_s)
        return json.loads(self._report.read_text()) if self._report.exists() else {}


class Producer:
    """Appends in a thread of its own until stopped, and remembers what it was told."""

    def __init__(self, run: Run, url: str, name: str, options: dict[str, Any]) -> None:
        self.name, self.url = name, url
        self.path = run.directory / f"{name}.acks"
        self._dice = random.Random(run.dice.random())
        self._level = Ack(options.pop("level", "memory"))
        self._batch_max, self._pace_s = options.pop("batch_max", 12), options.pop("pace_s", 0.002)
        self._events_max = options.pop("events_max", 1_000_000)
        self._made: Callable[..., Event] = options.pop("made", ClipViewsObserved)
        codec = Codec((self._made,)) if isinstance(self._made, type) else options.pop("codec")
        self._settings = Settings(ack=self._level, **options)
        self._over = threading.Event()
        self.sent = self.acked = 0
        self.acked_at: list[float] = [time.monotonic()]
        self.refused: Counter[str] = Counter()
        self.error: BaseException | None = None
        self._stream = open_stream(Server(url), STREAM, codec=codec, settings=self._settings)
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def _live(self) -> None:
        batches: list[list[Event]] = []
        try:
            with self.path.open("w") as file:
                while not self._over.is_set() and self.sent < self._events_max:
                    if batches and self._dice.random() < 0.1:
                        batch = self._dice.choice(batches)
                    else:
                        batch = [self._event() for _ in range(self._dice.randint(1, self._batch_max))]
                        batches = [*batches[-20:], batch]
                    self._append(batch, file)
                    self._over.wait(self._dice.uniform(0, 2 * self._pace_s))
        except BaseException as error:
            self.error = error

    def _append(self, batch: list[Event], file: Any) -> None:
        try:
            self._stream.append(batch)
            outcome = "acked"
            self.acked += len(batch)
            self.acked_at.append(time.monotonic())
        except (StreamError, redis.RedisError, OSError) as error:
            outcome = "unknown"
            self.refused[kind_of(error)] += 1
            self._stream.close()
        for event in batch:
            file.write(
                json.dumps({"event_id": event.event_id, "level": self._level.value, "outcome": outcome})
                + "\n"
            )
        file.flush()

    def _event(self) -> Event:
        self.sent += 1
        dice = self._dice
        return self._made(
            event_id=f"{self.name}:{self.sent}",
            subject=f"clip-{dice.randrange(40)}",
            occurred_at=NOON + timedelta(seconds=dice.randrange(86_400)),
            views=dice.randrange(1_000),
            category=dice.choice(("", "chess", "music", "a|b:c")),
        )

    def stop(self) -> None:
        """End after the append under way."""
        self._over.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "a producer did not end"
        if self.error is not None:
            raise self.error

    def gap_s(self) -> float:
        """The longest time without an acknowledgement."""
        return max((later - earlier for earlier, later in pairwise(self.acked_at)), default=0.0)


def kind_of(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, redis.RedisError) else error
    return type(cause if type(error).__name__ == "UnknownOutcome" else error).__name__


def client_of(url: str) -> Any:
    """A plain client of a server or a cluster, for operators and the checker."""
    client = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=30)
    if (
        client.info("server").get("redis_mode") != "cluster"
        and client.info("server").get("server_mode") != "cluster"
    ):
        return client
    client.close()
    return RedisCluster.from_url(url)


class Run:
    """One row of the matrix being played."""

    _nursery: Nursery | None = None  # one for all rows of this process

    def __init__(
        self,
        seed: int,
        *,
        is_long: bool = False,
        seconds: float | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        """seconds: overrides how long the rows with a length of their own last. command: starts a worker, in
        place of worker.py.
        """
        self.seed, self.is_long, self.seconds = seed, is_long, seconds
        self.command = command
        self.dice = random.Random(seed)
        self.told: Counter[str] = Counter()
        self.found: list[str] = []
        self.directory = Path(tempfile.mkdtemp(prefix="aura-faults-"))
        self._stack = ExitStack()
        self._producers: list[Producer] = []
        self.workers: list[Worker] = []

    def __enter__(self) -> Run:
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        return self

    def __exit__(self, *_: Any) -> None:
        for worker in self.workers:
            worker.signal(signal.SIGKILL)
        for producer in self._producers:
            producer._over.set()
        self._stack.close()

    def on_end(self, callback: Callable[..., Any], *arguments: Any) -> None:
        """Called at the end, whatever happens."""
        self._stack.callback(callback, *arguments)

    def lasts(self, short_s: float, long_s: float) -> float:
        """How long to go on."""
        return self.seconds or (long_s if self.is_long else short_s)

    def tell(self, **counts: float) -> None:
        """Add to what is printed of the row."""
        self.told.update(counts)

    def find(self, *sentences: str) -> None:
        self.found += sentences

    @property
    def binary(self) -> str:
        """One of the servers this machine has, by seed."""
        return binaries()[random.Random(self.seed).choice(sorted(binaries()))]

    def server(self, *arguments: str, binary: str | None = None) -> ServerProcess:
        process = ServerProcess(binary or self.binary, *arguments)
        self.on_end(process.stop)
        return process

    def port(self, port: int, *arguments: str) -> Port:
        process = Port(self.binary, port, *arguments)
        self.on_end(process.stop)
        return process

    def stream(self, url: str, partitions: int = 2, **settings: Any) -> Stream:
        """The stream, created."""
        server = Server(url)
        self.on_end(server.close)
        return open_stream(server, STREAM, create=True, settings=Settings(partitions=partitions, **settings))

    def client(self, url: str) -> Any:
        client = client_of(url)
        self.on_end(client.close)
        return client

    def producer(self, url: str, **options: Any) -> Producer:
        producer = Producer(self, url, f"p{len(self._producers) + 1}", options)
        self._producers.append(producer)
        return producer

    def worker(self, url: str, *options: str) -> Worker:
        """An owner, unless the options say otherwise."""
        report = self.directory / f"worker-{len(self.workers) + 1}.json"
        arguments = ["--url", url, "--stream", STREAM, "--report", str(report), *options]
        if self.command is None:
            if Run._nursery is None:
                Run._nursery = Nursery()
            worker = Worker(Run._nursery.fork(arguments), report, None)
        else:
            process = subprocess.Popen([*self.command, *arguments], cwd=ROOT)
            worker = Worker(process.pid, report, process)
        self.workers.append(worker)
        return worker

    @classmethod
    def close_nursery(cls) -> None:
        if cls._nursery is not None:
            cls._nursery.close()
            cls._nursery = None

    def stop_producers(self) -> None:
        for producer in self._producers:
            producer.stop()
            self.told.update(producer.refused)

    def end_workers(self) -> None:
        """SIGTERM to all, and their reports into what is told."""
        for worker in self.workers:
            if worker.is_alive():
                report = worker.end()
                self.told.update(report.get("refused", {}))
                self.told.update(
                    {f"worker met {name}": count for name, count in report.get("troubles", {}).items()}
                )
                self.tell(takeovers=report.get("takeovers", 0))

    def drain(self, url: str) -> None:
        """Until everything is applied: by the workers that are alive, or else by a Consumer here."""
        client = self.client(url)
        if not any(worker.is_alive() and not worker.is_stopped() for worker in self.workers):
            consume_all(url)
        try:
            until(lambda: is_applied(client), "everything to be applied", DRAIN_S)
        except AssertionError:
            self.find(
                f"not everything was applied {DRAIN_S:.0f} s after the last fault: "
                f"{where_cursors_are(client)}"
            )

    def acks(self) -> list[Any]:
        return [ack for producer in self._producers for ack in read_acks(producer.path)]

    def judge(
        self, url: str, *, may_lose: Iterable[str] = (), strangers: bool = False, rebuild: bool = False
    ) -> list[Held]:
        """Stop the producers, drain, end the workers, and check I1 to I3, I5 and, where asked, I6."""
        self.stop_producers()
        self.drain(url)
        self.end_workers()
        consume_all(url)  # puts the groups in line: what is pending now is a finding
        client = self.client(url)
        helds = every_partition(client)
        for held in helds:
            self.find(*check(held))
        if not isinstance(client, RedisCluster):
            self.find(*check_keys(client.keys("aura:*"), STREAM))
        acks = self.acks()
        self.find(*check_acks(helds, acks, may_lose=may_lose, strangers=strangers))
        self.tell(
            events=sum(len(held.log) for held in helds),
            acked=len({ack.event_id for ack in acks if ack.outcome == "acked"}),
        )
        self.told.update({f"lost {level}": count for level, count in lost(helds, acks).items()})
        if rebuild:
            self.rebuild(url, helds)
        return helds

    def rebuild(self, url: str, before: list[Held]) -> None:
        """I6: without a view and a cursor, folded again."""
        client = self.client(url)
        for held in before:
            for key in client.scan_iter(f"aura:{{{held.stream}.{held.partition}}}:*"):
                if key.split(b":")[2] in (b"view", b"cursor", b"dead"):
                    client.delete(key)
        consume_all(url)
        for old, new in zip(before, every_partition(client), strict=True):
            self.find(*check_rebuilt(old, new))

    def glimpse(self, client: Any) -> None:
        """I4, now."""
        for held in every_partition(client):
            self.find(*check_prefix(held))
        self.tell(glimpses=1)


def consume_all(url: str) -> None:
    server = Server(url)
    try:
        stream = open_stream(server, STREAM)
        Consumer(server, [Counting()], lambda: [stream]).run(until_idle=True)
    finally:
        server.close()


def partition_keys(client: Any) -> list[tuple[str, str]]:
    facts = client.hget("aura:streams", STREAM)
    count = json.loads(facts)["partitions"] if facts else 0
    return [
        (f"aura:{{{STREAM}.{number}}}:log", f"aura:{{{STREAM}.{number}}}:cursor:counting")
        for number in range(count)
    ]


def where_cursors_are(client: Any) -> list[tuple[str, str]]:
    """(end of the log, position of the cursor) of every partition."""
    places = []
    for log, cursor in partition_keys(client):
        last = client.xrevrange(log, count=1)
        places.append(
            (last[0][0].decode() if last else "", (client.hget(cursor, "position") or b"").decode())
        )
    return places


def is_applied(client: Any) -> bool:
    try:
        return all(end == at for end, at in where_cursors_are(client))
    except redis.RedisError:
        return False


def applied(client: Any) -> int:
    """Entries read so far by the view, over all partitions."""
    return sum(int(client.hget(cursor, "read") or 0) for _, cursor in partition_keys(client))


def kill_server(process: ServerProcess) -> None:
    """kill -9, and start it again on the same data."""
    process.kill()
    process.start()


def short_answers(run: Run, seconds: float) -> None:
    """In this process, give up on answers sooner."""
    before = connection.ANSWER_TIMEOUT_S
    connection.ANSWER_TIMEOUT_S = seconds
    run.on_end(setattr, connection, "ANSWER_TIMEOUT_S", before)
