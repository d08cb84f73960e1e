"""Deciding on an entity: little is read however long its history is, and its state is what its view's row
is.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest
import redis

from aurastream.projections import Projection, Totals, View
from aurastream.projections.engine.generations import Generation, Record, State
from aurastream.projections.entity import Entities, EntityContended, EntityIncomplete, EntityUnfit, Loaded
from aurastream.projections.entity.entities import SNAPSHOT_EVERY
from aurastream.projections.entity.snapshots import Base, KeepAnswer, keep
from aurastream.streams import (
    OPERATIONS,
    ClipViewsObserved,
    Event,
    ImportFinished,
    Server,
    Settings,
    Stream,
    VersionConflict,
    open_stream,
)
from aurastream.streams.archive import open_archive
from aurastream.streams.archive.archiver import Archiver
from aurastream.streams.entities import CHUNK, Places
from aurastream.streams.errors import ArchiveNeeded
from aurastream.streams.history import History
from aurastream.streams.keys import VIEWS
from aurastream.streams.retention.trimmer import Goal, Trimmer
from tests.facts import NOON, consume, dump, findings, observation, raw_append
from tests.projections.counting import Counting
from tests.servers import CuttingProxy, ServerProcess

ROOT = Path(__file__).parents[3]


class Job(msgspec.Struct, frozen=True):
    """order: chained over every event applied, so that a lost, doubled or misplaced one shows."""

    events: int
    views: int
    order: int
    seen_at: datetime


class Jobs(Projection[Job]):
    name = "jobs"
    events = (ClipViewsObserved,)
    state = Job
    totals = (Totals("all", of={"jobs": 1, "views": "views"}),)

    def apply(self, state: Job | None, event: ClipViewsObserved) -> Job:
        before = state or Job(0, 0, 0, event.occurred_at)
        if event.views == 666:
            return before
        order = crc32(event.event_id.encode(), before.order)
        return Job(
            before.events + 1, before.views + event.views, order, max(before.seen_at, event.occurred_at)
        )

    def expires_at(self, state: Job) -> datetime | None:
        return state.seen_at + timedelta(days=1)


class OtherJobs(Jobs):
    version = 2


@pytest.fixture
def jobs(server: Server, tmp_path: Path) -> Iterator[Stream]:
    """A stream of one partition that keeps versions."""
    settings = Settings(partitions=1, budget_events=0, budget_bytes=0, archive=str(tmp_path / "archive"))
    stream = open_stream(server, "jobs", create=True, versioned=True, settings=settings)
    yield stream
    stream.close()


def facts(first: int, count: int, subject: str = "job-1", **more: Any) -> list[Event]:
    return [
        observation(views=n % 100, minute=n / 100, clip=subject, event_id=f"{subject}.{n}", **more)
        for n in range(first, first + count)
    ]


def append(stream: Stream, first: int, count: int, subject: str = "job-1") -> None:
    for start in range(first, first + count, 5_000):
        stream.append(facts(start, min(5_000, first + count - start), subject))


def archive_and_trim(stream: Stream, keep: int) -> None:
    operations = open_stream(stream.server, OPERATIONS, create=True, settings=Settings(partitions=1))
    archive = open_archive(stream.settings, stream)
    assert archive is not None
    for partition in range(stream.partitions):
        list(Archiver(archive, operations).run(partition))
    assert all(not done.blockers for done in Trimmer(stream, operations, Goal(keep_events=keep)).run())


def folded(stream: Stream, projection: Projection[Any], subject: str) -> Any:
    """The whole history folded anew, by a consumer's own way: a check of the view would be the same code."""
    fresh = type(f"Fresh{random.random()}", (type(projection),), {"name": "fresh"})()
    server = stream.server
    for key in server.client.scan_iter(match="aura:{*}:*fresh*"):
        server.client.delete(key)
    consume(server, stream, fresh)
    for keys in stream.keys:
        server.client.hdel(keys.groups, "fresh")
    return View(stream, fresh).state(subject)


