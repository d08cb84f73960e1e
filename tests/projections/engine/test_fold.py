"""
The fold, by random events: the same whatever the batches and the cache, equal to plain Python, and to what a
server holds.

The oracle is in this file: it takes the whole list of events of a clip at once and uses dictionaries,
fractions and comprehensions. It shares no code with the package but the event type. Short lists come from
hypothesis, derandomised, which cuts a failure down to its cause; long ones, with more clips than a recap
names, from a seed that is printed and that AURASTREAM_TEST_SEED takes back.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aurastream.projections import (
    FoldFailed,
    Listing,
    MemoryView,
    Projection,
    ProjectionError,
    Ranking,
    Rollup,
    Totals,
)
from aurastream.projections.built_in.clips import Clips
from aurastream.projections.engine.fold import CACHE_MAX, Fold
from aurastream.projections.tables import LISTING_CHUNK, Due, Need
from aurastream.projections.tables.ranking import stored_score
from aurastream.streams import ClipViewsObserved, Server, Settings, drive, open_stream
from tests.facts import NOON, consume, findings, observation
from tests.projections.counting import Count, Counting
from tests.servers import ServerProcess

Placed = list[tuple[str, ClipViewsObserved]]  # position, event
Tables = dict[str, dict[str, Any]]

thorough = settings(max_examples=250, deadline=None, derandomize=True, database=None)


class Store:
    """The caller's side of the fold: tables as dictionaries. `forget` drops the fold's cache before every
    batch.
    """

    def __init__(
        self, projection: Projection[Any], *, forget: bool = False, cache_max: int = CACHE_MAX
    ) -> None:
        self.fold, self.forget = Fold(projection, states_max=cache_max), forget
        self.tables: Tables = {}

    def take(self, events: Placed) -> None:
        if self.forget:
            self.fold.reset(self.fold.watermark)
        for change in drive(self.fold.batch(events), self._held):
            assert not set(change.put) & set(change.drop), "one commit would remove what it wrote"
            table = self.tables.setdefault(
                change.table if change.part is None else f"{change.table}:{change.part}", {}
            )
            for key in change.drop:
                table.pop(key, None)
            table.update(change.put)

    def _held(self, need: Need) -> list[Any]:
        held = self.tables.get(need.table, {})
        if isinstance(need, Due):
            return [key for key, end in held.items() if int(end) <= need.until]
        return [held.get(key) for key in need.keys]

    def view(self) -> Tables:
        return {name: dict(sorted(table.items())) for name, table in self.tables.items() if table}


def placed(events: Iterable[ClipViewsObserved]) -> Placed:
    return [(f"{number}-0", event) for number, event in enumerate(events, start=1)]


def folded(
    projection: Projection[Any],
    batches: Iterable[Placed],
    *,
    forget: bool = False,
    cache_max: int = CACHE_MAX,
) -> Tables:
    store = Store(projection, forget=forget, cache_max=cache_max)
    for batch in batches:
        store.take(batch)
    return store.view()


def batches_of(events: Placed, cuts: Iterable[int]) -> Iterator[Placed]:
    """The events cut at these places (modulo their number); batches may be empty."""
    edges = sorted({0, len(events), *(cut % (len(events) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        yield events[start:end]


def assert_batches_do_not_matter(
    projection: Callable[[], Projection[Any]], events: Placed, cuts: list[int]
) -> Tables:
    """In one batch, in pieces, one by one; with the cache, without, and with one so small that it starts anew
    all the time.
    """
    whole = folded(projection(), [events])
    pieces = list(batches_of(events, cuts))
    singles = [[event] for event in events]
    for batches, options in (
        (pieces, {}),
        (singles, {}),
        (pieces, {"forget": True}),
        (singles, {"forget": True}),
        (pieces, {"cache_max": 1}),
        (singles, {"cache_max": 0}),
        ([events, []], {}),
    ):
        assert folded(projection(), batches, **options) == whole
    return whole


# Random events: few clips, few categories, instants that tie, go back, and cross hours, midnights and the
# viral age.

MINUTES = (
    0,
    1,
    2,
    3,
    30,
    59,
    60,
    61,
    90,
    359,
    360,
    361,
    420,
    719,
    720,
    721,
    1_439,
    1_440,
    1_441,
    2_160,
    2_880,
)
instants = st.one_of(
    st.sampled_from(MINUTES), st.floats(0, 3_000, allow_nan=False).map(lambda minute: round(minute, 4))
)
counts = st.one_of(st.sampled_from((0, 1, 19, 20, 60, 100, 2_000, 2**53 - 1)), st.integers(0, 5_000))


def many(events: list[dict[str, Any]]) -> list[ClipViewsObserved]:
    return [observation(event_id=f"e{number}", **given) for number, given in enumerate(events)]


def looks(max_size: int = 40) -> st.SearchStrategy[list[ClipViewsObserved]]:
    """Observations in the order of the log. Half of the lists go forward in time, as polls do, the others
    anyhow; a third are looks
    at one clip that hardly moves, so that speeds and peaks are equal."""
    look = st.fixed_dictionaries(
        {
            "views": counts,
            "minute": instants,
            "clip": st.sampled_from(["a", "b", "c", "d", "e:1", "clip-10", "clip-9"]),
            "category": st.sampled_from(["", "Just Chatting", "Musik ♪|%", "irl:x"]),
            "title": st.sampled_from(["", "first", "second"]),
            "created_at": st.sampled_from(
                [None, None, *(NOON + timedelta(minutes=m) for m in (-400, -60, 0, 45, 700))]
            ),
        }
    )
    steady = st.fixed_dictionaries(
        {
            "views": st.sampled_from([0, 60, 120, 180, 240]),
            "minute": st.integers(0, 12).map(lambda step: 30 * step),
            "clip": st.sampled_from(["a", "a", "a", "b"]),
            "category": st.sampled_from(["", "", "x"]),
        }
    )
    anyhow = st.one_of(
        st.lists(look, max_size=max_size),
        st.lists(look, max_size=max_size),
        st.lists(steady, max_size=max_size),
    )
    forward = anyhow.map(lambda all_of_them: sorted(all_of_them, key=lambda given: given["minute"]))
    return st.one_of(anyhow, forward).map(many)


def long_log(seed: int, length: int, clips: int) -> list[ClipViewsObserved]:
    """Polls of many clips over two days, mostly forward, growing and falling, with some late, tied and
    redelivered ones.
    """
    dice = random.Random(seed)
    totals = dict.fromkeys(range(clips), 0)
    minute, events = 0.0, []
    for _ in range(length):
        minute += dice.choice((0, 0, 0, 1, 5, 20 * dice.random()))
        clip = dice.randrange(clips)
        totals[clip] = max(0, totals[clip] + dice.choice((0, 1, 10, 300, 2_000, -5, -1_000)))
        events.append(
            {
                "views": totals[clip],
                "minute": round(minute - dice.choice((0, 0, 0, 0, 2, 90 * dice.random())), 4),
                "clip": f"clip-{clip}",
                "category": dice.choice(("x", "x", "y")) if dice.random() < 0.2 else "xy"[clip % 2],
                "created_at": dice.choice((None, NOON + timedelta(minutes=minute - 30))),
            }
        )
    return many(events)


def seed_of(number: int) -> int:
    seed = int(os.environ.get("AURASTREAM_TEST_SEED", number))
    print("AURASTREAM_TEST_SEED", seed)
    return seed


cuts_anywhere = st.lists(st.integers(0, 1_000), max_size=6)


@thorough
@given(events=looks(), cuts=cuts_anywhere)
@pytest.mark.slow
def test_the_clip_view_does_not_depend_on_batches_nor_on_the_cache(
    events: list[ClipViewsObserved], cuts: list[int]
) -> None:
    """A rebuild reads in other batches than the live consumer did, and after a crash nothing is cached: the
    bytes are the same.
    """
    assert_batches_do_not_matter(Clips, placed(events), cuts)


@thorough
@given(events=looks())
@pytest.mark.slow
def test_the_clip_view_of_a_log_is_one_however_often_it_is_folded(events: list[ClipViewsObserved]) -> None:
    """Delivery is at least once: a repeat of an event that stays in the batch is a tie or late, and moves no
    number but those two.
    """
    once = oracle(events)
    view = MemoryView(Clips())
    view.take(events)
    numbers = clip_numbers(view.tables)
    view.take(events, first=len(events) + 1)
    again = clip_numbers(view.tables)
    for clip in once["clips"]:
        for counter in ("ties", "late", "day_rows"):
            numbers[clip].pop(counter), again[clip].pop(counter)
    assert again == numbers


# The oracle of the clip view.

VIRAL_AGE = timedelta(hours=6)
HOUR_US = 3_600_000_000


def us(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def stamp(at: datetime, form: str) -> str:
    return at.astimezone(UTC).strftime(form)


def history(events: list[ClipViewsObserved]) -> dict[str, Any]:
    """All that is to be known of one clip, from its events in log order."""
    seen: list[ClipViewsObserved] = []
    tied: list[ClipViewsObserved] = []  # the observation that stood when a tie came
    late = 0
    for event in events:
        if all(event.occurred_at > other.occurred_at for other in seen):
            seen.append(event)
        elif event.occurred_at == max(other.occurred_at for other in seen):
            tied.append(seen[-1])
        else:
            late += 1
    looks: list[dict[str, Any]] = []
    for index, event in enumerate(seen):
        before = seen[index - 1] if index else None
        delta = event.views - before.views if before else 0
        elapsed = us(event.occurred_at - before.occurred_at) if before else 0
        told = [other.created_at for other in seen[: index + 1] if other.created_at is not None]
        born = told[-1] if told else seen[0].occurred_at
        age = event.occurred_at - born
        pair = max(delta, 0) * HOUR_US / elapsed if before else None
        base = event.views / (age.total_seconds() / 60) if age > timedelta(0) else 0.0
        velocity = max((pair or 0.0) / 60, base)
        exact = max(
            Fraction(max(delta, 0) * 60_000_000, elapsed or 1),
            Fraction(event.views * 60_000_000, us(age)) if us(age) > 0 else Fraction(0),
        )
        looks.append(
            {
                "event": event,
                "delta": delta,
                "elapsed": elapsed,
                "pair": pair,
                "velocity": velocity,
                "born": born,
                "viral": exact >= 1 and event.views >= 20 and timedelta(0) <= age < VIRAL_AGE,
                "day": stamp(event.occurred_at, "%Y-%m-%d"),
                "hour": stamp(event.occurred_at, "%Y-%m-%dT%H:00Z"),
                "rows": 1 + sum(other is event for other in tied),
                "is_pair": before is not None,
                "title": [other.title for other in seen[: index + 1] if other.title][-1:] or [""],
            }
        )
    return {"looks": looks, "ties": len(tied), "late": late}


def fastest(looks: list[dict[str, Any]]) -> dict[str, Any] | None:
    pairs = [look for look in looks if look["is_pair"]]
    return max(
        pairs,
        key=lambda look: (Fraction(look["delta"], look["elapsed"]), -us(look["event"].occurred_at - NOON)),
        default=None,
    )


def oracle(events: list[ClipViewsObserved]) -> dict[str, Any]:
    """Everything the clip view says, by other means."""
    clips = {
        clip: history([event for event in events if event.subject == clip])
        for clip in {event.subject for event in events}
    }
    watermark = max((event.occurred_at for event in events), default=NOON)
    numbers: dict[str, dict[str, Any]] = {}
    viral: dict[str, dict[str, float]] = {}
    totals: dict[str, dict[str, Counter[str]]] = {"categories": {}, "days": {}, "hours": {}}
    recap: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for clip, known in clips.items():
        looks, last, peak = known["looks"], known["looks"][-1], fastest(known["looks"])
        pairs = [look for look in looks if look["is_pair"]]
        gained, falls = sum(max(look["delta"], 0) for look in pairs), sum(look["delta"] < 0 for look in pairs)
        lost = -sum(min(look["delta"], 0) for look in pairs)
        event = last["event"]
        in_day = [look for look in looks if look["day"] == last["day"]]
        in_hour = [look for look in looks if look["hour"] == last["hour"]]
        numbers[clip] = {
            "views": event.views,
            "first_at": looks[0]["event"].occurred_at,
            "last_at": event.occurred_at,
            "age_from": last["born"],
            "day": last["day"],
            "hour": last["hour"],
            "category": event.category,
            "title": last["title"][0],
            "channel": "",
            "observations": len(looks),
            "ties": known["ties"],
            "late": known["late"],
            "gained": gained,
            "lost": lost,
            "rises": sum(look["delta"] > 0 for look in pairs),
            "falls": falls,
            "pairs_60": sum(look["delta"] * HOUR_US >= 60 * look["elapsed"] for look in pairs),
            "pairs_180": sum(look["delta"] * HOUR_US >= 180 * look["elapsed"] for look in pairs),
            "delta": last["delta"],
            "elapsed_us": last["elapsed"],
            "last_velocity": last["pair"],
            "max_delta": peak["delta"] if peak else 0,
            "max_elapsed_us": peak["elapsed"] if peak else 0,
            "max_at": peak["event"].occurred_at if peak else None,
            "max_velocity": peak["pair"] if peak else None,
            "velocity": last["velocity"],
            "viral_velocity": last["velocity"] if last["viral"] else None,
            **{f"day_{name}": value for name, value in sums(in_day).items()},
            **{
                f"hour_{name}": value
                for name, value in sums(in_hour).items()
                if name in {"observations", "gained", "viral"}
            },
        }
        if last["viral"] and last["born"] + VIRAL_AGE > watermark:
            for table in ("viral", f"viral:{event.category}"):
                viral.setdefault(table, {})[clip] = last["velocity"]
        whole = {
            "subjects": 1,
            "latest_views_sum": event.views,
            "gained": gained,
            "lost": lost,
            "falls": falls,
        }
        totals["categories"].setdefault(event.category, Counter()).update(whole)
        for name, window in (("days", "day"), ("hours", "hour")):
            for start in {look[window] for look in looks}:
                inside = [look for look in looks if look[window] == start]
                more = {"clips": 1, "views": inside[-1]["event"].views, **sums(inside)}
                wanted = (
                    "clips",
                    "views",
                    "observations",
                    "gained",
                    "viral",
                    *(("rows", "falls", "elapsed_us") if window == "day" else ()),
                )
                row = totals[name].setdefault(f"{start}|{inside[-1]['event'].category}", Counter())
                row.update({column: more[column] for column in wanted})
        for look in looks:
            recap.setdefault(f"{look['day']}|{look['event'].category}", []).append((clip, look))
    return {
        "clips": numbers,
        "viral": viral,
        "totals": totals,
        "recap": {row: recapped(items) for row, items in recap.items()},
    }


def sums(looks: list[dict[str, Any]]) -> dict[str, int]:
    """Of the observations of one day or hour, each pair being in that of its later end."""
    return {
        "rows": sum(look["rows"] for look in looks),
        "observations": len(looks),
        "gained": sum(max(look["delta"], 0) for look in looks),
        "falls": sum(look["delta"] < 0 for look in looks),
        "viral": int(any(look["viral"] for look in looks)),
        "elapsed_us": sum(look["elapsed"] for look in looks),
    }


def recapped(items: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """A day of a category: its minutes, its ten fastest clips with what they had when they first were that
    fast.
    """
    times = [look["event"].occurred_at for _, look in items]
    peaks: dict[str, dict[str, Any]] = {}
    for clip, look in items:
        if look["velocity"] > (peaks[clip]["velocity"] if clip in peaks else 0):
            peaks[clip] = look
    order = sorted(peaks, key=lambda clip: (-peaks[clip]["velocity"], clip))
    return {
        "first_at": min(times),
        "last_at": max(times),
        "polls": sorted({(at.hour * 60 + at.minute) for at in times}),
        "top": [
            (clip, peaks[clip]["velocity"], peaks[clip]["event"].views, peaks[clip]["title"][0])
            for clip in order[:10]
        ],
    }


def clip_numbers(tables: Tables) -> dict[str, dict[str, Any]]:
    decode = msgspec.json.Decoder(Clips.state).decode
    return {clip: msgspec.structs.asdict(decode(raw)) for clip, raw in tables.get("clips", {}).items()}


def scores(tables: Tables, name: str) -> dict[str, float]:
    return {key: 0.0 - float(score) for key, score in tables.get(name, {}).items()}


def assert_clip_view(tables: Tables, events: list[ClipViewsObserved]) -> None:
    """States, rankings with their expiry, totals by category, day and hour, recaps, and the list of the late."""
    expected = oracle(events)

    clips = expected["clips"]
    assert clip_numbers(tables) == clips
    assert scores(tables, "latest_views") == {clip: float(known["views"]) for clip, known in clips.items()}
    for ranking in ("last_velocity", "max_velocity"):
        assert scores(tables, ranking) == {
            clip: known[ranking] for clip, known in clips.items() if known[ranking] is not None
        }
    viral = {name: scores(tables, name) for name in tables if name == "viral" or name.startswith("viral:")}
    assert viral == expected["viral"]
    assert set(tables.get("viral.expiry", {})) == set(expected["viral"].get("viral", {}))
    for name, rows in expected["totals"].items():
        assert {row: msgspec.json.decode(raw) for row, raw in tables.get(name, {}).items()} == {
            row: dict(sum_) for row, sum_ in rows.items()
        }
    found = {
        row: msgspec.json.decode(raw, type=Clips.rollups[0].row)
        for row, raw in tables.get("recap", {}).items()
    }
    assert {
        row: {
            "first_at": recap.first_at,
            "last_at": recap.last_at,
            "polls": list(recap.polls),
            "top": [(item.subject, item.velocity, item.views, item.title) for item in recap.top],
        }
        for row, recap in found.items()
    } == expected["recap"]
    assert list_of(tables.get("late", {}), "late") == late_positions(events)


@thorough
@given(events=looks(60))
@example(events=[])
def test_the_clip_view_says_what_plain_python_says(events: list[ClipViewsObserved]) -> None:
    """A second, slow and simple telling of the rules finds what a fast one got wrong."""
    assert_clip_view(folded(Clips(), [placed(events)]), events)


@pytest.mark.parametrize("number", range(1, 5))
@pytest.mark.slow
def test_a_long_log_of_many_clips_says_what_plain_python_says_in_any_batches(number: int) -> None:
    """More clips than a recap names, more late ones than a row of the list has, two days, ranks that expire."""
    seed = seed_of(number)
    events = long_log(seed, 700, 30)
    dice = random.Random(seed)

    tables = assert_batches_do_not_matter(Clips, placed(events), [dice.randrange(700) for _ in range(40)])

    assert_clip_view(tables, events)
    assert max(len(msgspec.json.decode(row)["top"]) for row in tables["recap"].values()) == 10
    assert "late|1" in tables["late"]


def late_positions(events: list[ClipViewsObserved]) -> list[str]:
    """Where an observation is that is older than one of its clip before it in the log."""
    return [
        f"{index + 1}-0"
        for index, event in enumerate(events)
        if any(
            other.occurred_at > event.occurred_at
            for other in events[:index]
            if other.subject == event.subject
        )
    ]


def list_of(rows: dict[str, bytes], key: str) -> list[Any]:
    """A listing's items, read as the README of the tables says: full rows, then the rest."""
    if key not in rows:
        return []
    head = msgspec.json.decode(rows[key])
    full = [msgspec.json.decode(rows[f"{key}|{number}"]) for number in range(head["stored"])]
    assert all(len(row) == LISTING_CHUNK for row in full)
    assert len(head["tail"]) < LISTING_CHUNK
    return [item for row in full for item in row] + head["tail"]


