"""Fixtures: a real server, every kind this machine has, emptied before each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import settings

from aurastream.streams import Server, Settings, Stream, open_stream
from tests.commands import Home, Nursery
from tests.servers import EVERY_SERVER, ServerProcess, binaries

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"

# A busy machine is no fault of an example; a test has its bound.
settings.register_profile("here", deadline=None)
settings.load_profile("here")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test on a server is one on every kind of server, as scripts and replies may differ."""
    if "running" in metafunc.fixturenames:
        is_any = metafunc.definition.get_closest_marker("any_server") is not None
        metafunc.parametrize("running", EVERY_SERVER[:1] if is_any else EVERY_SERVER, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests first, so that no long one is left over for a single worker at the end;
    otherwise the order of the printed seed. Module by module, as their fixtures are made once.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_report_header() -> str:
    """What this machine has, and with that which tests are skipped."""
    servers = binaries()
    missing = (
        ""
        if "redis" in servers
        else " (no redis-server on PATH: the suite runs on the embedded Valkey alone)"
    )
    data = "../shared/data" if SHARED.exists() else "absent, its tests are skipped"
    return f"servers: {', '.join(servers)}{missing}; full data: {data}"


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, ServerProcess]]:
    """One server of each kind, for all tests of this process (with xdist: of this worker)."""
    started = {name: ServerProcess(binary) for name, binary in binaries().items()}
    yield started
    for process in started.values():
        process.stop()


@pytest.fixture
def running(request: pytest.FixtureRequest, servers: dict[str, ServerProcess]) -> ServerProcess:
    """Each kind of server in turn, or the one that ships with the product where the test is marked
    any_server. Not of the session's scope: pytest would run all tests of one kind first, and make the
    modules' fixtures twice.
    """
    return servers[request.param]


@pytest.fixture
def url(running: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the server is, and what the product takes for it."""
    monkeypatch.setenv("AURASTREAM_REDIS_URL", running.url)
    return running.url


@pytest.fixture
def server(url: str) -> Iterator[Server]:
    """An empty server, with no bound on its memory."""
    server = Server(url)
    server.client.config_set("maxmemory", 0, "maxmemory-policy", "noeviction")
    server.client.flushall()
    yield server
    server.close()


@pytest.fixture
def stream(server: Server) -> Iterator[Stream]:
    """A stream of one partition."""
    stream = open_stream(server, "clips-test", create=True, settings=Settings(partitions=1))
    yield stream
    stream.close()


@pytest.fixture(scope="session")
def valkey() -> str:
    """The program that ships with the product."""
    return binaries()["valkey"]


@pytest.fixture(scope="module")
def one_server(servers: dict[str, ServerProcess]) -> ServerProcess:
    """For tests that are long, or of what is the same on every server; emptied before each module."""
    process = servers["valkey"]
    with redis.Redis.from_url(process.url) as client:
        client.config_set("maxmemory", 0, "maxmemory-policy", "noeviction")
        client.flushall()
    return process


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """The process that forks commands; one for all tests of this process."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def home(nursery: Nursery, tmp_path: Path) -> Iterator[Home]:
    """A home of the embedded server, not yet made."""
    home = Home(nursery, tmp_path / "home")
    yield home
    home.close()