@pytest.mark.slow
@pytest.mark.any_server
def test_deciding_on_a_long_entity_reads_fewer_than_200_events(jobs: Stream) -> None:
    """100,000 events; the first look reads them all, and leaves snapshots on its way."""
    append(jobs, 0, 100_000)
    first = Entities(jobs, Jobs()).load("job-1")

    read = []
    for n in range(100_000, 100_250):
        decided = Entities(jobs, Jobs()).decide("job-1", lambda loaded, n=n: facts(n, 1))
        read.append(decided.loaded.events_read)

    assert (first.events_read, first.version, first.state.events) == (100_000, 100_000, 100_000)
    assert max(read) < 200
    last = Entities(jobs, Jobs()).load("job-1")
    assert (last.version, last.events_read < 200, last.state) == (
        100_250,
        True,
        folded(jobs, Jobs(), "job-1"),
    )


def test_an_entity_that_grows_by_decisions_never_needs_a_long_read(jobs: Stream) -> None:
    """A decision must cost the same on the thousandth event as on the first, or jobs slow down with their
    history.
    """
    deciding, dice, read, made = Entities(jobs, Jobs()), random.Random(7), [], 0
    for _ in range(300):
        count = dice.choice([1, 1, 1, 2, 5, 90])
        decided = deciding.decide("job-1", lambda loaded, first=made, count=count: facts(first, count))
        read.append(decided.loaded.events_read)
        made += count

    assert max(read) < SNAPSHOT_EVERY
    assert deciding.load("job-1").version == made > 1_000
    assert deciding.load("job-1").state == folded(jobs, Jobs(), "job-1")


def test_what_a_consumer_has_folded_is_not_read_again(server: Server, jobs: Stream) -> None:
    """The view's row is a snapshot as well; nothing of our own is kept beside it."""
    append(jobs, 0, 3_000)
    append(jobs, 0, 500, "job-2")
    consume(server, jobs, Jobs())
    append(jobs, 3_000, 50)

    loaded = Entities(jobs, Jobs()).load("job-1")

    assert (loaded.events_read, loaded.version, loaded.state.events) == (50, 3_050, 3_050)
    assert server.client.exists(jobs.keys[0].snapshots("jobs")) == 0


def test_whichever_is_further_of_row_and_snapshot_is_taken(server: Server, jobs: Stream) -> None:
    """Consumers and deciders take turns in being ahead; reading from the nearer one would be wasted work."""
    append(jobs, 0, 300)
    consume(server, jobs, Jobs())
    append(jobs, 300, 300)
    first = Entities(jobs, Jobs()).load("job-1")
    append(jobs, 600, 20)
    snapshot = Entities(jobs, Jobs()).load("job-1")
    consume(server, jobs, Jobs())
    append(jobs, 620, 7)
    row = Entities(jobs, Jobs()).load("job-1")

    assert [item.events_read for item in (first, snapshot, row)] == [300, 20, 7]
    assert row.state == folded(jobs, Jobs(), "job-1")


def test_a_long_walk_back_through_the_index_finds_where_the_view_is(server: Server, jobs: Stream) -> None:
    """The cursor is a position, the index knows versions: where they meet may be many pages back."""
    append(jobs, 0, 40)
    consume(server, jobs, Jobs())
    append(jobs, 40, 5_000)

    loaded = Entities(jobs, Jobs()).load("job-1")

    assert (loaded.events_read, loaded.state) == (5_000, folded(jobs, Jobs(), "job-1"))


def test_what_another_definition_folded_is_not_looked_at(server: Server, jobs: Stream) -> None:
    """Its states may mean something else: a mended fold must never begin on what the faulty one left."""
    append(jobs, 0, 250)
    Entities(jobs, Jobs()).load("job-1")
    consume(server, jobs, Jobs())

    other = Entities(jobs, OtherJobs()).load("job-1")
    again = Entities(jobs, OtherJobs()).load("job-1")

    assert (other.events_read, again.events_read) == (250, 0)


