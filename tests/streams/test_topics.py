"""Topics of Faust apps and streams of events in one registry: which is which, and who decides."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from aurastream.processors.effects import Processor
from aurastream.projections import check
from aurastream.projections.built_in.clips import Clips
from aurastream.projections.built_in.trail import Trail
from aurastream.streams import Server, Stream, event_streams, list_streams, open_stream
from aurastream.streams.keys import STREAMS
from tests.facts import consume, observation


class OfTopics(Trail):
    """Names a topic."""

    name = "of-topics"
    streams: ClassVar[tuple[str, ...] | None] = ("orders",)


def made(server: Server, name: str = "orders") -> Stream:
    """As the transport makes it."""
    return open_stream(server, name, create=True, is_topic=True, partitions=2)


def forget_marks(server: Server) -> None:
    """Rows as an older build wrote them."""
    rows: Any = server.client.hgetall(STREAMS)
    for name, row in rows.items():
        facts = msgspec.json.decode(row)
        del facts["is_topic"]
        server.client.hset(STREAMS, name, msgspec.json.encode(facts))


def message(server: Server, stream: Stream, partition: int = 0) -> None:
    """As send.lua leaves it: an entry that is no event, and the sender's place."""
    server.client.xadd(stream.keys[partition].log, {"value": b"{}"})
    server.client.hset(stream.keys[partition].producers, "p1", "1 0 1764417600000")
    server.client.hincrby(stream.keys[partition].meta, "appended", 1)


def test_a_topic_is_marked_when_it_is_made(server: Server) -> None:
    """Every process must judge alike, also one that comes before the first message."""
    made(server)
    open_stream(server, "clips", create=True)

    assert {name: facts.is_topic for name, facts in list_streams(server).items()} == {
        "clips": False,
        "orders": True,
    }
    assert event_streams(server) == ["clips"]
    assert open_stream(server, "orders", create=True).is_topic


def test_a_topic_of_an_older_build_is_known_by_its_keys(url: str, server: Server) -> None:
    """Nobody migrates: what was only ever sent to is a topic; what events were appended to is none, though a
    stranger's app sent to it as well.
    """
    message(server, made(server), partition=1)
    both, plain = made(server, "both"), open_stream(server, "clips", create=True, partitions=2)
    message(server, both)
    both.append([observation()])
    plain.append([observation()])
    made(server, "empty")
    forget_marks(server)

    other = Server(url)
    assert event_streams(other) == ["both", "clips", "empty"]
    assert open_stream(other, "orders").is_topic
    message(other, open_stream(other, "empty"))
    assert event_streams(other) == ["both", "clips"], "what was empty is looked at again"
    other.close()


def test_a_topic_that_nothing_was_sent_to_becomes_a_stream_of_events(server: Server) -> None:
    """An app may subscribe before the first producer of events comes: who is first must not matter."""
    topic = made(server, "clips")
    open_stream(server, "clips", create=True)
    assert event_streams(server) == [], "to open it is not to append to it"

    topic.append([observation()])

    assert event_streams(server) == ["clips"]
    assert not topic.is_topic
    message(server, made(server))
    open_stream(server, "orders", create=True).append([observation()])
    assert event_streams(server) == ["clips"], "messages stay what they are"


def test_a_view_is_of_a_topic_only_where_one_is_named(server: Server) -> None:
    """By the view's own streams, or by the person who names it."""
    message(server, made(server))
    topic = open_stream(server, "orders")

    consume(server, topic, Clips(), Trail())
    assert server.client.keys("aura:*cursor:*") == []
    assert list(check(topic, [Clips()])) == []

    consume(server, topic, OfTopics())
    assert server.client.hlen(topic.keys[0].dead("of-topics")) == 1
    consume(server, topic.as_events(), Clips())
    assert server.client.hlen(topic.keys[0].dead("clips")) == 1


def test_a_processor_handles_a_topic_only_where_it_is_named(server: Server) -> None:
    """A mail for every message that happens to decode would be a surprise."""

    class Mailer(Processor):
        name = "mailer"
        start = "beginning"

    class OfOrders(Mailer):
        streams = ("orders",)

    topic = made(server)

    assert (Mailer().handles(topic), OfOrders().handles(topic)) == (False, True)
    assert Mailer().handles(topic.as_events())
