"""
A person's words, bounded where they enter: why something is decided, and who decides.

    --why, LOGNAME -> checked_words: a sentence where no event could hold them, before anything is changed
    what an earlier build has written without a bound -> shortened: read, shown and appended with the rest
        left out

Always true: what was checked can be appended as an event's text; so a decision and its audit event never
part.
"""

from __future__ import annotations

import getpass
import os
import socket

from aurastream.streams.errors import StreamError
from aurastream.streams.events.envelope import TEXT_MAX

CUT = "\N{HORIZONTAL ELLIPSIS}"


def checked_words(what: str, text: str) -> str:
    """The text, when an event can hold it. Raises StreamError. what: it is, for the sentence."""
    if len(text) > TEXT_MAX:
        raise StreamError(
            f"{what} has {len(text):,} characters; {TEXT_MAX:,} is the most that the audit trail keeps. "
            "Nothing "
            "was changed: say it shorter, or say where the rest is."
        )
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise StreamError(f"{what} is not text in UTF-8. Nothing was changed: write it anew.")
    return text


def shortened(text: str) -> str:
    """As much of it as an event can hold."""
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - len(CUT)] + CUT


def operator() -> str:
    """Who decides: user@host. Raises StreamError where the environment says more than an event can hold."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in many a container
        user = f"uid-{os.getuid()}"
    return checked_words("the user's name (LOGNAME) and the host's", f"{user}@{socket.gethostname()}")