def test_a_dropped_snapshot_changes_nothing_but_what_is_read(server: Server, jobs: Stream) -> None:
    """Snapshots are a cache, so an operator may drop them at any time."""
    append(jobs, 0, 250)
    deciding = Entities(jobs, Jobs())
    first = deciding.load("job-1")
    second = deciding.load("job-1")
    deciding.forget("job-1")

    assert (second.events_read, deciding.load("job-1")) == (0, first)


@pytest.mark.parametrize("spoil", ["position", "version", "older", "unreadable"])
def test_a_snapshot_of_another_history_is_not_used_and_not_kept(
    server: Server, jobs: Stream, spoil: str
) -> None:
    """After a fail-over a process may hold what this log never got: the index says which event made a
    version.
    """
    append(jobs, 0, 250)
    deciding, keys = Entities(jobs, Jobs()), jobs.keys[0]
    deciding.load("job-1")
    good = server.client.hget(keys.snapshots("jobs"), "job-1")
    content = msgspec.json.decode(good)
    content |= {
        "position": {"position": "1-1"},
        "version": {"version": 260},
        "older": {},
        "unreadable": {"version": "x"},
    }[spoil]
    content["state"]["events"] = 7
    if spoil == "older":
        answer = keep(jobs, Jobs(), "job-1", Base(100, b"{}"), jobs.read(0)[99].position)
        assert answer is KeepAnswer.NEWER
        assert server.client.hget(keys.snapshots("jobs"), "job-1") == good
        return
    server.client.hset(keys.snapshots("jobs"), "job-1", msgspec.json.encode(content))

    loaded = deciding.load("job-1")
    server.client.hset(keys.snapshots("jobs"), "job-1", good)
    answer = keep(jobs, Jobs(), "job-1", Base(250 if spoil == "position" else 260, b"{}"), "1-1")

    assert answer is KeepAnswer.UNKNOWN
    assert (loaded.events_read, loaded.state.events) == (250, 250)
    assert server.client.hget(keys.snapshots("jobs"), "job-1") == good


@pytest.mark.parametrize("bit", [0, 3, 6])
@pytest.mark.slow
def test_a_snapshot_with_a_flipped_bit_is_read_over(server: Server, jobs: Stream, bit: int) -> None:
    """A digit of a state that becomes another digit is JSON as before: nothing else would find it."""
    append(jobs, 0, 250)
    deciding, name = Entities(jobs, Jobs()), jobs.keys[0].snapshots("jobs")
    whole = deciding.load("job-1")
    good = server.client.hget(name, "job-1")
    places = [
        place for place in range(good.index(b'"state"'), len(good)) if good[place : place + 1].isdigit()
    ]

    for place in places:
        spoiled = bytearray(good)
        spoiled[place] ^= 1 << bit
        server.client.hset(name, "job-1", bytes(spoiled))
        assert deciding.load("job-1").state == whole.state


@pytest.mark.process
def test_a_long_first_read_that_is_killed_goes_on_where_it_left_a_snapshot(jobs: Stream) -> None:
    """Else a process that is killed every minute would never get through a long history."""
    append(jobs, 0, 12_000)

    def end(step: str) -> None:
        if step == "kept":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Entities(jobs, Jobs(), on_step=end).load("job-1")
    loaded = Entities(jobs, Jobs()).load("job-1")

    assert (loaded.events_read, loaded.state) == (2_000, folded(jobs, Jobs(), "job-1"))


