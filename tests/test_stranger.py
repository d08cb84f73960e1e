"""A stranger's package is held to the types it holds itself to: our signatures must let it say what it
does, to both checkers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent
PACKAGE = '''
"""Raids: events, a view and a processor of a package of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from aurastream.processors import connected
from aurastream.processors.effects import Attempt, Processor
from aurastream.projections import Consumer, MemoryView, Projection, Ranking, Totals, View
from aurastream.streams import Event, Outcome, Stream, open_stream


class RaidSeen(Event, frozen=True, kw_only=True, tag="raid.seen"):
    """One channel sent its viewers to another, the subject."""

    viewers: int
    language: str = ""


class RaidThanked(Event, frozen=True, kw_only=True, tag="raid.thanked"):
    """Somebody was thanked for a raid."""

    words: str


class Raided(msgspec.Struct, frozen=True):
    """What is known of a channel that was raided."""

    raids: int
    viewers: int
    language: str


class Raids(Projection[Raided]):
    """How often a channel was raided, and by how many."""

    name = "raids"
    events = (RaidSeen,)
    state = Raided
    rankings = (Ranking("largest", score="viewers", by="language"),)
    totals = (Totals("of_languages", of={"viewers": "viewers"}, by="language"),)

    def apply(self, state: Raided | None, event: RaidSeen) -> Raided:
        before = state or Raided(0, 0, event.language)
        return Raided(before.raids + 1, before.viewers + event.viewers, event.language)


class Thanks(Processor):
    """Thanks for every raid, once."""

    name = "thanks"
    start = "beginning"
    events = (RaidSeen,)
    into = "thanks"

    async def handle(self, event: RaidSeen, attempt: Attempt) -> list[Event]:
        await asyncio.sleep(0)
        return [attempt.derive(RaidThanked, words=f"thanks, {event.viewers}! {attempt.idempotency_key}")]


def seen(count: int) -> Iterator[RaidSeen]:
    """Some raids of one evening."""
    for number in range(count):
        at = datetime(2026, 4, 15, 20, number, tzinfo=UTC)
        yield RaidSeen(event_id=f"raid-{number}", subject="channel-1", occurred_at=at, viewers=number)


def largest() -> list[tuple[str, int]]:
    """From the log to the head of the ranking."""
    with connected() as connection:
        stream: Stream = open_stream(connection.server, "raids", create=True, partitions=2)
        assert all(answer.outcome is Outcome.APPENDED for answer in stream.append(list(seen(5))))
        Consumer(connection.server, [Raids()], lambda: [stream]).run(until_idle=True)
        answer = View(stream, Raids()).ranking("largest", 3)
        return [(row.key, row.state.viewers) for row in answer.rows]


def in_memory() -> dict[str, bytes]:
    """The same without a server."""
    view = MemoryView(Raids())
    view.take(list(seen(5)))
    return view.tables["states"]
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A directory with the package and nothing else: no settings of ours."""
    (tmp_path / "raids.py").write_text(PACKAGE)
    return tmp_path


def said(package: Path, *arguments: str) -> str:
    """What a checker of this environment answers, run where the package is."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=package, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_a_strangers_package_is_clean_under_mypy_strict(package: Path) -> None:
    """Whoever checks strictly must not need an ignore for what we ask of him."""
    assert said(package, "mypy", "--strict", "--no-error-summary", "raids.py") == ""


def test_a_strangers_package_is_clean_under_pyright(package: Path) -> None:
    """It is what editors show while he types."""
    settings = {"include": ["raids.py"], "typeCheckingMode": "basic", "extraPaths": [str(ROOT)]}
    (package / "pyrightconfig.json").write_text(json.dumps(settings))

    assert "0 errors, 0 warnings" in (
        answer := said(package, "basedpyright", "--pythonpath", sys.executable)
    ), answer
