"""
What a fold refuses, skips and leaves alone.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from aurastream.projections import FoldFailed, Listing, MemoryView, Ranking, Rollup
from aurastream.projections.built_in.clips import Clips
from aurastream.projections.engine.fold import Fold
from aurastream.streams import ClipViewsObserved, drive
from tests.facts import NOON, observation
from tests.projections.counting import Count, Counting
from tests.projections.engine.folding import Placed, Store, placed

# What a fold refuses.
from tests.projections.visits import Tally, Visit, Visits, tallied


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
    with pytest.raises(FoldFailed, match=r"'odd' failed on event 'e2' at .* of clips/3") as told:
        list_steps(
            Fold(Odd(), "clips/3"), placed([observation(event_id="e2"), observation(event_id="e2", minute=1)])
        )
    assert told.value.event_id == "e2"
    assert told.value.position in str(told.value)


def list_steps(fold: Fold, events: Placed) -> None:
    drive(fold.batch(events), lambda need: [None] * len(need.keys))


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


def test_a_fold_of_nothing_that_is_cut_off_ends_in_silence() -> None:
    """A batch without an event for it may load what is due. Cut off then (a connection was lost, or its host
    stops) it said that the projection had raised, at an event that there was not.
    """
    fold = Fold(Clips())
    steps = fold.batch([])
    assert next(steps, None) is not None, "something to load, or this proves nothing"
    steps.close()
