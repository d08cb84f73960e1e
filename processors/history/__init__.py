from aurastream.processors.history.as_of import (
    Tell,
    as_of,
    at_options,
    folded,
    kept_for,
    positions_told,
    reader,
    title_of,
    told_of,
    warn,
)
from aurastream.processors.history.causation import drawn, trees
from aurastream.processors.history.checking import check_all
from aurastream.processors.history.rebuilding import Team
from aurastream.processors.history.replay import Sink, Speed, Stop, parsed_speed, replay, stopping_by_signal
from aurastream.processors.history.report import Report, report_of
from aurastream.processors.history.selection import By, Found, Place, Selection, Tally, parsed_time, read_past
from aurastream.processors.history.sinks import (
    CannotReplay,
    Form,
    Journal,
    Lines,
    ToStream,
    after_place,
    parsed_place,
    resume_file,
)
from aurastream.processors.history.trails import AROUND_MAX, Row, Trails

__all__ = [
    "AROUND_MAX",
    "By",
    "CannotReplay",
    "Form",
    "Found",
    "Journal",
    "Lines",
    "Place",
    "Report",
    "Row",
    "Selection",
    "Sink",
    "Speed",
    "Stop",
    "Tally",
    "Team",
    "Tell",
    "ToStream",
    "Trails",
    "after_place",
    "as_of",
    "at_options",
    "check_all",
    "drawn",
    "folded",
    "kept_for",
    "parsed_place",
    "parsed_speed",
    "parsed_time",
    "positions_told",
    "read_past",
    "reader",
    "replay",
    "report_of",
    "resume_file",
    "stopping_by_signal",
    "title_of",
    "told_of",
    "trees",
    "warn",
]
