"""
Who blocks the event loop? A handler that is `async def` and does not await stops every lane of its host.

    the loop: beat, ten times a second
    another thread: blocked()?  -> which call, since when, the stack
    a beat that comes late      -> so much time nobody lived: no call's time-out counts it

`blocked` needs no event loop of the thread that asks, so that the thread that renews the leases can ask it:
a loop that is blocked cannot. Every block is logged once.

Decision (2026-11): whose step is running is known by the loop's current task, which any thread may read, and
tasks of handlers are registered; a task that a handler made itself is named by the stack alone. Refused:
asyncio's debug mode, which says so after the step ended, and slows every step; a signal, which interrupts the
main thread alone and the handler's system calls with it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from weakref import WeakKeyDictionary

import msgspec

from aurastream.streams import Logger

PERIOD_S = 0.1  # between two beats
AFTER_S = 1.0  # without a beat, after which the loop is blocked
SHOWN_S = 60.0  # how long a block that has ended is still trouble
STACK_MAX = 4_000  # characters

log = Logger("aurastream.effects")


class HandlerCall(msgspec.Struct, frozen=True):
    """One call of a handler. since: monotonic seconds."""

    processor: str
    stream: str
    partition: int
    position: str
    event_id: str
    since: float

    @property
    def place(self) -> str:
        """stream/partition/position."""
        return f"{self.stream}/{self.partition}/{self.position}"

    def facts(self) -> dict[str, str | float]:
        """For a line of the log."""
        seconds = round(time.monotonic() - self.since, 1)
        return {"processor": self.processor, "place": self.place, "event_id": self.event_id, "for_s": seconds}


class Blocked(msgspec.Struct, frozen=True):
    """The loop does not live. call: the handler whose step it is in, None where it is in something else.

    for_s: seconds since its last beat. stack: of its thread, the innermost frame last.
    """

    call: HandlerCall | None
    for_s: float
    stack: str

    def __str__(self) -> str:
        at = f"{self.call.processor} at {self.call.place}" if self.call is not None else "something"
        return f"{at} has blocked the event loop for {self.for_s:.1f} s"


class Watchdog:
    """Of one event loop. after_s: without a beat, after which it is blocked."""

    def __init__(self, after_s: float = AFTER_S) -> None:
        self._after_s = after_s
        self._beat_at: float | None = None
        self._logged_at: float | None = None
        self._lost_s = 0.0
        self._thread = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: WeakKeyDictionary[asyncio.Task[object], HandlerCall] = WeakKeyDictionary()
        self._last: tuple[float, Blocked] | None = None

    @property
    def lived_s(self) -> float:
        """A clock that stands while the loop is blocked."""
        return time.monotonic() - self._lost_s

    @property
    def trouble(self) -> str:
        """Which handler blocks the loop, or did within the last minute; "" when none."""
        if self._last is None or time.monotonic() - self._last[0] > SHOWN_S:
            return ""
        return str(self._last[1])

    def beat(self) -> None:
        """The loop lives. Called in it."""
        now = time.monotonic()
        if self._beat_at is None:
            self._thread, self._loop = threading.get_ident(), asyncio.get_running_loop()
        elif now - self._beat_at > self._after_s:
            self._lost_s += now - self._beat_at - PERIOD_S
            if self._logged_at == self._beat_at:
                log.warning("loop_lives", blocked_s=round(now - self._beat_at, 1))
        self._beat_at = now

    async def live(self) -> None:
        """Beat for ever; to be run as a task."""
        while True:
            self.beat()
            await asyncio.sleep(PERIOD_S)

    def watch(self, task: asyncio.Task[object], call: HandlerCall) -> None:
        """The task is this call."""
        self._calls[task] = call

    def blocked(self) -> Blocked | None:
        """Who blocks the loop, from any thread; None while it lives."""
        beat_at, loop = self._beat_at, self._loop
        if beat_at is None or loop is None or time.monotonic() - beat_at < self._after_s:
            return None
        seen = Blocked(self._current(loop), time.monotonic() - beat_at, self._stack())
        if seen.call is None and self._logged_at == beat_at and self._last is not None:
            seen = msgspec.structs.replace(seen, call=self._last[1].call)  # the same block, between two steps
        if self._beat_at != beat_at:  # it has moved while we looked
            return None
        if self._logged_at != beat_at:
            self._logged_at = beat_at
            facts = {} if seen.call is None else seen.call.facts()
            log.error("loop_blocked", blocked_s=round(seen.for_s, 1), **facts, stack=seen.stack)
        self._last = (time.monotonic(), seen)
        return seen

    def _current(self, loop: asyncio.AbstractEventLoop) -> HandlerCall | None:
        task = asyncio.current_task(loop)
        return None if task is None else self._calls.get(task)

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._thread)
        return "" if frame is None else "".join(traceback.format_stack(frame))[-STACK_MAX:]
