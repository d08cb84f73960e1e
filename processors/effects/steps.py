"""
What the steps of a lane ask for, and what they come to. Pure.

The steps are generators: they yield commands for the server (sent the answers, its errors among them) or a
``Handle`` (sent what the handler returned, or ``HandlerFailed``). Every question may be put again after
a lost connection.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

import msgspec

from aurastream.processors.effects.processor import Attempt
from aurastream.streams import Ask, Event

T = TypeVar("T")


class Handle(msgspec.Struct, frozen=True):
    """Call the handler: sent what it returned, HandlerFailed or CutOff."""

    event: Event
    attempt: Attempt


class HandlerFailed(msgspec.Struct, frozen=True):
    """The handler did not return. reason: its words. ours: those before. is_final: no attempt can help.

    traceback: where it failed, the innermost call last; code alone, no texts of errors.
    """

    reason: str
    is_final: bool = False
    ours: str = ""
    traceback: str = ""


class CutOff(msgspec.Struct, frozen=True):
    """The call was ours to cancel (a stop, a lease that was lost): it was no attempt."""


class Again(msgspec.Struct, frozen=True):
    """The item is to be attempted again, after a pause."""

    after_s: float


class Ended(msgspec.Struct, frozen=True):
    """How: done, parked, waiting, or stale. following: position of the dead letter that may run next."""

    how: str
    following: str = ""


class Gap(Exception):
    """The log no longer holds what was read (a fail-over): settle anew."""


class MovedOn(Gap):
    """A person decided about the processor: settle anew, when what was begun has ended."""


Steps = Generator[list[Ask] | Handle, Any, T]  # Any: what the server, or the handler, answered
