"""
Rebuild: a new generation of a view beside the live one, compared with it, swapped in, rolled back; or one key
put right.

Promise: the live view is not written to by a rebuild, ever; a swap is all partitions or none; a kill at any
instant costs the work of one commit.

    rebuild.py  begin, build, compare, swap, follow
    record.py   the changes of the view's record, each with its fact for the audit trail
    lease.py    one rebuild of a view at a time
    tasks.py    one partition's part, for this process or for several       near.py  the last steps of a swap
    builder.py  archive and log -> fold -> commits
    compare.py  two generations at equal positions
    rollback.py
    subject.py  one key: its fold (subject_fold.py) beside its rows (subject_rows.py, subject_tables.py)

Which generations there are and how one becomes live is not here but in engine/generations.py, as every reader
needs it.
"""

from aurastream.projections.rebuild.compare import Compared
from aurastream.projections.rebuild.rebuild import Rebuild, RebuildProgress, RebuildRunning, abandon
from aurastream.projections.rebuild.record import Decision
from aurastream.projections.rebuild.rollback import RolledBack, retire_kept, rollback
from aurastream.projections.rebuild.subject import SubjectResult, rebuild_subject
from aurastream.projections.rebuild.tasks import Alone, BuildTask, Done, perform

__all__ = [
    "Alone",
    "BuildTask",
    "Compared",
    "Decision",
    "Done",
    "Rebuild",
    "RebuildProgress",
    "RebuildRunning",
    "RolledBack",
    "SubjectResult",
    "abandon",
    "perform",
    "rebuild_subject",
    "retire_kept",
    "rollback",
]
