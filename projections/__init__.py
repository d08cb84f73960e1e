"""
The views: fold, tables, commit, read, check; one file per projection. Imports streams.

Promise: for every projection and partition, at every instant, view == fold(log[.. cursor]), each event ID
counted once, through any crash; every read comes from one instant and names it.

Decision (2026-11): the fold is Python, the commit one script of absolute values (DESIGN section 4 has the
measurements). Event IDs are verified in the commit against the append's own index, so exactly-once costs no
ledger of its own.
Decision (2026-11): consumers read with NOACK and acknowledge nothing: the cursor says what was applied, and a
pending list that is filled and emptied again costs the server 2 us an event (1.5 of them XACK, measured) and
decides nothing. And where the server counts the entries ever added (7.0) and append made them all, the commit
does not look at the index: 1.7 us an event less.
Decision (2026-11): rankings are stored with the sign turned: ZRANGE then gives the best first with ties in
byte order, which ZREVRANGE gives the wrong way round.
Decision (2026-11): one thread drives all lanes of a process. Refused: a thread per projection, where the
interpreter lock makes a reply that is there wait up to 5 ms for a fold that is running.
Decision (2026-11): a view is folded anew beside the live one, as a generation with cursor, tables and group
of its own, and takes its place by one compare-and-set of one hash field (generations.py, rebuild/): 0.2 ms,
40 with the last catch-up and the audit event, while readers at 1,400 a second see one or the other whole.
Readers ask for the field with every first round (reads.py). Refused: a pointer per partition, which a cluster
cannot change together; renaming keys, which is as many steps as there are tables.
"""

from aurastream.projections.engine import (
    Answer,
    Checked,
    Consumer,
    Difference,
    FoldFailed,
    Listing,
    LogRewound,
    MemoryView,
    Progress,
    Projection,
    ProjectionError,
    ProjectionRedefined,
    ProjectionUnknown,
    Ranked,
    Ranking,
    Rollup,
    Table,
    Totals,
    TrimmedUnread,
    View,
    ViewBroken,
    check,
)
from aurastream.projections.entity import Decided, Entities, Loaded
from aurastream.projections.past import AsOf, PastView
from aurastream.projections.tables import Sliding

__all__ = [
    "Answer",
    "AsOf",
    "Checked",
    "Consumer",
    "Decided",
    "Difference",
    "Entities",
    "FoldFailed",
    "Listing",
    "Loaded",
    "LogRewound",
    "MemoryView",
    "PastView",
    "Progress",
    "Projection",
    "ProjectionError",
    "ProjectionRedefined",
    "ProjectionUnknown",
    "Ranked",
    "Ranking",
    "Rollup",
    "Sliding",
    "Table",
    "Totals",
    "TrimmedUnread",
    "View",
    "ViewBroken",
    "check",
]
