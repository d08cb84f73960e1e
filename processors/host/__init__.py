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

from aurastream.processors.host.app import Options, make_app
from aurastream.processors.host.process import run_host
from aurastream.processors.host.summary import Summary, tune_collector

__all__ = ["Options", "Summary", "make_app", "run_host", "tune_collector"]
