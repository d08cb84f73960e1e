"""
Replay: events of the past again, in their order, at a pace of your choice, into whatever takes them.

    read_past (reading.py) -> Tempo: wait until it is due -> Sink (sinks.py): lines, or another stream
        Stop: between two

Always true: what a sink has taken is the selection's beginning, in order, each event once; so a replay that
was stopped or killed goes on after what is there. A replay changes nothing but its target. Effects stay
silent: the streams it makes are marked as replays, which processors leave alone (Processor.handles).

Decision (2026-11): into a projection means into a stream of its own, which the projection then folds as any
other: exactly once, resumable and checkable with what there is. Refused: a scratch view fed directly, a
second way to commit that would have to be proved as well.
Decision (2026-11): the schedule is absolute: an event is due (its time - the first one's) / speed after the
start, by the latest time so far. So waits do not drift, and event time that goes back makes nobody wait
twice. Refused: a sleep for each gap.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from aurastream.processors import Stop
from aurastream.processors.history.selection import By, PastEvent
from aurastream.streams import Position, microseconds

SPEED_MAX = 1e9


class Sink(Protocol):
    """Where a replay goes."""

    def put(self, event: PastEvent) -> None:
        """Take the next event. May hold it back until ``flush``."""
        ...

    def flush(self) -> None:
        """Everything taken so far is where it belongs when this returns."""
        ...


class Speed(msgspec.Struct, frozen=True):
    """How fast. times: 10.0 is ten times as fast as it was; None does not wait. is_step: a key for every
    event. by: whose time that is.
    """

    times: float | None = None
    is_step: bool = False
    by: By = "occurred"


def parsed_speed(text: str, by: By = "occurred") -> Speed:
    """1x, 10x, 0.5x, max or step. Raises ValueError."""
    if text in {"max", "step"}:
        return Speed(is_step=text == "step", by=by)
    try:
        times = float(text.removesuffix("x"))
    except ValueError:
        times = 0.0
    if not text.endswith("x") or not 0 < times <= SPEED_MAX:
        raise ValueError(f"{text!r} is no speed: give 1x, 10x or any other number and an x, max, or step")
    return Speed(times, by=by)


class Tempo:
    """When the next event is due. by: event time, or the position's clock. clock: monotonic seconds."""

    def __init__(
        self, times: float | None, by: By = "occurred", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._times, self._by, self._clock = times, by, clock
        self._first_us: int | None = None
        self._latest_us = 0
        self._began = 0.0

    def wait_s(self, event: PastEvent) -> float:
        """Seconds from now until the event is due; 0 or less when it is."""
        if self._times is None:
            return 0.0
        at = (
            microseconds(event.envelope.occurred_at)
            if self._by == "occurred"
            else Position.parse(event.position).ms * 1000
        )
        if self._first_us is None:
            self._first_us = self._latest_us = at
            self._began = self._clock()
        self._latest_us = max(self._latest_us, at)
        return self._began + (self._latest_us - self._first_us) / 1e6 / self._times - self._clock()


def replay(
    events: Iterable[PastEvent], sink: Sink, speed: Speed, stop: Stop, *, step: Callable[[PastEvent], None]
) -> bool:
    """Hand the events to the sink as they become due. False when it was stopped before they ended.

    step: told which event waits for Enter.
    """
    pace = Tempo(speed.times, speed.by)
    for event in events:
        if speed.is_step:
            sink.flush()
            step(event)
            is_over = stop.wait_for_line()
        else:
            is_over = _waited(pace.wait_s(event), sink, stop)
        if is_over or stop.was_asked:
            sink.flush()
            return False
        sink.put(event)
    sink.flush()
    return not stop.was_asked  # asked while nothing was chosen, the reading just ends


def _waited(pause_s: float, sink: Sink, stop: Stop) -> bool:
    """Wait for the next event with nothing held back. True when told to stop before."""
    if pause_s <= 0:
        return False
    sink.flush()
    return stop.wait(pause_s)