# A projection that uses everything a person can declare.

TTL = timedelta(minutes=90)
FAME = timedelta(minutes=200)


class Visit(msgspec.Struct, frozen=True):
    """What is known of a key since it was last away for TTL."""

    began: datetime
    seen: datetime
    looks: int
    points: int
    part: str
    hour: str

    @property
    def fame(self) -> float | None:
        """Absent at 13 points, as a score may be."""
        return None if self.points == 13 else self.points / 2


class Tally(msgspec.Struct, frozen=True):
    moves: int
    most: int


def tallied(row: Tally | None, visit: Visit, event: ClipViewsObserved) -> Tally:
    return Tally(1, visit.points) if row is None else Tally(row.moves + 1, max(row.most, visit.points))


class Visits(Projection[Visit]):
    name = "visits"
    events = (ClipViewsObserved,)
    state = Visit
    rankings = (
        Ranking("points", score="points", by="part"),
        Ranking("looks", score=lambda visit: visit.looks, by=lambda visit: visit.looks % 2),
        Ranking(
            "fame",
            score="fame",
            by="part",
            expires_at=lambda visit: None if visit.looks == 3 else visit.seen + FAME,
        ),
        Ranking("plain", score="fame"),
    )
    totals = (
        Totals("by_part", by="part", of={"keys": 1, "points": "points", "looks": "looks"}),
        Totals("by_hour", by="part", window="hour", of={"keys": 1, "points": "points"}),
        Totals("by_day", window=lambda visit: visit.hour[:10], of={"points": lambda visit: visit.points}),
        Totals("all", of={"points": "points"}),
    )
    rollups = (Rollup("tally", key=lambda visit, event: visit.part or None, row=Tally, apply=tallied),)
    listings = (
        Listing(
            "began",
            key=lambda event: event.category,
            item=lambda old, new, event, position: position if old is None else None,
        ),
    )

    def apply(self, state: Visit | None, event: ClipViewsObserved) -> Visit:
        at, points = event.occurred_at, event.views - 20
        if state is None:
            return Visit(at, at, 1, points, event.category, at.isoformat()[:13])
        if at <= state.seen or points == -20:
            return state
        return Visit(state.began, at, state.looks + 1, points, event.category, at.isoformat()[:13])