def test_the_row_is_that_of_the_live_generation(server: Server, jobs: Stream) -> None:
    """After a swap the old generation's row still exists, and is not kept up for ever."""
    append(jobs, 0, 30)
    consume(server, jobs, Jobs())
    record = Record(
        live=2, generations=(Generation(1, State.RETIRED), Generation(2, State.LIVE, Jobs().fingerprint))
    )
    server.client.hset(VIEWS, "jobs/jobs", msgspec.json.encode(record))
    append(jobs, 30, 30)
    before = Entities(jobs, Jobs()).load("job-1")
    consume(server, jobs, Jobs())

    after = Entities(jobs, Jobs()).load("job-1")

    assert server.client.hget(jobs.keys[0].cursor("jobs@2"), "read") == b"60"
    assert (before.events_read, after.events_read, after.state) == (60, 0, before.state)


def test_of_two_deciders_one_wins_and_the_other_decides_again_on_the_new_state(
    url: str, server: Server, jobs: Stream
) -> None:
    """Each takes the next number it sees free: with a lost or doubled decision, numbers would be missing or
    twice.
    """
    rivals, each, errors = 4, 40, []

    def run(name: int) -> None:
        own = open_stream(Server(url), "jobs", settings=jobs.settings)
        deciding = Entities(own, Jobs(), attempts_max=1_000)
        try:
            for turn in range(each):
                deciding.decide(
                    "job-1",
                    lambda loaded, turn=turn: [
                        observation(
                            views=loaded.state.events if loaded.state else 0,
                            event_id=f"{name}.{turn}",
                            clip="job-1",
                        )
                    ],
                )
        except Exception as error:  # shown below: a thread's own traceback would fail nothing
            errors.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in range(rivals)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert [entry.event.views for entry in jobs.read(0)] == list(range(rivals * each))


def test_who_is_forestalled_each_time_is_told_in_the_end(jobs: Stream) -> None:
    """A loop without a bound would spin for ever against a busy rival, and say nothing."""
    deciding, count = Entities(jobs, Jobs(), attempts_max=3), iter(range(100))

    def forestalled(loaded: Loaded[Job]) -> list[Event]:
        jobs.append(facts(next(count), 1))
        return [observation(clip="job-1", event_id=f"mine.{loaded.version}")]

    with pytest.raises(EntityContended, match="3 times"):
        deciding.decide("job-1", forestalled)
    assert deciding.load("job-1").version == 3


def test_no_decision_appends_nothing(jobs: Stream) -> None:
    """Deciding to do nothing is a decision: it must leave no event and no version."""
    append(jobs, 0, 3)

    decided = Entities(jobs, Jobs()).decide("job-1", lambda loaded: [])

    assert (decided.appended, decided.loaded.version, Entities(jobs, Jobs()).load("nobody").state) == (
        [],
        3,
        None,
    )


def test_an_append_at_a_version_that_is_over_is_refused(jobs: Stream) -> None:
    """This is what makes a decision safe: it was taken on a state that is no more."""
    deciding = Entities(jobs, Jobs())
    old = deciding.load("job-1")
    deciding.append("job-1", facts(0, 1))

    with pytest.raises(VersionConflict):
        deciding.append("job-1", facts(1, 1), after=old)
    deciding.append("job-1", facts(1, 1))

    assert deciding.load("job-1").version == 2


def test_what_cannot_be_decided_on_is_refused_in_a_sentence(server: Server, jobs: Stream) -> None:
    """Each of these would let a decision pass that no version vouches for."""

    class ByCategory(Jobs):
        def key(self, event: Any) -> str | None:
            return str(event.category)

    plain = open_stream(server, "plain", create=True, settings=Settings(partitions=1))
    deciding = Entities(jobs, Jobs())
    with pytest.raises(EntityUnfit, match="a key of its own"):
        Entities(jobs, ByCategory())
    with pytest.raises(EntityUnfit, match="versioned=True"):
        Entities(plain, Jobs())
    with pytest.raises(EntityUnfit, match="events of 'job-2'"):
        deciding.append("job-1", [*facts(0, 1), *facts(0, 1, "job-2")])
    with pytest.raises(EntityUnfit, match="501 events"):
        deciding.append("job-1", facts(0, 501))
    assert server.client.xlen(jobs.keys[0].log) == 0


