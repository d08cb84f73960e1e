"""
The clip view, rule by rule, and the platform's faults it must not have (DOMAIN.md section 8, by number).

Rules that need no server are told in memory (memory.py; test_fold.py shows it is what a server holds), the
others on real ones.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from aurastream.projections import MemoryView, ProjectionRedefined, View
from aurastream.projections.built_in import Clip, Clips, ClipSettings, Pair, Recap, merged
from aurastream.projections.built_in.recap import TOP
from aurastream.streams import ClipViewsObserved, Server, Stream
from tests.facts import NOON, consume, dump, findings, observation

EXACT_MAX = 2**53 - 1
DAY = "2026-04-15"


ONE_LOOK = (
    b'{"views":5,"first_at":"2026-04-15T12:00:00Z","last_at":"2026-04-15T12:00:00Z",'
    b'"age_from":"2026-04-15T12:00:00Z","day":"2026-04-15","hour":"2026-04-15T12:00Z"}'
)
LATE_LOOK = ONE_LOOK.replace(b"}", b',"late":1}')


def test_a_clip_seen_once_is_stored_as_it_always_was() -> None:
    """Rows of views that older builds folded are compared byte by byte, by check and by rebuild. A default
    that is another object of the same value is written out, and is another row.
    """
    view = MemoryView(Clips())
    looks = [(1, NOON, "c"), (2, NOON, "late"), (3, NOON - timedelta(minutes=5), "late")]

    view.take(
        [ClipViewsObserved(event_id=f"e{n}", subject=clip, occurred_at=at, views=5) for n, at, clip in looks]
    )

    assert view.tables["clips"] == {"c": ONE_LOOK, "late": LATE_LOOK}


class Told:
    """The clip view of some observations."""

    def __init__(self, *events: ClipViewsObserved, **settings: Any) -> None:
        self.view = MemoryView(Clips(ClipSettings(**settings)))
        self._next = 1
        self.add(*events)

    def add(self, *events: ClipViewsObserved) -> Told:
        self.view.take(list(events), first=self._next)
        self._next += len(events)
        return self

    def clip(self, key: str = "clip-1") -> Clip:
        return msgspec.json.decode(self.view.tables["clips"][key], type=Clip)

    def ranked(self, name: str, part: str | None = None) -> list[tuple[str, float]]:
        table = self.view.tables.get(name if part is None else f"{name}:{part}", {})
        return [
            (key, 0.0 - float(score))
            for key, score in sorted(table.items(), key=lambda item: (float(item[1]), item[0].encode()))
        ]

    def rows(self, table: str) -> dict[str, dict[str, int]]:
        return {row: msgspec.json.decode(raw) for row, raw in sorted(self.view.tables.get(table, {}).items())}

    def recap(self, row: str) -> Recap:
        return msgspec.json.decode(self.view.tables["recap"][row], type=Recap)


def born(minute: float = 0) -> dict[str, Any]:
    """The platform says when the clip was published."""
    return {"created_at": NOON + timedelta(minutes=minute)}


# The state of a clip.


def test_a_clip_seen_once_has_views_and_no_pair() -> None:
    """Subjects seen once have no velocity (data definition 5): they are absent from its rankings, not 0 in
    them.
    """
    told = Told(observation(100, category="irl", title="A", channel="B"))
    clip = told.clip()

    assert (clip.views, clip.observations, clip.category, clip.title, clip.channel) == (
        100,
        1,
        "irl",
        "A",
        "B",
    )
    assert (clip.first_at, clip.last_at, clip.age_from) == (NOON, NOON, NOON)
    assert (clip.last, clip.fastest, clip.last_velocity, clip.max_velocity, clip.velocity) == (
        None,
        None,
        None,
        None,
        0.0,
    )
    assert told.ranked("latest_views") == [("clip-1", 100)]
    assert told.ranked("last_velocity") == told.ranked("max_velocity") == []


def test_the_velocity_of_a_pair_is_its_gain_by_the_hour() -> None:
    """delta * 3600 / seconds between neighbours (data definition 4); a gap simply makes a longer pair."""
    told = Told(observation(100), observation(130, minute=10), observation(160, minute=190))
    clip = told.clip()

    assert clip.last == Pair(
        30, 180 * 60_000_000, NOON + timedelta(minutes=10), NOON + timedelta(minutes=190)
    )
    assert clip.fastest == Pair(30, 10 * 60_000_000, NOON, NOON + timedelta(minutes=10))
    assert (clip.last_velocity, clip.max_velocity) == (10.0, 180.0)
    assert (clip.last.velocity_per_hour, clip.fastest.velocity_per_hour) == (10.0, 180.0)
    assert (clip.gained, clip.rises, clip.falls, clip.observations) == (60, 2, 0, 3)


def test_of_equally_fast_pairs_the_earliest_is_the_fastest() -> None:
    """Compared exactly, by cross-multiplication: a third of a view a second is one speed, however it is
    spelt.
    """
    clip = Told(
        observation(0),
        observation(1, minute=3 / 60),
        observation(7, minute=21 / 60),
        observation(7, minute=1),
    ).clip()

    assert clip.fastest == Pair(1, 3_000_000, NOON, NOON + timedelta(seconds=3))


def test_a_fall_has_no_velocity_and_adds_nothing_to_what_was_gained() -> None:
    """Platforms revise totals downwards; the latest views are the last ones seen, even if earlier ones were
    higher.
    """
    told = Told(observation(1_000), observation(1_600, minute=60), observation(400, minute=120))
    clip = told.clip()

    assert (clip.views, clip.gained, clip.lost, clip.rises, clip.falls) == (400, 600, 1_200, 1, 1)
    assert (clip.last_velocity, clip.max_velocity) == (0.0, 600.0)
    assert clip.last is not None
    assert (clip.last.delta, clip.last.velocity_per_hour) == (-1_200, 0.0)
    assert told.ranked("latest_views") == [("clip-1", 400)]
    assert told.ranked("last_velocity") == [("clip-1", 0)]


def test_a_clip_that_only_fell_has_a_fastest_pair_of_velocity_0() -> None:
    """A platform revises totals downwards; that is a fall, and no negative speed."""
    told = Told(observation(9), observation(0, minute=60))
    assert told.ranked("max_velocity") == [("clip-1", 0)]


def test_pairs_at_the_threshold_count_for_it() -> None:
    """One view a minute, three views a minute: at least (data definition 9)."""
    clip = Told(
        observation(0), observation(60, minute=60), observation(239, minute=120), observation(419, minute=180)
    ).clip()
    assert (clip.pairs_60, clip.pairs_180) == (3, 1)


def test_at_an_equal_time_the_first_observation_stands_and_the_other_is_counted() -> None:
    """Two looks at one instant cannot both be the total: which one stands must not depend on luck."""
    told = Told(observation(100, category="irl"), observation(900, category="music", event_id="e2"))
    clip = told.clip()

    assert (clip.views, clip.category, clip.ties, clip.late, clip.observations) == (100, "irl", 1, 0, 1)
    assert (told.rows("days")[f"{DAY}|irl"]["rows"], told.rows("days")[f"{DAY}|irl"]["observations"]) == (
        2,
        1,
    )


def test_a_late_observation_is_counted_and_listed_and_changes_no_number() -> None:
    """A too-late event is listed, not lost."""
    told = Told(observation(100, minute=60), observation(300, minute=120, **born(0)))
    before, tables = told.clip(), {name: dict(table) for name, table in told.view.tables.items()}

    told.add(observation(9_000, minute=90, category="music", title="late"), observation(9_001, minute=30))

    assert told.clip() == msgspec.structs.replace(before, late=2)
    unchanged = set(tables) - {"clips", "late"}
    assert {name: told.view.tables[name] for name in unchanged} == {name: tables[name] for name in unchanged}
    assert msgspec.json.decode(told.view.tables["late"]["late"]) == {"stored": 0, "tail": ["3-0", "4-0"]}


def test_the_last_title_and_channel_that_were_told_stand_and_the_category_follows() -> None:
    """An observation without a title does not take the title away."""
    clip = Told(
        observation(1, title="A", channel="B", category="irl"),
        observation(2, minute=1),
        observation(3, minute=2, title="C"),
    ).clip()
    assert (clip.title, clip.channel, clip.category) == ("C", "B", "")


def test_velocities_rank_with_the_highest_first_and_ties_by_clip() -> None:
    """Equal scores in any other order would make two reads of one view differ."""
    told = Told()
    for clip, gain in (("b", 60), ("a", 60), ("c", 120), ("d", -5)):
        told.add(observation(1_000, clip=clip), observation(1_000 + gain, clip=clip, minute=60))

    assert told.ranked("last_velocity") == [("c", 120), ("a", 60), ("b", 60), ("d", 0)]
    assert told.ranked("latest_views") == [("c", 1_120), ("a", 1_060), ("b", 1_060), ("d", 995)]


# The platform's velocity, and who is viral.


def test_the_platforms_velocity_is_the_larger_of_life_long_and_recent() -> None:
    """Base: views by age in minutes. Recent: the gain since the last look by the minutes since the last look.
    Views/minute.
    """
    told = Told(observation(600, minute=60, **born(0)))
    assert told.clip().velocity == 10.0  # base alone
    assert told.add(observation(605, minute=70, **born(0))).clip().velocity == 605 / 70  # recent is 0.5
    assert told.add(observation(1_005, minute=80, **born(0))).clip().velocity == 40.0  # recent


def test_the_platforms_velocity_is_never_below_0() -> None:
    """After a fall, and for a clip whose publication lies ahead of its observation."""
    assert Told(observation(10, **born(-10)), observation(0, minute=5, **born(-10))).clip().velocity == 0.0
    assert Told(observation(10, **born(30))).clip().velocity == 0.0
    assert Told(observation(10, **born(0))).clip().velocity == 0.0  # no age, nothing to divide by


@pytest.mark.parametrize(
    ("views", "minute", "is_viral"),
    [
        (20, 20, True),  # 1.0 views/minute, 20 views
        (19, 10, False),  # fast, but too few
        (20, 20.001, False),  # enough, but too slow
        (360, 359.99, True),  # just young enough
        (3_600, 360, False),  # six hours old
    ],
)
def test_a_clip_is_viral_from_one_view_a_minute_and_20_views_until_6_hours(
    views: int, minute: float, is_viral: bool
) -> None:
    """The thresholds are inclusive where the rule says so; each edge is tried on both sides."""
    told = Told(observation(views, minute=minute, category="irl", **born(0)))

    assert told.clip().is_viral is is_viral
    assert (
        [key for key, _ in told.ranked("viral")]
        == [key for key, _ in told.ranked("viral", "irl")]
        == ["clip-1"] * is_viral
    )


@pytest.mark.parametrize(
    ("views", "said"), [(59, ""), (60, "trending"), (179, "trending"), (180, "exploding")]
)
def test_a_viral_clip_is_trending_from_one_and_exploding_from_three_views_a_minute(
    views: int, said: str
) -> None:
    """People read the word, so it must turn exactly where the rule says."""
    told = Told(observation(views, minute=60, **born(0)))
    assert Clips(ClipSettings()).label(told.clip()) == said


def test_viral_clips_rank_by_velocity_over_all_and_per_category() -> None:
    """A category shows its own best, also where the whole platform has better ones."""
    told = Told()
    for clip, views, category in (
        ("a", 600, "irl"),
        ("b", 900, "music"),
        ("c", 600, "music"),
        ("d", 5, "music"),
        ("e", 700, ""),
    ):
        told.add(observation(views, clip=clip, minute=60, category=category, **born(0)))

    assert told.ranked("viral") == [("b", 15), ("e", 700 / 60), ("a", 10), ("c", 10)]
    assert told.ranked("viral", "music") == [("b", 15), ("c", 10)]
    assert told.ranked("viral", "irl") == [("a", 10)]
    assert told.ranked("viral", "") == [("e", 700 / 60)]


def test_a_clip_leaves_the_viral_list_when_event_time_passes_its_end_observed_or_not() -> None:
    """Not when a clock does, and not a microsecond earlier; what it was stays in its state."""
    told = Told(observation(600, clip="a", minute=60, category="irl", **born(0)))
    told.add(observation(0, clip="b", minute=360 - 1e-6 / 60, category="music"))
    assert told.ranked("viral", "irl") == [("a", 10)]

    told.add(observation(0, clip="b", minute=360, category="music"))

    assert told.ranked("viral") == told.ranked("viral", "irl") == []
    assert told.clip("a").is_viral


def test_a_clip_that_slows_down_leaves_the_viral_list() -> None:
    """The list says who is viral now; that it was viral that day stays in the totals."""
    told = Told(observation(100), observation(200, minute=5), observation(201, minute=300))
    assert told.ranked("viral") == []
    assert told.rows("days")[f"{DAY}|"]["viral"] == 1  # it was viral on that day


def test_age_counts_from_the_first_observation_where_the_platform_does_not_say() -> None:
    """Without a publication time a clip would never grow old."""
    told = Told(observation(100), observation(10_000, minute=300))
    assert told.clip().is_viral
    assert told.add(observation(20_000, minute=360)).clip().is_viral is False


# Settings.


def test_the_thresholds_are_settings() -> None:
    """Operators tune them without a new build; the view is another one then."""
    seen = observation(30, minute=60, **born(0))
    assert Told(seen).clip().is_viral is False
    assert Told(seen, viral_per_minute=0.5).clip().is_viral
    assert Told(seen, viral_per_minute=0.5, viral_views=31).clip().is_viral is False
    assert Told(seen, viral_per_minute=0.5, viral_age_hours=1).clip().is_viral is False
    exploding = Clips(ClipSettings(viral_per_minute=0.25, exploding_per_minute=0.5))
    assert exploding.label(Told(seen, viral_per_minute=0.25).clip()) == "exploding"


def test_a_look_at_clips_begins_with_the_viral_ones_and_shows_what_one_wants_to_know() -> None:
    """Verbs ask every projection how it wants to be shown; none of them knows clips."""
    clips, told = Clips(), Told(observation(180, minute=60, category="irl", **born(0)))

    assert clips.headline == "viral"
    assert clips.shown(told.clip()) == {"title": "-", "category": "irl", "views": 180, "": "exploding"}


def test_the_thresholds_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host is configured by its environment alone."""
    for field, value in (
        ("VIRAL_PER_MINUTE", "0.5"),
        ("EXPLODING_PER_MINUTE", "2"),
        ("VIRAL_VIEWS", "7"),
        ("VIRAL_AGE_HOURS", "24"),
    ):
        monkeypatch.setenv(f"AURASTREAM_CLIPS_{field}", value)
    assert Clips().settings == ClipSettings(
        viral_per_minute=0.5, exploding_per_minute=2, viral_views=7, viral_age_hours=24
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"viral_per_minute": 0},
        {"viral_per_minute": float("nan")},
        {"viral_views": -1},
        {"viral_age_hours": 0},
        {"viral_views": "x"},
    ],
)
def test_thresholds_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    """A negative threshold makes everything viral; it is refused before the view is folded by it."""
    with pytest.raises(ValidationError):
        ClipSettings(**wrong)


