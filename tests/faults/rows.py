"""The registry: every row of the fault matrix that touches log, apply, ownership or server is a function that
plays and judges it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.harness import Run


@dataclass(frozen=True)
class Row:
    """number: in RELIABILITY.md section 6. bound_s: a row that lasts longer than this is stuck."""

    number: int
    fault: str
    play: Callable[[Run], None]
    bound_s: float

    @property
    def name(self) -> str:
        return f"row_{self.number:02d}_{self.play.__name__}"


ROWS: dict[int, Row] = {}


def row(
    number: int, fault: str, bound_s: float = 60.0
) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Register the function as the row. bound_s is for the short form; the long one may take ten times as
    long.
    """

    def register(play: Callable[[Run], None]) -> Callable[[Run], None]:
        assert number not in ROWS
        ROWS[number] = Row(number, fault, play, bound_s)
        return play

    return register
