"""
A worker as a process of its own: folds the Counting view of one stream until SIGTERM, by lease or by group.

    python -m tests.faults.worker --url U --stream S --report FILE [--kind owner|reader] ..
    python -m tests.faults.worker --nursery        forks such workers: a line of JSON arguments in, a pid out

owner    streams.leases.Leases and projections.apply.Lane over blocking wires: claims, commits under its
         epoch, drops what is fenced
reader   projections.Consumer, by consumer group, without a lease

--projection MODULE:CLASS is another build's: its own event types, upcasters and fold. What a worker runs into
is written at once to FILE's .troubles.

--break WHERE:N:HOW ends (KILL) or stops (STOP) an owner at its Nth commit: before it is sent, in it (sent,
not answered), after its answer. The report, a JSON object, is written at the end: commits, refusals by kind,
takeovers, and what it ran into on the way.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import structlog
from redis.exceptions import ResponseError

from aurastream.projections import Consumer, Projection
from aurastream.projections.engine import Fenced, Lane, is_commit
from aurastream.streams import (
    LOST,
    Server,
    Stream,
    StreamError,
    Wires,
    connection,
    drive,
    is_passing,
    open_stream,
)
from aurastream.streams.leases import Claim, Leases

IDLE_S = 0.004  # between looks at the logs: a worker with an event loop is woken up instead
START_S = 20.0  # how long a server may stay away when the worker starts


class Report:
    """What is written at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.commits = 0
        self.refused: dict[str, int] = {}
        self.fenced = self.takeovers = 0
        self.troubles: dict[str, int] = {}

    def watch_commits(self) -> None:
        """Count the answers of every commit of this process."""
        commit = Lane.commit

        def watched(lane: Lane, *arguments: Any, **options: Any) -> Any:
            name = "FENCED"
            try:
                answer, following = yield from commit(lane, *arguments, **options)
                name = answer.name
                return answer, following
            except Fenced:
                raise
            except BaseException:
                name = ""  # the connection, or the flow itself, ended first
                raise
            finally:
                if name == "OK":
                    self.commits += 1
                elif name:
                    self.refused[name] = self.refused.get(name, 0) + 1

        Lane.commit = watched  # type: ignore[method-assign]

    def ran_into(self, error: Exception) -> None:
        word = (
            str(error).split(" ", maxsplit=1)[0] if isinstance(error, ResponseError) else type(error).__name__
        )
        self.troubles[word] = self.troubles.get(word, 0) + 1
        if self.troubles[word] == 1:
            self._path.with_suffix(".troubles").write_text(" ".join(sorted(self.troubles)))

    def counts(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


class Owner:
    """Claims partitions and works on them, one after the other."""

    def __init__(self, options: argparse.Namespace, report: Report) -> None:
        self.options, self.report = options, report
        self.server, self.stream = patient_stream(options.url, options.stream)
        self.leases = Leases(lease_ms=options.lease_ms)
        self.projection = named(options.projection)
        self.claims = [
            Claim(self.projection.name, options.stream, partition)
            for partition in range(self.stream.partitions)
        ]
        self.lanes = {
            claim: Lane(self.projection, self.stream, claim.partition, batch_max=options.batch_max)
            for claim in self.claims
        }
        self.wires = Wires(self.server)
        self.read_to: dict[Claim, str] = {}
        self.sent = 0
        self.tick_at = 0.0
        self.where, number, self.how = (options.break_at or "never:0:KILL").split(":")
        self.break_at = int(number)

    def run(self, is_over: Any) -> None:
        while not is_over():
            try:
                if not self.round():
                    time.sleep(IDLE_S)
            except (*LOST, ResponseError, StreamError) as error:
                # What a person must mend is tried again as well, as the worker's lanes do.
                self.report.ran_into(error)
                self.forget()
                if not is_passing(error):
                    time.sleep(0.05)
        try:
            self.routed(self.leases.leave())
        except (*LOST, ResponseError) as error:
            self.report.ran_into(error)

    def round(self) -> bool:
        """Keep the leases; a batch of each partition. Whether there was one."""
        if time.monotonic() >= self.tick_at:
            self.routed(self.leases.tick(self.claims))
            self.tick_at = time.monotonic() + self.leases.period_s
        worked = [self.work(claim) for claim in sorted(self.leases.held)]
        self.routed(self.leases.release(sorted(self.leases.surplus)))
        return any(worked)

    def work(self, claim: Claim) -> bool:
        lane, epoch = self.lanes[claim], self.leases.held[claim]
        try:
            if lane.epoch != epoch:
                lane.epoch = epoch
                lane.reset()
                self.steps(lane, lane.settle())
                self.read_to[claim] = lane.cursor.position
            after = self.read_to.get(claim) or "0-0"
            (raw,) = self.ask(
                lane.keys.log, [("XRANGE", lane.keys.log, f"({after}", "+", "COUNT", lane.batch_max)]
            )
            if isinstance(raw, Exception):
                raise raw
            if raw:
                self.steps(lane, lane.take(raw))
                self.read_to[claim] = raw[-1][0].decode()
            return bool(raw)
        except Fenced:
            self.report.fenced += 1
            self.leases.lost(claim)
            lane.reset()
            return True

    def steps(self, lane: Lane, steps: Any) -> None:
        """All at once: a lane's keys are of one node."""
        drive(steps, lambda asks: self.ask(lane.keys.log, [ask.command for ask in asks]))

    def routed(self, steps: Any) -> None:
        drive(steps, lambda asks: [self.ask(key, [command])[0] for key, command in asks])

    def ask(self, key: str, commands: list[tuple[Any, ...]]) -> list[Any]:
        has_commit = any(map(is_commit, commands))
        self.sent += has_commit
        self.maybe_break(has_commit, "before")
        wire = self.wires.of(key)
        wire.send(commands)
        self.maybe_break(has_commit, "in")
        answers = [wire.receive() for _ in commands]
        self.maybe_break(has_commit, "after")
        return answers

    def maybe_break(self, has_commit: bool, where: str) -> None:
        if has_commit and where == self.where and self.sent == self.break_at:
            os.kill(os.getpid(), getattr(signal, f"SIG{self.how}"))

    def forget(self) -> None:
        """The connection was lost: connect again, continue from the cursors."""
        self.wires.close()
        for lane in self.lanes.values():
            lane.reset()
            lane.epoch = None  # settle anew: a fail-over may have set the cursor back
        try:
            self.server.refresh()
        except (*LOST, ResponseError) as error:
            self.report.ran_into(error)


def named(place: str) -> Projection[Any]:
    """MODULE:CLASS, made."""
    module, _, name = place.partition(":")
    projection: Projection[Any] = getattr(importlib.import_module(module), name)()
    return projection


def patient_stream(url: str, name: str) -> tuple[Server, Stream]:
    end = time.monotonic() + START_S
    while True:
        try:
            server = Server(url)
            return server, open_stream(server, name)
        except (*LOST, ResponseError, StreamError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def read(options: argparse.Namespace, report: Report, is_over: Any) -> None:
    """A Consumer, started again when it stops with an error."""
    while not is_over():
        try:
            server, stream = patient_stream(options.url, options.stream)
            consumer = Consumer(
                server,
                [named(options.projection)],
                lambda stream=stream: [stream],
                batch_max=options.batch_max,
            )  # type: ignore[misc]
            consumer.run(is_over)
        except (*LOST, ResponseError, StreamError) as error:
            report.ran_into(error)
            time.sleep(0.05)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--stream", required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--kind", choices=("owner", "reader"), default="owner")
    parser.add_argument("--lease-ms", type=int, default=500)
    parser.add_argument("--batch-max", type=int, default=50)
    parser.add_argument("--answer-timeout-s", type=float, default=connection.ANSWER_TIMEOUT_S)
    parser.add_argument("--projection", default="tests.projections.counting:Counting")
    parser.add_argument("--break", dest="break_at")
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    connection.ANSWER_TIMEOUT_S = options.answer_timeout_s
    over: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: over.append(number))
    report = Report(options.report)
    report.watch_commits()
    if options.kind == "owner":
        owner = Owner(options, report)
        owner.run(lambda: bool(over))
        report.takeovers = owner.leases.takeovers
    else:
        read(options, report, lambda: bool(over))
    part = options.report.with_suffix(".part")
    part.write_text(json.dumps(report.counts()))
    part.rename(options.report)
    return 0


def nursery() -> None:
    """Everything is imported once; a worker then costs a fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: the report says how they ended
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(0)
            code = 1
            try:
                code = main(json.loads(line))
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        print(pid, flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--nursery"]:
        nursery()
    else:
        sys.exit(main(sys.argv[1:]))
