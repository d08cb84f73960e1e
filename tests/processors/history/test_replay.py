"""Replay: events of the past again, in order, each once, whatever stops it; and nothing outside happens
because of it.
"""

from __future__ import annotations

import io
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aurastream.processors import Stop, stopping_by_signal
from aurastream.processors.history.ends import EntryPlace, after_place, parsed_places, place_text
from aurastream.processors.history.lines import LineSink, Writing, resume_file
from aurastream.processors.history.reading import read_past
from aurastream.processors.history.replay import Speed, Tempo, parsed_speed, replay
from aurastream.processors.history.selection import By, PastEvent, Selection, Tally
from aurastream.processors.history.sinks import CannotReplay, Journal, ToStream
from aurastream.processors.history.trails import Trails
from aurastream.projections import View
from aurastream.projections.built_in.clips import Clips
from aurastream.projections.built_in.trail import Trail
from aurastream.streams import (
    OPERATIONS,
    ClipViewsObserved,
    Codec,
    History,
    Position,
    Server,
    Settings,
    Stream,
    open_stream,
)
from aurastream.streams.entries import Envelope
from aurastream.streams.errors import ArchiveNeeded
from aurastream.streams.personal.erasure import erase
from tests.cluster import Cluster
from tests.facts import NOON, consume, findings, observation, raw_append
from tests.faults.proxy import PASS, Interceptor
from tests.processors.effects.outside import Noting, opened, work
from tests.servers import binaries, until
from tests.streams.archive.kept import Kept


def fill(stream: Stream, count: int, first: int = 0) -> list[ClipViewsObserved]:
    """Events a second apart, of seven clips, every third with a story."""
    events = [
        observation(
            n,
            minute=n / 60,
            clip=f"clip-{n % 7}",
            event_id=f"e{n}",
            correlation_id=f"s{n // 3}" if n % 3 else "",
        )
        for n in range(first, first + count)
    ]
    stream.append(events)
    return events


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def histories(*streams: Stream) -> list[History]:
    return [History(stream) for stream in streams]


@pytest.fixture
def wide(server: Server) -> Iterator[Stream]:
    """A stream of four partitions."""
    stream = open_stream(server, "wide", create=True, settings=Settings(partitions=4))
    yield stream
    stream.close()


# What is read.


def test_events_come_in_the_order_of_their_positions_over_partitions_and_streams(
    server: Server, stream: Stream, wide: Stream
) -> None:
    """One story, as it was appended, though a log is many logs."""
    for n in range(0, 300, 3):
        fill(wide, 2, n)
        fill(stream, 1, n + 2)

    read = list(read_past(histories(stream, wide), Selection()))

    everywhere = [
        (Position.parse(entry.position), s.name, p)
        for s in (stream, wide)
        for p in range(s.partitions)
        for entry in s.read(p)
    ]
    assert [(Position.parse(found.position), found.stream, found.partition) for found in read] == sorted(
        everywhere
    )
    assert sorted(found.envelope.event_id for found in read) == sorted(f"e{n}" for n in range(300))


def test_an_event_id_comes_once_and_what_is_no_event_is_counted(server: Server, stream: Stream) -> None:
    """A raw XADD may repeat an event, known to the index or not, and may write nonsense."""
    event, other = fill(stream, 2)
    raw_append(server, stream, event)
    unknown = observation(event_id="raw")
    first = raw_append(server, stream, unknown)
    fill(stream, 2_500, 10)  # more than a span in between
    raw_append(server, stream, unknown)
    server.client.xadd(stream.keys[0].log, {"event": b"{}", "crc32": 1})
    tally = Tally()

    read = list(read_past(histories(stream), Selection(), tally=tally))

    ids = [found.envelope.event_id for found in read]
    assert ids == ["e0", "e1", "raw", *[f"e{n}" for n in range(10, 2_510)]]
    assert (read[2].position, other.event_id) == (first, "e1")
    assert (tally.duplicates, tally.damaged, tally.scanned) == (2, 1, len(ids) + 3)