def test_a_view_folded_with_other_thresholds_is_refused_and_unchanged(server: Server, stream: Stream) -> None:
    """Half of a view by one rule and half by another would be neither's."""
    stream.append([observation(100)])
    consume(server, stream, Clips())
    stream.append([observation(200, minute=1)])
    before = dump(server)

    with pytest.raises(ProjectionRedefined, match=r"clips-test/0.*same version and settings"):
        consume(server, stream, Clips(ClipSettings(viral_views=21)))

    assert dump(server) == before


# Aggregates.


def test_a_clip_counts_once_a_day_and_once_an_hour_however_often_it_is_polled() -> None:
    """Fault 1: the platform's totals counted a clip at each of up to 72 polls of the day, its views too."""
    told = Told(
        *[
            observation(10 * n, minute=5 * n, category="irl", clip=clip)
            for n in range(72)
            for clip in ("a", "b")
        ]
    )

    day, noon, five = (
        told.rows(*at)[row]
        for at, row in (
            (["days"], f"{DAY}|irl"),
            (["hours"], f"{DAY}T12:00Z|irl"),
            (["hours"], f"{DAY}T17:00Z|irl"),
        )
    )
    assert (day["clips"], day["views"], day["gained"], day["observations"]) == (2, 2 * 710, 2 * 710, 144)
    assert (noon["clips"], noon["views"], noon["gained"], noon["observations"]) == (2, 2 * 110, 2 * 110, 24)
    assert (five["clips"], five["views"], five["gained"], five["observations"]) == (2, 2 * 710, 2 * 120, 24)