def test_an_unversioned_stream_has_no_index(server: Server, stream: Stream) -> None:
    """Streams that nobody decides on must not pay for the index."""
    stream.append(facts(0, 10))

    assert server.client.exists(stream.keys[0].entities, stream.keys[0].versions) == 0


def test_the_index_has_every_event_at_the_place_of_its_version(server: Server, jobs: Stream) -> None:
    """In calls of any size, with repeats in them, several subjects at once, and two IDs of one digest."""
    dice = random.Random(3)
    placed: dict[str, list[str]] = {f"job-{n}": [] for n in range(3)}
    numbers = dict.fromkeys(placed, 0)
    for _ in range(60):
        batch = []
        for _ in range(dice.choice([1, 2, 40, 100])):
            subject = dice.choice(list(placed))
            batch += facts(numbers[subject], 1, subject)
            numbers[subject] += dice.choice([1, 1, 1, 0])
        for event, item in zip(batch, jobs.append(batch), strict=True):
            if not item.outcome and item.position not in placed[event.subject]:
                placed[event.subject].append(item.position)

    for subject, positions in placed.items():
        version = int(server.client.hget(jobs.keys[0].versions, subject))
        assert Places(jobs, subject, version).between(0, version) == positions
        assert Places(jobs, subject, version).between(5, CHUNK + 5) == positions[5 : CHUNK + 5]


@pytest.mark.parametrize("which", ["versions", "entities"])
def test_what_is_no_version_and_no_index_fails_before_anything_is_written(
    server: Server, jobs: Stream, which: str
) -> None:
    """A key of another type in the middle of the script would leave half an append."""
    append(jobs, 0, 3)
    if which == "versions":
        server.client.hset(jobs.keys[0].versions, "job-1", "three")
    else:
        server.client.delete(jobs.keys[0].entities)
        server.client.set(jobs.keys[0].entities, "mine")
    before = dump(server)

    with pytest.raises(redis.ResponseError):
        append(jobs, 3, 1)

    assert dump(server) == before


def test_places_that_do_not_pack_are_kept_as_text(server: Server, jobs: Stream) -> None:
    """A raw XADD drove the positions far away. (Its log is impure: the index is still kept.)"""
    append(jobs, 0, 5)
    raw_append(server, jobs, observation(clip="other"), "999999999999999-999999999")
    append(jobs, 5, 70)

    positions = [entry.position for entry in jobs.read(0) if entry.event.subject == "job-1"]
    assert Places(jobs, "job-1", 75).between(0, 75) == positions
    server.client.hincrby(jobs.keys[0].meta, "appended", 1)  # as if an append had made that entry
    loaded = Entities(jobs, Jobs()).load("job-1")
    append(jobs, 75, 60)
    further = Entities(jobs, Jobs()).load("job-1")
    assert (loaded.events_read, further.events_read, further.state) == (
        75,
        135,
        folded(jobs, Jobs(), "job-1"),
    )
    assert Entities(jobs, Jobs()).load("job-1").events_read == 0


def test_events_from_before_there_was_an_index_are_found_all_the_same(server: Server, jobs: Stream) -> None:
    """Streams of older builds have no index for their first events, and are not migrated."""
    append(jobs, 0, 45)
    append(jobs, 0, 10, "job-2")
    server.client.delete(jobs.keys[0].entities)
    append(jobs, 45, 30)

    loaded = Entities(jobs, Jobs()).load("job-1")
    consume(server, jobs, Jobs())
    append(jobs, 75, 5)
    later = Entities(jobs, Jobs()).load("job-1")

    assert Places(jobs, "job-1", 75).between(43, 47)[:2] == [None, None]
    assert (loaded.events_read, loaded.state.events, later.events_read, later.state.events) == (85, 75, 5, 80)


