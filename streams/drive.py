"""
Questions to the server, and who puts them.

What decides (an append, a lane, a lease) is a generator: it yields what it wants to know and is sent the
answers. It has no socket, no clock and no thread, so the same code runs over blocking connections, in an
event loop and in a simulation.

    steps: yields [Ask(key, command), ..] -> drive(steps, answer) or adrive(..) -> the steps' result
    answer: Wires.ask, AsyncWires.ask, or whatever else knows the answers
    Questions     what was answered for good, and what is put again after a passing fault (faults.py)

Every question may be put twice: a lost reply leaves its outcome unknown. So all commands here are idempotent,
and they are put again with a bound, or for as long as their caller lives.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import closing
from typing import Any, NamedTuple, TypeAlias, TypeVar

from aurastream.streams.faults import is_passing

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


class Questions:
    """Questions on their way: which were answered for good, and of which it is not known whether they ran.

    Always true: what has one hash tag is answered in the order it was put; a refused question is put again
    with all that follow it there, and with it the WAIT behind it, which vouches for nothing alone.
    """

    def __init__(self, asks: Sequence[Ask]) -> None:
        self.asks, self.left = asks, list(range(len(asks)))
        self.answers: list[Reply] = [None] * len(asks)
        self.unsure: set[int] = set()

    def take(self, part: Round) -> Exception | None:
        """Keep what was answered for good; the rest is left. Returns the first fault, None when all is done.

        Raises a fault that does not pass, if that is why there was no answer.
        """
        self.unsure.update(part.sent.difference(part.answers))
        fault = part.lost
        units: dict[str, list[int]] = {}
        for index in self.left:
            units.setdefault(hash_tag(self.asks[index].key), []).append(index)
        left: list[int] = []
        for indexes in units.values():
            refused, kept = self._first_refused(indexes, part.answers)
            fault = fault or refused
            for index in indexes[:kept]:
                self.answers[index] = part.answers[index]
                self.unsure.discard(index)
            left += indexes[kept:]
        self.left = sorted(left)
        if fault is not None and not is_passing(fault):
            raise fault
        return fault

    def _first_refused(self, indexes: list[int], answers: dict[int, Reply]) -> tuple[Exception | None, int]:
        """The first passing fault of a unit, and how many before it stand."""
        for number, index in enumerate(indexes):
            answer = answers.get(index, _MISSING)
            is_fault = isinstance(answer, Exception) and is_passing(answer)
            if is_fault or answer is _MISSING:
                is_wait = number > 0 and self.asks[index].command[0] == "WAIT"
                return (answer if is_fault else None), number - is_wait
        return None, len(indexes)


class Round(NamedTuple):
    """What came of putting some questions once. sent: indexes; answers: by index. lost: why some are
    missing.
    """

    sent: set[int]
    answers: dict[int, Reply]
    lost: Exception | None

    @classmethod
    def of(cls, indexes: Sequence[int], answers: Sequence[Reply]) -> Round:
        """All of these were answered."""
        return cls(set(indexes), dict(zip(indexes, answers, strict=True)), None)


_MISSING = object()


def hash_tag(key: str) -> str:
    """What a cluster takes a key's slot from."""
    start = key.find("{")
    end = key.find("}", start + 1) if start >= 0 else -1
    return key[start + 1 : end] if end > start + 1 else key


def waits_s(command: Command) -> float:
    """How long the server may hold its answer back because it was bidden to, in seconds: BLOCK, WAIT."""
    name = command[0]
    if name == "WAIT":
        return int(command[2]) / 1000
    if name in ("XREAD", "XREADGROUP") and "BLOCK" in command:
        return int(command[command.index("BLOCK") + 1]) / 1000
    return 0.0
