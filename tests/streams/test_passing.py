"""What passes events on passes what is stored: a newer producer's fields, the version, the sealed texts."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from zlib import crc32

import msgspec
import pytest

from aurastream.processors.history.lines import LineSink, Writing
from aurastream.processors.history.reading import read_past
from aurastream.processors.history.selection import Selection
from aurastream.processors.history.sinks import Journal, ToStream
from aurastream.streams import (
    BUILT_IN,
    ClipViewsObserved,
    Codec,
    Count,
    Event,
    Outcome,
    PersonalText,
    Server,
    Settings,
    ShortText,
    StoredEvent,
    Stream,
    open_stream,
)
from aurastream.streams.history import History
from tests.facts import NOON, observation

SETTINGS = Settings(partitions=1)


class Sold(Event, frozen=True, kw_only=True, tag="shop.sold"):
    schema_version = 2
    upcasters = {1: lambda content: {**content, "items": content["pieces"]}}  # noqa: RUF012
    items: Count


class Guest(Event, frozen=True, kw_only=True, tag="guest.invited"):
    personal = ("title",)
    title: PersonalText = ""
    creator: ShortText = ""


CODEC = Codec((*BUILT_IN, Sold, Guest))


def newer(event: Event, **fields: object) -> bytes:
    """The event as a newer producer wrote it."""
    return msgspec.json.encode({**json.loads(CODEC.encode(event)), **fields})


def put(stream: Stream, raw: bytes) -> None:
    stream.server.client.xadd(stream.keys[0].log, {"event": raw, "crc32": crc32(raw)})


def jsons(stream: Stream) -> list[bytes]:
    return [fields[1] for _, fields in stream.read_raw(0)]


@pytest.fixture
def source(server: Server) -> Stream:
    """A log with what a newer producer wrote, and with an entry of an older version."""
    stream = open_stream(server, "source", create=True, codec=CODEC, settings=SETTINGS)
    put(stream, newer(observation(event_id="e1"), language="de", tags={"a": [1]}))
    put(
        stream,
        b'{"type":"shop.sold","event_id":"e2","subject":"s","occurred_at":"2026-04-15T12:00:00Z",'
        b'"pieces":3,"colour":"red"}',
    )
    stream.append([observation(event_id="e3", minute=1)])
    return stream


def replayed_into(source: Stream, name: str) -> Stream:
    target = open_stream(source.server, name, create=True, codec=CODEC, settings=SETTINGS, is_replay=True)
    sink = ToStream(target, Journal(source.server, name, "all"))
    for event in read_past([History(source)], Selection()):
        sink.put(event)
    sink.flush()
    return target


def lines_of(source: Stream, form: str) -> list[dict[str, object]]:
    out = io.BytesIO()
    sink = LineSink(out, Writing(form, CODEC, {source.name: source.keyring}))  # type: ignore[arg-type]
    for event in read_past([History(source)], Selection()):
        sink.put(event)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_replay_into_a_stream_passes_the_stored_bytes(source: Stream) -> None:
    """A host that is older than the producer must not cut off what it does not know."""
    target = replayed_into(source, "target")

    assert jsons(target) == jsons(source)
    assert [entry.event.event_id for entry in target.read(0)] == ["e1", "e2", "e3"]


def test_lines_keep_what_a_newer_producer_added(source: Stream) -> None:
    """In today's version, for who has no upcasters, and with the fields that this build does not know."""
    events = [line["event"] for line in lines_of(source, "json")]

    assert events[0] == json.loads(jsons(source)[0])
    assert events[1] == {**json.loads(jsons(source)[1]), "items": 3, "version": 2}
    assert events[2] == json.loads(jsons(source)[2])


def test_cloudevents_keep_them_among_the_data(source: Stream) -> None:
    """As the fields of the type that it has there."""
    first, second, _ = lines_of(source, "cloudevents")

    assert first["data"] == {"views": 100, "language": "de", "tags": {"a": [1]}}
    assert (first["id"], first["time"], first["schemaversion"]) == ("e1", "2026-04-15T12:00:00Z", 1)
    assert (second["data"], second["schemaversion"]) == ({"pieces": 3, "colour": "red", "items": 3}, 2)


def test_sealed_texts_stay_sealed_and_a_plain_one_is_sealed(server: Server) -> None:
    """An erasure must reach what was passed on; nothing else of the bytes is touched."""
    source = open_stream(server, "source", create=True, codec=CODEC, settings=SETTINGS)
    source.append([Guest(event_id="g1", subject="s", occurred_at=NOON, title="Ada", creator="42")])
    put(source, newer(Guest(event_id="g2", subject="s", occurred_at=NOON), title="Eve", creator="7", room=3))

    target = replayed_into(source, "target")

    sealed, plain = map(json.loads, jsons(target))
    assert sealed == json.loads(jsons(source)[0])
    assert plain["title"].startswith("sealed:1:")
    assert plain["creator"] != "7"
    assert {**plain, "title": "Eve", "creator": "7"} == json.loads(jsons(source)[1])
    opened = [target.keyring.open_event(entry.event) for entry in target.read(0)]
    assert [event.title for event in opened if isinstance(event, Guest)] == ["Ada", "Eve"]


def test_what_is_passed_on_twice_is_there_once(source: Stream) -> None:
    """A replay that goes on after a kill repeats its last batch."""
    target = replayed_into(source, "target")
    raw = jsons(source)[0]
    event = CODEC.decode(raw)
    assert isinstance(event, ClipViewsObserved)

    (placed,) = target.append_stored([StoredEvent(raw, event)])

    assert placed.outcome is Outcome.DUPLICATE
    assert len(jsons(target)) == 3
    assert event.occurred_at < datetime.now(UTC)
