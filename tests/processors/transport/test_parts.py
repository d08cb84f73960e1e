"""The transport's parts by themselves: names, entries, lanes, and what its scripts answer."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import msgspec
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from aurastream.processors.transport.entries import content_of, fields_of
from aurastream.processors.transport.errors import TopicNameRefused
from aurastream.processors.transport.lane import Acknowledged, TopicLane
from aurastream.processors.transport.names import stream_of, topic_of
from aurastream.processors.transport.producer import _SEND, SendHead, Sent
from aurastream.streams import Codec, DamagedEntry, Script, Server
from aurastream.streams.keys import NAME, Keys
from aurastream.streams.leases import Claim
from tests.facts import observation

CLAIM = Claim("app", "clips", 0)
KEYS = CLAIM.keys


@pytest.fixture
def client(server: Server) -> redis.Redis:
    return server.client  # type: ignore[return-value]


def call(client: redis.Redis, script: Script, keys: list[str], args: list[Any]) -> Any:
    return client.eval(script.text, len(keys), *keys, *args)


@given(st.text(min_size=1, max_size=4) | st.text("aB_:.-9", min_size=1, max_size=18))
def test_every_topic_has_a_legal_stream_of_its_own(topic: str) -> None:
    """Two topics in one stream would mix their messages."""
    stream = stream_of(topic)
    assert NAME.fullmatch(stream)
    assert topic_of(stream) == topic


@pytest.mark.parametrize(
    "topic", ["clips", "a-b_c.d", "stranger-__assignor-__leader", "quoted.x", "quoted._41", "_x", "Orders"]
)
def test_a_legal_name_is_kept_and_others_come_back(topic: str) -> None:
    """Operators find a topic under the name they know."""
    assert topic_of(stream_of(topic)) == topic
    assert (stream_of(topic) == topic) == (topic in ("clips", "a-b_c.d", "stranger-__assignor-__leader"))


def test_a_name_that_would_be_too_long_is_refused_with_a_sentence() -> None:
    """Cutting it could make two topics one."""
    with pytest.raises(TopicNameRefused, match="Use a shorter name"):
        stream_of("A" * 40)


@given(
    st.none() | st.binary(),
    st.none() | st.binary(),
    st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=3),
    st.integers(1, 2**41),
)
def test_a_message_comes_back_as_it_was_sent(key: Any, value: Any, headers: Any, timestamp_ms: int) -> None:
    """Whatever bytes a stranger's serializer makes."""
    fields = fields_of(key, value, headers, timestamp_ms / 1000)
    content = content_of("clips/0", (b"5-0", fields))
    expected = b"" if value is None and key is None else value  # an entry has at least one field
    assert (content.key, content.value, content.headers or []) == (key, expected, headers)
    assert abs(content.timestamp - timestamp_ms / 1000) < 0.002


def test_headers_that_cannot_be_read_are_damage() -> None:
    """They are named with their place instead of stopping the partition."""
    with pytest.raises(DamagedEntry, match="clips/0/5-0"):
        content_of("clips/0", (b"5-0", [b"headers", b"{"]))


def entries(*numbers: int) -> list[Any]:
    return [(b"%d-0" % number, [b"value", b""]) for number in numbers]


def test_only_the_prefix_that_is_done_is_acknowledged() -> None:
    """Agents finish in any order; a gap that is acknowledged is an event lost in a crash."""
    lane = TopicLane(CLAIM, 1)
    for number in (1, 2, 3, 4):
        lane.hand(entries(number))
    assert lane.passed({0, 1, 3}) == 2
    assert lane.acknowledged.position == "2-0"
    assert lane.passed({3}) is None
    assert lane.passed({2, 3}) == 4


def test_what_is_handed_out_again_is_cut_as_before() -> None:
    """Or the late acknowledgement of a small batch would pass for that of a larger one."""
    lane = TopicLane(CLAIM, 1)
    lane.hand(entries(1, 2))
    lane.hand(entries(3))
    lane.rewind()

    assert lane.reading(1_000)[1][-1] == 2
    lane.hand(entries(1, 2))
    assert lane.reading(1_000)[1][-1] == 1
    lane.hand(entries(3))
    assert lane.reading(1_000)[1][-1] == 1_000