def test_a_day_ends_at_midnight_utc_wherever_the_observer_is() -> None:
    """And the pair across midnight belongs to the day of its later end (data definition 8)."""
    seoul = timezone(timedelta(hours=9))
    first, second = datetime(2026, 4, 16, 8, 59, tzinfo=seoul), datetime(2026, 4, 16, 9, 0, tzinfo=seoul)
    told = Told(
        *[
            ClipViewsObserved(event_id=f"e{views}", subject="clip-1", occurred_at=at, views=views)
            for at, views in ((first, 5), (second, 9))
        ]
    )

    assert {row: (day["clips"], day["views"], day["gained"]) for row, day in told.rows("days").items()} == {
        "2026-04-15|": (1, 5, 0),
        "2026-04-16|": (1, 9, 4),
    }
    assert list(told.rows("hours")) == ["2026-04-15T23:00Z|", "2026-04-16T00:00Z|"]
    assert told.rows("days")["2026-04-16|"]["elapsed_us"] == 60_000_000


def test_a_clip_that_changes_category_moves_between_rankings_and_totals() -> None:
    """Each subject counts once, in the category of its last observation (data definition 7); a day that is
    over stays as it was.
    """
    told = Told(
        observation(100, category="irl", **born(-60)),
        observation(200, minute=10, category="irl", **born(-60)),
    )
    assert told.ranked("viral", "irl") == [("clip-1", 10)]

    told.add(observation(400, minute=20, category="music", **born(-60)))

    assert told.ranked("viral", "irl") == []
    assert told.ranked("viral", "music") == told.ranked("viral") == [("clip-1", 20)]
    assert told.rows("categories") == {
        "music": {"latest_views_sum": 400, "gained": 300, "lost": 0, "falls": 0, "subjects": 1}
    }
    assert {row: day["clips"] for row, day in told.rows("days").items()} == {f"{DAY}|music": 1}
    told.add(observation(500, minute=1_000, category="irl", **born(-60)))
    assert {row: (day["clips"], day["gained"]) for row, day in told.rows("days").items()} == {
        f"{DAY}|music": (1, 300),
        "2026-04-16|irl": (1, 100),
    }


