"""How long a lane waits after it failed, before it begins anew."""

from __future__ import annotations

from aurastream.streams import Backoff

PASSING_FIRST_S, PASSING_MAX_S = 0.1, 1.0  # after a fault that passes by itself
MEND_FIRST_S, MEND_MAX_S = 1.0, 30.0  # after an error that a person must mend


class Pauses:
    """Those of one lane."""

    def __init__(self) -> None:
        self._passing = Backoff(PASSING_FIRST_S, PASSING_MAX_S)
        self._mending = Backoff(MEND_FIRST_S, MEND_MAX_S)

    def next_s(self, *, is_passing: bool) -> float:
        """How long to pause now, in seconds."""
        return (self._passing if is_passing else self._mending).next_s()

    def reset(self) -> None:
        """It went well: the next pause is a first one."""
        self._passing.reset()
        self._mending.reset()
