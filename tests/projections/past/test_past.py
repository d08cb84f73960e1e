"""
As of T: what a view says of a past time is the fold of the log cut at T, however that is come by.

The rule is written here a second time, as plainly as can be: keep what is not later than T, count each event
ID once, fold one event after the other. Checkpoints, skipped segments, batches and purity may change how long
it takes and nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest

from aurastream.projections import MemoryView, Projection, ProjectionError, View
from aurastream.projections.built_in import clips, recap
from aurastream.projections.built_in.clips import Clips
from aurastream.projections.built_in.trail import Trail
from aurastream.projections.engine import fold
from aurastream.projections.past import AsOf, By, Checkpoints, Past, PastFold, PastView, checkpoints
from aurastream.projections.past.blobs import made_by
from aurastream.projections.tables import ranking
from aurastream.streams import Codec, Event, History, Position, Server, Settings, Stream, open_stream
from aurastream.streams.archive import open_archive
from aurastream.streams.archive.archiver import Archiver
from aurastream.streams.entries import read_envelope
from aurastream.streams.errors import ArchiveNeeded
from aurastream.streams.history import Span
from aurastream.streams.index import field_of, unpack_position
from tests.facts import NOON, consume, observation, raw_append
from tests.processors.importing.imports import seed_of_this_run
from tests.projections.counting import Counting
from tests.servers import ServerProcess


@pytest.fixture
def parted(server: Server) -> Iterator[Stream]:
    stream = open_stream(server, "clips-parted", create=True, settings=Settings(partitions=3))
    yield stream
    stream.close()


class Other(Event, frozen=True, kw_only=True, tag="other.seen"):
    """An event the clip view does not fold."""


def after_noon(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def tables(view: MemoryView) -> dict[str, dict[str, Any]]:
    """Comparable: texts, empty tables left out."""
    plain = {
        name: {key: value.decode() if isinstance(value, bytes) else value for key, value in table.items()}
        for name, table in view.tables.items()
    }
    return {name: table for name, table in plain.items() if table}


def plain_fold(
    stream: Stream, projection: Projection[Any], partition: int, as_of: AsOf
) -> dict[str, dict[str, Any]]:
    """The rule, in the plainest words: no batch, no index, no checkpoint."""
    view, seen = MemoryView(projection), set()
    canonical: dict[str, bytes] = {}
    entries = stream.read_raw(partition, count=1_000_000)
    for position, fields in entries:
        event = msgspec.json.decode(fields[1])
        row = stream.server.client.hget(stream.keys[partition].ids, field_of(event["event_id"]))
        canonical.setdefault(event["event_id"], unpack_position(row) if row else position)
    for position, fields in entries:
        raw = fields[1]
        members = msgspec.json.decode(raw)
        at = datetime.fromisoformat(members["occurred_at"])
        clock_ms = Position.parse(position).ms
        is_in = at <= as_of.at if as_of.by == "occurred" else clock_ms <= as_of.at.timestamp() * 1000
        is_sound = crc32(raw) == int(fields[3]) and at.timestamp() * 1000 <= clock_ms + 86_400_000
        if (
            is_in
            and is_sound
            and canonical[members["event_id"]] == position
            and members["event_id"] not in seen
        ):
            seen.add(members["event_id"])
            event = read_envelope("", raw) if projection.events is None else projection.codec().decode(raw)
            if event is not None:
                view.step([(position.decode(), event)])
    return tables(view)


def history(stream: Stream) -> History:
    return History(stream)


def fold_past(
    history: History,
    projection: Projection[Any],
    partition: int,
    as_of: AsOf,
    checkpoints: Checkpoints | None = None,
) -> Past:
    return PastFold(history, projection, as_of, checkpoints).fold(partition)


class SmallReads(History):
    """Reads a few entries at a time: what one batch decides, the next must know."""

    def spans(self, partition: int, after: str = "0-0", until: str = "+", count: int = 7) -> Iterator[Span]:
        yield from super().spans(partition, after, until, 7)


# What a past time is.


def test_a_view_as_of_a_time_is_the_fold_of_what_had_occurred_by_then(server: Server, stream: Stream) -> None:
    """The first question anybody asks of the past, in its plainest form."""
    stream.append([observation(100 * n, minute=n) for n in range(10)])
    consume(server, stream, Clips())

    view = PastView(history(stream), Clips(), AsOf(after_noon(4)))

    state = view.state("clip-1")
    assert (state.views, state.observations, state.last_at) == (400, 5, after_noon(4))
    assert View(stream, Clips()).state("clip-1").views == 900


def test_the_instant_itself_belongs_to_it(stream: Stream) -> None:
    """Whoever asks for the time of an event means to see it."""
    stream.append([observation(1), observation(2, minute=1)])

    for at, views in ((after_noon(1), 2), (after_noon(1) - timedelta(microseconds=1), 1)):
        assert PastView(history(stream), Clips(), AsOf(at)).state("clip-1").views == views
    assert PastView(history(stream), Clips(), AsOf(after_noon(-1))).state("clip-1") is None


def test_late_events_are_in_their_own_time_by_event_time_and_not_before_they_came_by_the_log(
    server: Server, stream: Stream
) -> None:
    """The two clocks: what was true at T as known today, and what the view said at T."""
    stream.append([observation(500, minute=5)])
    first = stream.append([observation(300, clip="clip-2", minute=3)])[0].position
    between = datetime.fromtimestamp(Position.parse(first).ms / 1000, NOON.tzinfo)
    while server.client.time() <= (
        Position.parse(first).ms // 1000,
        Position.parse(first).ms % 1000 * 1000 + 1000,
    ):
        pass
    stream.append([observation(100, clip="late", minute=1)])

    occurred = PastView(history(stream), Clips(), AsOf(after_noon(3)))
    appended = PastView(history(stream), Clips(), AsOf(between, "appended"))

    assert set(occurred.states().rows) == {"clip-2", "late"}
    assert set(appended.states().rows) == {"clip-1", "clip-2"}
    assert appended.cursors()[0].position == first


@pytest.mark.parametrize("is_archived", [False, True], ids=["log", "archive"])
@pytest.mark.parametrize("by", ["occurred", "appended"])
@pytest.mark.parametrize("projection", [Clips(), Counting(), Trail()], ids=lambda item: item.name)
@pytest.mark.any_server
@pytest.mark.slow
def test_any_past_of_any_log_is_what_the_plain_rule_gives(
    server: Server,
    parted: Stream,
    projection: Projection[Any],
    by: By,
    is_archived: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Random logs with late events, ties, raw copies before and after what they copy, foreign types, damage
    and broken clocks; all in
    the log, or most of it in the archive too, with checkpoints that one question leaves for the next."""
    dice = random.Random(seed_of_this_run())
    events = [
        observation(
            dice.randrange(500),
            clip=f"c{dice.randrange(7)}",
            minute=dice.randrange(40),
            event_id=f"e{n}",
            category=f"p{n % 3}",
        )
        for n in range(250)
    ]
    for n, event in enumerate(events):
        if dice.random() < 0.05:
            raw_append(server, parted, event)
        parted.append([event])
        if dice.random() < 0.05:
            raw_append(server, parted, dice.choice(events[: n + 1]))
        if dice.random() < 0.03:
            raw_append(server, parted, observation(7, clip=f"c{n % 7}", minute=3, event_id=f"raw{n // 40}"))
        if dice.random() < 0.03:
            raw_append(server, parted, observation(1, event_id=f"broken{n}", minute=10**8))
        if dice.random() < 0.03:
            raw = Codec().encode(observation(1, event_id=f"damaged{n}", minute=2))
            server.client.xadd(parted.keys[n % 3].log, {"event": raw, "crc32": 1})
        if dice.random() < 0.05:
            raw = Codec((Other,)).encode(
                Other(event_id=f"other{n}", subject=f"c{n % 7}", occurred_at=after_noon(dice.randrange(40)))
            )
            server.client.xadd(
                parted.keys[parted.partition_of(f"c{n % 7}")].log, {"event": raw, "crc32": crc32(raw)}
            )
    if dice.random() < 0.5:
        consume(server, parted, projection)
    past: History = SmallReads(parted)
    checkpoints_of = None
    if is_archived:
        monkeypatch.setattr(checkpoints, "EVERY", 30)
        past = archived_history(server, parted, tmp_path, but_last=15, segment_events=25)
        checkpoints_of = kept(past, projection)
    last_ms = max(
        Position.parse(position).ms for p in range(3) for position, _ in parted.read_raw(p, count=10_000)
    )

    for n in [5, 0, 4, 1, 3, 2, 9]:  # the ends first: what they leave must not be used for what lies between
        at = (
            after_noon(n * 8)
            if by == "occurred"
            else datetime.fromtimestamp((last_ms - n * 20) / 1000, NOON.tzinfo)
        )
        as_of = AsOf(at, by)
        for partition in range(3):
            fold = fold_past(past, projection, partition, as_of, checkpoints_of)
            assert tables(fold.view) == plain_fold(parted, projection, partition, as_of)
    if checkpoints_of is not None:
        assert any(checkpoints_of.of(partition) for partition in range(3))


