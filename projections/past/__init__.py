"""
The past: views as of any time (as_of.py, read by view.py), the checkpoints that make them quick, and the
events behind a value.

    archive and log -> as_of.py: what is not later than T -> the live view's own fold, in memory -> view.py
        answers as View does
    why.py  the events of one key -> the same fold, event by event -> what each of them changed

Nothing here writes to a view; checkpoints are a cache beside the archive.
"""

from aurastream.projections.past.as_of import AsOf, By, Past, entries_ahead, fold_past
from aurastream.projections.past.checkpoints import Checkpoints, Keeper
from aurastream.projections.past.view import PastView
from aurastream.projections.past.why import Step, Why, has_index, why

__all__ = [
    "AsOf",
    "By",
    "Checkpoints",
    "Keeper",
    "Past",
    "PastView",
    "Step",
    "Why",
    "entries_ahead",
    "fold_past",
    "has_index",
    "why",
]