def acknowledge(client: redis.Redis, lane: TopicLane) -> Acknowledged:
    _, command = lane.acknowledging()
    script = Script.every[command[1]]
    return Acknowledged(call(client, script, list(command[3:6]), list(command[6:])))


def test_an_owner_of_the_past_cannot_acknowledge(client: redis.Redis) -> None:
    """It would set the group back, or over what its successor has not handled."""
    lane = TopicLane(CLAIM, 7, "5-0", 3)
    assert acknowledge(client, lane) is Acknowledged.OK
    client.hset(KEYS.lease("app"), "epoch", 8)

    late = TopicLane(CLAIM, 7, "9-0", 5)

    assert acknowledge(client, late) is Acknowledged.FENCED
    assert client.hgetall(KEYS.acked("app")) == {b"position": b"5-0", b"read": b"3", b"epoch": b"7"}


def test_the_servers_group_follows_for_its_tools(client: redis.Redis) -> None:
    """XINFO shows where the app is, and its lag; nothing reads by it."""
    for number in range(5):
        client.xadd(KEYS.log, {"value": number}, f"{number + 1}-0")
    assert acknowledge(client, TopicLane(CLAIM, 1, "3-0", 3)) is Acknowledged.OK
    (group,) = client.xinfo_groups(KEYS.log)
    assert (group["name"], group["last-delivered-id"], group["lag"], group["pending"]) == (
        b"app",
        b"3-0",
        2,
        0,
    )


def test_an_acknowledgement_fails_before_any_write_where_a_key_has_another_type(client: redis.Redis) -> None:
    """Half of it would move the cursor without its epoch."""
    client.set(KEYS.log, "mine")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        acknowledge(client, TopicLane(CLAIM, 1))
    assert not client.exists(KEYS.acked("app"))


def send(client: redis.Redis, sequence: int, *values: str, producer: str = "p") -> list[int]:
    args: list[Any] = [msgspec.msgpack.encode(SendHead(producer, sequence, producers_max=10))]
    for value in values:
        args += [2, "value", value]
    answer: list[int] = call(client, _SEND, [KEYS.log, KEYS.producers, KEYS.meta], args)
    return answer


def test_a_send_that_is_repeated_is_in_the_log_once(client: redis.Redis) -> None:
    """The answer may have been lost, not the write."""
    first = send(client, 1, "a", "b")
    again = send(client, 1, "a", "b")
    following = send(client, 2, "c")

    assert (first[0], again[0]) == (Sent.SENT, Sent.REPEATED)
    assert again[1:] == first[1:]
    assert following[1] == 2
    assert [fields[b"value"] for _, fields in client.xrange(KEYS.log)] == [b"a", b"b", b"c"]
    assert client.hget(KEYS.meta, "appended") == b"3"


def test_producers_are_remembered_within_a_bound(client: redis.Redis) -> None:
    """The silent ones are forgotten first."""
    for number in range(12):
        send(client, 1, "x", producer=f"p{number}")
    assert client.hlen(KEYS.producers) == 10
    client.hset(KEYS.producers, "p5", "1 0 1")

    send(client, 1, "x", producer="new")

    assert not client.hexists(KEYS.producers, "p5")
    assert client.hlen(KEYS.producers) == 10


def test_a_send_fails_before_any_write_where_a_key_has_another_type(client: redis.Redis) -> None:
    """A message without its sequence would be sent twice by the repeat."""
    client.set(KEYS.producers, "mine")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        send(client, 1, "a")
    assert not client.exists(KEYS.log)


def test_our_own_entries_are_legible_to_a_stranger() -> None:
    """key is the subject, value the event's JSON."""
    event = observation(views=3)
    raw = Codec().encode(event)
    content = content_of("clips/0", (b"1700000000000-0", [b"event", raw, b"crc32", b"%d" % crc32(raw)]))
    assert (content.key, content.value, content.timestamp) == (event.subject.encode(), raw, 1_700_000_000.0)
    with pytest.raises(DamagedEntry):
        content_of("clips/0", (b"5-0", [b"event", raw, b"crc32", b"1"]))


def test_keys_of_a_partition_share_its_slot() -> None:
    """A script's keys must lie on one node of a cluster."""
    keys = Keys("clips", 3)
    assert all("{clips.3}" in key for key in (keys.acked("app"), keys.producers))
