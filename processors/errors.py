"""The base of what processors/ raises: a sentence each, of what happened, where, and what to do."""

from __future__ import annotations


class ProcessorError(Exception):
    """Base: workers, transports, plugins or commands cannot go on. The log and its views are whole."""


class NotConfigured(ProcessorError):
    """A setting is missing that another one asks for."""
