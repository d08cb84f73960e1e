"""What an error says, as it can be kept: a plug-in's own may hold what no UTF-8 can, or be unable to
speak.
"""

from __future__ import annotations


def storable(text: str) -> str:
    """The text as UTF-8 holds it: a file name that is none brings lone surrogates."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def text_of(error: BaseException) -> str:
    """What it says, storable."""
    try:
        return storable(str(error))
    except Exception as other:
        return f"(its text cannot be made: {type(other).__name__})"
