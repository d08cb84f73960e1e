"""
Retention: what may leave the live log, who holds it back (holders.py), and the trim itself (trimmer.py).

What is promised, refused and measured is said in trimmer.py.
"""

from aurastream.streams.retention.trimmer import Goal, Trimmed, Trimmer

__all__ = ["Goal", "Trimmed", "Trimmer"]
