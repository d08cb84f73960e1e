"""
The embedded server's supervisor: start the server, wait until no user is left, stop it. A program; nobody
imports it.

    python -I -S supervisor.py HOME SOCKET BINARY RUNNING      RUNNING: the descriptor of running.lock,
        inherited (see embedded.py)

It knows the standard library alone, so that starting it is quick and no broken environment keeps it from
stopping a server. Where the server ends by itself, HOME/failure says why.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

STOP_MAX_S = 60.0
_PR_SET_PDEATHSIG = 1


def supervise(home: Path, path: Path, binary: str, running: int) -> None:
    """The supervisor's life: one server, until no user is left."""
    server = _start_server(home, path, binary, running)
    threading.Thread(target=_fail_with, args=(server, home), daemon=True).start()
    users = os.open(home / "users.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(users, fcntl.LOCK_EX)  # the kernel grants it when the last user is gone
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(STOP_MAX_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _server_options(home: Path, path: Path) -> list[str]:
    """Of the command line. path: of the socket."""
    settings = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(home / "data"),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "logfile": str(home / "server.log"),
        "daemonize": "no",
    }
    return [part for name, value in settings.items() for part in (f"--{name}", value)]


def _start_server(home: Path, path: Path, binary: str, running: int) -> subprocess.Popen[bytes]:
    path.unlink(missing_ok=True)
    os.umask(0o077)
    return subprocess.Popen(
        [binary, *_server_options(home, path)],
        stdin=subprocess.DEVNULL,
        pass_fds=(running,),
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - before any thread
    )


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # it shuts down with its AOF flushed


def _fail_with(server: subprocess.Popen[bytes], home: Path) -> None:
    """The server ended by itself, or could not start: say so and go, so that the next acquire starts anew."""
    code = server.wait()
    if code > 0:
        log = home / "server.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        (home / "failure").write_text(" / ".join(lines[-3:]) or f"exit code {code}")
    os._exit(1)


if __name__ == "__main__":
    supervise(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