def test_a_selection_is_what_a_plain_filter_gives(server: Server, stream: Stream, wide: Stream) -> None:
    """Whatever is asked together, against the obvious loop; the trail has read all, a part or nothing."""
    seed = int(os.environ.get("AURASTREAM_TEST_SEED", random.randrange(10**6)))
    print(f"seed {seed}")
    dice = random.Random(seed)
    for part in range(3):
        fill(wide, 200, part * 300)
        fill(stream, 100, part * 300 + 200)
        if part == 1:
            consume(server, wide, Trail())
    everything = list(read_past(histories(stream, wide), Selection()))
    clocks = [Position.parse(found.position).ms for found in everything]
    for _ in range(40):
        by: By = dice.choice(("occurred", "appended"))
        moments = [NOON + timedelta(seconds=dice.randrange(-5, 905)) for _ in range(2)]
        if by == "appended":
            moments = [datetime.fromtimestamp(dice.choice(clocks) / 1000, UTC) for _ in range(2)]
        chosen = Selection(
            since=min(moments) if dice.random() < 0.5 else None,
            until=max(moments) if dice.random() < 0.5 else None,
            by=by,
            types=frozenset({"clip.views_observed"}) if dice.random() < 0.3 else frozenset(),
            subjects=frozenset(f"clip-{dice.randrange(8)}" for _ in range(dice.randrange(3))),
            correlations=frozenset(
                dice.choice((f"s{dice.randrange(300)}", f"e{dice.randrange(900)}"))
                for _ in range(dice.randrange(3))
            ),
        )

        read = list(read_past(histories(stream, wide), chosen))

        assert read == [found for found in everything if plainly_fits(found, chosen)], chosen.in_words()


def plainly_fits(found: PastEvent, chosen: Selection) -> bool:
    event = json.loads(found.raw)
    at = datetime.fromisoformat(event["occurred_at"])
    if chosen.by == "appended":
        at = datetime.fromtimestamp(Position.parse(found.position).ms / 1000, UTC)
    if (
        chosen.correlations
        and not {event.get("correlation_id", event["event_id"]), event["event_id"]} & chosen.correlations
    ):
        return False
    return (
        (chosen.since is None or at >= chosen.since)
        and (chosen.until is None or at <= chosen.until)
        and (not chosen.types or event["type"] in chosen.types)
        and (not chosen.subjects or event["subject"] in chosen.subjects)
    )


def test_both_ends_of_a_time_belong_to_it(stream: Stream) -> None:
    """--to T holds what a view as of T holds."""
    fill(stream, 10)
    chosen = Selection(since=NOON + timedelta(seconds=3), until=NOON + timedelta(seconds=5))
    assert [found.envelope.event_id for found in read_past(histories(stream), chosen)] == ["e3", "e4", "e5"]


def test_a_subject_is_read_by_the_trail_and_not_by_reading_everything(server: Server, wide: Stream) -> None:
    """In a long log that is the difference between a moment and minutes."""
    fill(wide, 3_000)
    wide.append([observation(minute=60 + n, clip="rare", event_id=f"r{n}") for n in range(3)])
    consume(server, wide, Trail())
    wide.append([observation(minute=70, clip="rare", event_id="late")])
    tally = Tally()

    read = list(read_past(histories(wide), Selection(subjects=frozenset({"rare"})), tally=tally))

    assert [found.envelope.event_id for found in read] == ["r0", "r1", "r2", "late"]
    assert tally.scanned == 4


def test_reading_ends_where_the_log_ended_when_it_began(stream: Stream) -> None:
    """Else a replay into a stream that is read again would never end."""
    fill(stream, 5)
    reading = read_past(histories(stream), Selection())
    first = next(iter(reading))
    fill(stream, 5, 100)
    assert [first.envelope.event_id, *[found.envelope.event_id for found in reading]] == [
        f"e{n}" for n in range(5)
    ]


