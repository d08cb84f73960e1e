"""
Old events read as the newest version on every path: what three builds wrote, each in its own version, is one
history.

An event type at version 3; entries of versions 1 and 2 written by append with those builds' codecs. What each
should be today is written down here by hand, so the upcasters are judged as well as who calls them.
"""

from __future__ import annotations

import asyncio
import copy
import io
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from aurastream.processors.effects import ASKS_MAX, Attempt, Processor
from aurastream.processors.history.lines import LineSink, Writing
from aurastream.processors.history.reading import read_past
from aurastream.processors.history.selection import Selection
from aurastream.processors.history.sinks import Journal, ToStream
from aurastream.processors.host import HostOptions, HostWork, LaneHost, Roster, Sources, run_until_idle
from aurastream.projections import Listing, MemoryView, Projection, Ranking, Totals
from aurastream.projections.engine.check import check
from aurastream.projections.entity import Entities
from aurastream.projections.past import AsOf, Inquiry, PastView, why
from aurastream.projections.rebuild import Decision, Rebuild
from aurastream.streams import (
    OPERATIONS,
    AsyncWires,
    Codec,
    Event,
    Server,
    Settings,
    Stream,
    UpcasterFailed,
    from_cloudevent,
    open_stream,
)
from aurastream.streams.archive import history_of, open_archive
from aurastream.streams.archive.archiver import Archiver
from aurastream.streams.codec import Upcaster
from aurastream.streams.entries import entry_json
from aurastream.streams.retention.trimmer import Goal, Trimmer
from tests.facts import NOON, consume
from tests.invariants import held_by

TAG = "test.read"
COUNT = 60


class First(Event, frozen=True, kw_only=True, tag=TAG):
    """As the first build had it: points, in the text of a display."""

    points: str


class Second(Event, frozen=True, kw_only=True, tag=TAG):
    """A number, under another name."""

    schema_version = 2
    score: int


class Reading(Event, frozen=True, kw_only=True, tag=TAG):
    """Today: with a unit, and never negative."""

    schema_version = 3
    score: Annotated[int, msgspec.Meta(ge=0)]
    unit: str


def number(old: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: value for name, value in old.items() if name != "points"},
        "score": int(old["points"].removesuffix(" points")),
    }


def unit(old: dict[str, Any]) -> dict[str, Any]:
    return {**old, "score": max(0, old["score"]), "unit": "points"}


UPCASTERS: dict[tuple[str, int], Upcaster] = {(TAG, 1): number, (TAG, 2): unit}
TODAY = Codec((Reading,), UPCASTERS)


class Sum(msgspec.Struct, frozen=True):
    score: int
    unit: str


class Sums(Projection[Sum]):
    name = "sums"
    events = (Reading,)
    upcasters = UPCASTERS
    state = Sum
    rankings = (Ranking("most", score="score", by="unit"),)
    totals = (Totals("all", of={"readings": 1, "score": "score"}, by="unit"),)
    listings = (
        Listing(
            "scores", key=lambda event: event.subject, item=lambda before, after, event, position: event.score
        ),
    )

    def apply(self, state: Sum | None, event: Reading) -> Sum:
        return Sum((state.score if state else 0) + event.score, event.unit)


def envelope(n: int) -> dict[str, Any]:
    return {"event_id": f"r{n}", "subject": f"clip-{n % 5}", "occurred_at": NOON + timedelta(minutes=n)}


def as_written(n: int) -> Event:
    """What the build of its day wrote; the three take turns, as in a rolling upgrade."""
    if n % 3 == 0:
        return First(**envelope(n), points=f"{n} points")
    if n % 3 == 1:
        return Second(**envelope(n), score=-n if n % 2 else n)
    return Reading(**envelope(n), score=n, unit="stars")


