"""
The past: a view as of any time, and the events behind a value.

Promise: a past view is the live view's own fold of the log cut at T, to the last byte; the steps of a "why"
lead from nothing to the value they explain. Nothing here writes to a view; checkpoints are a cache beside the
archive, used only where they prove what they are of.

    as_of.py        a past time, and by which clock
    folding.py      archive and log -> what is not later than T -> tables in memory
    checkpoints.py  where such a fold may begin       blobs.py  what one holds
    view.py         a past view, which answers as ``View`` does
    why.py          the events behind a row: of_subject.py by the trail's index (subject_spans.py), of_row.py
                    by folding all; inquiry.py is the question, steps.py the answer
    facts.py        what all of them have to know of the live log
"""

from aurastream.projections.past.as_of import AsOf, By
from aurastream.projections.past.checkpoints import Checkpoints, Keeper
from aurastream.projections.past.folding import Past, PastFold
from aurastream.projections.past.inquiry import Inquiry
from aurastream.projections.past.steps import Step, Why
from aurastream.projections.past.subject_spans import spans_of_subject
from aurastream.projections.past.view import PastView
from aurastream.projections.past.why import has_index, why

__all__ = [
    "AsOf",
    "By",
    "Checkpoints",
    "Inquiry",
    "Keeper",
    "Past",
    "PastFold",
    "PastView",
    "Step",
    "Why",
    "has_index",
    "spans_of_subject",
    "why",
]