def test_a_past_that_was_archived_and_trimmed_is_read_without_a_seam(server: Server, tmp_path: Path) -> None:
    """The same events, by every kind of question, wherever the trimmer has come to; without the archive it is
    an error, no gap.
    """
    kept = Kept(server, tmp_path / "archive")
    fill(kept.stream, 700)
    raw_append(server, kept.stream, observation(event_id="e5"))  # a duplicate the archive must remember
    fill(kept.stream, 300, 700)
    consume(server, kept.stream, Trail())
    questions = [
        Selection(),
        Selection(subjects=frozenset({"clip-3"})),
        Selection(types=frozenset({"clip.views_observed"}), until=NOON + timedelta(seconds=650)),
        Selection(correlations=frozenset({"s100", "e30"})),
        Selection(since=NOON + timedelta(seconds=400), until=NOON + timedelta(seconds=900)),
        Selection(by="appended", until=datetime.now(UTC) + timedelta(hours=1)),
    ]
    before = [list(read_past(histories(kept.stream), question)) for question in questions]
    log = [position.decode() for position, _ in kept.log()]
    kept.close_segments(until=log[799])

    for trimmed in (0, 300, 799):
        if trimmed:
            kept.trim(log[trimmed])
        for question, expected in zip(questions, before, strict=True):
            assert list(read_past([kept.history()], question)) == expected, (trimmed, question.in_words())
        middle = before[0][350]
        assert (
            list(read_past([kept.history()], Selection(), after={(middle.stream, 0): middle.position}))
            == before[0][351:]
        )
    with pytest.raises(ArchiveNeeded, match="trimmed"):
        list(read_past(histories(kept.stream), Selection()))

    kept.close_segments()
    kept.trim(log[-1])  # to nothing
    assert list(read_past([kept.history()], Selection())) == before[0]
    with pytest.raises(ArchiveNeeded, match="trimmed"):
        list(read_past(histories(kept.stream), Selection()))


def test_what_the_archive_knows_of_its_columns_is_not_read(server: Server, tmp_path: Path) -> None:
    """A day of a year is read from that day's segments."""
    kept = Kept(server, tmp_path / "archive")
    for hour in range(5):
        kept.stream.append(
            [observation(n, minute=60 * hour + n % 60, event_id=f"h{hour}-{n}") for n in range(300)]
        )
        kept.close_segments()
    tally = Tally()
    chosen = Selection(since=NOON + timedelta(hours=2), until=NOON + timedelta(hours=2, minutes=59))

    read = list(read_past([kept.history()], chosen, tally=tally))

    assert [found.envelope.event_id for found in read] == [f"h2-{n}" for n in range(300)]
    assert tally.scanned == 300


# The pace.


def event_at(seconds: float, position: str = "0-1") -> PastEvent:
    at = NOON + timedelta(seconds=seconds)
    return PastEvent("s", 0, position, Envelope(event_id="e", type="t", subject="c", occurred_at=at), b"{}")


def test_gaps_between_events_are_divided_by_the_speed_and_time_that_goes_back_costs_nothing() -> None:
    """Late events are common; each would else stop the replay for the time it is late."""
    now = [100.0]
    pace = Tempo(10.0, clock=lambda: now[0])
    waits = []
    for seconds in (0, 10, 5, 20, 20, 15, 30):
        waits.append(pace.wait_s(event_at(seconds)))
        now[0] += max(0.0, waits[-1])
    assert waits == pytest.approx([0, 1, 0, 1, 0, 0, 1])


def test_a_sink_that_was_slow_is_caught_up_with() -> None:
    """The schedule is absolute: a second lost in writing is not waited for again."""
    now = [0.0]
    pace = Tempo(1.0, clock=lambda: now[0])
    pace.wait_s(event_at(0))
    now[0] = 7.0
    assert pace.wait_s(event_at(5)) == pytest.approx(-2)
    assert pace.wait_s(event_at(10)) == pytest.approx(3)


def test_paced_by_the_positions_clock_event_time_does_not_matter() -> None:
    """Who replays an outage wants its pace, not the facts' own."""
    pace = Tempo(2.0, "appended", clock=lambda: 0.0)
    assert [pace.wait_s(event_at(0, at)) for at in ("1000-0", "3000-0", "2000-0", "5000-0")] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("text", "speed"),
    [("1x", Speed(1)), ("0.5x", Speed(0.5)), ("max", Speed()), ("step", Speed(is_step=True))],
)
def test_speeds(text: str, speed: Speed) -> None:
    """The words of --speed, each with one meaning."""
    assert parsed_speed(text) == speed