def as_of_today(n: int) -> Reading:
    """The same fact today, said by hand. Version 2 allowed negative scores, which mean none."""
    if n % 3 == 0:
        return Reading(**envelope(n), version=3, score=n, unit="points")
    if n % 3 == 1:
        return Reading(**envelope(n), version=3, score=0 if n % 2 else n, unit="points")
    return Reading(**envelope(n), version=3, score=n, unit="stars")


EXPECTED = [as_of_today(n) for n in range(COUNT)]


@pytest.fixture
def readings(server: Server, tmp_path: Path) -> Iterator[Stream]:
    """The log that the three builds wrote."""
    settings = Settings(partitions=1, archive=str(tmp_path / "archive"))
    builds = {
        kind: Codec((kind,), UPCASTERS if kind is not First else {}) for kind in (First, Second, Reading)
    }
    for n in range(COUNT):
        event = as_written(n)
        stream = open_stream(
            server, "readings", create=True, versioned=True, codec=builds[type(event)], settings=settings
        )
        stream.append([event])
        stream.close()
    stream = open_stream(server, "readings", codec=TODAY, settings=settings)
    yield stream
    stream.close()


def archive_all(stream: Stream, *, keep: int | None = None) -> None:
    """Into the archive; then all but the last `keep` entries go from the log."""
    operations = open_stream(stream.server, OPERATIONS, create=True, settings=Settings(partitions=1))
    archive = open_archive(stream.settings, stream)
    assert archive is not None
    list(Archiver(archive, operations).run(0))
    if keep is not None:
        assert [done.blockers for done in Trimmer(stream, operations, Goal(keep_events=keep)).run()] == [[]]
        assert stream.server.client.xlen(stream.keys[0].log) == keep


