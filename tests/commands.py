"""
The command line in processes of their own, in homes that end with their test.

A command is a real process with its own streams, environment and exit code; a nursery that has imported
everything once forks it, which costs 30 ms where a new interpreter costs 400. What begins at the shell is
tested with `installed`, the console script itself.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from tests.servers import until

ROOT = Path(__file__).parent.parent
PATIENCE_S = 60.0
Environ = Mapping[str, str | None]  # None takes a variable away


def environment(home: Path, changes: Environ | None = None) -> dict[str, str]:
    """This process's, without settings of ours, for a home."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AURASTREAM_") and name != "COLUMNS"
    }
    asked = {"AURASTREAM_HOME": str(home), "TERM": "xterm", **(changes or {})}
    return {name: value for name, value in {**kept, **asked}.items() if value is not None}


def _number(connection: socket.socket) -> int:
    """The next eight characters; a pid and an exit code may arrive together."""
    return int(connection.recv(8, socket.MSG_WAITALL))


class Running:
    """A command under way: pid, what it wrote so far, its exit code."""

    def __init__(self, connection: socket.socket, files: list[BinaryIO]) -> None:
        self._connection, self._files = connection, files
        connection.settimeout(PATIENCE_S)
        self.pid = _number(connection)
        self._code: int | None = None

    @property
    def out(self) -> str:
        return self._text(1)

    @property
    def err(self) -> str:
        return self._text(2)

    def _text(self, index: int) -> str:
        size = os.fstat(self._files[index].fileno()).st_size
        return os.pread(self._files[index].fileno(), size, 0).decode()

    def wait(self) -> int:
        """The exit code; -9 when killed by signal 9."""
        if self._code is None:
            self._code = _number(self._connection)
        return self._code

    def signal(self, number: int) -> int:
        """Send it, and wait for the end."""
        if not self._has_ended():
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(self.pid, number)
        return self.wait()

    def json(self) -> Any:
        """Its one document, once it is there."""
        until(
            lambda: self.out.endswith("}\n") or self._has_ended(),
            f"a document, not {self.out!r} {self.err!r}",
        )
        return json.loads(self.out)

    def forget(self) -> None:
        """Kill it where it still runs; what it wrote can be read no more."""
        self.signal(signal.SIGKILL)
        self._connection.close()
        for file in self._files:
            file.close()

    def _has_ended(self) -> bool:
        return self._code is not None or bool(select.select([self._connection], [], [], 0)[0])


class Done:
    """A command that has ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def json(self) -> Any:
        """Its one document; it must have said yes."""
        assert self.code == 0, self
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


class Nursery:
    """The process that forks commands."""

    def __init__(self, *modules: str) -> None:
        """modules: imported as well before the first command."""
        self._directory = tempfile.mkdtemp(prefix="aura-")
        self.path = f"{self._directory}/n.sock"
        program = [sys.executable, "-m", "tests.commands", self.path, *modules]
        self._process = subprocess.Popen(program, cwd=ROOT)
        until(lambda: os.path.exists(self.path), "the nursery")

    def start(
        self, arguments: tuple[str, ...], environ: dict[str, str], cwd: Path, stdin: bytes, stdout: int | None
    ) -> Running:
        files: list[BinaryIO] = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115 - read until the command is forgotten
        files[0].write(stdin)
        files[0].seek(0)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.path)
        request = json.dumps([arguments, environ, str(cwd)]).encode()
        descriptors = [file.fileno() for file in files]
        if stdout is not None:
            descriptors[1] = stdout
        socket.send_fds(connection, [b"%8d" % len(request)], descriptors)
        connection.sendall(request)
        return Running(connection, files)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._directory)


class Home:
    """A home of the embedded server with commands in it; ``close`` ends all that runs there."""

    def __init__(self, nursery: Nursery, path: Path) -> None:
        self.path, self.directory, self._nursery = path, path.parent, nursery
        self._started: list[Running] = []

    def start(
        self,
        *arguments: str,
        stdin: bytes | str = b"",
        stdout: int | None = None,
        cwd: Path | None = None,
        env: Environ | None = None,
    ) -> Running:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        running = self._nursery.start(
            arguments, environment(self.path, env), cwd or self.directory, given, stdout
        )
        self._started.append(running)
        return running

    def run(self, *arguments: str, **options: Any) -> Done:
        """Start it and wait for its end; options as ``start`` takes them."""
        running = self.start(*arguments, **options)
        return Done(running.wait(), running.out, running.err)

    def installed(
        self, *arguments: str, stdin: str = "", cwd: Path | None = None, env: Environ | None = None
    ) -> Done:
        """The same from the shell's side: a new interpreter, the console script."""
        program = str(Path(sys.executable).with_name("aurastream"))
        done = subprocess.run(
            [program, *arguments],
            input=stdin,
            cwd=cwd or self.directory,
            env=environment(self.path, env),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def hold(self) -> Running:
        """A user of the home's server; it answers."""
        user = self.start("serve-redis", "--json")
        assert user.json()["pid"]
        return user

    def processes(self) -> dict[int, str]:
        """Supervisors and servers of this home, by pid: what each was started as."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().decode(errors="replace").split("\0")
                directory = os.readlink(entry.with_name("cwd"))
            except OSError:
                continue  # it ended while we looked, or is not ours
            if any(word.endswith("streams/supervisor.py") for word in words) and str(self.path) in words:
                found[int(entry.parent.name)] = "supervisor"
            elif directory == str(self.path / "data"):
                found[int(entry.parent.name)] = "server"
        return found

    def pids(self, what: str) -> list[int]:
        return [pid for pid, name in self.processes().items() if name == what]

    def close(self) -> None:
        for running in self._started:
            running.forget()
        until(self._end_processes, "the home's processes to end")

    def _end_processes(self) -> bool:
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return not self.processes()


def _serve(path: str, *modules: str) -> None:
    """The nursery's life."""
    from aurastream.processors.commands.main import VERBS, verb

    for module in modules:
        importlib.import_module(module)
    for name in VERBS:
        verb(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".part")
    listener.listen(64)
    os.rename(path + ".part", path)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _attend(connection)
        connection.close()


def _attend(connection: socket.socket) -> None:
    """Fork the command, tell its pid, then its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
    request = b""
    while len(request) < int(size):
        request += connection.recv(65_536)
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become_command(*json.loads(request), descriptors)
    connection.sendall(b"%8d" % pid)
    _, status = os.waitpid(pid, 0)
    connection.sendall(b"%8d" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become_command(arguments: list[str], environ: dict[str, str], cwd: str, descriptors: list[int]) -> None:
    from aurastream.processors.commands.main import main

    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    sys.path[:0] = [entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1)  # noqa: SIM115
    sys.argv = ["aurastream", *arguments]
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