@pytest.mark.parametrize("text", ["0x", "-1x", "10", "x", "nanx", "infx", "fast", ""])
def test_what_is_no_speed_is_told(text: str) -> None:
    """An infinite or negative speed would hang or run backwards."""
    with pytest.raises(ValueError, match="is no speed"):
        parsed_speed(text)


class Holding:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.held: list[PastEvent] = []
        self.flushed = 0

    def put(self, event: PastEvent) -> None:
        self.held.append(event)

    def flush(self) -> None:
        self.flushed = len(self.held)


def test_a_signal_ends_the_wait_for_the_next_event() -> None:
    """It would last a year."""
    sink = Holding()
    with stopping_by_signal() as stop:
        events = iter([event_at(0), event_at(3.15e7)])

        def raised() -> Iterator[PastEvent]:
            yield next(events)
            os.kill(os.getpid(), signal.SIGTERM)
            yield next(events)

        began = time.monotonic()
        replay(raised(), sink, Speed(1.0), stop, step=lambda event: None)
    assert (len(sink.held), sink.flushed, stop.was_asked) == (1, 1, True)
    assert time.monotonic() - began < 5


def test_a_second_signal_does_not_wait_for_what_is_under_way() -> None:
    """Somebody who presses Ctrl-C twice means it."""
    with stopping_by_signal():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


# Into a stream: in this process.


def replayed_into(server: Server, name: str, *sources: Stream, selection: Selection | None = None) -> Stream:
    target = open_stream(server, name, create=True, settings=Settings(partitions=4), is_replay=True)
    chosen = selection or Selection()
    journal = Journal(server, name, chosen.in_words())
    sink = ToStream(target, journal)
    stop = Stop()
    try:
        replay(
            read_past(histories(*sources), chosen, after=journal.after),
            sink,
            Speed(),
            stop,
            step=lambda event: None,
        )
    finally:
        stop.close()
    return target


def test_a_replayed_stream_has_the_events_under_their_ids_in_their_order_however_often(
    server: Server, wide: Stream
) -> None:
    """A replay that is repeated must add nothing, or what folds it counts twice."""
    events = fill(wide, 1_200)
    target = replayed_into(server, "replay.wide", wide)
    once = [[entry.event for entry in target.read(p, count=5_000)] for p in range(4)]
    server.client.delete("aura:replays")
    replayed_into(server, "replay.wide", wide)

    assert once == [[entry.event for entry in wide.read(p, count=5_000)] for p in range(4)]
    assert sum(server.client.xlen(keys.log) for keys in target.keys) == len(events)
    consume(server, target, Clips(), Trail())
    consume(server, wide, Clips(), Trail())
    assert View(target, Clips()).states().rows == View(wide, Clips()).states().rows
    assert findings(target, Clips(), Trail()) == []


@pytest.mark.parametrize("is_before", [True, False])
@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.slow
def test_a_process_that_ends_between_a_batch_and_its_row_loses_and_doubles_nothing(
    server: Server, wide: Stream, monkeypatch: pytest.MonkeyPatch, number: int, is_before: bool
) -> None:
    """is_before: the batch is in the target, the row does not know it. Else the row knows, and the process
    ends after it.
    """
    fill(wide, 1_800)
    left = [number]
    save = Journal.save

    def ends(journal: Journal, batch: list[PastEvent]) -> None:
        left[0] -= 1
        if left[0] == 0 and is_before:
            raise SystemExit
        save(journal, batch)
        if left[0] == 0:
            raise SystemExit

    monkeypatch.setattr(Journal, "save", ends)
    with pytest.raises(SystemExit):
        replayed_into(server, "replay.wide", wide)
    so_far = sum(server.client.xlen(f"aura:{{replay.wide.{p}}}:log") for p in range(4))
    target = replayed_into(server, "replay.wide", wide)

    assert so_far == min(1_800, 500 * number)
    assert [[entry.event for entry in target.read(p, count=5_000)] for p in range(4)] == [
        [entry.event for entry in wide.read(p, count=5_000)] for p in range(4)
    ]
    journal = Journal(server, "replay.wide", Selection().in_words())
    assert journal.row.events == {"wide": 1_800}
    assert journal.after == {
        ("wide", p): entries[-1].position for p in range(4) if (entries := wide.read(p, count=5_000))
    }


