"""What every long run begins and ends with: the collector's setting, and the account of what was read.
Imports no Faust.
"""

from __future__ import annotations

import gc

import msgspec


class Summary(msgspec.Struct, frozen=True):
    """What a host did: entries read by projection, until a signal or a crash stopped it."""

    projections: dict[str, int]
    seconds: float
    stopped_by_signal: bool


def tune_collector() -> None:
    """For a process that folds for long: collect cycles rarely. A fold makes many small containers and no
    cycles, and looking for
    some after every 700 of them costs a fifth of its time."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)
