"""
The machine behind every view: fold, commit, read, check, generations.

    intake.py, evidence.py  raw entries -> events, and which of them count
    fold.py                 states and tables after a batch, pure; memory.py: a view without a server
    apply.py, commit.py     a lane: the way into a view, exactly once; consumer.py drives lanes by group
    reads.py, snapshot.py   answers of one instant
    check.py                the equation, row by row
    generations.py, retirement.py   which generations a view has, and the end of one

Promise: view == fold(log[.. cursor]), each event ID once, through any crash. Imports streams and tables.
"""

from aurastream.projections.engine.apply import Fenced, Lane, Progress, Retired
from aurastream.projections.engine.check import (
    COUNTED,
    DIFFERENCES_MAX,
    LOOKS_MAX,
    Checked,
    Difference,
    check,
    check_partition,
    checked_generations,
    compare,
    flat,
    stored_tables,
    table_names,
)
from aurastream.projections.engine.commit import Commit, CommitAnswer, Operation, Source, is_commit, written
from aurastream.projections.engine.consumer import Consumer, GroupLane
from aurastream.projections.engine.definition import (
    by_todays_rules,
    has_all,
    is_same_definition,
    may_go_on,
    start_of,
)
from aurastream.projections.engine.errors import (
    FoldFailed,
    LogRewound,
    ProjectionRedefined,
    ProjectionUnknown,
    RecordDamaged,
    TrimmedUnread,
    ViewBroken,
)
from aurastream.projections.engine.evidence import AdoptingIndex, ServerIndex
from aurastream.projections.engine.generations import (
    NEVER_REBUILT,
    Generation,
    Record,
    Start,
    State,
    announce,
    announcing,
    begun,
    change,
    claim_definition,
    compared,
    field_of,
    now_ms,
    read_record,
    read_records,
    record_of,
    swapped,
)
from aurastream.projections.engine.intake import Batch
from aurastream.projections.engine.memory import MemoryView, Tables
from aurastream.projections.engine.projection import AnyProjection, Projection
from aurastream.projections.engine.reads import GenerationGone, View
from aurastream.projections.engine.recorded import as_live, as_recorded, unlike
from aurastream.projections.engine.retirement import retire, retire_due
from aurastream.projections.engine.snapshot import Named
from aurastream.projections.tables import (
    Answer,
    Change,
    Listing,
    ListRow,
    Positions,
    ProjectionError,
    Ranked,
    Ranking,
    Rollup,
    Table,
    TableKind,
    Totals,
)
from aurastream.streams import EPOCH, MICROSECOND, microseconds

__all__ = [
    "COUNTED",
    "DIFFERENCES_MAX",
    "EPOCH",
    "LOOKS_MAX",
    "MICROSECOND",
    "NEVER_REBUILT",
    "AdoptingIndex",
    "Answer",
    "AnyProjection",
    "Batch",
    "Change",
    "Checked",
    "Commit",
    "CommitAnswer",
    "Consumer",
    "Difference",
    "Fenced",
    "FoldFailed",
    "Generation",
    "GenerationGone",
    "GroupLane",
    "Lane",
    "ListRow",
    "Listing",
    "LogRewound",
    "MemoryView",
    "Named",
    "Operation",
    "Positions",
    "Progress",
    "Projection",
    "ProjectionError",
    "ProjectionRedefined",
    "ProjectionUnknown",
    "Ranked",
    "Ranking",
    "Record",
    "RecordDamaged",
    "Retired",
    "Rollup",
    "ServerIndex",
    "Source",
    "Start",
    "State",
    "Table",
    "TableKind",
    "Tables",
    "Totals",
    "TrimmedUnread",
    "View",
    "ViewBroken",
    "announce",
    "announcing",
    "as_live",
    "as_recorded",
    "begun",
    "by_todays_rules",
    "change",
    "check",
    "check_partition",
    "checked_generations",
    "claim_definition",
    "compare",
    "compared",
    "field_of",
    "flat",
    "has_all",
    "is_commit",
    "is_same_definition",
    "may_go_on",
    "microseconds",
    "now_ms",
    "read_record",
    "read_records",
    "record_of",
    "retire",
    "retire_due",
    "start_of",
    "stored_tables",
    "swapped",
    "table_names",
    "unlike",
    "written",
]
