"""
The system streams: what the product tells of itself. And who decides.

    operations  what persons decide (a swap, a trim, an erasure, a retry), with who, when and why: the audit
    trail
    imports     what imports say of themselves
    replays     streams of events that are in another stream already; any name, marked in the registry
    (is_replay)

No question about "the stream" ever means one of them: they are looked at when they are named, or by a view
that is of them alone. No other module has a list of them.
"""

from __future__ import annotations

import getpass
import socket

from aurastream.streams.facts import StreamFacts

OPERATIONS = "operations"
IMPORTS = "imports"
REPLAY_PREFIX = "replay."  # of the streams that a replay into a projection makes, which are removed after it
_NAMED = frozenset({OPERATIONS, IMPORTS})


def is_audit(name: str) -> bool:
    """Whether it is the audit trail's: what is replayed into it would read as done again."""
    return name in _NAMED


def is_system(name: str, facts: StreamFacts) -> bool:
    """Whether the stream is one of the product's own, or repeats another."""
    return name in _NAMED or facts.is_replay


def operator() -> str:
    """Who decides: user@host."""
    return f"{getpass.getuser()}@{socket.gethostname()}"
