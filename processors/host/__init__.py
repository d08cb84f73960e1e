"""
The host, a process: projections and processors, each in lanes, hosted by Faust.

    roster (what we can run) -> leases, from a thread of their own -> a lane for every claim held
        -> the lane reads the log for itself: apply.py -> commit.lua; effects/ -> handlers
    Kafka: transport -> RawBatch -> an agent per projection and topic -> a lane that is handed its batches

Promise: `aurastream run` and `faust -A aurastream.processors.host.default worker` start the same thing, and
`run --until-idle` the same lanes without Faust. What leases say only saves work: a lane continues from its
cursor, whoever else runs it.

Decision (2026-11): a lane that fails goes on trying with a growing pause and says why on its host's card; the
other lanes go on. Refused: a service of Faust's per lane, whose crash is its parent's; stopping the process,
which would stop sound lanes with it. The lanes together are one service, and Faust's are its timers, pages,
sensors, leader and command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurastream.processors.host.summary import Summary, tune_collector
from aurastream.streams import late

if TYPE_CHECKING:
    from aurastream.processors.host.batching import NotOffered, RawBatch, ResumeAt, batch_topic, batches
    from aurastream.processors.host.lane import HostedLane
    from aurastream.processors.host.lane_host import HostOptions, LaneHost
    from aurastream.processors.host.make import make_app
    from aurastream.processors.host.options import Options
    from aurastream.processors.host.process import run_host
    from aurastream.processors.host.roster import HostWork, Roster
    from aurastream.processors.host.sources import Sources
    from aurastream.processors.host.until_idle import LanesRefused, run_until_idle

# Faust takes a third of a second: who catches up without a host does not wait for it. Nor does a stranger's
# app, which asks for batches, wait for what a host is made of.
_BATCHES = ("NotOffered", "RawBatch", "ResumeAt", "batch_topic", "batches")
_HOST = {
    "HostOptions": "lane_host",
    "HostedLane": "lane",
    "LaneHost": "lane_host",
    "LanesRefused": "until_idle",
    "Options": "options",
    "Roster": "roster",
    "Sources": "sources",
    "HostWork": "roster",
    "make_app": "make",
    "run_host": "process",
    "run_until_idle": "until_idle",
}
__getattr__ = late(__name__, dict.fromkeys(_BATCHES, "batching") | _HOST)

__all__ = [
    "HostOptions",
    "HostWork",
    "HostedLane",
    "LaneHost",
    "LanesRefused",
    "NotOffered",
    "Options",
    "RawBatch",
    "ResumeAt",
    "Roster",
    "Sources",
    "Summary",
    "batch_topic",
    "batches",
    "make_app",
    "run_host",
    "run_until_idle",
    "tune_collector",
]