class Sessions(Visits):
    """The same, whose states begin anew after TTL; not at their fourth look."""

    name = "sessions"

    def expires_at(self, state: Visit) -> datetime | None:
        return None if state.looks == 4 else state.seen + TTL


def visits_oracle(events: list[ClipViewsObserved], expires: bool) -> dict[str, Any]:
    """The states a key went through, as a list; all tables are sums over those lists."""
    steps: dict[str, list[dict[str, Any]]] = {}
    moves: dict[str, list[int]] = {}
    began: dict[str, list[str]] = {}
    for number, event in enumerate(events, start=1):
        path, at, points = steps.setdefault(event.subject, []), event.occurred_at, event.views - 20
        last = path[-1] if path else None
        if last is None or (expires and last["looks"] != 4 and last["seen"] + TTL <= at):
            looks, start = 1, at
            began.setdefault(event.category, []).append(f"{number}-0")
        elif at <= last["seen"] or points == -20:
            continue
        else:
            looks, start = last["looks"] + 1, last["began"]
        path.append(
            {
                "began": start,
                "seen": at,
                "looks": looks,
                "points": points,
                "part": event.category,
                "hour": at.isoformat()[:13],
            }
        )
        if event.category:
            moves.setdefault(event.category, []).append(points)
    final = {key: path[-1] for key, path in steps.items() if path}
    watermark = max((event.occurred_at for event in events), default=NOON)
    fame = {
        key: state["points"] / 2
        for key, state in final.items()
        if state["points"] != 13 and (state["looks"] == 3 or state["seen"] + FAME > watermark)
    }
    rankings: dict[str, dict[str, float]] = {
        "points": {key: float(state["points"]) for key, state in final.items()},
        "looks": {key: float(state["looks"]) for key, state in final.items()},
        "plain": {key: state["points"] / 2 for key, state in final.items() if state["points"] != 13},
        "fame": fame,
    }
    for key, state in final.items():
        rankings.setdefault(f"points:{state['part']}", {})[key] = state["points"]
        rankings.setdefault(f"looks:{state['looks'] % 2}", {})[key] = state["looks"]
        if key in fame:
            rankings.setdefault(f"fame:{state['part']}", {})[key] = fame[key]
    by_part, by_hour, by_day, total = {}, {}, {}, Counter()
    for path in steps.values():
        if not path:
            continue
        last = path[-1]
        by_part.setdefault(last["part"], Counter()).update(keys=1, points=last["points"], looks=last["looks"])
        total.update(points=last["points"])
        for hour in {state["hour"] for state in path}:
            at_end = [state for state in path if state["hour"] == hour][-1]
            by_hour.setdefault(f"{hour}|{at_end['part']}", Counter()).update(keys=1, points=at_end["points"])
        for day in {state["hour"][:10] for state in path}:
            by_day.setdefault(day, Counter()).update(
                points=[state for state in path if state["hour"][:10] == day][-1]["points"]
            )
    totals = {"by_part": by_part, "by_hour": by_hour, "by_day": by_day, "all": {"": total}}
    return {
        "states": final,
        "rankings": {name: table for name, table in rankings.items() if table},
        "totals": {
            name: {row: dict(sum_) for row, sum_ in rows.items() if any(sum_.values())}
            for name, rows in totals.items()
        },
        "tally": {part: {"moves": len(points), "most": max(points)} for part, points in moves.items()},
        "began": began,
    }


