"""What verbs with --at share: the time that is meant, how an answer says so, who watches the folding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import click

from aurastream.processors import progress_bar, remark
from aurastream.processors.commands.options import F, Time, by_option
from aurastream.projections.engine import Positions
from aurastream.projections.past import AsOf

if TYPE_CHECKING:
    from aurastream.processors.history import OnRead, Watch


def at_options(command: F) -> F:
    """--at and --by; the command gets ``at`` and ``by``, for ``as_of``."""
    command = by_option("The clock of --at: event time, or when it was appended.")(command)
    at = "As of this time (ISO 8601; a date is its midnight, no offset means UTC)."
    return click.option("--at", type=Time(), metavar="T", help=at)(command)


def as_of(at: datetime | None, by: str) -> AsOf | None:
    """What --at and --by mean; None for now. Raises UsageError."""
    if at is not None:
        return AsOf(at, "appended" if by == "appended" else "occurred")
    if by != "occurred":
        raise click.UsageError("--by says which clock --at means: give --at a time as well")
    return None


def title_of(title: str, when: AsOf | None) -> str:
    """With the time it is about."""
    return title if when is None else f"{title} as of {when}"


def told_of(when: AsOf | None) -> dict[str, object]:
    """For JSON: the time it is about, and by which clock."""
    return {} if when is None else {"at": when.at, "by": when.by}


def positions_told(positions: Positions) -> str:
    """For people: which position of which partition an answer reflects."""
    return f"at {', '.join(f'{number}: {position or 0}' for number, position in positions.items())}"


def watch() -> Watch:
    """A bar and remarks on stderr for a folding of the past, where it takes a while."""
    from aurastream.processors.history import Watch

    return Watch(_folding, remark)


SHOWN_FROM = 20_000  # entries to read, from which a progress bar is worth its place


@contextmanager
def _folding(entries: int) -> Iterator[OnRead]:
    with progress_bar("folding", entries, is_hidden=entries < SHOWN_FROM) as bar:
        yield bar.by
