"""Rows 12 to 14, 16 and 17: kill -9 of the server, slow and full disks, a cut AOF, rewrites. Flipped bits are
in bits.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from functools import partial
from pathlib import Path
from typing import Any

import redis

from aurastream.projections.engine import is_commit
from aurastream.projections.engine.consumer import GroupLane
from aurastream.streams import Stream
from tests.faults.harness import Run, Skipped, consume_all, kill_server
from tests.faults.operators import fill
from tests.faults.producers import STREAM, Producer
from tests.faults.rows import row
from tests.invariants import check_prefix, held_by
from tests.projections.counting import Counting
from tests.servers import ServerProcess, until

EVERYSEC = ("--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0")
ALWAYS = ("--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0")


class Restored(ServerProcess):
    """A server on a copy of another one's append-only files, which may be too damaged to start. is_up:
    whether it did.
    """

    def __init__(self, binary: str, source: Path, damage: Any) -> None:
        self._source, self._damage = source, damage
        self.is_up = False
        super().__init__(binary, "--appendonly", "yes", "--appendfsync", "no", "--enable-debug-command", "no")

    def start(self) -> None:
        if self._damage is not None:
            copied = Path(self.directory) / "appendonlydir"
            shutil.copytree(self._source, copied)
            self._damage(increment_of(copied))
            self._damage = None
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: self.process.poll() is not None or self.answers(), "the server to start or to refuse")
        self.is_up = self.process.poll() is None


def increment_of(directory: Path) -> Path:
    """The file that grows."""
    return max(directory.glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))


@row(12, "kill -9 of the server, everysec and always")
def a_killed_server_keeps_log_and_view_in_step(run: Run) -> None:
    for options, level in ((EVERYSEC, "memory"), (ALWAYS, "disk")):
        lane = Run(run.dice.randrange(10**6), is_long=run.is_long)
        with lane:
            process = lane.server(*options)
            lane.stream(process.url, 2)
            lane.worker(process.url)
            lane.worker(process.url, "--kind", "reader")
            lane.producer(process.url, level=level)
            for _ in range(12 if run.is_long else 2):
                threading.Event().wait(run.dice.uniform(0.2, 0.5))
                kill_server(process)
                run.count(kills=1)
            threading.Event().wait(0.2)
            lane.judge(process.url, may_lose=["memory"])
        run.counts.update(lane.counts)
        run.complain(*lane.findings)


@row(13, "kill -9 of the server while its fsync is slow")
def a_server_killed_with_a_slow_disk_loses_nothing_that_the_disk_vouched_for(run: Run) -> None:
    if shutil.which("strace") is None:
        raise Skipped("row 13 delays fdatasync with strace, which is not installed")
    for options, level, delay_ms in ((EVERYSEC, "memory", 1_500), (ALWAYS, "disk", 30)):
        with Run(run.dice.randrange(10**6), is_long=run.is_long) as lane:
            process = lane.server(*options)
            lane.stream(process.url, 2)
            _slow_down(lane, process.process.pid, delay_ms)
            lane.worker(process.url)
            lane.producer(process.url, level=level, pace_s=0)
            for number in range(3 if run.is_long else 1):
                threading.Event().wait(run.dice.uniform(1.5, 2.5) if level == "memory" else 0.5)
                kill_server(process)
                if number < 2 and run.is_long:
                    _slow_down(lane, process.process.pid, delay_ms)
                run.count(kills=1)
            lane.judge(process.url, may_lose=["memory"])
        run.counts.update({f"{level} {name}": count for name, count in lane.counts.items()})
        run.complain(*lane.findings)


def _slow_down(run: Run, pid: int, delay_ms: int) -> None:
    words = ["strace", "-f", "-p", str(pid), "-o", "/dev/null", "-e", "trace=fdatasync,fsync"]
    words += ["-e", f"inject=fdatasync,fsync:delay_enter={delay_ms * 1000}"]
    tracer = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    run.on_end(_end, tracer)

    def is_traced() -> bool:
        if tracer.poll() is not None:
            raise Skipped(
                "row 13 delays fdatasync with strace, which may not trace here (ptrace is forbidden)"
            )
        return "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text()

    until(is_traced, "strace to attach")


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def last_commit(stream: Stream) -> None:
    """Apply the next batch and do nothing after it: the commit is the last thing in the AOF."""
    steps = GroupLane(Counting(), stream, 0).steps()
    answers: Any = None
    while True:
        asks = steps.send(answers) or []
        is_last = bool(asks) and is_commit(asks[0].command)
        answers = stream.wires.exchange(asks[:1] if is_last else asks)
        if is_last:
            assert answers[0][0] == 0, answers
            return


@row(14, "the AOF cut at every byte of the last commit", bound_s=90)
def a_cut_commit_is_there_or_not_and_never_in_part(run: Run) -> None:
    process = run.server(*ALWAYS)
    stream = run.stream(process.url, 1)
    fill(stream, 0, 20)
    consume_all(process.url)
    fill(stream, 20, 10)
    last_commit(stream)
    process.kill()
    source = Path(process.directory) / "appendonlydir"
    content = increment_of(source).read_bytes()
    begin = content.rindex(b"*1\r\n$5\r\nMULTI\r\n")
    cuts = range(begin, len(content) + 1)
    chosen = cuts if run.is_long else sorted({cuts[0], cuts[-1], cuts[-2], *run.dice.sample(cuts, 8)})
    run.count(bytes=len(cuts))
    for cut in chosen:
        restored = Restored(run.binary, source, lambda path, cut=cut: os.truncate(path, cut))
        try:
            if not restored.is_up:
                run.complain(f"cut at byte {cut - begin} of {len(cuts)}: the server does not start")
                continue
            with redis.Redis.from_url(restored.url) as client:
                held = held_by(client, STREAM, 0)
            findings = check_prefix(held)
            wanted = "30" if cut == len(content) else "20"
            if findings or held.cursor["read"] != wanted:
                run.complain(
                    f"cut at byte {cut - begin} of {len(cuts)}: read is {held.cursor['read']}, not "
                    f"{wanted}; {findings}"
                )
            run.count(cuts=1)
        finally:
            restored.stop()


class OnSmallDisk(ServerProcess):
    """A server whose data lie on a file system of 1 MB, which can be made larger."""

    def __init__(self, binary: str, *arguments: str) -> None:
        self._is_mounted = False
        super().__init__(binary, *arguments)

    def start(self) -> None:
        if not self._is_mounted:
            words = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", self.directory]
            if subprocess.run(words, capture_output=True, check=False).returncode:
                os.rmdir(self.directory)
                raise Skipped("row 16 fills a tmpfs of 1 MB, which may not be mounted here (it needs root)")
            self._is_mounted = True
        super().start()

    def enlarge(self) -> None:
        subprocess.run(["mount", "-o", "remount,size=64m", self.directory], check=True)

    def stop(self) -> None:
        self.kill()
        if self._is_mounted:
            subprocess.run(["umount", "-l", self.directory], check=True)
        shutil.rmtree(self.directory, ignore_errors=True)


@row(16, "the disk is full")
def a_full_disk_refuses_and_recovers(run: Run) -> None:
    for options, level in ((EVERYSEC, "memory"), (ALWAYS, "disk")):
        with Run(run.dice.randrange(10**6), is_long=run.is_long) as lane:
            process = OnSmallDisk(lane.binary, *options)
            lane.on_end(process.stop)
            lane.stream(process.url, 1)
            worker = lane.worker(process.url)
            producer = lane.producer(process.url, level=level, batch_max=200, pace_s=0, attempts_max=2)
            until(partial(_is_full, producer, process), "the disk to be full", 60)
            if level == "memory" and process.process.poll() is None:
                with redis.Redis.from_url(process.url) as client:
                    assert client.xlen(f"aura:{{{STREAM}.0}}:log") > 0, "it still answers reads"
            run.counts.update({f"{level} {name}": count for name, count in producer.refused.items()})
            process.enlarge()
            if process.process.poll() is not None:
                run.count(exits=1)
                process.start()
            until(partial(_has_acked_more, producer, producer.acked), "appends to be accepted again", 60)
            assert worker.is_alive()
            producer.stop()
            kill_server(process)
            lane.judge(process.url, may_lose=["memory"])
        run.counts.update(
            {
                f"{level} {name}": count
                for name, count in lane.counts.items()
                if name.startswith(("lost", "acked", "worker"))
            }
        )
        run.complain(*lane.findings)


def _is_full(producer: Producer, process: ServerProcess) -> bool:
    return producer.refused.total() > 2 or process.process.poll() is not None


def _has_acked_more(producer: Producer, before: int) -> bool:
    return producer.acked > before


@row(17, "AOF rewrite, and kill -9 in it")
def a_rewrite_of_the_aof_cut_short_costs_nothing(run: Run) -> None:
    process = run.server(*ALWAYS, "--rdb-key-save-delay", "20000")
    run.stream(process.url, 2)
    run.worker(process.url)
    run.producer(process.url, level="disk")
    for _ in range(10 if run.is_long else 2):
        threading.Event().wait(run.dice.uniform(0.1, 0.3))
        with redis.Redis.from_url(process.url) as client:
            until(lambda client=client: _rewrite(client), "a rewrite to be under way")
        threading.Event().wait(run.dice.uniform(0, 0.1))
        kill_server(process)
        run.count(kills=1)
    with redis.Redis.from_url(process.url) as client:
        client.bgrewriteaof()
        until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], "a rewrite to end")
    kill_server(process)
    run.judge(process.url)


def _rewrite(client: Any) -> bool:
    facts = client.info("persistence")
    if facts["aof_rewrite_in_progress"]:
        return True
    try:
        client.bgrewriteaof()
    except redis.ResponseError:
        return False  # another child is still being put away
    return False