def visits(max_size: int = 40) -> st.SearchStrategy[list[ClipViewsObserved]]:
    look = st.fixed_dictionaries(
        {
            "views": st.sampled_from([0, 1, 19, 20, 21, 33, 40, 100]),
            "minute": st.integers(0, 900),
            "clip": st.sampled_from(["a", "b", "c"]),
            "category": st.sampled_from(["", "x", "y|z"]),
        }
    )
    anyhow = st.lists(look, max_size=max_size)
    return st.one_of(anyhow, anyhow.map(lambda looks: sorted(looks, key=lambda look: look["minute"]))).map(
        many
    )


@pytest.mark.parametrize("projection", [Visits, Sessions])
@thorough
@given(events=visits(), cuts=cuts_anywhere)
@pytest.mark.slow
def test_everything_declared_does_not_depend_on_batches(
    projection: type[Visits], events: list[ClipViewsObserved], cuts: list[int]
) -> None:
    """Split rankings, scores that come and go, expiry of ranks and of states, windows, roll-ups, lists: in
    any batches the same bytes.
    """
    assert_batches_do_not_matter(projection, placed(events), cuts)


@pytest.mark.parametrize("projection", [Visits, Sessions])
@thorough
@given(events=visits())
def test_everything_declared_says_what_plain_python_says(
    projection: type[Visits], events: list[ClipViewsObserved]
) -> None:
    """The kinds of tables keep differences; a recount over the states must give the same."""
    tables = folded(projection(), [placed(events)])
    expected = visits_oracle(events, expires=projection is Sessions)

    states = {
        key: msgspec.structs.asdict(msgspec.json.decode(raw, type=Visit))
        for key, raw in tables.get("states", {}).items()
    }
    assert states == expected["states"]
    ranked = {
        name: scores(tables, name)
        for name in tables
        if name.partition(":")[0] in {"points", "looks", "plain", "fame"}
    }
    assert ranked == {name: table for name, table in expected["rankings"].items() if table}
    for name, rows in expected["totals"].items():
        assert {row: msgspec.json.decode(raw) for row, raw in tables.get(name, {}).items()} == rows
    assert {row: msgspec.json.decode(raw) for row, raw in tables.get("tally", {}).items()} == expected[
        "tally"
    ]
    for key in ("", "x", "y|z"):
        assert list_of(tables.get("began", {}), key) == expected["began"].get(key, [])


