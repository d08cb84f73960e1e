"""
Personal fields: sealed under a key of their creator's own, opened where they are shown, erased by dropping
the key.

    sealing.py  text <-> token, pure        creators.py  pseudonyms and keys, on the server and for a while in
                a process
    keyring.py  events and JSON in and out  erasure.py   the key goes, the fact is an event

What is promised, refused and measured is said in keyring.py.
"""

from aurastream.streams.personal.erasure import erase, forget_on_disk

__all__ = ["erase", "forget_on_disk"]