def test_categories_say_what_their_clips_say() -> None:
    """Totals are kept up by differences: they must be what a sum over the clips is."""
    told = Told()
    for clip, category, steps in (("a", "irl", (5, 9, 7)), ("b", "irl", (1, 2, 3)), ("c", "", (4, 4, 4))):
        told.add(
            *[observation(views, minute=n, clip=clip, category=category) for n, views in enumerate(steps)]
        )

    assert told.rows("categories") == {
        "": {"subjects": 1, "latest_views_sum": 4, "gained": 0, "lost": 0, "falls": 0},
        "irl": {"subjects": 2, "latest_views_sum": 10, "gained": 6, "lost": 2, "falls": 1},
    }


# The daily recap.


def test_a_recap_names_the_polls_and_the_ten_fastest_clips() -> None:
    """The recap is what the platform shows of a day, and the day is over when it is asked for."""
    told = Told()
    for minute in (5, 10):
        told.add(
            *[
                observation(n * minute, minute=minute, clip=f"clip-{n:02}", title=f"T{n}", **born(0))
                for n in range(13)
            ]
        )

    recap = told.recap(f"{DAY}|")
    assert (recap.first_at, recap.last_at) == (NOON + timedelta(minutes=5), NOON + timedelta(minutes=10))
    assert recap.polls == (725, 730)
    assert [item.subject for item in recap.top] == [f"clip-{n:02}" for n in range(12, 2, -1)]
    assert (len(recap.top), recap.top[0].title, recap.top[0].velocity, recap.peak_velocity) == (
        TOP,
        "T12",
        12.0,
        12.0,
    )


