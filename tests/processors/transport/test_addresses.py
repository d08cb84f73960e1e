"""Where a broker may be: TLS with a certificate of one's own, a list of addresses, the entry points. Unix
sockets serve all tests.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from faust.transport.drivers import TRANSPORTS
from yarl import URL

from aurastream.processors.transport import kafka
from aurastream.processors.transport.driver import Transport, address
from tests.cluster import free_ports
from tests.processors.transport.members import Broker, eventually, group_on
from tests.servers import binaries, until

pytestmark = pytest.mark.process


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[str]:
    """A server that speaks TLS alone."""
    if "redis" not in binaries():
        pytest.skip("the embedded Valkey is built without TLS, and there is no redis-server on PATH")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=aurastream-test",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
        ],
        check=True,
        capture_output=True,
    )
    (port,) = free_ports(1)
    tls = {
        "tls-port": str(port),
        "tls-cert-file": str(certificate),
        "tls-key-file": str(key),
        "tls-auth-clients": "no",
        "port": "0",
    }
    options = [part for name, value in tls.items() for part in (f"--{name}", value)]
    process = subprocess.Popen(
        [binaries()["redis"], *options, "--save", "", "--dir", str(tmp_path), "--requirepass", "sesame"],
        stdout=subprocess.DEVNULL,
    )
    url = f"rediss://:sesame@127.0.0.1:{port}/0?ssl_ca_certs={certificate}"

    def answers() -> bool:
        try:
            with redis.Redis.from_url(url) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    until(answers, "the server to answer")
    yield url
    process.kill()
    process.wait()


def round_trip(url: str, directory: Path) -> None:
    async def scenario() -> None:
        async with group_on(Broker("redis", url), directory) as group:
            member = await group.join()
            await member.send(*range(50))
            await eventually(lambda: sorted(member.done) == list(range(50)), "all events")

    asyncio.run(scenario())


def test_a_server_that_speaks_tls_with_its_own_certificate(secured: str, tmp_path: Path) -> None:
    """Most managed servers do, and the certificate's path is in the URL."""
    round_trip(secured, tmp_path)


def test_the_first_address_of_a_list_that_answers_is_used(valkey_url: str, tmp_path: Path) -> None:
    """Faust takes several brokers, so a host starts while one of them is down."""
    round_trip(f"redis://127.0.0.1:1/0;{valkey_url}", tmp_path)


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("unix:///run/a.sock", "unix:///run/a.sock"),
        ("unix:///run/a.sock?db=2", "unix:///run/a.sock?db=2"),
        ("redis://:pw@host:1/0?x=1", "redis://:pw@host:1/0?x=1"),
    ],
)
def test_an_address_reaches_the_client_as_it_was_written(url: str, plain: str) -> None:
    """yarl shortens unix:///path."""
    assert address(URL(url)) == plain


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
def test_faust_finds_the_transport_by_the_scheme(scheme: str) -> None:
    """By the entry points: a stranger's app imports nothing of ours."""
    assert TRANSPORTS.by_url(URL(f"{scheme}://x")) is Transport
    assert TRANSPORTS.by_url(URL("kafka+batch://x")) is kafka.Transport
