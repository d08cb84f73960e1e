"""Projections for tests of processes that build: one that waits in the middle of its fold where a test says
so, one that fails.

python -m tests.processors.history.crew URL STREAM   a rebuild of the first by two processes
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from aurastream.processors import fanout
from aurastream.processors.history.rebuilding import Team
from aurastream.projections.rebuild import Decision, Rebuild, builder
from aurastream.streams import Server, open_stream
from aurastream.streams.history import History
from tests.projections.counting import Count, Counting
from tests.servers import until

MARKS = os.environ.get("AURASTREAM_TEST_MARKS", "")
if MARKS:
    builder.SPAN = 100  # looks often at who steers it


class Halting(Counting):
    """Counts; with AURASTREAM_TEST_MARKS it leaves its pid there and waits for a file that never comes."""

    name = "halting"

    def apply(self, state: Count | None, event: Any) -> Count:
        if MARKS and not (Path(MARKS) / str(os.getpid())).exists():
            (Path(MARKS) / str(os.getpid())).touch()
            until((Path(MARKS) / "never").exists, "its end")
        return super().apply(state, event)


class Stumbling(Counting):
    """Fails on one event."""

    name = "stumbling"

    def apply(self, state: Count | None, event: Any) -> Count:
        if event.event_id == "e700":
            raise ValueError("a bad day")
        return super().apply(state, event)


def main(url: str, name: str) -> None:
    fanout.SMALL = 0
    builder.EVENTS_MAX = 100
    history = History(open_stream(Server(url), name))
    with (
        Team(history, Halting(), ("tests.processors.history.crew",), processes=2) as team,
        Rebuild(history, Halting(), Decision("ada@host")) as work,
    ):
        work.crew = team
        work.begin()
        work.build()


if __name__ == "__main__":
    main(*sys.argv[1:])
