"""
Questions to the server, and who puts them.

What decides (an append, a lane, a lease) is a generator: it yields what it wants to know and is sent the
answers. It has no socket, no clock and no thread, so the same code runs over blocking connections, in an
event loop and in a simulation.

    steps: yields [Ask(key, command), ..] -> drive(steps, answer) or adrive(..) -> the steps' result
    answer: Wires.ask, AsyncWires.ask, or whatever else knows the answers

Every question may be put twice: a lost reply leaves its outcome unknown. So all commands here are idempotent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import closing
from typing import Any, NamedTuple, TypeAlias, TypeVar

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