def test_equally_fast_clips_are_named_by_clip_in_whatever_order_they_were_polled() -> None:
    """Also at the tenth place, where the next of the same poll is usually too slow to be looked at."""
    names = [f"clip-{n:02}" for n in range(14)]
    for order in (names, names[::-1]):
        told = Told(*[observation(60, minute=10, clip=name, **born(0)) for name in order])
        assert [item.subject for item in told.recap(f"{DAY}|").top] == names[:TOP]


def test_a_recap_shows_how_far_a_clip_grew_later_in_the_day() -> None:
    """Fault 2: the platform kept the views and velocity of a clip's first time in the list."""
    told = Told(observation(60, minute=60, **born(0)))
    assert [(item.velocity, item.views) for item in told.recap(f"{DAY}|").top] == [(1.0, 60)]

    told.add(observation(960, minute=90, **born(0)))

    assert [(item.velocity, item.views) for item in told.recap(f"{DAY}|").top] == [(30.0, 960)]
    assert told.ranked("viral") == [("clip-1", 30.0)]


def test_a_clip_that_is_as_fast_again_is_named_with_the_views_of_its_first_peak() -> None:
    """A tie must be decided by the order of the log, not by who came last."""
    told = Told(*[observation(10 * minute, minute=minute, **born(0)) for minute in (10, 20, 30)])
    assert [(item.velocity, item.views) for item in told.recap(f"{DAY}|").top] == [(10.0, 100)]