# What a real server holds.


def held(server: Server, prefix: str) -> Tables:
    """The tables under a prefix, in MemoryView's form."""
    tables: Tables = {}
    client = server.client
    for raw in client.keys("*"):
        key = raw.decode()
        if key.startswith(prefix):
            is_hash = client.type(key) == b"hash"
            tables[key.removeprefix(prefix)] = (
                {name.decode(): value for name, value in client.hgetall(key).items()}
                if is_hash
                else {name.decode(): score for name, score in client.zrange(key, 0, -1, withscores=True)}
            )
    return tables


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(events=st.one_of(looks(25), visits(25)), batch_max=st.integers(1, 9))
def test_a_server_holds_what_the_view_in_memory_holds(
    one_server: ServerProcess, events: list[ClipViewsObserved], batch_max: int
) -> None:
    """The view in memory is what `check` compares with: it must be the same thing, key by key and byte by
    byte.
    """
    server = Server(one_server.url)
    server.client.flushall()
    stream = open_stream(server, "clips", create=True, settings=Settings(partitions=1))
    stream.append(events)
    consume(server, stream, Clips(), Visits(), Sessions(), batch_max=batch_max)

    for projection in (Clips(), Visits(), Sessions()):
        memory = MemoryView(projection)
        if raw := stream.read_raw(0):
            memory.fold(memory.decode(raw))
        expected = {}
        for name, table in memory.tables.items():
            key, colon, part = name.partition(":")
            full = stream.keys[0].view(projection.name, 1, key, part if colon else None)
            if table:
                is_scored = any(not isinstance(value, bytes) for value in table.values())
                expected[full] = {key: float(value) for key, value in table.items()} if is_scored else table
        prefix = stream.keys[0].view(projection.name, 1, "")
        assert held(server, prefix) == {key.removeprefix(prefix): table for key, table in expected.items()}
    assert findings(stream, Clips(), Visits()) == []
    stream.close()
    server.close()


