"""
Rebuild: a new generation of a view beside the live one, compared with it, swapped in, rolled back; or one key
put right.

    rebuild.py  begin, build, compare, swap, follow    tasks.py    one partition's part, for this process or
                for several
    builder.py  archive and log -> fold -> commits     compare.py  two generations at equal positions
    lease.py    one rebuild of a view at a time        rollback.py, subject.py

Which generations there are and how one becomes live is not here but in projections/generations.py, as every
reader needs it.
"""

from aurastream.projections.rebuild.rebuild import Rebuild, abandon
from aurastream.projections.rebuild.rollback import rollback
from aurastream.projections.rebuild.subject import rebuild_subject
from aurastream.projections.rebuild.tasks import Alone, Done, Task, perform

__all__ = ["Alone", "Done", "Rebuild", "Task", "abandon", "perform", "rebuild_subject", "rollback"]
