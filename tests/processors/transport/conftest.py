"""Brokers: a Valkey that is emptied before each test, and librdkafka's mock cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests.processors.transport.members import Broker, mock_kafka
from tests.processors.transport.workers import LEASE_MS
from tests.servers import ServerProcess


@pytest.fixture(scope="session")
def valkey_process(valkey: str) -> Iterator[ServerProcess]:
    process = ServerProcess(valkey)
    yield process
    process.stop()


@pytest.fixture
def valkey_url(valkey_process: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AURASTREAM_LEASE_MS", str(LEASE_MS))
    with redis.Redis.from_url(valkey_process.url) as client:
        client.flushall()
    return valkey_process.url


@pytest.fixture(scope="session")
def kafka() -> Iterator[Broker]:
    yield from mock_kafka()


@pytest.fixture(params=["redis", pytest.param("kafka", marks=pytest.mark.slow)])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each transport that the conformance suite holds to account."""
    if request.param == "kafka":
        found: Broker = request.getfixturevalue("kafka")
        return found
    return Broker("redis", request.getfixturevalue("valkey_url"))