@pytest.mark.parametrize("projection", [Clips(), Counting(), Trail()], ids=lambda item: item.name)
def test_the_present_as_a_past_time_is_the_live_view(
    server: Server, parted: Stream, projection: Projection[Any]
) -> None:
    """Every kind of read, to the last byte, cursor counts included."""
    parted.append(
        [
            observation(n * n % 97, clip=f"c{n % 11}", minute=n % 61, event_id=f"e{n}", category=f"p{n % 3}")
            for n in range(900)
        ]
    )
    raw_append(server, parted, observation(0, clip="c0", event_id="e0"))
    consume(server, parted, projection)
    live, past = View(parted, projection), PastView(history(parted), projection, AsOf(after_noon(10**4)))

    def content(view: View[Any]) -> Any:
        """All tables, with the cursors. Scores are numbers, which servers spell differently; read_bytes no
        fold knows.
        """
        return {
            partition: (
                msgspec.structs.replace(cursor, read_bytes=0),
                [
                    {key: float(value) if name in ranked else value for key, value in table.items()}
                    for name, table in zip(names, held, strict=True)
                ],
            )
            for partition, (cursor, held) in view.tables(*names).items()
        }

    ranked = {spec.name for spec in projection.rankings}
    declared = (*projection.rankings, *projection.totals, *projection.rollups, *projection.listings)
    names = [projection.table, *(spec.name for spec in declared)]
    assert content(past) == content(live)
    assert past.states() == live.states()
    assert past.state("c3") == live.state("c3")
    assert past.rows(projection.table, ["c3", "none"]) == live.rows(projection.table, ["c3", "none"])
    for spec in projection.rankings:
        for top in (-1, 1, 3, 20):
            assert past.ranking(spec.name, top) == live.ranking(spec.name, top)
        if spec.by is not None:
            assert past.ranking(spec.name, 5, "p1") == live.ranking(spec.name, 5, "p1")
    for total in projection.totals:
        assert past.totals(total.name) == live.totals(total.name)
    for rollup in projection.rollups:
        assert past.rollup(rollup.name) == live.rollup(rollup.name)
    for listing in projection.listings:
        assert past.listing(listing.name, "c3") == live.listing(listing.name, "c3")


