"""Fixtures: a real server, every kind this machine has, emptied before each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aurastream.streams import Server, Settings, Stream, open_stream
from tests.commands import Home, Nursery
from tests.servers import ServerProcess, binaries

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"


# What `make check` leaves to `make test`: a second server, processes that start and die, and long random
# searches.
NOT_QUICK = (
    "benchmarks",
    "faults",
    "simulation",
    "test_readme",
    "test_cluster",
    "test_embedded",
    "processors/host",
    "processors/transport",
    "processors/effects",
    "processors/test_",
    "test_reads",
    "test_fold",
    "test_pressure",
    "test_past",
    "test_rebuild_crash",
    "test_rebuild_cluster",
    "test_evolution",
    "test_entity",
    "archive/test_archive",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="the daily loop: one server, nothing slow, under half a minute"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--quick"):
        return
    kept, left = [], []
    for item in items:
        place = item.path.relative_to(ROOT / "tests").as_posix()
        is_slow = item.get_closest_marker("slow") is not None or "[redis" in item.name
        (left if is_slow or any(name in place for name in NOT_QUICK) else kept).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept


def pytest_report_header() -> str:
    found = binaries()
    missing = (
        "" if "redis" in found else " (no redis-server on PATH: the suite runs on the embedded Valkey alone)"
    )
    return f"servers: {', '.join(found)}{missing}; full data: {'../shared/data' if SHARED.exists() else 'absent, its tests are skipped'}"


@pytest.fixture(scope="session", params=sorted(binaries(), reverse=True))
def running(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    process = ServerProcess(binaries()[request.param])
    yield process
    process.stop()


@pytest.fixture
def url(running: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AURASTREAM_REDIS_URL", running.url)
    return running.url


@pytest.fixture
def server(url: str) -> Iterator[Server]:
    server = Server(url)
    server.client.config_set("maxmemory", 0)
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
    return binaries()["valkey"]


@pytest.fixture(scope="module")
def one_server(valkey: str) -> Iterator[ServerProcess]:
    """For tests that are long, or of what is the same on every server."""
    process = ServerProcess(valkey)
    yield process
    process.stop()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def home(nursery: Nursery, tmp_path: Path) -> Iterator[Home]:
    """A home of the embedded server, not yet made."""
    home = Home(nursery, tmp_path / "home")
    yield home
    home.close()
