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
    from aurastream.processors.host.batching import NotOffered, RawBatch, ResumeAt, batch_topic, batches
    from aurastream.processors.host.make import make_app
    from aurastream.processors.host.options import Options
    from aurastream.processors.host.process import run_host

# Faust takes a third of a second: who catches up without a host does not wait for it. Nor does a stranger's
# app, which asks for batches, wait for what a host is made of.
_BATCHES = ("NotOffered", "RawBatch", "ResumeAt", "batch_topic", "batches")
_HOST = {"Options": "options", "make_app": "make", "run_host": "process"}
__getattr__ = late(__name__, dict.fromkeys(_BATCHES, "batching") | _HOST)

__all__ = [
    "NotOffered",
    "Options",
    "RawBatch",
    "ResumeAt",
    "Summary",
    "batch_topic",
    "batches",
    "make_app",
    "run_host",
    "tune_collector",
]