def test_what_expires_is_judged_by_the_latest_event_time_as_of_then(stream: Stream) -> None:
    """Clip 1 is viral for six hours; five hours later it still was, and seven hours later it was no more."""
    stream.append(
        [
            observation(1_000, clip="clip-1"),
            observation(9_000, clip="clip-1", minute=10),
            observation(5, clip="clip-2", minute=5 * 60),
            observation(6, clip="clip-2", minute=7 * 60),
        ]
    )

    def viral(minutes: int) -> list[str]:
        return [
            row.key
            for row in PastView(history(stream), Clips(), AsOf(after_noon(minutes))).ranking("viral").rows
        ]

    assert [viral(minutes) for minutes in (5, 10, 5 * 60, 7 * 60)] == [[], ["clip-1"], ["clip-1"], []]


def test_an_empty_log_has_a_past_of_nothing(stream: Stream) -> None:
    """A new stream, and a time before all: an answer and no error."""
    view = PastView(history(stream), Clips(), AsOf(NOON))
    assert (view.states().rows, view.ranking("viral").rows, view.cursors()[0].position) == ({}, [], "")
    before_all = AsOf(datetime(1969, 1, 1, tzinfo=NOON.tzinfo), "appended")
    assert PastView(history(stream), Clips(), before_all).states().rows == {}


def test_what_is_appended_meanwhile_is_no_part_of_it(stream: Stream) -> None:
    """A busy log would otherwise never let a fold end."""
    stream.append([observation(n, minute=n) for n in range(3_000)])
    spans_read: list[int] = []

    def meanwhile(partition: int, entries: int) -> None:
        spans_read.append(entries)
        stream.append([observation(n, clip="new", event_id=f"n{len(spans_read)}-{n}") for n in range(200)])

    past = PastFold(history(stream), Clips(), AsOf(after_noon(10**4)), on_read=meanwhile).fold(0)

    assert (past.read, sum(spans_read), list(past.view.tables["clips"])) == (3_000, 3_000, ["clip-1"])
    assert past.position == past.view.cursor.position