def test_what_was_trimmed_comes_from_the_archive(server: Server, jobs: Stream) -> None:
    """An entity's history is longer than the log that is kept in memory."""
    append(jobs, 0, 2_500)
    archive_and_trim(jobs, keep=100)
    append(jobs, 2_500, 30)

    with pytest.raises(ArchiveNeeded):
        Entities(jobs, Jobs(), history=History(jobs)).load("job-1")
    loaded = Entities(jobs, Jobs()).load("job-1")
    again = Entities(jobs, Jobs()).load("job-1")

    assert (loaded.events_read, loaded.state.events, again.events_read) == (2_530, 2_530, 0)


def test_an_event_deleted_by_hand_is_named(server: Server, jobs: Stream) -> None:
    """A state without it would be a lie; a person has to restore the log."""
    append(jobs, 0, 30)
    position = jobs.read(0)[7].position
    server.client.xdel(jobs.keys[0].log, position)

    with pytest.raises(EntityIncomplete, match=rf"jobs/0/{position}"):
        Entities(jobs, Jobs()).load("job-1")


KILLED = """
import os, signal, sys
from aurastream.projections.engine.generations import Generation, Record, State
from aurastream.projections.entity.entities import Entities
from aurastream.streams import Server, open_stream
from tests.projections.entity.test_entity import Jobs, facts
stream = open_stream(Server(sys.argv[1]), "jobs")
steps = []
def on_step(step):
    steps.append(step)
    if step == sys.argv[2] and "appended" in steps:
        os.kill(os.getpid(), signal.SIGKILL)
Entities(stream, Jobs(), on_step=on_step).decide("job-1", lambda loaded: facts(loaded.version, 150))
"""


@pytest.mark.slow
@pytest.mark.parametrize("step", ["appended", "looked", "read", "folded", "kept"])
def test_killed_between_append_and_snapshot_nothing_is_lost(server: Server, jobs: Stream, step: str) -> None:
    """A snapshot comes after the append and never instead of it."""
    append(jobs, 0, 50)

    killed = subprocess.run(
        [sys.executable, "-c", KILLED, server.url, step], cwd=ROOT, check=False
    ).returncode
    loaded = Entities(jobs, Jobs()).load("job-1")

    assert killed == -9
    assert (loaded.version, loaded.events_read) == (200, 0 if step == "kept" else 200)
    assert loaded.state == folded(jobs, Jobs(), "job-1")


@pytest.mark.parametrize("cuts", [1, 2, 3])
def test_a_lost_reply_decides_once(running: ServerProcess, server: Server, jobs: Stream, cuts: int) -> None:
    """Whoever repeats a decision after a lost answer must find it made, not make it again."""
    append(jobs, 0, 50)
    proxy = CuttingProxy(running.url)
    through = open_stream(Server(proxy.url), "jobs")
    seen: list[str] = []

    def cut(step: str) -> None:
        seen.append(step)
        if seen.count(step) == 1 and step != "kept":  # after which nothing is asked any more
            proxy.cuts = cuts

    decided = Entities(through, Jobs(), on_step=cut).decide(
        "job-1", lambda loaded: facts(loaded.version, 150)
    )
    proxy.close()

    assert (len(decided.appended), decided.loaded.version, proxy.cuts) == (150, 50, 0)
    assert Entities(jobs, Jobs()).load("job-1").version == 200
    assert Entities(jobs, Jobs()).load("job-1").state == folded(jobs, Jobs(), "job-1")


def far_future(n: int) -> ClipViewsObserved:
    return ClipViewsObserved(
        event_id=f"far.{n}", subject="job-1", occurred_at=datetime(2099, 1, 1, tzinfo=NOON.tzinfo), views=1
    )


def imported(event_id: str, subject: str) -> ImportFinished:
    """An event that the projection does not fold, but that makes a version."""
    counts = {"rows": 0, "valid_rows": 0, "rejected_rows": 0}
    return ImportFinished(
        event_id=event_id,
        subject=subject,
        occurred_at=NOON,
        stream="x",
        format="y",
        file_sha256="0" * 64,
        **counts,
    )


