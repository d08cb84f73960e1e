"""
Host processes as a person starts them, and what a reader outside of them can see: the cursors, the leases,
their CPU.

    with fleet(url, lease_ms) as hosts: hosts.start(); await_shares(..); until(lambda: progress.applied()
    == total, "all")

Everything here watches; nothing is asked of a host but signals. CPU is the kernel's account of the process,
all its threads, user
and system, in ticks of 10 ms: spans of seconds only. It needs /proc, so the workloads that use it run on
Linux.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aurastream.streams import Position, Server, Stream
from benchmarks.measure import server_cpu_s
from benchmarks.reference import Pulse

ROOT = Path(__file__).parent.parent
PROGRAMS = Path(sys.executable).parent
GROUP = Pulse.name  # whose leases are looked at
POLL_S = 0.002
PATIENCE_S = 60.0
STOP_MAX_S = 20.0
RUN = ("aurastream", "--app", "benchmarks.reference", "run", "--projection", Pulse.name, "--web-port", "off")
STOCK = ("faust", "-A", "benchmarks.stock", "worker", "--without-web", "-l", "warn")

Sight = tuple[float, float, float, int]  # clock, CPU of the hosts, CPU of the server, events applied


class Host:
    """One process. started_at: monotonic, before it was forked."""

    def __init__(
        self, url: str, directory: Path, lease_ms: int, words: tuple[str, ...], more: dict[str, str]
    ) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("AURASTREAM_")}
        environ |= {
            "AURASTREAM_REDIS_URL": url,
            "AURASTREAM_LEASE_MS": str(lease_ms),
            "AURASTREAM_HOME": str(directory),
        }
        environ |= {"PYTHONPATH": str(ROOT), **more}
        self._log = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - open as long as the process may write
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(
            [PROGRAMS / words[0], *words[1:]], env=environ, stdout=self._log, stderr=self._log, cwd=directory
        )

    @property
    def pid(self) -> int:
        """Of the process, which is also in the name its leases bear."""
        return self.process.pid

    def cpu_s(self) -> float:
        """Used since its start."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        self.process.send_signal(number)

    def stop(self) -> None:
        """SIGTERM, and wait. Raises RuntimeError unless it ends well."""
        self.send(signal.SIGTERM)
        if self.process.wait(STOP_MAX_S):
            raise RuntimeError(f"a host ended with {self.process.returncode}: {self.tail()}")
        self._log.close()

    def kill(self) -> None:
        """kill -9, and wait."""
        self.process.kill()
        self.process.wait()
        self._log.close()

    def tail(self) -> str:
        """The end of what it said."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-2_000:]


class Fleet:
    """The hosts of one server."""

    def __init__(self, url: str, directory: Path, lease_ms: int) -> None:
        self.directory = directory
        self.hosts: list[Host] = []
        self._url, self._lease_ms = url, lease_ms

    def start(self, words: tuple[str, ...] = RUN, **environ: str) -> Host:
        """One more."""
        self.hosts.append(Host(self._url, self.directory, self._lease_ms, words, environ))
        return self.hosts[-1]

    def await_shares(self, stream: Stream) -> None:
        """Until every host holds its share of the partitions, as the leases have it."""
        pids = {host.pid for host in self.hosts}
        least, most = stream.partitions // len(pids), -(-stream.partitions // len(pids))

        def is_shared() -> bool:
            held = Counter(owners(stream).values())
            return held.keys() == pids and least <= min(held.values()) and max(held.values()) <= most

        self.until(is_shared, f"equal shares of {len(pids)} hosts")

    def until(self, condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
        """Wait for a condition. Raises RuntimeError when a host has ended meanwhile, or patience has."""
        end = time.monotonic() + patience_s
        while not condition():
            dead = next((host for host in self.hosts if host.process.poll() is not None), None)
            if dead is not None or time.monotonic() > end:
                said = (dead or self.hosts[0]).tail()
                raise RuntimeError(
                    f"{'a host ended' if dead else f'waited {patience_s} s'} while waiting for {what}: {said}"
                )
            time.sleep(POLL_S)

    def stop(self) -> None:
        """End all gracefully."""
        for host in self.hosts:
            host.stop()
        self.hosts.clear()


@contextmanager
def fleet(url: str, lease_ms: int = 3_000) -> Iterator[Fleet]:
    """Hosts that end with the block, whatever happens."""
    with tempfile.TemporaryDirectory(prefix="aura-bench-") as directory:
        found = Fleet(url, Path(directory), lease_ms)
        try:
            yield found
        finally:
            for host in found.hosts:
                host.kill()


def owners(stream: Stream) -> dict[int, int]:
    """Partition -> pid of the host whose lease it is; the names of hosts are host-pid-random."""
    with stream.server.client.pipeline(transaction=False) as pipeline:
        for keys in stream.keys:
            pipeline.hget(keys.lease(GROUP), "owner")
        names = pipeline.execute()
    return {partition: int(name.decode().rsplit("-", 2)[1]) for partition, name in enumerate(names) if name}


class Cursors:
    """The cursors of Pulse, as any reader sees them: one pipeline for all partitions."""

    def __init__(self, server: Server, stream: Stream) -> None:
        self._client = server.client
        self._keys = [keys.cursor(Pulse.name) for keys in stream.keys]

    def applied(self) -> int:
        """Events in all views."""
        return sum(self.each())

    def each(self) -> list[int]:
        """The same by partition."""
        return [int(count or 0) for count in self._asked("applied")]

    def positions(self) -> list[Position | None]:
        """By partition; None before the first commit."""
        return [
            Position.parse(position.decode()) if position else None for position in self._asked("position")
        ]

    def _asked(self, field: str) -> list[bytes | None]:
        with self._client.pipeline(transaction=False) as pipeline:
            for key in self._keys:
                pipeline.hget(key, field)
            answers: list[bytes | None] = pipeline.execute()
        return answers


def sight(server: Server, hosts: Fleet, applied: int) -> Sight:
    """Everything that is counted, at one moment."""
    return (
        time.perf_counter(),
        sum(host.cpu_s() for host in hosts.hosts),
        server_cpu_s(server.client),
        applied,
    )


def watched(server: Server, hosts: Fleet, cursors: Cursors, before: int, total: int) -> tuple[Sight, Sight]:
    """What could be seen at the first commit beyond `before`, and at the one that reached `total`."""
    hosts.until(lambda: cursors.applied() > before, "the first commit")
    first = sight(server, hosts, cursors.applied())
    hosts.until(lambda: cursors.applied() >= total, "the last commit")
    return first, sight(server, hosts, total)
