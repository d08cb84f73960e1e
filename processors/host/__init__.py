"""
The host, a process: projections and processors as agents of a Faust app.

    transport -> RawBatch -> one agent per projection and stream -> a lane per partition -> apply.py ->
        commit.lua

Promise: `aurastream run` and `faust -A aurastream.processors.host.default worker` start the same thing. What
Faust believes (acks, offsets, assignments) only saves work: a lane continues from its view's cursor, whatever
it is handed.

Decision (2026-11): a lane of its own for every projection and partition, fed by the agent, so that the fold
of one partition overlaps the server's commit of another, which awaiting each commit in the agent would not
allow. Refused: acknowledging after the commit, since the cursor is the truth and Faust's acks stall a
partition behind one slow event.
Decision (2026-11): a lane that fails goes on trying with a growing pause and turns /health red; the other
lanes go on. Refused: letting the agent raise, which Faust acknowledges, and stopping the process, which would
stop sound projections with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurastream.processors.host.summary import Summary, tune_collector
from aurastream.streams import late

if TYPE_CHECKING:
    from aurastream.processors.host.app import Options, make_app
    from aurastream.processors.host.process import run_host

# Faust takes a third of a second: who catches up without a host does not wait for it
__getattr__ = late(__name__, {"Options": "app", "make_app": "app", "run_host": "process"})

__all__ = ["Options", "Summary", "make_app", "run_host", "tune_collector"]
