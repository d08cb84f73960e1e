"""
How scores are stored.
"""

from __future__ import annotations

import pytest

from aurastream.projections import MemoryView, ProjectionError, Ranking
from aurastream.projections.tables.ranking import stored_score
from tests.facts import observation
from tests.projections.visits import Visits


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
