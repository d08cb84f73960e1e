"""
The kinds of tables a projection declares over its states, each in one file: declared, folded, read,
explained, repaired.

    table.py    what every kind is      reading.py  what a kind asks a view for
    values.py   fields and functions of states, made ready
    ranking.py  who is highest          totals.py   sums over keys      rollup.py  a second fold
    listing.py  append-only lists       sliding.py  the last minutes of event time

A new kind is one more file and its name here: a projection lists it in ``tables``, and the fold, the reads,
``why``, ``check`` and repairs ask the kind itself. Imports streams alone.
"""

from aurastream.projections.tables.listing import LISTING_CHUNK, Listing, ListRow
from aurastream.projections.tables.ranking import Ranking
from aurastream.projections.tables.reading import (
    Answer,
    Positions,
    Ranked,
    Read,
    Reader,
    Reads,
    Rows,
    State,
    Top,
    Whole,
    pairs,
)
from aurastream.projections.tables.rollup import Rollup
from aurastream.projections.tables.sliding import Sliding
from aurastream.projections.tables.table import (
    Batched,
    Cached,
    Change,
    Due,
    FoldedEvent,
    Loading,
    Need,
    ProjectionError,
    Stored,
    Table,
    TableFold,
    TableKind,
    Touched,
)
from aurastream.projections.tables.totals import Totals
from aurastream.projections.tables.values import Score, Value, getter, tuple_getter

__all__ = [
    "LISTING_CHUNK",
    "Answer",
    "Batched",
    "Cached",
    "Change",
    "Due",
    "FoldedEvent",
    "ListRow",
    "Listing",
    "Loading",
    "Need",
    "Positions",
    "ProjectionError",
    "Ranked",
    "Ranking",
    "Read",
    "Reader",
    "Reads",
    "Rollup",
    "Rows",
    "Score",
    "Sliding",
    "State",
    "Stored",
    "Table",
    "TableFold",
    "TableKind",
    "Top",
    "Totals",
    "Touched",
    "Value",
    "Whole",
    "getter",
    "pairs",
    "tuple_getter",
]