def test_effects_stay_silent(server: Server) -> None:
    """A replay shows what happened; it must not make it happen again. Live events still do."""
    source = opened(server)
    events = fill(source, 50)
    target = replayed_into(server, "replay.silent", source)
    everywhere = Noting()
    everywhere.name, everywhere.is_silent_in_replay = "everywhere", False  # type: ignore[misc]
    silent = Noting()

    work(server, silent, everywhere, streams=lambda: [target])
    assert (silent.calls, len(everywhere.calls)) == ([], len(events))

    work(server, silent, streams=lambda: [target, source])
    assert silent.handled == [event.event_id for event in events]


def test_personal_fields_stay_sealed_on_the_way_into_a_stream_and_erased_ones_erased(
    server: Server, stream: Stream
) -> None:
    """The stored bytes move; only who shows them opens them."""
    seen = [
        observation(n, minute=n, event_id=f"p{n}", title="a title", channel="a channel", creator="person")
        for n in range(3)
    ]
    stream.append(seen)
    target = replayed_into(server, "replay.sealed", stream)
    stored = [fields[1] for _, fields in stream.read_raw(0)]

    assert b"a title" not in b"".join(stored)
    assert [fields[1] for p in range(4) for _, fields in target.read_raw(p)] == stored
    assert title_shown(target) == "a title"

    erase(open_stream(server, OPERATIONS, create=True), "person", why="asked", who="us")
    again = replayed_into(server, "replay.erased", stream)
    assert [fields[1] for p in range(4) for _, fields in again.read_raw(p)] == stored
    assert title_shown(open_stream(server, "replay.erased")) == ""


def title_shown(stream: Stream) -> str:
    """As a line of a replay has it."""
    out = io.BytesIO()
    lines = LineSink(out, Writing("json", Codec(), {stream.name: stream.keyring}))
    for found in read_past(histories(stream), Selection()):
        lines.put(found)
    (title,) = {line["event"].get("title", "") for line in lines_of(out.getvalue().decode())}
    return str(title)


@pytest.mark.cluster
def test_a_cluster_is_read_and_written_like_one_server() -> None:
    """Partitions lie on several nodes; their entries are merged all the same, and stories are found across
    them.
    """
    cluster = Cluster(binaries()["valkey"])
    try:
        server = Server(cluster.url)
        source = open_stream(server, "clips", create=True, settings=Settings(partitions=6))
        events = fill(source, 900)
        consume(server, source, Trail())
        target = replayed_into(server, "replay.clips", source)
        replayed_into(server, "replay.clips", source)

        assert len({server.node_of(keys.log) for keys in source.keys}) > 1
        ids = [found.envelope.event_id for found in read_past(histories(source), Selection())]
        assert sorted(ids) == sorted(event.event_id for event in events)
        assert sorted(
            found.envelope.event_id for found in read_past(histories(target), Selection())
        ) == sorted(ids)
        rows, _ = Trails(histories(source)).around(Trails(histories(source)).of_event("e100"))
        assert {row.event_id for row in rows} == {"e100", "e101"}
        server.close()
    finally:
        cluster.stop()


# LineSink.


def test_a_line_that_was_written_by_half_is_cut_off_and_the_rest_says_how_far(tmp_path: Path) -> None:
    """A kill may come at any byte, and --resume must neither lose nor repeat a line."""
    file = tmp_path / "r.jsonl"
    whole = b"".join(
        b'{"stream":"s","partition":%d,"position":"%d-0","event":{}}\n' % (n % 2, n) for n in range(1, 6)
    )
    for cut in range(len(whole)):
        file.write_bytes(whole[:cut])
        lines = whole[:cut].count(b"\n")

        after = resume_file(file, "json")

        assert file.read_bytes() == b"".join(whole.splitlines(keepends=True)[:lines])
        assert after == {("s", n % 2): f"{n}-0" for n in range(1, lines + 1)}


@pytest.mark.parametrize("form", ["json", "cloudevents"])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, form: Any) -> None:
    """Nobody's file may be cut off by a wrong name."""
    file = tmp_path / "r.jsonl"
    for content in (b'{"stream":"s"}\nmine', b"mine", b"\n"):
        file.write_bytes(content)
        with pytest.raises(CannotReplay, match="line 1 of"):
            resume_file(file, form)
        assert file.read_bytes() == content


