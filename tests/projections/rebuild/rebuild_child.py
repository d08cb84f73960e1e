"""A rebuild in a process of its own that kills itself (-9) at a named step.

python -m tests.projections.rebuild.rebuild_child URL STREAM STEP LEASE_MS
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from aurastream.projections.engine import retirement
from aurastream.projections.engine.generations import read_record
from aurastream.projections.rebuild import Decision, Rebuild, builder, record
from aurastream.projections.rebuild.builder import BuildLane
from aurastream.streams import (
    Event,
    RebuildCompared,
    RebuildStarted,
    Server,
    Stream,
    ViewSwapped,
    open_stream,
)
from aurastream.streams.history import History
from tests.projections.counting import Counting

STEPS = (
    "begun and not announced",
    "in the middle",
    "before the comparison",
    "compared and not announced",
    "before the swap",
    "swapped and not announced",
    "after the swap",
    "tombstones set",
    "in the middle of the tables",
    "cleared and not announced",
)
BEFORE_SWAP = STEPS[:5]


def die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(step: str, entries: int) -> None:
    """Let the process die at the step."""
    calls: list[int] = []
    announce, forget, clear, build = record.announce, retirement.forget, retirement._clear, BuildLane._bulk

    def announcing(kind: type[Event]) -> Any:
        """Which event waits decides, not how often it was announced: who goes on with another's rebuild skips
        what that one did.
        """

        def looked(stream: Stream, projection: str) -> Any:
            waiting = read_record(stream.server, stream.name, projection).outbox
            return (
                die() if any(isinstance(event, kind) for event in waiting) else announce(stream, projection)
            )

        return looked

    def bulk(builder: BuildLane, held: Any, keys: int) -> None:
        build(builder, held, keys)
        if builder.cursor.read > entries * 0.6:
            die()

    def second_partition(*given: Any) -> Any:
        calls.append(1)
        return die() if len(calls) == 2 else clear(*given)

    def after_forget(*given: Any) -> Any:
        forget(*given)
        die()

    replaced: dict[str, tuple[Any, str, Any]] = {
        "begun and not announced": (record, "announce", announcing(RebuildStarted)),
        "in the middle": (BuildLane, "_bulk", bulk),
        "before the comparison": (Rebuild, "compare", die),
        "compared and not announced": (record, "announce", announcing(RebuildCompared)),
        "before the swap": (Rebuild, "swap", die),
        "swapped and not announced": (record, "announce", announcing(ViewSwapped)),
        "after the swap": (Rebuild, "follow", die),
        "tombstones set": (retirement, "forget", after_forget),
        "in the middle of the tables": (retirement, "_clear", second_partition),
        "cleared and not announced": (retirement, "announce", die),
    }
    setattr(*replaced[step])


def main(url: str, name: str, step: str, lease_ms: str) -> None:
    builder.SPAN = builder.EVENTS_MAX = 50
    stream = open_stream(Server(url), name)
    entries = max(stream.server.client.xlen(keys.log) for keys in stream.keys)
    arm(step, entries)
    with Rebuild(History(stream), Counting(), Decision("ada@host"), lease_ms=int(lease_ms)) as work:
        work.begin()
        work.build()
        work.compare()
        work.swap(0 if "tomb" in step or "tables" in step or "cleared" in step else 86_400_000)
        work.follow()


if __name__ == "__main__":
    main(*sys.argv[1:])
