"""
What every row of the fault matrix needs: servers, producers, workers, and the judgement at the end.

    with Run(row, seed, is_long=..) as run:  servers and processes are started through it and ended with it,
                                             by pid
    run.judge(url)                           drain, then tests/invariants.py; its findings are in run.findings

Who appends is in producers.py, who consumes in processes.py. Everything random comes from run.dice.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from aurastream.projections import Consumer
from aurastream.streams import Server, Settings, Stream, connection, open_stream
from tests.faults.processes import ROOT, Nursery, Port, Worker
from tests.faults.producers import STREAM, Producer
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

DRAIN_S = 30.0


class Skipped(Exception):
    """The row cannot be provoked on this machine; the reason is the message."""


def client_of(url: str, timeout_s: float = 30.0) -> Any:
    """A plain client of a server or a cluster, for operators and the checker."""
    client = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=timeout_s)
    if (
        client.info("server").get("redis_mode") != "cluster"
        and client.info("server").get("server_mode") != "cluster"
    ):
        return client
    client.close()
    return RedisCluster.from_url(url, socket_timeout=timeout_s)


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
        self.counts: Counter[str] = Counter()
        self.findings: list[str] = []
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

    def count(self, **counts: float) -> None:
        """Add to what is printed of the row."""
        self.counts.update(counts)

    def complain(self, *sentences: str) -> None:
        self.findings += sentences

    @property
    def binary(self) -> str:
        """One of the servers this machine has, by seed."""
        return binaries()[random.Random(self.seed).choice(sorted(binaries()))]

    def server(
        self, *arguments: str, binary: str | None = None, environ: dict[str, str] | None = None
    ) -> ServerProcess:
        process = ServerProcess(binary or self.binary, *arguments, environ=environ)
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
        file = self.directory / f"p{len(self._producers) + 1}.acks"
        producer = Producer(file, url, self.dice.random(), options)
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
            self.counts.update(producer.refused)

    def end_workers(self) -> None:
        """SIGTERM to all, and their reports into the counts."""
        for worker in self.workers:
            if worker.is_alive():
                report = worker.end()
                self.counts.update(report.get("refused", {}))
                self.counts.update(
                    {f"worker met {name}": count for name, count in report.get("troubles", {}).items()}
                )
                self.count(takeovers=report.get("takeovers", 0))

    def drain(self, url: str) -> None:
        """Until everything is applied: by the workers that are alive, or else by a Consumer here."""
        client = self.client(url)
        if not any(worker.is_alive() and not worker.is_stopped() for worker in self.workers):
            consume_all(url)
        try:
            until(lambda: is_applied(client), "everything to be applied", DRAIN_S)
        except AssertionError:
            self.complain(
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
            self.complain(*check(held))
        if not isinstance(client, RedisCluster):
            self.complain(*check_keys(client.keys("aura:*"), STREAM))
        acks = self.acks()
        self.complain(*check_acks(helds, acks, may_lose=may_lose, strangers=strangers))
        self.count(
            events=sum(len(held.log) for held in helds),
            acked=len({ack.event_id for ack in acks if ack.outcome == "acked"}),
        )
        self.counts.update({f"lost {level}": count for level, count in lost(helds, acks).items()})
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
            self.complain(*check_rebuilt(old, new))

    def glimpse(self, client: Any) -> None:
        """I4, now."""
        for held in every_partition(client):
            self.complain(*check_prefix(held))
        self.count(glimpses=1)


def consume_all(url: str, **options: Any) -> None:
    server = Server(url)
    try:
        stream = open_stream(server, STREAM)
        Consumer(server, [Counting()], lambda: [stream], **options).run(until_idle=True)
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
