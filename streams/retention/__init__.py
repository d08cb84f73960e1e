"""
Retention: what may leave the live log, who holds it back (holders.py), the trim itself (trimmer.py), and
how to wait for somebody no longer (letting_go.py).

    look.py what one look at a partition says    holders.py, doubles.py make it    chunk.py a call of
        trim.lua    notes.py the audit trail     names.py who is there

What is promised, refused and measured is said in trimmer.py.
"""

from aurastream.streams.retention.letting_go import APP, FOREIGN, GROUP, Hold, holds_of, let_go
from aurastream.streams.retention.look import Holder
from aurastream.streams.retention.trimmer import Goal, Trimmed, Trimmer

__all__ = ["APP", "FOREIGN", "GROUP", "Goal", "Hold", "Holder", "Trimmed", "Trimmer", "holds_of", "let_go"]
