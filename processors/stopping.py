"""Ctrl-C and SIGTERM as something to ask for: work ends between two steps, and whoever waits hears of it."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether to stop; heard between two steps, also by who waits for the next one to be due.

    A pipe and not a threading.Event, whose lock a handler may find taken by the very thread that it
    interrupts.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.was_asked = False

    def ask(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Stop. Asked again, by someone who does not want to wait: KeyboardInterrupt, wherever we are."""
        if self.was_asked and number:
            raise KeyboardInterrupt
        self.was_asked = True
        os.write(self._write, b"x")

    def wait(self, seconds: float) -> bool:
        """Wait that long. True when told to stop before."""
        return bool(select.select([self._read], [], [], seconds)[0])

    def wait_for_line(self) -> bool:
        """Wait for Enter. True when told to stop before, or when there is no more input."""
        ready = select.select([self._read, sys.stdin], [], [])[0]
        return self._read in ready or not sys.stdin.readline()

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@contextmanager
def stopping_by_signal() -> Iterator[Stop]:
    """A Stop that SIGINT and SIGTERM ask, for the length of a with block."""
    stop = Stop()
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.close()
