"""The crew of a rebuild: processes side by side, which end with the one that started them, and say what went
wrong.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aurastream.processors import WorkFailed, fanout
from aurastream.processors.history.rebuilding import Team
from aurastream.projections import View
from aurastream.projections.engine.apply import Fenced
from aurastream.projections.engine.generations import read_record
from aurastream.projections.rebuild import Decision, Rebuild, RebuildProgress
from aurastream.streams import Server, Settings, Stream, open_stream
from aurastream.streams.history import History
from tests.facts import consume, findings
from tests.processors.history.crew import Halting, Stumbling
from tests.projections.rebuild.test_rebuild import DAY_MS, crowd
from tests.servers import until

pytestmark = [pytest.mark.process, pytest.mark.any_server]

ROOT = Path(__file__).parents[3]
APPS = ("tests.processors.history.crew",)


@pytest.fixture
def parted(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    monkeypatch.setattr(fanout, "SMALL", 0)
    stream = open_stream(server, "clips-parted", create=True, settings=Settings(partitions=3))
    stream.append(crowd(1_500))
    yield stream
    stream.close()


def test_several_processes_build_what_one_would_and_tell_how_far_they_are(
    server: Server, parted: Stream
) -> None:
    """Speed must not change a number."""
    consume(server, parted, Halting())
    seen: list[RebuildProgress] = []

    with (
        Team(History(parted), Halting(), APPS, processes=2) as team,
        Rebuild(History(parted), Halting(), Decision("ada@host")) as work,
    ):
        work.crew, work.on_progress = team, seen.append
        work.begin()
        work.build()
        found = work.compare()
        work.swap(DAY_MS)
        work.follow()

    assert [one.differing for one in found or []] == [0, 0, 0]
    assert findings(parted, Halting()) == []
    assert seen
    assert max(progress.read for progress in seen) == 1_500 == seen[-1].total


def test_what_goes_wrong_in_a_process_is_said_here_with_partition_and_event(
    server: Server, parted: Stream
) -> None:
    """An error that stays in another process is an hour of searching."""
    with (
        Team(History(parted), Stumbling(), APPS, processes=2) as team,
        Rebuild(History(parted), Stumbling(), Decision("ada@host")) as work,
    ):
        work.crew = team
        work.begin()
        with pytest.raises(WorkFailed, match=r"'stumbling' failed on event 'e700' at .* of clips-parted/"):
            work.build()

    assert read_record(server, parted.name, "stumbling").live == 1


def test_a_crew_whose_rebuild_was_taken_over_is_fenced(server: Server, parted: Stream) -> None:
    """Two owners of one generation would write over each other."""
    with (
        Team(History(parted), Halting(), APPS, processes=2) as team,
        Rebuild(History(parted), Halting(), Decision("ada@host")) as work,
    ):
        work.crew = team
        work.begin()
        server.client.hincrby(parted.keys[1].lease("halting@2"), "epoch", 1)
        with pytest.raises(Fenced):
            work.build()


def test_a_rebuild_that_is_killed_leaves_no_process_that_builds_on(
    server: Server, parted: Stream, tmp_path: Path
) -> None:
    """They are in the middle of their fold: whoever starts the next rebuild wants the cores, and no commits
    of theirs.
    """
    marks = tmp_path / "marks"
    marks.mkdir()
    environ = {**os.environ, "AURASTREAM_TEST_MARKS": str(marks)}
    command = [sys.executable, "-m", "tests.processors.history.crew", server.url, parted.name]
    parent = subprocess.Popen(command, cwd=ROOT, env=environ)
    until(lambda: len(list(marks.iterdir())) == 2, "two processes that fold")
    pids = [int(path.name) for path in marks.iterdir()]

    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()

    until(lambda: not any(_lives(pid) for pid in pids), "the processes to end")
    assert sum(cursor.read for cursor in View(parted, Halting(), generation=2).cursors().values()) == 0


def _lives(pid: int) -> bool:
    try:
        state: Any = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
