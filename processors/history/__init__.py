"""
The past: selections and their reading, trails and trees of causes, replays, views as of a time, reports, and
the work that is as long as the log (checking, rebuilding).

Promise: nothing here knows a command line. What goes wrong is an exception with a sentence; who watches is
told by functions he gives. Nothing but a replay's target is changed.
"""

from aurastream.processors.history.as_of import OnRead, PastFolder, Watch, kept_for, reader
from aurastream.processors.history.causation import Node, drawn, trees
from aurastream.processors.history.checking import check_all
from aurastream.processors.history.ends import parsed_places, place_text
from aurastream.processors.history.lines import Form, LineSink, Writing, resume_file
from aurastream.processors.history.reading import read_past
from aurastream.processors.history.rebuilding import Team
from aurastream.processors.history.replay import Sink, Speed, parsed_speed, replay
from aurastream.processors.history.report import Report, report_of
from aurastream.processors.history.selection import By, PastEvent, Selection, StreamPartition, Tally
from aurastream.processors.history.sinks import CannotReplay, Journal, ToStream
from aurastream.processors.history.trails import AROUND_MAX, TrailRow, Trails

__all__ = [
    "AROUND_MAX",
    "By",
    "CannotReplay",
    "Form",
    "Journal",
    "LineSink",
    "Node",
    "OnRead",
    "PastEvent",
    "PastFolder",
    "Report",
    "Selection",
    "Sink",
    "Speed",
    "StreamPartition",
    "Tally",
    "Team",
    "ToStream",
    "TrailRow",
    "Trails",
    "Watch",
    "Writing",
    "check_all",
    "drawn",
    "kept_for",
    "parsed_places",
    "parsed_speed",
    "place_text",
    "read_past",
    "reader",
    "replay",
    "report_of",
    "resume_file",
    "trees",
]