# Expiry in event time, by example.


def points(view: MemoryView) -> dict[str, tuple[int, int]]:
    states = {key: msgspec.json.decode(raw, type=Visit) for key, raw in view.tables["states"].items()}
    return {key: (state.looks, state.points) for key, state in states.items()}


def test_a_state_older_than_its_time_to_live_is_absent_to_the_fold() -> None:
    """In event time: at 90 minutes it begins anew, a microsecond earlier it goes on, and no clock is asked."""
    in_time, too_late = MemoryView(Sessions()), MemoryView(Sessions())
    in_time.take([observation(21), observation(22, minute=90 - 1e-6 / 60)])
    too_late.take([observation(21), observation(22, minute=90)])

    assert points(in_time) == {"clip-1": (2, 2)}
    assert points(too_late) == {"clip-1": (1, 2)}


def test_another_keys_event_expires_no_state_but_expires_ranks() -> None:
    """A state's time is compared with its own next event; a ranking's with the partition's latest."""
    view = MemoryView(Sessions())
    view.take([observation(21, clip="a"), observation(22, clip="b", minute=200)])

    assert set(view.tables["states"]) == {"a", "b"}
    assert set(view.tables["fame"]) == {"b"}


def test_an_expired_rank_comes_back_with_its_next_event_and_a_late_event_expires_nothing() -> None:
    """Event time only grows: a late event must neither take away nor bring back."""
    view = MemoryView(Visits())
    view.take([observation(21, clip="a"), observation(22, clip="b", minute=200)])
    view.take([observation(23, clip="a", minute=250)])
    assert set(view.tables["fame"]) == {"a", "b"}

    view.take([observation(24, clip="c", minute=3)])

    assert set(view.tables["fame"]) == {"a", "b"}  # c's own end, minute 203, has passed
    assert view.tables["fame:"].keys() == {"a", "b"}


