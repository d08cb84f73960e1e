"""
The clip view by random events: the same whatever the batches and the cache, and equal to plain Python.

The oracle is in this file: it takes the whole list of events of a clip at once and uses dictionaries,
fractions and comprehensions. It shares no code with the package but the event type.
"""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import example, given

from aurastream.projections import MemoryView
from aurastream.projections.built_in.clips import Clips
from aurastream.streams import ClipViewsObserved
from tests.facts import NOON
from tests.projections.engine.folding import (
    Tables,
    assert_batches_do_not_matter,
    cuts_anywhere,
    folded,
    list_of,
    long_log,
    looks,
    placed,
    scores,
    seed_of,
    thorough,
)


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


def assert_clip_view(tables: Tables, events: list[ClipViewsObserved]) -> None:
    """States, rankings with their expiry, totals by category, day and hour, recaps, and the list of the
    late.
    """
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
    """More clips than a recap names, more late ones than a row of the list has, two days, ranks that
    expire.
    """
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
