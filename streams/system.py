"""
What persons decide, as events: the stream of the audit trail, and who decides.

Whatever an operator's command changes (a swap, a trim, an erasure, a retry) is an event of this stream, with
who, when and why.
"""

from __future__ import annotations

import getpass
import socket

OPERATIONS = "operations"  # the stream of the audit trail


def operator() -> str:
    """Who decides: user@host."""
    return f"{getpass.getuser()}@{socket.gethostname()}"