def test_a_window_keeps_what_a_state_added_before_it_expired() -> None:
    """A key's contribution to an earlier window stays, also when the state has expired since, within a batch
    or between two.
    """
    events = placed([observation(21), observation(22, minute=150)])
    whole, singles = folded(Sessions(), [events]), folded(Sessions(), [[event] for event in events])

    assert list(singles["by_hour"]) == ["2026-04-15T12|", "2026-04-15T14|"]
    assert whole == singles


def test_a_key_counts_once_in_a_window_in_which_its_state_began_anew() -> None:
    """The window is a day: three sessions of one key are one contribution, the last."""
    tables = folded(Sessions(), [placed([observation(21 + n, minute=100 * n) for n in range(3)])])
    assert tables["by_day"] == {"2026-04-15": b'{"points":3}'}


# What a fold refuses.


def fails(where: str) -> None:
    if Odd.fails_in == where:
        raise ZeroDivisionError("oh")


class Odd(Visits):
    """A projection that fails where it is told to."""

    name = "odd"
    fails_in = ""
    rankings = (Ranking("odd_rank", score=lambda visit: fails("score")),)
    rollups = (Rollup("odd_row", key=lambda visit, event: fails("rollup"), row=Tally, apply=tallied),)
    listings = (
        Listing("odd_list", key=lambda event: "all", item=lambda old, new, event, position: fails("listing")),
    )

    def apply(self, state: Visit | None, event: ClipViewsObserved) -> Visit:
        if self.fails_in == "apply":
            raise ZeroDivisionError("oh")
        return super().apply(state, event)

    def expires_at(self, state: Visit) -> datetime | None:
        return NOON + timedelta(days=10**9) if self.fails_in == "expires_at" else None


