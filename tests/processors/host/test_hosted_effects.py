"""Processors in the host: derived events once through kill -9, dead letters that others do not wait for."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from aurastream.processors import NotConfigured
from aurastream.streams import Server, Settings, Stream
from tests.facts import observation
from tests.processors.host.test_host import Start, live, start  # noqa: F401 - fixtures
from tests.servers import until

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.any_server]

PLUGIN = """
from aurastream.processors.effects import Processor
from aurastream.streams import ClipViewsObserved, Event

class NoticeSent(Event, frozen=True, kw_only=True, tag="notice.sent"):
    views: int

class Notices(Processor):
    name = "notices"
    start = "beginning"
    events = (ClipViewsObserved,)
    streams = ("clips-live",)
    into = "notices"
    attempts_max = 2
    first_s = 0.01

    async def handle(self, event, attempt):
        if event.subject == "clip-7":
            raise RuntimeError("the platform says no")
        return [attempt.derive(NoticeSent, views=event.views)]
"""


def notices(server: Server) -> list[str]:
    """The subjects of the derived events, in no order."""
    keys = server.client.keys("aura:{notices.*}:log")
    return [
        json.loads(fields[b"event"])["subject"] for key in keys for _, fields in server.client.xrange(key)
    ]


@pytest.mark.slow
def test_derived_events_are_there_once_and_a_poison_subject_waits_alone(
    start: Start,  # noqa: F811
    server: Server,
    live: Stream,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The promises of processors hold in a host that is killed at will."""
    (tmp_path / "notices.py").write_text(PLUGIN)
    live.append([observation(views=n, minute=n, clip=f"clip-{n % 10}") for n in range(200)])
    command = ("aurastream", "--app", "notices", "run", "--web-port", "PORT")
    killed = start(*command)
    until(lambda: len(notices(server)) > 20, "the first notices")
    killed.process.send_signal(signal.SIGKILL)
    killed.process.wait()

    host = start(*command)
    live.append([observation(views=n, minute=n, clip=f"clip-{n % 10}") for n in range(200, 260)])
    until(lambda: len(notices(server)) >= 234, "all notices but those of clip-7")

    found = notices(server)
    assert sorted(set(found)) == [f"clip-{n}" for n in range(10) if n != 7]
    assert [found.count(f"clip-{n}") for n in range(10)] == [26] * 7 + [0] + [26] * 2
    until(lambda: "aurastream_dead_letters 26.0" in host.page("/metrics")[1], "one parked, 25 behind it")
    assert host.page("/health")[0] == 200, "a dead letter is no sickness of the host"
    assert host.stop() == 0


def test_a_host_on_kafka_needs_to_be_told_its_topics(tmp_path: Path) -> None:
    """A broker without topics would consume nothing, and say nothing."""
    from aurastream.processors.host.options import Options, kafka_topics_of

    with pytest.raises(NotConfigured, match="AURASTREAM_TOPICS"):
        kafka_topics_of(Settings(broker="kafka://localhost:9092"), Options())
    assert kafka_topics_of(Settings(broker="kafka://localhost:9092", topics="a, b"), Options()) == ("a", "b")
