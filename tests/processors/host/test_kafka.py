"""The same host on Kafka: the views' cursors hold the offsets, so each event ID counts once there too."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from aurastream.projections import View
from aurastream.projections.built_in.trail import Trail
from aurastream.streams import Codec, Server, Stream, StreamUnknown, open_stream
from tests.cluster import free_ports
from tests.facts import observation
from tests.processors.host.test_host import PROGRAMS, page
from tests.servers import ServerProcess, until

pytestmark = [pytest.mark.process, pytest.mark.slow]

PARTITIONS = 4  # what librdkafka's mock cluster gives a topic


class Kafka:
    """librdkafka's mock cluster, with a producer to it."""

    def __init__(self) -> None:
        self.producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock"})
        (self.address,) = {
            str(broker).partition("/")[0] for broker in self.producer.list_topics(timeout=10).brokers.values()
        }

    def produce(self, topic: str, start: int, count: int) -> None:
        for n in range(start, start + count):
            event = observation(views=n, minute=n % 10_000, clip=f"clip-{n % 40}", event_id=f"e{n}")
            self.producer.produce(topic, Codec().encode(event), key=event.subject)
        self.producer.flush(20)


@pytest.fixture(scope="module")
def kafka() -> Kafka:
    return Kafka()


@pytest.fixture
def views(valkey: str) -> Iterator[ServerProcess]:
    process = ServerProcess(valkey)
    yield process
    process.stop()


def start(
    kafka: Kafka, views: ServerProcess, directory: Path, topic: str, port: str = "off"
) -> subprocess.Popen[bytes]:
    environ = {
        **os.environ,
        "AURASTREAM_REDIS_URL": views.url,
        "AURASTREAM_BROKER": f"kafka://{kafka.address}",
        "AURASTREAM_TOPICS": topic,
        "BROKER_SESSION_TIMEOUT": "3",
        "BROKER_HEARTBEAT_INTERVAL": "1",
        "BROKER_REBALANCE_TIMEOUT": "4",
        "AURASTREAM_BATCH_MAX": "100",
    }
    with (directory / "host.log").open("ab") as log:
        command = [PROGRAMS / "aurastream", "run", "--projection", "trail", "--web-port", port]
        return subprocess.Popen(command, env=environ, stdout=log, stderr=log, cwd=directory)


def stream_of(views: ServerProcess, topic: str) -> Stream | None:
    try:
        return open_stream(Server(views.url), topic)
    except StreamUnknown:
        return None


def counts(views: ServerProcess, topic: str) -> tuple[int, int]:
    """Events applied and duplicates found, by the cursors."""
    stream = stream_of(views, topic)
    if stream is None:
        return 0, 0
    cursors = View(stream, Trail()).cursors().values()
    return sum(cursor.applied for cursor in cursors), sum(cursor.duplicates for cursor in cursors)


@pytest.mark.slow
def test_every_event_id_counts_once_through_repeats_and_kill_9(
    kafka: Kafka, views: ServerProcess, tmp_path: Path
) -> None:
    """Kafka's committed offsets may be behind the view, or ahead of it: after a kill the cursor decides where
    reading goes on.
    """
    kafka.produce("clips-once", 0, 3_000)
    kafka.produce("clips-once", 1_000, 500)  # a producer that repeats itself
    host = start(kafka, views, tmp_path, "clips-once")
    try:
        until(lambda: counts(views, "clips-once")[0] > 500, "the first events", 60)
        host.send_signal(signal.SIGKILL)
        host.wait()
        kafka.produce("clips-once", 3_000, 500)
        host = start(kafka, views, tmp_path, "clips-once")
        until(lambda: counts(views, "clips-once") == (3_500, 500), "everything, once", 90)
    finally:
        host.kill()
        host.wait()

    stream = stream_of(views, "clips-once")
    assert stream is not None
    states = View(stream, Trail()).states().rows
    assert stream.partitions == PARTITIONS
    assert sum(state.events for state in states.values()) == 3_500
    assert View(stream, Trail()).state("clip-7").events == len([n for n in range(3_500) if n % 40 == 7])


def test_a_view_that_cannot_advance_is_red_at_its_hosts_fleet_page(
    kafka: Kafka, views: ServerProcess, tmp_path: Path
) -> None:
    """Where the log is in Kafka only this host knows; a restart of it would not help."""
    client = Server(views.url).client
    for partition in range(PARTITIONS):
        client.set(f"aura:{{clips-stuck.{partition}}}:view:trail:1:subjects", "mine")
    kafka.produce("clips-stuck", 0, 100)
    (port,) = free_ports(1)
    host = start(kafka, views, tmp_path, "clips-stuck", str(port))
    try:
        until(lambda: "is a string" in page(port, "/fleet")[1], "the fleet to say so", 60)
        assert (page(port, "/fleet")[0], page(port, "/health")[0]) == (503, 200)
    finally:
        host.kill()
        host.wait()
