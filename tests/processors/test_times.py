"""Times and durations as people write them: one reading of each for all commands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from aurastream.processors import parsed_duration, parsed_time
from tests.facts import NOON


@pytest.mark.parametrize(
    "text", ["", "0001-01-01T00:00+05:00", "yesterday", "2026-13-01", "12:00", "2026-04-15T25:00"]
)
def test_what_is_no_time_is_told(text: str) -> None:
    """A misread time would answer another question than was asked."""
    with pytest.raises(ValueError, match="ISO 8601"):
        parsed_time(text)


def test_a_date_is_its_midnight_and_no_offset_is_utc() -> None:
    """The log's times are UTC; whoever leaves the offset out means them, wherever his terminal stands."""
    assert parsed_time("2026-04-15") == datetime(2026, 4, 15, tzinfo=UTC)
    assert parsed_time("2026-04-15T12:00") == NOON
    assert parsed_time("2026-04-15T14:00+02:00") == NOON


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("30s", timedelta(seconds=30)),
        ("90m", timedelta(minutes=90)),
        ("24h", timedelta(days=1)),
        ("7d", timedelta(days=7)),
        ("4w", timedelta(weeks=4)),
        ("0", timedelta(0)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, duration: timedelta) -> None:
    """--keep and --older-than take the same words."""
    assert parsed_duration(text) == duration


@pytest.mark.parametrize("text", ["", "soon", "24", "24 h", "-1h", "1.5h", "h", "1y", "٣h", "9999999999s"])
def test_what_is_no_duration_is_told(text: str) -> None:
    """A number without a unit has been seconds to one and days to another."""
    with pytest.raises(ValueError, match="is no time"):
        parsed_duration(text)


def test_a_duration_beyond_what_a_clock_can_count_is_refused() -> None:
    """It must not be an OverflowError's traceback."""
    with pytest.raises(ValueError, match="too long"):
        parsed_duration("999999999w")