def test_a_log_in_kafka_has_no_past_here(server: Server) -> None:
    """Its entries are elsewhere: an empty answer would be a wrong one."""
    elsewhere = open_stream(server, "elsewhere", create=True, log="kafka")
    with pytest.raises(ProjectionError, match="is in Kafka"):
        fold_past(history(elsewhere), Clips(), 0, AsOf(NOON))
    elsewhere.close()


def test_entries_that_were_deleted_by_hand_are_told_of(server: Server, stream: Stream) -> None:
    """The answer lacks them, and whoever reads it has to know."""
    placed = stream.append([observation(n, minute=n) for n in range(9)])
    server.client.xdel(stream.keys[0].log, placed[3].position, placed[4].position)

    assert fold_past(history(stream), Clips(), 0, AsOf(after_noon(99))).missing == 2


# Checkpoints.


def archived_history(
    server: Server, stream: Stream, folder: Path, *, but_last: int = 0, segment_events: int = 600
) -> History:
    """The stream with its log archived but for the last entries of each partition."""
    again = open_stream(
        server, stream.name, settings=Settings(archive=str(folder), segment_events=segment_events)
    )
    archive = open_archive(again.settings, again)
    assert archive is not None
    for partition in range(stream.partitions):
        entries = stream.read_raw(partition, count=1_000_000)
        for _ in Archiver(archive, None).run(
            partition, entries[-but_last - 1][0].decode() if len(entries) > but_last else "0-0"
        ):
            pass
    return History(again, archive)


