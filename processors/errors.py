"""The base of what the rooms of processors/ raise, each error a sentence that says what happened, where, and what to do."""

from __future__ import annotations


class ProcessorError(Exception):
    """Base: workers, transports, plugins or the command line cannot go on. The log and its views are whole."""


class NotConfigured(ProcessorError):
    """A setting is missing that another one asks for."""
