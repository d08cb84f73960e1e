"""
A worker's connection to its server, which outlives the server's outages.

    ask -> the wire of the key's node, made when needed -> answers
        -> a passing fault: drop the wire, learn the nodes anew, wait a little longer each time, ask again

Every command that goes through here may run twice, so all are idempotent: reads, leases, acknowledge.lua,
send.lua.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Generator
from typing import Any

from redis.exceptions import ClusterError, RedisError, ResponseError

from aurastream.streams import (
    LOST,
    PAUSE_FIRST_S,
    PAUSE_MAX_S,
    Asking,
    AsyncWire,
    Logger,
    Server,
    StreamError,
    is_passing,
)
from aurastream.streams import Ask as Routed

log = Logger(__name__)


class ServerAway(StreamError):
    """The server did not come back while the worker was stopping."""

    def __init__(self, waited_s: float) -> None:
        super().__init__(
            f"the server was away for {waited_s:.1f} s when the worker stopped. Nothing is lost: what is "
            "not acknowledged comes again."
        )


class Link:
    """All wires of one event loop to one server or cluster."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._wires: dict[str, AsyncWire] = {}
        self._opening = asyncio.Lock()
        self._waiting: dict[object, float] = {}  # asks that wait for a server, and since when
        self._hurried_at: float | None = None
        self._patience_s = 0.0

    async def ask(self, key: str, *commands: tuple[Any, ...]) -> list[Any]:
        """All answers, from the node that holds the key. Waits for a server that is away; raises the server's
        own errors.

        Raises ServerAway after ``hurry``.
        """
        pause_s, me = PAUSE_FIRST_S, object()
        try:
            while True:
                wire = None
                try:
                    wire = await self._wire(key)
                    return await wire.ask(*commands)
                except (*LOST, ResponseError, ClusterError) as error:
                    if not is_passing(error):
                        raise
                    self._wait_for_server(me, error)
                    await self._recover(wire, pause_s)
                    pause_s = min(PAUSE_MAX_S, pause_s * 2)
        finally:
            if (since := self._waiting.pop(me, None)) is not None and not self._waiting:
                log.warning("server_back", away_s=round(time.monotonic() - since, 3))

    async def ask_each(self, routed: list[Routed]) -> list[Any]:
        """One answer for each command, in order; one round trip per node, all at once."""
        nodes: dict[str, list[int]] = {}
        for number, (key, _) in enumerate(routed):
            nodes.setdefault(self.server.node_of(key), []).append(number)
        if len(nodes) == 1:
            return await self.ask(routed[0][0], *[command for _, command in routed])
        asking = [
            self.ask(routed[numbers[0]][0], *[routed[number][1] for number in numbers])
            for numbers in nodes.values()
        ]
        answers: list[Any] = [None] * len(routed)
        for numbers, found in zip(nodes.values(), await asyncio.gather(*asking), strict=True):
            for number, answer in zip(numbers, found, strict=True):
                answers[number] = answer
        return answers

    async def drive(self, asking: Asking[Any] | Generator[list[Routed], Any, Any]) -> None:
        """Answer a generator's commands until it ends."""
        answers: Any = None
        try:
            while True:
                answers = await self.ask_each(asking.send(answers))
        except StopIteration:
            return

    def hurry(self, patience_s: float) -> None:
        """The worker stops: wait for a server that is away no longer than this."""
        self._hurried_at, self._patience_s = time.monotonic(), patience_s

    async def close(self) -> None:
        """Drop all wires."""
        for wire in self._wires.values():
            await wire.close()
        self._wires.clear()

    async def _wire(self, key: str) -> AsyncWire:
        node = self.server.node_of(key)
        wire = self._wires.get(node)
        if wire is not None and not wire.is_lost:
            return wire
        async with self._opening:
            wire = self._wires.get(node)
            if wire is None or wire.is_lost:
                lost = self._wires.pop(node, None)
                if lost is not None:
                    await lost.close()
                wire = self._wires[node] = await self.server.async_wire(key)
        return wire

    def _wait_for_server(self, me: object, error: BaseException) -> None:
        now = time.monotonic()
        if not self._waiting:
            log.warning("server_lost", error=str(error)[:200])
        since = self._waiting.setdefault(me, now)
        if self._hurried_at is not None and now - max(since, self._hurried_at) > self._patience_s:
            raise ServerAway(now - since) from error

    async def _recover(self, wire: AsyncWire | None, pause_s: float) -> None:
        """Drop the wire that failed, which others may have replaced already; pause; learn the nodes anew."""
        if wire is not None:
            self._wires = {node: other for node, other in self._wires.items() if other is not wire}
            await wire.close()
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, so that workers do not return in step
        if self.server.facts.is_cluster:
            try:
                await asyncio.to_thread(self.server.refresh)
            except (RedisError, OSError):
                return  # no node answers: the next attempt finds out
