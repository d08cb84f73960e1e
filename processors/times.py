"""
Times and durations as people write them. Pure; what commands make of it is commands/options.py's.

datetime reads ISO 8601. No library at hand reads "24h" (pydantic takes PT24H and 24:00:00), so that is done
here.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parsed_time(text: str) -> datetime:
    """ISO 8601, in UTC; a date is its midnight, and no offset means UTC. Raises ValueError."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is no ISO 8601 time, as 2026-04-15 or 2026-04-15T12:30:00Z") from error


def parsed_duration(text: str) -> timedelta:
    """A number and s, m, h, d or w, as 90m, 24h or 7d; or 0. Raises ValueError."""
    number = re.fullmatch(r"(\d{1,9})([smhdw]?)", text, re.ASCII)
    if number is None or (not number[2] and int(number[1])):
        raise ValueError(f"{text!r} is no time: give a number and s, m, h, d or w, as in 36h or 7d")
    try:
        return timedelta(**{UNITS[number[2] or "s"]: int(number[1])})
    except OverflowError as error:
        raise ValueError(f"{text!r} is too long") from error
