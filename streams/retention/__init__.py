"""
Retention: what may leave the live log, who holds it back (holders.py), and the trim itself (trimmer.py).

    look.py what one look at a partition says    holders.py, doubles.py make it    chunk.py a call of
        trim.lua    notes.py the audit trail

What is promised, refused and measured is said in trimmer.py.
"""

from aurastream.streams.retention.look import Holder
from aurastream.streams.retention.trimmer import Goal, Trimmed, Trimmer

__all__ = ["Goal", "Holder", "Trimmed", "Trimmer"]
