"""
The erasure of a creator: the key of its personal fields goes, and the fact is an event.

Sealing and opening are append's and the display's: sealing.py, creators.py and keyring.py of the log, which
say what is promised.
"""

from aurastream.streams.personal.erasure import erase, forget_on_disk, settle

__all__ = ["erase", "forget_on_disk", "settle"]