def plain(tables: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Comparable: texts and numbers."""
    made: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        if table:
            made[name] = {
                key: value.decode() if isinstance(value, bytes) else float(value)
                for key, value in table.items()
            }
    return made


def wanted(events: list[Reading] | None = None) -> dict[str, dict[str, Any]]:
    """The view of the events as they are today: no old entry, no upcaster."""
    view = MemoryView(Sums())
    view.take(EXPECTED if events is None else events)
    return plain(view.tables)


def stored(stream: Stream, generation: int = 1) -> dict[str, dict[str, Any]]:
    """The view in the server."""
    held = held_by(stream.server.client, stream.name, 0)
    prefix = f"view:sums:{generation}:"
    every = {**held.hashes, **held.rankings}
    return plain(
        {
            name.removeprefix(prefix): {k.decode(): v for k, v in rows.items()}
            for name, rows in every.items()
            if name.startswith(prefix)
        }
    )


def told(stream: Stream) -> list[Any]:
    return [
        item
        for result in check(stream, [Sums()], history=history_of(stream))
        for item in (*result.complaints, *result.differences)
    ]


def test_the_log_holds_all_three_versions(readings: Stream) -> None:
    """Or the tests below would test nothing."""
    contents = [msgspec.json.decode(entry_json("", fields)) for _, fields in readings.read_raw(0)]
    assert [
        (content.get("version", 1), "points" in content, "unit" in content) for content in contents[:3]
    ] == [(1, True, False), (2, False, False), (3, False, True)]


def test_upcasters_are_pure(readings: Stream) -> None:
    """The log keeps the old form for ever: it is read many times, and must read alike each time."""
    for _, fields in readings.read_raw(0):
        content = msgspec.json.decode(entry_json("", fields))
        for version in range(content.get("version", 1), 3):
            before = copy.deepcopy(content)
            assert UPCASTERS[TAG, version](content) == UPCASTERS[TAG, version](content)
            assert content == before
            content = UPCASTERS[TAG, version](content)


def test_a_read_gives_todays_form(readings: Stream) -> None:
    """Code knows one form of an event, today's."""
    assert [entry.event for entry in readings.read(0)] == EXPECTED
    ever = readings.read_between(0, NOON - timedelta(days=9_999), NOON + timedelta(days=9_999))
    assert [entry.event for entry in ever] == EXPECTED


def test_a_live_view_folds_todays_form_in_any_batches(readings: Stream) -> None:
    """Old and new events come in one batch after a rollout."""
    for batch_max in (1, 7, 2_000):
        consume(readings.server, readings, Sums(), batch_max=batch_max)
        assert stored(readings) == wanted()
        assert told(readings) == []
        for key in readings.server.client.scan_iter("aura:{readings.0}:*:sums*"):
            readings.server.client.delete(key)


def test_a_fold_in_memory_and_the_history_give_todays_form(readings: Stream) -> None:
    """Checks and the past must fold what the live view folded."""
    archive_all(readings, keep=20)
    view, events = MemoryView(Sums()), []
    for span in history_of(readings).spans(0):
        view.fold(view.decode(span.raw, span.duplicates))
        events += [TODAY.decode(entry_json("", fields)) for _, fields in span.raw]

    assert events == EXPECTED
    assert plain(view.tables) == wanted()


def test_check_and_a_rebuild_from_the_archive_give_the_same_view(readings: Stream) -> None:
    """The archive holds the oldest forms of all."""
    consume(readings.server, readings, Sums())
    archive_all(readings, keep=10)
    assert told(readings) == []

    with Rebuild(history_of(readings), Sums(), Decision("ada@host")) as work:
        work.begin()
        assert work.build()
        compared = work.compare()
        assert compared is not None
        assert [item.differing for item in compared] == [0]
        assert work.swap(60_000) is not None

    assert stored(readings, 2) == stored(readings, 1) == wanted()
    assert told(readings) == []


@pytest.mark.parametrize("is_archived", [False, True])
def test_a_view_as_of_a_time_is_the_fold_of_todays_forms_until_then(
    readings: Stream, is_archived: bool
) -> None:
    """The past is told in words that today's code knows."""
    if is_archived:
        archive_all(readings, keep=5)
    for minute in (0, 1, 29, COUNT):
        view = PastView(history_of(readings), Sums(), AsOf(NOON + timedelta(minutes=minute)))
        for clip in range(5):
            view.state(f"clip-{clip}")
        assert plain(view.pasts[0].view.tables) == wanted(EXPECTED[: minute + 1])


def test_why_explains_a_number_by_todays_forms(readings: Stream) -> None:
    """A number is explained to people who have never seen the old form."""
    consume(readings.server, readings, Sums())
    archive_all(readings, keep=10)

    answer = why(Inquiry(history_of(readings), Sums(), "clip-3"))

    scores = [event.score for event in EXPECTED if event.subject == "clip-3"]
    assert answer.agrees
    assert [step.event_id for step in answer.steps] == [
        event.event_id for event in EXPECTED if event.subject == "clip-3"
    ]
    assert answer.value["score"] == sum(scores)


def test_an_entity_is_decided_on_in_todays_form(readings: Stream) -> None:
    """A decision by a field that old events do not have must see its upcast value."""
    archive_all(readings, keep=10)
    loaded = Entities(readings, Sums()).load("clip-3")
    assert (loaded.state.score, loaded.version) == (
        sum(event.score for event in EXPECTED if event.subject == "clip-3"),
        COUNT // 5,
    )


class Noted(Event, frozen=True, kw_only=True, tag="test.noted"):
    """What the handler made of it."""

    score: int


class Noting(Processor):
    """Keeps what it was handed."""

    name = "noting"
    start = "beginning"
    events = (Reading,)
    upcasters = UPCASTERS
    into = "notes"

    def __init__(self) -> None:
        self.handed: list[Event] = []

    async def handle(self, event: Reading, attempt: Attempt) -> list[Event]:
        self.handed.append(event)
        return [attempt.derive(Noted, score=event.score)]


def test_a_handler_is_given_todays_form(readings: Stream) -> None:
    """An effect is written once, for one form."""
    noting, codec = Noting(), Codec((Reading, Noted), UPCASTERS)

    async def run() -> None:
        sources = Sources(readings.server, codec, readings.settings, [])
        roster = Roster(readings.server, sources, HostWork([], [noting], (readings.name,)))
        host = LaneHost(AsyncWires(readings.server, ASKS_MAX), roster, HostOptions("until-idle", 200))
        await asyncio.wait_for(run_until_idle(host, lambda: False), 30)

    asyncio.run(run())

    assert sorted(noting.handed, key=lambda event: event.occurred_at) == EXPECTED
    notes = open_stream(readings.server, "notes", codec=codec).read(0)
    assert sorted(entry.event.score for entry in notes) == sorted(event.score for event in EXPECTED)


@pytest.mark.parametrize("form", ["json", "cloudevents"])
def test_a_replay_writes_todays_form(readings: Stream, form: Any) -> None:
    """Whoever receives a replay has no upcasters of ours."""
    archive_all(readings, keep=10)
    file = io.BytesIO()
    sink = LineSink(file, Writing(form, TODAY, {"readings": readings.keyring}))
    for found in read_past([history_of(readings)], Selection()):
        sink.put(found)

    lines = [msgspec.json.decode(line) for line in file.getvalue().splitlines()]
    if form == "json":
        events = [TODAY.decode(msgspec.json.encode(line["event"])) for line in lines]
        assert [line["event"]["version"] for line in lines] == [3] * COUNT, "nobody outside has our upcasters"
    else:
        from aurastream.streams.cloudevents import PLACE

        events = [
            from_cloudevent({name: value for name, value in line.items() if name != PLACE}, TODAY)
            for line in lines
        ]
    assert [msgspec.structs.replace(event, source="") for event in events] == EXPECTED


def test_a_replay_into_a_stream_gives_the_same_view_there(readings: Stream) -> None:
    """A copy of the log is worth as much as the log."""
    archive_all(readings, keep=10)
    target = open_stream(
        readings.server, "sandbox", create=True, codec=TODAY, settings=readings.settings, is_replay=True
    )
    sink = ToStream(target, Journal(readings.server, "sandbox", "all"))
    for found in read_past([history_of(readings)], Selection()):
        sink.put(found)
    sink.flush()

    consume(readings.server, target, Sums())

    assert [entry.event for entry in target.read(0)] == EXPECTED
    assert stored(target) == wanted()


def test_a_lane_waits_at_an_event_that_its_upcaster_cannot_read(
    readings: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is wrong with the event, and a better build reads it: all before it is in the view, nothing
    after it, and nothing is set aside.
    """
    stream = open_stream(readings.server, "readings", codec=Codec((First,)), settings=readings.settings)
    stream.append([First(event_id="odd", subject="clip-1", occurred_at=NOON, points="many points")])
    stream.append([First(event_id="next", subject="clip-1", occurred_at=NOON, points="5 points")])

    for _ in range(2):
        with pytest.raises(UpcasterFailed, match=r"'odd' at readings/0/.*from version 1 \(ValueError") as met:
            consume(readings.server, readings, Sums())
    assert stored(readings) == wanted()
    assert told(readings) == []
    assert readings.server.client.hvals(readings.keys[0].dead("sums")) == []
    assert met.value.position == readings.read_raw(0)[COUNT][0].decode()
    with pytest.raises(UpcasterFailed):
        readings.read(0)

    def mended(old: dict[str, Any]) -> dict[str, Any]:
        return number({**old, "points": old["points"].replace("many", "1000")})

    monkeypatch.setitem(UPCASTERS, (TAG, 1), mended)
    consume(readings.server, readings, Sums())

    extra = [
        Reading(**{**envelope(1), "event_id": name}, version=3, score=score, unit="points")
        for name, score in (("odd", 1000), ("next", 5))
    ]
    assert stored(readings) == wanted([*EXPECTED, *extra])
    assert told(readings) == []
