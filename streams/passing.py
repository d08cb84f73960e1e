"""
Which faults pass: a lost connection, a fail-over, a moved slot, a busy or loading server.

    a fault -> is_passing -> put again, after a pause -> Backoff: each about twice as long, none in step with
    others

Only what is idempotent is put again, and that with a bound (``retried``) or for as long as its caller lives.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from aurastream.streams.drive import Reply
from aurastream.streams.errors import StreamError, UnknownOutcome

PAUSE_FIRST_S, PAUSE_MAX_S = 0.02, 1.0
LOST = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, OSError)
_ANSWERED = (
    NoScriptError,
    ReadOnlyError,
    ClusterDownError,
    TryAgainError,
    AskError,
    ClusterError,
)  # AskError: MOVED too
_WORDS = (
    "BUSY",
    "LOADING",
    "MASTERDOWN",
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "UNBLOCKED",
    "NOSCRIPT",
    "READONLY",
    "FAILOVER",
)

T = TypeVar("T")


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, LOST + _ANSWERED):
        return True
    return isinstance(error, ResponseError) and str(error).startswith(_WORDS)


def passing_among(answers: list[Reply]) -> Exception | None:
    """The first passing fault among answers."""
    return next((each for each in answers if isinstance(each, Exception) and is_passing(each)), None)


class Backoff:
    """Pauses that double from first_s to most_s, each shortened at random by up to half."""

    def __init__(self, first_s: float = PAUSE_FIRST_S, most_s: float = PAUSE_MAX_S) -> None:
        self._first_s, self._most_s = first_s, most_s
        self._next_s = first_s

    def next_s(self) -> float:
        """How long to pause now, in seconds."""
        pause_s, self._next_s = self._next_s, min(self._most_s, self._next_s * 2)
        return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, so that clients do not return in step

    def reset(self) -> None:
        """It went well: the next pause is a first one."""
        self._next_s = self._first_s


def retried(
    what: str, attempts_max: int, operation: Callable[[], T], recover: Callable[[], None] | None = None
) -> T:
    """The operation's result, repeating it after a passing fault. Only for idempotent operations.

    recover: called before each repeat; its own passing faults count as a failed attempt. Raises
    UnknownOutcome.
    """
    backoff = Backoff()
    for attempt in range(1, attempts_max + 1):
        try:
            if attempt > 1 and recover is not None:
                recover()
            return operation()
        except (*LOST, ResponseError, ClusterError) as error:
            if not is_passing(error):
                raise
            if attempt == attempts_max:
                raise UnknownOutcome(what, attempts_max) from error
        time.sleep(backoff.next_s())
    raise StreamError(f"{what}: attempts_max must be at least 1")