SEED = int(os.environ.get("AURASTREAM_TEST_SEED", "0"))


@pytest.mark.parametrize("seed", range(SEED, SEED + 6))
@pytest.mark.parametrize("is_pure", [True, False], ids=["pure", "raw"])
@pytest.mark.slow
def test_the_state_is_what_the_views_row_is_whatever_happens(
    server: Server, jobs: Stream, seed: int, is_pure: bool
) -> None:
    """Random interleavings of appends, decisions, consumers, archive and trim, repeats, raw and damaged
    entries.

    AURASTREAM_TEST_SEED takes a seed that is printed with a failure.
    """
    dice, made = random.Random(seed), {f"job-{n}": 0 for n in range(3)}
    operations = open_stream(server, OPERATIONS, create=True, settings=Settings(partitions=1))
    jobs.codec = type(jobs.codec)((ClipViewsObserved, ImportFinished))
    keys, looked = jobs.keys[0], 0

    def new(subject: str, count: int) -> list[Event]:
        first = made[subject]
        made[subject] += count
        events: list[Event] = []
        for n in range(first, first + count):
            minute = dice.choice([n / 10, n / 10, n * 20, dice.randrange(2_000)])
            views = dice.choice([666, *range(10)])
            events.append(observation(views=views, minute=minute, clip=subject, event_id=f"{subject}.{n}"))
            if dice.random() < 0.05:
                events.append(imported(f"{subject}.import.{n}", subject))
        return events

    for _ in range(60):
        subject = dice.choice(list(made))
        what = dice.choice(
            [
                "append",
                "append",
                "decide",
                "repeat",
                "consume",
                "look",
                "look",
                "trim",
                "forget",
                "raw",
                "damaged",
                "far",
            ]
        )
        if what == "append":
            jobs.append(new(subject, dice.choice([1, 3, 120])))
        elif what == "decide":
            events = new(subject, dice.choice([1, 2, 130]))
            Entities(jobs, Jobs()).decide(subject, lambda loaded, events=events: events)
        elif what == "repeat" and made[subject]:
            jobs.append(
                [observation(views=1, clip=subject, event_id=f"{subject}.{dice.randrange(made[subject])}")]
            )
        elif what == "consume":
            consume(server, jobs, Jobs())
        elif what == "forget":
            Entities(jobs, Jobs()).forget(subject)
        elif what == "trim":
            consume(server, jobs, Jobs())
            list(Archiver(open_archive(jobs.settings, jobs), operations).run(0))
            list(Trimmer(jobs, operations, Goal(keep_events=dice.choice([0, 10, 200]))).run())
        elif what == "raw" and not is_pure:
            raw_append(
                server,
                jobs,
                observation(views=9, clip=subject, event_id=f"{subject}.{dice.randrange(made[subject] + 5)}"),
            )
        elif what == "far" and not is_pure:
            raw_append(server, jobs, far_future(dice.randrange(10)))
        elif what == "damaged" and not is_pure:
            server.client.xadd(keys.log, {"event": b'{"subject":"job-1"}', "crc32": 1})
        elif what == "look":
            looked += 1
            loaded = Entities(jobs, Jobs()).load(subject)
            consume(server, jobs, Jobs())
            assert loaded.state == View(jobs, Jobs()).state(subject), f"seed {seed}"
            assert loaded.version == int(server.client.hget(keys.versions, subject) or 0)
    assert looked > 2


def test_the_bare_fold_leaves_what_is_declared_over_states_to_the_view(server: Server, jobs: Stream) -> None:
    """One entity's fold knows nothing of other keys, so it must not touch their totals."""
    append(jobs, 0, 20)
    consume(server, jobs, Counting())
    append(jobs, 20, 5)

    loaded = Entities(jobs, Counting()).load("job-1")
    consume(server, jobs, Counting())

    assert (loaded.events_read, loaded.state) == (5, View(jobs, Counting()).state("job-1"))
    assert findings(jobs, Counting()) == []
