"""
Folds of random events: in one batch, in pieces, one by one, with the cache and without.

Short lists come from hypothesis, derandomised, which cuts a failure down to its cause; long ones, with more
clips than a recap names, from a seed that is printed and that AURASTREAM_TEST_SEED takes back.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st

from aurastream.projections import Projection
from aurastream.projections.engine.fold import CACHE_MAX, Fold
from aurastream.projections.tables import LISTING_CHUNK, Due, Need
from aurastream.streams import ClipViewsObserved, drive
from tests.facts import NOON, observation

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


def scores(tables: Tables, name: str) -> dict[str, float]:
    return {key: 0.0 - float(score) for key, score in tables.get(name, {}).items()}


def list_of(rows: dict[str, bytes], key: str) -> list[Any]:
    """A listing's items, read as the README of the tables says: full rows, then the rest."""
    if key not in rows:
        return []
    head = msgspec.json.decode(rows[key])
    full = [msgspec.json.decode(rows[f"{key}|{number}"]) for number in range(head["stored"])]
    assert all(len(row) == LISTING_CHUNK for row in full)
    assert len(head["tail"]) < LISTING_CHUNK
    return [item for row in full for item in row] + head["tail"]
