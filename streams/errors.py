"""
What can go wrong with the log, each error a sentence: what happened, where, what to do.

Facts are kept as attributes. What is expected (a duplicate, an empty read) is a value and not here.
"""


class StreamError(Exception):
    """Base of every error of this package."""
