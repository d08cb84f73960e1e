"""Worker processes of the tests: started here, told what to do by signals, read by the reports they write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers import until

SCRIPTS = Path(__file__).parent
LEASE_MS = 1_000


class Workers:
    """Processes of one app that report into one file."""

    def __init__(self, broker: str, directory: Path, script: str = "stranger.py", **environment: str) -> None:
        self.directory, self._script = directory, SCRIPTS / script
        self._report = directory / "report"
        self._report.touch()
        self.environment = {
            **os.environ,
            "BROKER": broker,
            "DATADIR": str(directory),
            "REPORT": str(self._report),
            "PYTHONWARNINGS": "ignore",
            "AURASTREAM_LEASE_MS": str(LEASE_MS),
            **environment,
        }
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str = "", *options: str, **environment: str) -> Worker:
        """A worker; returns once its agents may get events."""
        options = options or ("--without-web",)
        with (self.directory / f"log-{name}").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(self._script), "worker", "-l", "info", *options],
                env={**self.environment, "WORKER": name, **environment},
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )
        self._running.append(process)
        worker = Worker(process, self.directory / f"log-{name}")
        until(lambda: "Worker ready" in worker.log() or process.poll() is not None, "the worker to be ready")
        assert process.poll() is None, worker.log()
        return worker

    def command(self, *arguments: str) -> str:
        """Run a command of the app; returns what it wrote."""
        done = subprocess.run(
            [sys.executable, str(self._script), *arguments],
            env=self.environment,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode()
        return (done.stdout + done.stderr).decode()

    def reports(self, what: str, **facts: Any) -> list[dict[str, Any]]:
        """What was reported, in order."""
        text = self._report.read_text()
        lines = [
            json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()
        ]  # the last may be half written
        wanted = {"what": what, **facts}
        return [line for line in lines if wanted.items() <= line.items()]

    def amounts(self) -> list[int]:
        return [line["amount"] for line in self.reports("order")]

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()


class Worker:
    """One worker process."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log = process, log

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> float:
        """SIGTERM; returns how long it took. It must exit with 0."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0, self.log()[-3_000:]
        return time.monotonic() - began


@contextmanager
def workers(*arguments: Any, **environment: str) -> Iterator[Workers]:
    """Workers that are killed at the end."""
    found = Workers(*arguments, **environment)
    try:
        yield found
    finally:
        found.close()


def assert_order_per_key(reports: list[dict[str, Any]]) -> None:
    """The first time each order was handled, it came after the smaller ones of its key."""
    seen: dict[str, list[int]] = {}
    for line in reports:
        amounts = seen.setdefault(line["key"], [])
        if line["amount"] not in amounts:
            amounts.append(line["amount"])
    assert all(amounts == sorted(amounts) for amounts in seen.values()), seen
