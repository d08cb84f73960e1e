"""
Why: the events behind a row, and what each changed. Every list of changes must lead from nothing to what the
view holds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest

from aurastream.projections import Listing, Projection, ProjectionError, View
from aurastream.projections.built_in.clips import Clips
from aurastream.projections.built_in.trail import Trail
from aurastream.projections.past import AsOf, Inquiry, PastView, Why, why
from aurastream.projections.past.steps import NOTHING, OTHER_COUNTS
from aurastream.streams import (
    OPERATIONS,
    ClipViewsObserved,
    Codec,
    Event,
    History,
    Server,
    Settings,
    Stream,
    open_stream,
)
from aurastream.streams.archive import open_archive
from aurastream.streams.archive.archiver import Archiver
from aurastream.streams.personal.erasure import erase
from tests.facts import NOON, consume, observation, raw_append
from tests.processors.importing.imports import seed_of_this_run
from tests.projections.counting import Count, Counting


@pytest.fixture
def parted(server: Server) -> Iterator[Stream]:
    stream = open_stream(server, "clips-parted", create=True, settings=Settings(partitions=3))
    yield stream
    stream.close()


class Other(Event, frozen=True, kw_only=True, tag="other.seen"):
    """An event no clip view folds."""


class ByCategory(Projection[Count]):
    """Its key is no subject: the trail cannot name the events behind it."""

    name = "by-category"
    events = (ClipViewsObserved,)
    state = Count
    listings = (
        Listing("seen", key=lambda event: event.category, item=lambda old, new, event, position: event.views),
    )

    def key(self, event: Any) -> str | None:
        return event.category or None

    def apply(self, state: Count | None, event: Any) -> Count:
        return Count(
            (state.applied if state else 0) + 1, max(event.views, state.views if state else 0), event.category
        )


def explained(
    stream: Stream, projection: Projection[Any], key: str, *arguments: Any, history: History | None = None
) -> Why:
    return why(Inquiry(history or History(stream), projection, key, *arguments))


def led_to(answer: Why) -> dict[str, Any]:
    """The fields that the changes, one after the other, end in (but None); each must begin where the one
    before ended.
    """
    fields: dict[str, Any] = {}
    for step in answer.steps:
        for name, (before, after) in step.changed.items():
            assert fields.get(name) == before
            fields[name] = after
    return {name: value for name, value in fields.items() if value is not None}


def state_of(stream: Stream, projection: Projection[Any], key: str) -> dict[str, Any]:
    state = View(stream, projection).state(key)
    assert state is not None
    return {name: value for name in state.__struct_fields__ if (value := getattr(state, name)) is not None}


def test_the_events_behind_a_state_and_what_each_changed(server: Server, stream: Stream) -> None:
    """The whole answer in its plainest form: every event, every field, in the order of the log."""
    placed = stream.append(
        [
            observation(100, title="a clip"),
            observation(100, clip="other"),
            observation(160, minute=1, source="radar-7"),
            observation(150, minute=2),
        ]
    )
    consume(server, stream, Clips(), Trail())

    answer = explained(stream, Clips(), "clip-1")

    assert [(step.position, step.event_id) for step in answer.steps] == [
        (placed[n].position, f"clip-1:{minute}:{views}")
        for n, minute, views in ((0, 0, 100), (2, 1, 160), (3, 2, 150))
    ]
    assert [step.changed["views"] for step in answer.steps] == [(None, 100), (100, 160), (160, 150)]
    assert [step.changed.get("gained") for step in answer.steps] == [(None, 0), (0, 60), None]
    assert answer.steps[2].changed["falls"] == (0, 1)
    assert (answer.steps[1].type, answer.steps[1].source) == ("clip.views_observed", "radar-7")
    assert answer.steps[1].occurred_at == NOON + timedelta(minutes=1)
    assert (answer.agrees, answer.value) == (True, answer.stored)
    assert (answer.read, answer.scanned) == (3, 0)
    assert led_to(answer) == state_of(stream, Clips(), "clip-1")


def test_ties_and_late_events_are_listed_with_all_they_changed(server: Server, stream: Stream) -> None:
    """Those events change counts alone, and are what a person looks for when a number seems wrong."""
    stream.append(
        [
            observation(100, minute=5),
            observation(300, minute=5, event_id="tie"),
            observation(50, minute=1, event_id="late"),
        ]
    )
    consume(server, stream, Clips(), Trail())

    steps = explained(stream, Clips(), "clip-1").steps

    assert [(step.event_id, step.changed) for step in steps[1:]] == [
        ("tie", {"ties": (0, 1), "day_rows": (1, 2)}),
        ("late", {"late": (0, 1)}),
    ]


def test_an_event_that_changed_nothing_says_so(server: Server, stream: Stream) -> None:
    """Left out, it would look lost; listed without a word, like a fault."""

    class Peak(Counting):
        """The highest count there was."""

        name = "peak"

        def apply(self, state: Count | None, event: ClipViewsObserved) -> Count:
            return state if state is not None and state.views >= event.views else Count(1, event.views, "")

    stream.append([observation(9, minute=0), observation(5, minute=1), observation(12, minute=2)])
    consume(server, stream, Peak(), Trail())

    answer = explained(stream, Peak(), "clip-1")

    assert [step.remark for step in answer.steps] == ["", NOTHING, ""]
    assert (answer.agrees, led_to(answer)["views"]) == (True, 12)


@pytest.mark.parametrize("is_trail_behind", [False, True], ids=["by the trail", "by a scan"])
def test_raw_copies_damage_and_other_types_are_not_behind_a_value(
    server: Server, stream: Stream, is_trail_behind: bool
) -> None:
    """Where the trail has not come yet they are seen, and said to count for nothing; what it has passed it
    kept no place of.
    """
    stream.append([observation(100), observation(140, minute=1)])
    raw_append(server, stream, observation(100))
    raw_append(server, stream, observation(1, event_id="broken", minute=10**8))
    raw = Codec((Other,)).encode(Other(event_id="other", subject="clip-1", occurred_at=NOON))
    server.client.xadd(stream.keys[0].log, {"event": raw, "crc32": crc32(raw)})
    server.client.xadd(stream.keys[0].log, {"event": raw, "crc32": 1})
    consume(server, stream, *([Clips()] if is_trail_behind else [Clips(), Trail()]))

    answer = explained(stream, Clips(), "clip-1")

    counted = [step.event_id for step in answer.steps if not step.remark]
    remarks = [step.remark.partition(":")[0] for step in answer.steps if step.remark]
    assert counted == ["clip-1:0:100", "clip-1:1:140"]
    assert remarks == ([OTHER_COUNTS, "quarantined"] if is_trail_behind else [])
    assert (answer.agrees, led_to(answer)) == (True, state_of(stream, Clips(), "clip-1"))


@pytest.mark.parametrize("behind", [0, 1, 5, 40, 200])
def test_the_answer_is_whole_however_far_the_trail_is_behind_the_view(
    server: Server, stream: Stream, behind: int
) -> None:
    """The index is another view with a cursor of its own: its lag may cost reading, never a step."""
    events = [observation(n * 3, clip=f"c{n % 4}", minute=n) for n in range(200)]
    stream.append(events[: 200 - behind])
    consume(server, stream, Trail())
    stream.append(events[200 - behind :])
    consume(server, stream, Clips())

    answer = explained(stream, Clips(), "c3")

    assert [step.event_id for step in answer.steps] == [event.event_id for event in events[3::4]]
    assert (answer.agrees, answer.scanned) == (True, behind)


def test_a_trail_ahead_of_the_view_adds_nothing_the_view_has_not_read(server: Server, stream: Stream) -> None:
    """The steps explain what the view says now, not what it will say."""
    stream.append([observation(100)])
    consume(server, stream, Clips())
    stream.append([observation(200, minute=1)])
    consume(server, stream, Trail())

    answer = explained(stream, Clips(), "clip-1")

    assert (len(answer.steps), answer.agrees, answer.scanned) == (1, True, 0)


@pytest.mark.parametrize("projection", [Clips(), Counting(), Trail()], ids=lambda item: item.name)
def test_every_change_sequence_of_any_log_ends_in_the_view_s_value(
    server: Server, parted: Stream, projection: Projection[Any]
) -> None:
    """An explanation that does not lead to the number explains another number."""
    dice = random.Random(seed_of_this_run())
    for n in range(300):
        event = observation(
            dice.randrange(900),
            clip=f"c{dice.randrange(6)}",
            minute=dice.randrange(90),
            event_id=f"e{n}",
            category="p",
        )
        parted.append([event])
        if dice.random() < 0.1:
            raw_append(server, parted, event)
    consume(server, parted, projection, Trail())

    for key in sorted(View(parted, projection).states().rows):
        answer = explained(parted, projection, key)
        assert (answer.agrees, answer.scanned) == (True, 0)
        assert led_to(answer) == state_of(parted, projection, key)


def test_a_view_that_was_changed_by_hand_is_found_out(server: Server, stream: Stream) -> None:
    """The second thing a "why" is for: the number that no event explains."""
    stream.append([observation(100), observation(160, minute=1)])
    consume(server, stream, Clips(), Trail())
    view = View(stream, Clips())
    held = msgspec.json.decode(server.client.hget(view.key(0, "clips"), "clip-1"))
    server.client.hset(view.key(0, "clips"), "clip-1", msgspec.json.encode({**held, "views": 161}))

    answer = explained(stream, Clips(), "clip-1")

    assert (answer.agrees, answer.value["views"], answer.stored["views"]) == (False, 160, 161)


def test_entries_that_are_gone_are_said_to_be_gone(server: Server, stream: Stream) -> None:
    """Otherwise the steps would seem whole and simply not add up."""
    placed = stream.append([observation(100), observation(160, minute=1)])
    consume(server, stream, Clips(), Trail())
    server.client.xdel(stream.keys[0].log, placed[0].position)

    answer = explained(stream, Clips(), "clip-1")

    assert ["gone" in step.remark for step in answer.steps] == [True, False]
    assert answer.agrees is False


def test_as_of_a_time_the_steps_end_there(server: Server, stream: Stream) -> None:
    """What is explained is the past answer; no view is kept of it to agree with."""
    stream.append([observation(n, minute=n) for n in range(10)])
    consume(server, stream, Clips(), Trail())

    answer = explained(stream, Clips(), "clip-1", None, AsOf(NOON + timedelta(minutes=3)))

    assert (len(answer.steps), led_to(answer)["views"], answer.agrees) == (4, 3, None)


def test_personal_fields_are_opened_for_who_reads_and_gone_once_they_are_erased(
    server: Server, stream: Stream
) -> None:
    """Log, view and checkpoint hold tokens; only the answer has the words, and after the erasure it has
    none.
    """
    stream.append(
        [
            observation(100, title="a private title", creator="ada"),
            observation(160, minute=1, title="another", creator="ada"),
        ]
    )
    consume(server, stream, Clips(), Trail())

    def texts() -> tuple[Any, Any, Any]:
        """By a new stream object, as any other process would read it."""
        again = open_stream(server, stream.name)
        answer = explained(again, Clips(), "clip-1")
        assert answer.agrees
        past = PastView(History(again), Clips(), AsOf(NOON)).state("clip-1")
        assert past is not None
        return [step.changed.get("title") for step in answer.steps], answer.value.get("title"), past.title

    before = texts()
    erase(open_stream(server, OPERATIONS, create=True), "ada", why="wished", who="tests")

    assert before == (
        [(None, "a private title"), ("a private title", "another")],
        "another",
        "a private title",
    )
    assert texts() == ([(None, ""), None], "", "")


# Other tables.


def test_of_a_ranking_it_is_the_score_that_is_explained(server: Server, stream: Stream) -> None:
    """Who asks why a clip is on top wants the score's story, in the score's own numbers."""
    stream.append([observation(100), observation(160, minute=1), observation(400, minute=2)])
    consume(server, stream, Clips(), Trail())

    answer = explained(stream, Clips(), "clip-1", "max_velocity")

    assert [step.changed.get("max_velocity") for step in answer.steps] == [
        None,
        (None, 3600.0),
        (3600.0, 14400.0),
    ]
    assert (answer.value, answer.agrees) == (14400.0, True)
    assert View(stream, Clips()).ranking("max_velocity").rows[0].score == 14400.0


@pytest.mark.parametrize("is_archived", [False, True])
def test_the_events_behind_a_total_are_those_after_which_it_was_another(
    server: Server, parted: Stream, tmp_path: Path, is_archived: bool
) -> None:
    """No index names them, so all is folded, from the archive as well as from the log."""
    parted.append([observation(n * 10, clip=f"c{n % 5}", minute=n, category=f"p{n % 2}") for n in range(60)])
    consume(server, parted, Counting())
    history = archived(server, parted, tmp_path) if is_archived else History(parted)

    answer = explained(parted, Counting(), "p1", "all", history=history)

    rows = {
        p: msgspec.json.decode(held[0]["p1"])
        for p, (_, held) in View(parted, Counting()).tables("all").items()
        if "p1" in held[0]
    }
    assert (answer.value, answer.agrees) == (rows, True)
    for partition, row in rows.items():
        own = Why([step for step in answer.steps if step.partition == partition])
        assert led_to(own) == row
    assert answer.read == answer.scanned == 60


def test_what_came_and_went_between_two_events_is_behind_a_total_too(server: Server, stream: Stream) -> None:
    """A clip that was in a category for one look: a row that is no more has its story as well."""
    stream.append(
        [
            observation(10, category="irl"),
            observation(20, minute=1, category="music"),
            observation(30, minute=2, category="irl"),
        ]
    )
    consume(server, stream, Counting())

    answer = explained(stream, Counting(), "music", "all")

    assert [step.changed["clips"] for step in answer.steps] == [(None, 1), (1, None)]
    assert (answer.value, answer.stored, answer.agrees) == (None, None, True)


def archived(server: Server, stream: Stream, folder: Path) -> History:
    """The same stream with all of its log archived."""
    again = open_stream(server, stream.name, settings=Settings(archive=str(folder)))
    archive = open_archive(again.settings, again)
    assert archive is not None
    for partition in range(stream.partitions):
        for _ in Archiver(archive, None).run(partition):
            pass
    return History(again, archive)


def test_rows_of_a_projection_with_keys_of_its_own_are_explained_by_the_whole_log(
    server: Server, parted: Stream
) -> None:
    """The trail goes by subjects, and says nothing of other keys."""
    parted.append([observation(n, clip=f"c{n}", minute=n, category=f"p{n % 3}") for n in range(30)])
    consume(server, parted, ByCategory())

    answer = explained(parted, ByCategory(), "p2")

    assert {step.event_id for step in answer.steps} == {f"c{n}:{n}:{n}" for n in range(2, 30, 3)}
    assert (answer.agrees, answer.read) == (True, 30)
    assert sum(row["applied"] for row in answer.value.values()) == 10
    assert explained(parted, ByCategory(), "p2", "seen").agrees is True


def test_a_key_nothing_is_behind_and_a_table_there_is_not(server: Server, stream: Stream) -> None:
    """The first is an answer, the second a mistake: a person must be able to tell them apart."""
    stream.append([observation(1)])
    consume(server, stream, Clips(), Trail())

    assert explained(stream, Clips(), "nobody") == Why(
        [], None, None, True, {0: View(stream, Clips()).cursors()[0].position}
    )
    with pytest.raises(ProjectionError, match="no table 'nothing'"):
        explained(stream, Clips(), "clip-1", "nothing")


# It takes no longer in a longer log.


@pytest.mark.parametrize("count", [1_000, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.any_server
def test_only_the_key_s_own_entries_are_read_however_long_the_log(
    server: Server, stream: Stream, count: int
) -> None:
    """The promise of the index, counted in commands as clocks are noisy."""
    looks = [observation(n, clip=f"c{n % 97}", minute=n / 60, event_id=f"e{n}") for n in range(count)]
    stream.append([observation(7, clip="rare", event_id="first")])
    for start in range(0, count, 10_000):
        stream.append(looks[start : start + 10_000])
    stream.append([observation(8, clip="rare", minute=1, event_id="last")])
    consume(server, stream, Clips(), Trail())
    before = server.client.info("commandstats")

    answer = explained(stream, Clips(), "rare")

    after = server.client.info("commandstats")
    calls = {
        name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"]
        for name in after
        if "range" in name or "hmget" in name
    }
    assert ([step.event_id for step in answer.steps], answer.read, answer.agrees) == (
        ["first", "last"],
        2,
        True,
    )
    assert sum(calls.values()) < 30, calls