@pytest.fixture(scope="module")
def long_log(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """6,000 looks at 50 clips, one a second; the first 5,400 archived. On one server: which one makes no
    difference to an archive.
    """
    process = ServerProcess(valkey)
    server = Server(process.url)
    stream = open_stream(server, "clips-long", create=True, settings=Settings(partitions=1))
    looks = [
        observation(n, clip=f"c{n % 50}", minute=n / 60, event_id=f"e{n}", category=f"p{n % 5}")
        for n in range(6_000)
    ]
    stream.append(looks)
    yield archived_history(server, stream, tmp_path_factory.mktemp("archive"), but_last=600)
    server.close()
    process.stop()


@pytest.fixture
def archived(long_log: History, monkeypatch: pytest.MonkeyPatch) -> History:
    """The same without any checkpoint; they are made every 2,000 entries, at the ends of what was read."""
    monkeypatch.setattr(checkpoints, "EVERY", 2_000)
    archive: Any = long_log.archive
    for name in archive.list_blobs(0):
        archive.delete_blob(0, name)
    return long_log


def kept(
    history: History, projection: Projection[Any] | None = None, warnings: list[str] | None = None
) -> Checkpoints:
    complaints = warnings if warnings is not None else []
    return Checkpoints(history.archive, history.stream.name, projection or Clips(), complaints.append)  # type: ignore[arg-type]


def at_second(second: int) -> AsOf:
    return AsOf(NOON + timedelta(seconds=second))


def folded(history: History, as_of: AsOf, projection: Projection[Any] | None = None, **more: Any) -> Past:
    return fold_past(history, projection or Clips(), 0, as_of, kept(history, projection, **more))


def test_a_second_question_begins_at_what_the_first_one_left(archived: History) -> None:
    """This is what checkpoints are for: a past question costs its distance, not the log."""
    first = folded(archived, at_second(5_999))
    places = kept(archived).of(0)
    second = folded(archived, at_second(5_900))

    assert (first.began, first.read, len(places)) == ("", 6_000, 2)
    assert second.began == places[0].position
    assert second.read < 2_400
    assert tables(second.view) == tables(
        fold_past(History(archived.stream), Clips(), 0, at_second(5_900)).view
    )


@pytest.mark.parametrize("by", ["occurred", "appended"])
@pytest.mark.parametrize("second", [0, 1_999, 2_400, 2_469, 4_000, 5_399, 5_500, 8_000])
@pytest.mark.slow
def test_with_checkpoints_or_without_the_answer_is_the_same(archived: History, second: int, by: str) -> None:
    """A checkpoint is a cache: an answer that depends on it would be two truths."""
    folded(archived, at_second(8_000))
    as_of = at_second(second)
    if by == "appended":
        position = archived.stream.read_raw(0, count=6_000)[min(second, 5_999)][0].decode()
        as_of = AsOf(datetime.fromtimestamp(Position.parse(position).ms / 1000, NOON.tzinfo), "appended")

    quick, plain = folded(archived, as_of), fold_past(History(archived.stream), Clips(), 0, as_of)

    assert bool(quick.began) == (second >= 2_400)
    assert tables(quick.view) == tables(plain.view)
    assert quick.view.cursor == plain.view.cursor
    assert quick.position == plain.position


def test_segments_that_begin_after_the_time_are_not_read(archived: History) -> None:
    """An archive of years must not be read to answer for last week."""
    past = folded(archived, at_second(800))

    assert past.read == 2 * 600 + 600  # two segments, and the live log, whose times nobody knows
    assert len(archived.archive.list_blobs(0)) == 0  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_late_event_makes_the_checkpoint_after_it_one_of_its_own_prefix_alone(
    server: Server, stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event time of the first entry is the latest of all: no checkpoint is of use before it, and none
    says otherwise.
    """
    monkeypatch.setattr(checkpoints, "EVERY", 2_000)
    stream.append([observation(10**6, minute=10**5, clip="early-bird")])
    stream.append([observation(n, minute=n, event_id=f"e{n}") for n in range(4_800)])
    past = archived_history(server, stream, tmp_path / "archive")
    whole = fold_past(past, Clips(), 0, AsOf(after_noon(10**6)), kept(past))

    cut = fold_past(past, Clips(), 0, AsOf(after_noon(4_700)), kept(past))

    assert len(kept(past).of(0)) == 2
    assert (whole.is_whole, cut.is_whole, cut.began) == (True, False, "")
    assert tables(cut.view) == tables(fold_past(History(stream), Clips(), 0, AsOf(after_noon(4_700))).view)


def test_an_entry_of_a_broken_clock_does_not_make_checkpoints_useless(
    server: Server, stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It claims the year 2216. No view believes it, so no time before that is too early for what is after
    it.
    """
    monkeypatch.setattr(checkpoints, "EVERY", 100)
    stream.append([observation(1)])
    raw_append(server, stream, observation(1, event_id="broken", minute=10**8))
    stream.append([observation(n, minute=n) for n in range(1, 400)])
    past = archived_history(server, stream, tmp_path, segment_events=100)
    fold_past(past, Clips(), 0, AsOf(NOON, "appended"), kept(past))
    fold_past(past, Clips(), 0, AsOf(datetime.now(NOON.tzinfo), "appended"), kept(past))

    again = fold_past(past, Clips(), 0, AsOf(after_noon(450)), kept(past))

    assert len(kept(past).of(0)) == 4
    assert again.began == kept(past).of(0)[0].position
    assert again.view.cursor.quarantined == 1


@pytest.mark.parametrize("byte", [0, 20, 60, 1_000, -1])
@pytest.mark.slow
def test_a_damaged_checkpoint_is_told_of_and_passed_over(archived: History, byte: int) -> None:
    """It is a cache beside the truth: damage costs time and a warning, never an answer."""
    folded(archived, at_second(5_999))
    archive: Any = archived.archive
    farthest, next_one = kept(archived).of(0)
    blob = bytearray(archive.read_blob(0, farthest.name))
    blob[byte] ^= 1
    archive.write_blob(0, farthest.name, bytes(blob))

    warnings: list[str] = []
    past = folded(archived, at_second(5_999), warnings=warnings)

    assert past.began == next_one.position
    assert len(warnings) == 1
    assert farthest.name in warnings[0]
    assert tables(past.view) == tables(fold_past(History(archived.stream), Clips(), 0, at_second(5_999)).view)


@pytest.mark.parametrize("size", [0, 10, 49, 50, 200])
@pytest.mark.slow
def test_a_checkpoint_cut_short_is_passed_over(archived: History, size: int) -> None:
    """A full disk leaves half a file; what begins well must not pass for whole."""
    folded(archived, at_second(5_999))
    archive: Any = archived.archive
    for place in kept(archived).of(0):
        archive.write_blob(0, place.name, archive.read_blob(0, place.name)[:size])

    warnings: list[str] = []
    assert folded(archived, at_second(5_999), warnings=warnings).began == ""
    assert len(warnings) == 2


def test_a_checkpoint_under_another_name_is_passed_over(archived: History) -> None:
    """Renamed to look earlier than it is: the name is a hint, the content decides."""
    folded(archived, at_second(5_999))
    archive: Any = archived.archive
    farthest = kept(archived).of(0)[0]
    renamed = farthest.name.replace(str(farthest.latest_us), "0")
    archive.write_blob(0, renamed, archive.read_blob(0, farthest.name))

    warnings: list[str] = []
    assert folded(archived, at_second(100), warnings=warnings).began == ""
    assert "under this name" in warnings[0]


def test_a_checkpoint_of_another_log_is_passed_over(
    archived: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server restored from an older copy goes on otherwise: same stream, same positions archived, other
    entries, another chain.
    """
    folded(archived, at_second(5_999))
    archive: Any = archived.archive
    chain = [
        msgspec.structs.replace(segment, hash=f"{segment.number:064}") for segment in archive.segments(0)
    ]
    monkeypatch.setattr(archive, "segments", lambda partition: chain)

    warnings: list[str] = []
    own = Checkpoints(archive, archived.stream.name, Clips(), warnings.append)
    view = MemoryView(Clips())

    assert [own.load(0, place, view) for place in own.of(0)] == [0, 0]
    assert ["of another log" in sentence for sentence in warnings] == [True, True]
    assert view.tables == {}


@pytest.mark.slow
def test_an_archive_that_takes_no_file_costs_checkpoints_and_no_answer(
    archived: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read-only, or full: said once."""

    def refuse(*arguments: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(archived.archive, "write_blob", refuse)
    warnings: list[str] = []

    past = folded(archived, at_second(5_999), warnings=warnings)

    assert tables(past.view) == tables(fold_past(History(archived.stream), Clips(), 0, at_second(5_999)).view)
    assert ["Permission denied" in sentence for sentence in warnings] == [True]


@pytest.mark.slow
def test_checkpoints_of_other_settings_and_other_code_are_not_looked_at(
    archived: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A mended fold has the same name and version: only its source tells."""
    folded(archived, at_second(5_999))
    made_by_today = made_by(Clips())
    monkeypatch.setenv("AURASTREAM_CLIPS_VIRAL_VIEWS", "30")
    assert folded(archived, at_second(5_999), Clips()).began == ""
    monkeypatch.delenv("AURASTREAM_CLIPS_VIRAL_VIEWS")
    assert folded(archived, at_second(5_999), Clips()).began != ""

    for source in (clips, recap, ranking, fold):
        mended = tmp_path / "mended.py"
        mended.write_bytes(Path(str(source.__file__)).read_bytes() + b"\n# mended\n")
        with monkeypatch.context() as patch:
            patch.setattr(source, "__file__", str(mended))
            assert made_by(Clips()) != made_by_today, source.__name__
            assert kept(archived).of(0) == []


@pytest.mark.slow
def test_checkpoints_lie_farther_apart_the_larger_they_are(
    archived: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trail grows with the log: one every so many entries would make their size the square of the
    log's.
    """
    folded(archived, at_second(5_999))
    folded(archived, at_second(5_999), Trail())
    archive: Any = archived.archive
    sizes = {name.partition(".")[0]: len(archive.read_blob(0, name)) for name in archive.list_blobs(0)}
    assert [len(kept(archived, item).of(0)) for item in (Clips(), Trail())] == [2, 2]
    for name in archive.list_blobs(0):
        archive.delete_blob(0, name)

    monkeypatch.setattr(checkpoints, "BYTES_MAX", sizes["trail"] // 6_000)
    folded(archived, at_second(5_999), Trail())

    assert len(kept(archived, Trail()).of(0)) == 1


def test_checkpoints_are_never_more_bytes_than_the_entries_they_save(
    archived: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trail grows with the log: without a bound its checkpoints would outgrow the archive."""
    monkeypatch.setattr(checkpoints, "EVERY", 600)
    folded(archived, at_second(5_999), Trail())
    archive: Any = archived.archive

    sizes = [len(archive.read_blob(0, place.name)) for place in reversed(kept(archived, Trail()).of(0))]

    assert len(sizes) > 1
    assert sum(sizes[:-1]) <= checkpoints.BYTES_MAX * 5_400


def test_the_past_of_a_trimmed_log_without_its_archive_is_refused(server: Server, stream: Stream) -> None:
    """Silently folding what is left would be a view that never was."""
    placed = stream.append([observation(n, minute=n) for n in range(20)])
    server.client.xtrim(stream.keys[0].log, minid=placed[10].position, approximate=False)
    server.client.hset(stream.keys[0].meta, mapping={"trimmed": 10, "trimmed_to": placed[9].position})

    with pytest.raises(ArchiveNeeded):
        fold_past(History(stream), Clips(), 0, AsOf(after_noon(99)))
