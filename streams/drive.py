"""
Questions to the server, who puts them, and which faults pass.

What decides (an append, a lane, a lease) is a generator: it yields what it wants to know and is sent the
answers. It has no socket, no clock and no thread, so the same code runs over blocking connections, in an
event loop and in a simulation.

    steps: yields [Ask(key, command), ..] -> drive(steps, answer) or adrive(..) -> the steps' result
    answer: Wires.ask, AsyncWires.ask, or whatever else knows the answers
    a fault -> is_passing -> put again, after a pause -> Backoff: each about twice as long, none in step with
        others

Every question may be put twice: a lost reply leaves its outcome unknown. So all commands here are idempotent,
and they are put again with a bound (``retried``), or for as long as their caller lives.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import closing
from typing import Any, NamedTuple, TypeAlias, TypeVar

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

from aurastream.streams.errors import StreamError, UnknownOutcome

Command: TypeAlias = tuple[Any, ...]  # as redis takes it: text, bytes and numbers
Reply: TypeAlias = Any  # as the server answers: bytes, numbers, None, an error as a value, and lists of these
Q = TypeVar("Q")
R = TypeVar("R")
T = TypeVar("T")


class Ask(NamedTuple):
    """One command, for the node that holds the key."""

    key: str
    command: Command


# Errors of the server are among the answers, as values, unless the driver raises them.
Asking: TypeAlias = Generator[list[Ask], list[Reply], T]


def drive(steps: Generator[Q, Reply, T], answer: Callable[[Q], Reply]) -> T:
    """Answer what the steps ask until they return; their result. What `answer` raises ends the steps too."""
    answers = None
    with closing(steps):
        while True:
            try:
                question = steps.send(answers)
            except StopIteration as finished:
                result: T = finished.value
                return result
            answers = answer(question)


async def adrive(steps: Generator[Q, Reply, T], answer: Callable[[Q], Awaitable[Reply]]) -> T:
    """The same in an event loop. Written again, as what awaits cannot be entered by what does not."""
    answers = None
    with closing(steps):
        while True:
            try:
                question = steps.send(answers)
            except StopIteration as finished:
                result: T = finished.value
                return result
            answers = await answer(question)


def relay(
    steps: Generator[Q, Reply, T], answer: Callable[[Q], Generator[R, Reply, Reply]]
) -> Generator[R, Reply, T]:
    """The same within other steps: what these ask is answered by asking further."""
    answers = None
    with closing(steps):
        while True:
            try:
                question = steps.send(answers)
            except StopIteration as finished:
                result: T = finished.value
                return result
            answers = yield from answer(question)


def sound(answers: list[Reply]) -> list[Reply]:
    """The answers; raises the first error among them."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


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
