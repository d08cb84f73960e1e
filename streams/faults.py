"""
Which faults pass, and for how long somebody waits for that.

    a fault -> passing_of -> REFUSED    the server will not for now (full, read-only disk, no replicas, busy):
                                        put again over the same connection
                          -> ELSEWHERE  another node or connection would (moved, a replica, loading): nodes
                                        learnt anew
                          -> LOST       no answer (cut, refused, silent)
                          -> None       it will never do: a wrong type, a password, a script's own error
    Tries: how often and how long something idempotent is put again -> ServerRefuses or UnknownOutcome

Always true: what was answered with an error was not done. A script checks before its first write and none of
these can come up within it (memory, replicas and the disk are looked at when it begins, and a role changes
between two commands), so REFUSED and ELSEWHERE are definite, also for a whole batch; only LOST is not.

Decision (2026-11): the words are matched, not redis-py's classes alone: it has none for MISCONF, NOREPLICAS
and BUSY, and Redis 6.2 puts what a script met into the text of an ``ERR Error running script``. A password or
a certificate that is refused is a ConnectionError there; here it does not pass.
"""

from __future__ import annotations

import random
import re
import ssl
import time
from collections.abc import Callable
from enum import Enum
from typing import TypeVar

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from aurastream.streams.errors import NotAnswered, ServerRefuses, StreamError, UnknownOutcome
from aurastream.streams.texts import text_of

T = TypeVar("T")

PAUSE_FIRST_S, PAUSE_MAX_S = 0.02, 1.0
SAID_MAX = 300  # characters of what a server says, in a log line or a sentence
LOST = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, OSError)


class Passing(Enum):
    """How a fault passes."""

    REFUSED = "the server will not for now"
    ELSEWHERE = "another node or connection would"
    LOST = "there was no answer"


_WORDS = {
    "OOM": Passing.REFUSED,
    "MISCONF": Passing.REFUSED,
    "NOREPLICAS": Passing.REFUSED,
    "BUSY": Passing.REFUSED,
    "TRYAGAIN": Passing.ELSEWHERE,
    "READONLY": Passing.ELSEWHERE,
    "LOADING": Passing.ELSEWHERE,
    "MASTERDOWN": Passing.ELSEWHERE,
    "CLUSTERDOWN": Passing.ELSEWHERE,
    "MOVED": Passing.ELSEWHERE,
    "ASK": Passing.ELSEWHERE,
    "UNBLOCKED": Passing.ELSEWHERE,
    "NOSCRIPT": Passing.ELSEWHERE,
    "FAILOVER": Passing.ELSEWHERE,
}
_WITHIN_SCRIPT = re.compile(rf"^(?:ERR )?Error running script .*?: -?({'|'.join(_WORDS)})\b", re.DOTALL)

_ANYWHERE = re.compile(rf"\b(?:{'|'.join(_WORDS)})\b")


def word_of(error: BaseException) -> str:
    """The server's word for it, also out of a script's error text; "" where it is none that passes."""
    text = said(error)
    within = _WITHIN_SCRIPT.match(text)
    word = within[1] if within else text.partition(" ")[0]
    return word if word in _WORDS else ""


def word_in(sentence: str) -> str:
    """The first of the server's words in a sentence of ours; "" where there is none."""
    match = _ANYWHERE.search(sentence)
    return match[0] if match else ""


def said(error: BaseException) -> str:
    """What the server says, its code in front, where redis-py took it off; of any other error its text."""
    text, code = text_of(error), getattr(error, "status_code", None)
    if isinstance(code, str) and not text.startswith(code):
        text = f"{code} {text}"
    return (text or type(error).__name__)[:SAID_MAX]


def passing_of(error: BaseException) -> Passing | None:
    """How it passes; None where the same request would fail for ever."""
    if isinstance(error, AuthenticationError | AuthorizationError):
        return None
    if isinstance(error, ResponseError | BusyLoadingError):
        return _WORDS.get(word_of(error))
    if isinstance(error, ClusterError):  # redis-py's: it gave up following a slot
        return Passing.ELSEWHERE
    if isinstance(error, LOST):
        is_forged = isinstance(error.__context__, ssl.SSLCertVerificationError)
        return None if is_forged else Passing.LOST
    return Passing.LOST if isinstance(error, NotAnswered) else None


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    return passing_of(error) is not None


def passing_among(answers: list[object]) -> Exception | None:
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


class Tries:
    """The tries of one idempotent thing. It is given up once it was tried attempts_max times and patience_s
    are over, whichever comes later. attempts_max: None: it never is.
    """

    def __init__(self, what: str, attempts_max: int | None, patience_s: float = 0.0) -> None:
        if attempts_max is not None and attempts_max < 1:
            raise StreamError(f"{what}: attempts_max must be at least 1")
        self.what, self.attempts = what, 0
        self._attempts_max, self._ends = attempts_max, time.monotonic() + patience_s
        self._backoff = Backoff()

    def pause_s(self, fault: BaseException, *, is_unsure: bool) -> float:
        """One more try failed: how long to pause before the next.

        is_unsure: whether any of the tries may have been done. Raises UnknownOutcome where it is, else
        ServerRefuses, when there is no next one.
        """
        self.attempts += 1
        is_last = self._attempts_max is not None and self.attempts >= self._attempts_max
        if is_last and time.monotonic() >= self._ends:
            if is_unsure:
                raise UnknownOutcome(self.what, self.attempts) from fault
            raise ServerRefuses(self.what, word_of(fault), said(fault)) from fault
        return self._backoff.next_s()


def retried(
    what: str,
    attempts_max: int,
    operation: Callable[[], T],
    recover: Callable[[], None] | None = None,
    patience_s: float = 0.0,
) -> T:
    """The operation's result, repeating it after a passing fault. Only for idempotent operations.

    recover: called before each repeat; its own passing faults count as a failed attempt. patience_s: as of
    Tries. Raises UnknownOutcome, ServerRefuses.
    """
    tries, is_unsure = Tries(what, attempts_max, patience_s), False
    while True:
        try:
            if tries.attempts and recover is not None:
                recover()
            return operation()
        except (*LOST, ResponseError, ClusterError) as error:
            how = passing_of(error)
            if how is None:
                raise
            is_unsure = is_unsure or how is Passing.LOST
            pause_s = tries.pause_s(error, is_unsure=is_unsure)
        time.sleep(pause_s)