def test_the_peak_velocity_of_a_day_is_a_clips_and_not_a_mean() -> None:
    """Fault 3: the platform's was the largest mean of a category."""
    told = Told(
        *[
            observation(views, clip=f"c{views}", minute=60, category="irl", **born(0))
            for views in (60, 120, 6_000)
        ]
    )
    assert told.recap(f"{DAY}|irl").peak_velocity == 100.0


def test_recaps_of_partitions_and_categories_merge_into_the_days() -> None:
    """A row is of one partition and category; people ask for the day."""
    irl = Told(
        *[observation(100 * n, clip=f"i{n}", minute=10, category="irl", **born(0)) for n in range(1, 9)]
    ).recap(f"{DAY}|irl")
    music = Told(
        *[observation(150 * n, clip=f"m{n}", minute=20, category="music", **born(0)) for n in range(1, 9)]
    ).recap(f"{DAY}|music")

    day = merged([irl, music])

    ranked = sorted([*irl.top, *music.top], key=lambda item: (-item.velocity, item.subject))
    assert (day.top, day.polls) == (tuple(ranked[:TOP]), (730, 740))
    assert merged([music, irl]) == day
    assert merged([day, irl, music]) == day


def test_a_clip_in_two_categories_of_a_day_is_named_once_with_its_peak() -> None:
    """A clip that changed its category is one clip, not two places in the list."""
    told = Told(
        observation(900, minute=10, category="irl", **born(0)),
        observation(910, minute=20, category="music", **born(0)),
    )
    day = merged([told.recap(f"{DAY}|irl"), told.recap(f"{DAY}|music")])
    assert [(item.subject, item.velocity) for item in day.top] == [("clip-1", 90.0)]


def test_a_day_without_a_fast_clip_has_a_list_that_is_empty_and_a_peak_of_0(
    server: Server, stream: Stream
) -> None:
    """Fault 19: the platform's script turned an empty list into an empty object, which stopped the recap."""
    stream.append([observation(0, category="irl"), observation(0, minute=5, category="irl")])
    consume(server, stream, Clips())

    raw = server.client.hget(View(stream, Clips()).key(0, "recap"), f"{DAY}|irl")
    assert b'"top":[]' in raw
    (recap,) = View(stream, Clips()).rollup("recap").rows[f"{DAY}|irl"]
    assert (recap.top, recap.peak_velocity, recap.polls) == ((), 0.0, (720, 725))


# The platform's other faults.


def test_constant_growth_keeps_the_velocity_constant_and_a_late_burst_shows() -> None:
    """Fault 4: the platform divided one poll's gain by the time since the clip was FIRST seen, so it shrank
    with age.
    """
    told, velocities = Told(), []
    for minute in range(5, 300, 5):
        told.add(observation(10 * minute, minute=minute, **born(0)))
        velocities.append(told.clip().velocity)
    assert set(velocities) == {10.0}

    told.add(observation(10 * 295 + 500, minute=300, **born(0)))

    assert told.clip().velocity == 100.0
    assert told.ranked("viral") == [("clip-1", 100.0)]


def test_an_outage_of_a_category_does_not_empty_its_viral_list() -> None:
    """Fault 7: the platform rebuilt the list from each poll, so a category that could not be fetched had
    nobody.
    """
    told = Told(
        *[
            observation(600, clip=f"{category}-1", minute=60, category=category, **born(0))
            for category in ("irl", "music")
        ]
    )

    told.add(
        *[
            observation(600 + 10 * n, clip="music-1", minute=60 + n, category="music", **born(0))
            for n in range(1, 60)
        ]
    )

    assert told.ranked("viral", "irl") == [("irl-1", 10)]
    assert {key for key, _ in told.ranked("viral")} == {"irl-1", "music-1"}
    told.add(observation(9_000, clip="music-2", minute=400, category="music", **born(300)))
    assert told.ranked("viral", "irl") == []  # but its end in event time comes all the same
    assert told.ranked("viral") == [("music-2", 90)]


