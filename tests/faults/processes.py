"""
Processes of a row: servers on ports of their own, and workers (worker.py), forked by a nursery as an import
takes longer than a life.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.servers import ServerProcess, until

ROOT = Path(__file__).parent.parent.parent
END_S = 15.0


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
        """SIGTERM, and its report at its end; empty when it was killed before."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        until(lambda: not self.is_alive(), "a worker to end", patience_s)
        return json.loads(self._report.read_text()) if self._report.exists() else {}
