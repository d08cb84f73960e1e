"""
Wait, in an event loop, until one of several logs has something new.

    one server    XREAD BLOCK over all of them, on a connection of its own
    a cluster     no one command waits for several slots: look again, ever slower while nothing comes
    ``interrupt`` the wait ends at once (CLIENT UNBLOCK): something else is to be waited for

Nobody's place in a log is moved here: what is new, its reader reads for itself.
"""

from __future__ import annotations

import asyncio
from typing import Any

from redis.exceptions import RedisError

from aurastream.streams.async_wire import AsyncWire
from aurastream.streams.async_wires import AsyncWires
from aurastream.streams.drive import Ask
from aurastream.streams.faults import Backoff
from aurastream.streams.groups import wake_up
from aurastream.streams.positions import Position

POLL_FIRST_S, POLL_MAX_S = 0.001, 0.05  # between looks at a cluster


class News:
    """Waits for one task; ``interrupt`` may come from any of the same loop.

    has_failed: whether the last wait ended with its connection, so that anything may have happened meanwhile.
    """

    def __init__(self, wires: AsyncWires) -> None:
        self._wires = wires
        self._blocking: AsyncWire | None = None
        self._client_id = 0
        self._is_blocked = False
        self._interrupted = asyncio.Event()
        self._polls = Backoff(POLL_FIRST_S, POLL_MAX_S)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.has_failed = False

    @property
    def is_interrupted(self) -> bool:
        """Since the last ``begin``."""
        return self._interrupted.is_set()

    def begin(self) -> None:
        """From now on an interrupt is meant for what is waited for next."""
        self._interrupted.clear()

    def interrupt(self) -> None:
        """End the wait."""
        self._interrupted.set()
        if self._is_blocked:
            self._is_blocked = False
            self._beside(self._unblock())

    async def wait(self, after: dict[str, str], timeout_s: float) -> dict[str, Position]:
        """Until one of the logs (by key) has an entry after its position, for timeout_s, or to an interrupt.

        Of each log with news the position of the first; a cluster's are not known, and its wait is short.
        """
        if self._interrupted.is_set():
            return {}
        if not after or self._wires.server.facts.is_cluster:
            await self.pause(min(self._polls.next_s(), timeout_s) if after else timeout_s)
            return {}
        return await self._blocked(after, timeout_s)

    async def look(self, after: dict[str, str]) -> dict[str, Position]:
        """The same without a wait: one round trip per node. Raises LOST, and what a node answers."""
        asks = [Ask(key, ("XRANGE", key, f"({at or '0-0'}", "+", "COUNT", 1)) for key, at in after.items()]
        answers = await self._wires.ask(asks)
        fresh = {
            key: Position.parse(entries[0][0]) for key, entries in zip(after, answers, strict=True) if entries
        }
        if fresh:
            self.came()
        return fresh

    def came(self) -> None:
        """There was news: the next look at a cluster comes soon."""
        self._polls.reset()

    async def pause(self, seconds: float) -> None:
        """So long, or to an interrupt."""
        try:
            await asyncio.wait_for(self._interrupted.wait(), seconds)
        except TimeoutError:
            return

    async def close(self) -> None:
        """Drop the connection that waits."""
        blocking, self._blocking = self._blocking, None
        if blocking is not None:
            await blocking.close()

    async def _blocked(self, after: dict[str, str], timeout_s: float) -> dict[str, Position]:
        self.has_failed = False
        try:
            if self._blocking is None:
                self._blocking = await self._wires.server.async_wire(next(iter(after)))
                (self._client_id,) = await self._blocking.ask(("CLIENT", "ID"))
            if self._interrupted.is_set():
                return {}
            self._is_blocked = True
            (reply,) = await self._blocking.ask(wake_up(after, max(1, int(timeout_s * 1000))))
        except (RedisError, OSError):
            self.has_failed = True
            await self.close()
            await self.pause(POLL_MAX_S)  # whoever asks next learns what is wrong, and waits for it
            return {}
        finally:
            self._is_blocked = False
        return {key.decode(): Position.parse(entries[0][0]) for key, entries in reply or ()}

    async def _unblock(self) -> None:
        try:
            await self._wires.ask([Ask("", ("CLIENT", "UNBLOCK", self._client_id))])
        except RedisError:
            return  # not allowed here: the wait ends by itself

    def _beside(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