def test_reading_changes_nothing(server: Server, stream: Stream) -> None:
    """Fault 6: the platform's read endpoint ran the update and overwrote what the next poll relied on."""
    stream.append(
        [
            observation(60 * n, minute=5 * n, clip=clip, category="irl", **born(-1))
            for n in range(20)
            for clip in ("a", "b")
        ]
    )
    stream.append([observation(1, minute=3, clip="a")])
    consume(server, stream, Clips())
    before = dump(server)

    for _ in range(2):
        view = View(stream, Clips())
        for name in ("latest_views", "last_velocity", "max_velocity", "viral"):
            assert view.ranking(name).rows
        assert view.ranking("viral", part="irl").rows
        assert view.state("a") is not None
        assert view.state("nobody") is None
        assert all(
            answer.rows for answer in (view.states(), view.rollup("recap"), view.listing("late", "late"))
        )
        assert all(view.totals(name).rows for name in ("categories", "days", "hours"))
        assert findings(stream, Clips()) == []

    assert dump(server) == before


def test_counts_up_to_the_largest_exact_integer_come_back_exact(server: Server, stream: Stream) -> None:
    """Fault 20: a script that writes JSON rounds to 14 digits. Ours hands text through; sums go on where
    doubles end.
    """
    stream.append([observation(1, clip="b"), observation(EXACT_MAX, clip="b", minute=60)])
    stream.append([observation(EXACT_MAX - 1, clip=clip, category="big") for clip in ("a", "c", "d")])
    consume(server, stream, Clips())
    view = View(stream, Clips())

    state = view.state("b")
    assert state is not None
    assert (state.views, state.gained, state.delta) == (EXACT_MAX, EXACT_MAX - 1, EXACT_MAX - 1)
    assert [(row.key, row.score) for row in view.ranking("latest_views").rows] == [
        ("b", EXACT_MAX),
        ("a", EXACT_MAX - 1),
        ("c", EXACT_MAX - 1),
        ("d", EXACT_MAX - 1),
    ]
    assert view.totals("categories").rows["big"]["latest_views_sum"] == 3 * (EXACT_MAX - 1)
    assert view.totals("days").rows[f"{DAY}|big"]["views"] == 3 * (EXACT_MAX - 1)
    assert server.client.hget(view.key(0, "categories"), "big").startswith(
        b'{"latest_views_sum":27021597764222970,'
    )
    assert findings(stream, Clips()) == []


# What a broken platform may send.


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"created_at": datetime(9999, 12, 31, 23, tzinfo=UTC)}, id="9999"),
        pytest.param({"created_at": datetime(1, 1, 1, tzinfo=UTC)}, id="year 1"),
        pytest.param({"category": "a|b:c{d}%\n\u202e"}, id="odd category"),
        pytest.param({"category": "x" * 1_000}, id="long category"),
    ],
)
def test_odd_values_do_not_stop_the_view(server: Server, stream: Stream, more: dict[str, Any]) -> None:
    """What append accepts, the view must be able to fold: an event that stops it stops it for ever."""
    stream.append([observation(100 * n, minute=n, **more) for n in range(3)])
    consume(server, stream, Clips())

    assert View(stream, Clips()).state("clip-1").views == 200
    assert findings(stream, Clips()) == []


@pytest.mark.parametrize(
    "at",
    [
        pytest.param(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))), id="before year 1"),
        pytest.param(datetime(1, 1, 1, tzinfo=UTC), id="year 1"),
        pytest.param(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), id="before 1970"),
    ],
)
def test_an_observation_from_long_ago_does_not_stop_the_view(
    server: Server, stream: Stream, at: datetime
) -> None:
    """The calendar ends at year 1: a broken clock must not stop a partition."""
    stream.append([msgspec.structs.replace(observation(), occurred_at=at), observation(200, minute=1)])
    consume(server, stream, Clips())

    assert View(stream, Clips()).state("clip-1").gained == 100
    assert findings(stream, Clips()) == []


def test_a_day_has_ten_characters_in_every_year() -> None:
    """Rows are sorted as text: a year of three digits would be out of order."""
    told = Told(msgspec.structs.replace(observation(), occurred_at=datetime(1, 2, 3, 4, tzinfo=UTC)))
    assert (told.clip().day, told.clip().hour) == ("0001-02-03", "0001-02-03T04:00Z")


def test_a_clip_published_in_the_future_is_not_viral_for_years() -> None:
    """A broken clock at the platform: created_at a century ahead."""
    told = Told(*[observation(100 * n, minute=n, created_at=NOON + timedelta(days=36_500)) for n in range(3)])
    told.add(observation(1, clip="b", minute=100_000))
    assert told.ranked("viral") == []