def test_a_place_in_the_merged_order_is_a_place_in_every_partition(
    server: Server, stream: Stream, wide: Stream
) -> None:
    """--after is one place; what came before it in the order over all streams is not given again."""
    for n in range(0, 90, 3):
        fill(wide, 2, n)
        fill(stream, 1, n + 2)
    everything = list(read_past(histories(stream, wide), Selection()))
    for number in (0, 1, 17, 44, 88, 89):
        last = everything[number]
        after = after_place(
            EntryPlace(last.stream, last.partition, last.position), {stream.name: 1, wide.name: 4}
        )
        assert list(read_past(histories(stream, wide), Selection(), after=after)) == everything[number + 1 :]


def test_the_ends_of_a_reading_are_of_one_instant(server: Server, url: str, wide: Stream) -> None:
    """An entry that comes while the ends are looked up must not sort before the last line and be left out:
    a reader of a pipe has that line and nothing else. 1 of 11,268 was never handed on.
    """
    by_partition = {wide.partition_of(f"clip-{n}"): f"clip-{n}" for n in range(40)}
    of = [observation(n, clip=by_partition[n % 4], event_id=f"e{n}") for n in range(8)]
    wide.append(of[:4])

    def decide(command: list[bytes]) -> str:
        if command[0] == b"XREVRANGE" and command[1] == wide.keys[3].log.encode() and not late:
            late.append("appended")
            wide.append([of[4]])
            until(lambda: int(server.client.time()[1]) // 1_000 % 10 == 0, "a later millisecond")
            wide.append([of[7]])
        return PASS

    late: list[str] = []
    between = Interceptor(url, decide)
    slow = open_stream(Server(between.url), "wide")
    first = list(read_past(histories(slow), Selection()))
    slow.close()
    slow.server.close()
    between.close()
    last = first[-1]
    wide.append(of[5:7])

    after = after_place(EntryPlace(last.stream, last.partition, last.position), {"wide": 4})
    rest = list(read_past(histories(wide), Selection(), after=after))

    assert late == ["appended"]
    assert sorted(item.envelope.event_id for item in [*first, *rest]) == [f"e{n}" for n in range(8)]
    assert [item.order for item in [*first, *rest]] == sorted(item.order for item in [*first, *rest])


def test_a_place_per_partition_outlives_a_clock_that_goes_back(server: Server, wide: Stream) -> None:
    """A replica that is slower was promoted: what it appends sorts before the last line handed on."""
    by_partition = {wide.partition_of(f"clip-{n}"): f"clip-{n}" for n in range(40)}
    event = observation(1, clip=by_partition[2], event_id="ahead")
    wide.append([event])
    ahead = int(wide.read(2)[0].position.split("-")[0]) + 300_000
    raw_append(server, wide, observation(2, clip=by_partition[2], event_id="ahead-too"), f"{ahead}-0")
    tally = Tally()
    first = list(read_past(histories(wide), Selection(), tally=tally))
    wide.append([observation(3, clip=by_partition[0], event_id="behind")])

    after = parsed_places(place_text(tally.ends), {"wide": 4})

    assert after is not None
    rest = list(read_past(histories(wide), Selection(), after=after))
    assert [item.envelope.event_id for item in [*first, *rest]] == ["ahead", "ahead-too", "behind"]


@pytest.mark.parametrize("text", ["s/7/1-0,", "t/0/1-0,", "s/0/1-0,s", "s/0", "", ",", "s/0/1-0,,"])
def test_a_list_of_places_is_of_the_streams_that_are_read(text: str) -> None:
    """Half a list would hand on again, or leave out, in silence."""
    assert parsed_places(text, {"s": 2}) is None


def test_a_list_of_one_place_is_no_place_in_the_merged_order() -> None:
    """With it everything of the other partitions would be left out."""
    assert place_text({("s", 0): "7-0"}) == "s/0/7-0,"
    assert parsed_places("s/0/7-0,", {"s": 2}) == {("s", 0): "7-0"}
    assert parsed_places("s/0/7-0", {"s": 2}) == {("s", 0): "7-0", ("s", 1): f"6-{2**64 - 1}"}