@pytest.mark.parametrize("where", ["apply", "expires_at", "listing", "rollup", "score"])
def test_a_failing_projection_is_named_with_its_event(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A stranger's code may fail anywhere; the operator needs its name and an event, not a bare traceback."""
    monkeypatch.setattr(Odd, "fails_in", where)
    with pytest.raises(FoldFailed, match=r"'odd' failed on event 'e2' of clips/3") as told:
        list_steps(
            Fold(Odd(), "clips/3"), placed([observation(event_id="e2"), observation(event_id="e2", minute=1)])
        )
    assert told.value.event_id == "e2"


def list_steps(fold: Fold, events: Placed) -> None:
    drive(fold.batch(events), lambda need: [None] * len(need.keys))


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_is_refused(score: float) -> None:
    """A sorted set would order NaN nowhere, and JSON has no infinity."""
    projection = Visits()
    projection.rankings = (Ranking("bad", score=lambda visit: score),)
    with pytest.raises(ProjectionError, match="finite"):
        MemoryView(projection).take([observation()])


def test_scores_are_stored_with_the_sign_turned_and_zero_has_none() -> None:
    """So that ZRANGE gives the best first; -0.0 would be another text than 0.0."""
    assert [stored_score(score) for score in (5, 0, 0.0, -0.0, -2.5)] == ["-5.0", "0.0", "0.0", "0.0", "2.5"]


def test_a_returned_state_that_is_the_same_writes_nothing() -> None:
    """Returning the state it was given means that nothing changed: no row is written, no roll-up is asked."""
    store = Store(Visits())
    store.take(placed([observation(25, category="x")]))
    before = store.view()

    store.take([("2-0", observation(25, minute=-5, category="y"))])

    assert store.view() == before


class Keyed(Visits):
    name = "keyed"

    def key(self, event: ClipViewsObserved) -> str | None:
        return None if event.subject == "b" else f"of-{event.subject}"


def test_events_without_a_key_are_skipped() -> None:
    """A projection chooses its events by their key; the others are none of its business."""
    view = MemoryView(Keyed())
    view.take([observation(clip="a"), observation(clip="b")])
    assert set(view.tables["states"]) == {"of-a"}


def test_a_projection_of_anybody_says_what_leads_and_shows_its_fields() -> None:
    """A stranger's view is shown as well as ours, without a word of its author."""
    counting = Counting()

    assert counting.headline == "most"
    assert counting.shown(Count(2, 10, "irl")) == {"applied": 2, "views": 10, "category": "irl"}
