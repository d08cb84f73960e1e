"""What a lane remembers of the entries from its cursor to the last one it read. It only saves questions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

AHEAD_MAX = 4_096  # entries in it: how far others flow past a subject that waits


class Window:
    """seen: position read up to, "" before the first."""

    def __init__(self) -> None:
        self.seen = ""
        self._open: deque[str] = deque()
        self._finished: set[str] = set()

    @property
    def room(self) -> int:
        """How many entries may be read before one must finish."""
        return AHEAD_MAX - len(self._open)

    def settle(self, cursor: str, done: Iterable[str]) -> None:
        """Begin at the cursor. done: positions behind it that are finished."""
        self.seen, self._finished = cursor, set(done)
        self._open.clear()

    def is_finished(self, position: str) -> bool:
        """Whether nothing is to be done about it any more."""
        return position in self._finished

    def read(self, positions: Iterable[str]) -> None:
        """These follow, at least one."""
        self._open.extend(positions)
        self.seen = self._open[-1]

    def finish(self, positions: Iterable[str]) -> None:
        """These are finished: the window shrinks with the prefix, as the cursor does."""
        self._finished.update(positions)
        while self._open and self._open[0] in self._finished:
            self._finished.discard(self._open.popleft())
