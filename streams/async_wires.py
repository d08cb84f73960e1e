"""
An event loop's connections, one per node, shared by all its tasks.

    ask -> grouped by node, all at once -> a passing fault? -> a pause, slots learnt anew once for all who
    wait ->
        grouped and put again: until there is an answer, or attempts_max times
    hurry -> the process stops: who waits for a server that is away waits so much longer, then gets ServerAway

Always true: a question is grouped anew each time it is put, so what moved is asked where it is by then.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from redis.exceptions import ClusterError, RedisError

from aurastream.streams.async_wire import AsyncWire
from aurastream.streams.connection import Server
from aurastream.streams.drive import LOST, Ask, Backoff, Reply, passing_among, sound
from aurastream.streams.errors import ServerAway, StreamError, UnknownOutcome
from aurastream.streams.late import Logger

log = Logger(__name__)


class AsyncWires:
    """See the module.

    attempts_max: times a question is put; None: until there is an answer. recover: brings an embedded server
    back; blocking.
    """

    def __init__(
        self, server: Server, attempts_max: int | None = None, recover: Callable[[], None] | None = None
    ) -> None:
        self.server, self.attempts_max, self._recover = server, attempts_max, recover
        self._wires: dict[str, AsyncWire] = {}
        self._opening: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by node
        self._renewing = asyncio.Lock()
        self._renewals = 0
        self._waiting = 0  # questions that wait for a server
        self._hurried_at = float("inf")  # monotonic seconds
        self._patience_s = 0.0

    async def of(self, key: str) -> AsyncWire:
        """The connection to the key's node, made anew where it was lost. Raises one of LOST."""
        node = self.server.node_of(key)
        wire = self._wires.get(node)
        if wire is not None and not wire.is_lost:
            return wire
        async with self._opening[node]:
            wire = self._wires.get(node)
            if wire is None or wire.is_lost:
                lost = self._wires.pop(node, None)
                if lost is not None:
                    await lost.close()
                wire = self._wires[node] = await self.server.async_wire(key)
        return wire

    async def exchange(self, asks: Sequence[Ask]) -> list[Reply]:
        """One answer for each, in order, all nodes at once; the server's errors are values. Raises LOST."""
        by_node: dict[str, list[int]] = {}
        for index, ask in enumerate(asks):
            by_node.setdefault(self.server.node_of(ask.key), []).append(index)
        if len(by_node) == 1:
            return await self._of_node(asks)
        parts = await asyncio.gather(
            *[self._of_node([asks[index] for index in indexes]) for indexes in by_node.values()]
        )
        answers: list[Reply] = [None] * len(asks)
        for indexes, part in zip(by_node.values(), parts, strict=True):
            for index, answer in zip(indexes, part, strict=True):
                answers[index] = answer
        return answers

    async def _of_node(self, asks: Sequence[Ask]) -> list[Reply]:
        wire = await self.of(asks[0].key)
        answers = await wire.exchange(*[ask.command for ask in asks])
        if passing_among(answers):
            await wire.close()  # one made anew loads the scripts, and finds the primary where it is by then
        return answers

    async def answers(self, asks: Sequence[Ask], what: str = "a question") -> list[Reply]:
        """The same, put again after a passing fault.

        Raises UnknownOutcome after attempts_max; ServerAway after ``hurry``.
        """
        backoff, attempt, since = Backoff(), 0, None
        try:
            while True:
                attempt, renewals = attempt + 1, self._renewals
                try:
                    answers = await self.exchange(asks)
                    fault: Exception | None = passing_among(answers)
                except (*LOST, ClusterError) as error:
                    fault = error
                if fault is None:
                    if since is not None and self._waiting == 1:
                        log.warning("server_back", away_s=round(time.monotonic() - since, 3))
                    return answers
                if attempt == self.attempts_max:
                    raise UnknownOutcome(what, attempt) from fault
                since = self._begin_to_wait(fault) if since is None else since
                self._check_patience(since, fault)
                await asyncio.sleep(backoff.next_s())
                await self._renew_after(renewals)
        finally:
            if since is not None:
                self._waiting -= 1

    async def ask(self, asks: Sequence[Ask], what: str = "a question") -> list[Reply]:
        """The same; raises the first error of the server."""
        return sound(await self.answers(asks, what))

    async def renew(self) -> None:
        """Bring an embedded server back, learn anew which node holds what. Passing faults of its own are
        logged.
        """
        await self._renew_after(self._renewals)

    async def _renew_after(self, renewals: int) -> None:
        """``renew``, once for all whose question was put before it."""
        async with self._renewing:
            if self._renewals != renewals:
                return
            try:
                await asyncio.to_thread(self._renew)
            except (RedisError, StreamError, OSError) as error:
                log.warning("server_away", reason=f"{type(error).__name__}: {error}"[:300])
            self._renewals += 1

    def _renew(self) -> None:
        if self._recover is not None:
            self._recover()
        self.server.refresh()

    def hurry(self, patience_s: float) -> None:
        """The process stops: wait for a server that is away no longer than this."""
        self._hurried_at, self._patience_s = time.monotonic(), patience_s

    async def close(self) -> None:
        """Drop all; requests under way fail, their outcome unknown."""
        wires = list(self._wires.values())
        self._wires.clear()  # first: who asks meanwhile makes a new one
        for wire in wires:
            await wire.close()

    def _begin_to_wait(self, fault: Exception) -> float:
        if not self._waiting:
            log.warning("server_lost", error=str(fault)[:200])
        self._waiting += 1
        return time.monotonic()

    def _check_patience(self, since: float, fault: Exception) -> None:
        """Raise ServerAway where the question has waited for longer than a process that stops has time."""
        now = time.monotonic()
        if now - max(since, self._hurried_at) > self._patience_s:
            raise ServerAway(now - since) from fault
