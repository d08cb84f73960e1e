"""
An event loop's connections, one per node, shared by all its tasks.

    ask -> grouped by node, all at once -> a passing fault? -> a pause -> where another node would: slots
        learnt anew once for all who wait -> what is not answered for good is grouped and put again: until
        there is an answer, or attempts_max times
    hurry -> the process stops: a question waits so much longer, whatever the server does, then gets
        ServerAway
    trouble -> what is refused now, by whom and since when: for health and metrics

Always true: a question is grouped anew each time it is put, so what moved is asked where it is by then.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from redis.exceptions import ClusterError, RedisError, ResponseError

from aurastream.streams.aside import aside
from aurastream.streams.async_wire import AsyncWire
from aurastream.streams.connection import Server
from aurastream.streams.drive import Ask, Questions, Reply, Round, sound
from aurastream.streams.errors import ServerAway, StreamError
from aurastream.streams.faults import LOST, Passing, Tries, is_passing, passing_among, passing_of, said
from aurastream.streams.late import Logger
from aurastream.streams.troubles import Troubles

HURRIED_AGAIN_S = 0.5  # for a question of a process that stops and has given one up already

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
        self._bounds: set[asyncio.Timeout] = set()  # of the questions under way
        self._patience_s: float | None = None  # of a process that stops
        self._troubles = Troubles()

    @property
    def trouble(self) -> str:
        """What the server refuses or does not answer now, and for how long; "" while all is well."""
        return self._troubles.sentence()

    @property
    def trouble_since_ms(self) -> int | None:
        """Since when, in milliseconds since 1970 by this host's clock."""
        return self._troubles.since_ms()

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
        part = await self._put(asks, range(len(asks)))
        if part.lost is not None:
            raise part.lost
        return [part.answers[index] for index in range(len(asks))]

    async def answers(self, asks: Sequence[Ask], what: str = "a question") -> list[Reply]:
        """The same, put again after a passing fault.

        Raises UnknownOutcome or ServerRefuses after attempts_max; ServerAway after ``hurry``.
        """
        questions, tries = Questions(asks), Tries(what, self.attempts_max)
        with self._bounded() as bound:
            async with bound:
                renewals = self._renewals
                fault = questions.take(await self._put(asks, questions.left))
                while fault is not None:
                    await asyncio.sleep(tries.pause_s(fault, is_unsure=bool(questions.unsure)))
                    if passing_of(fault) is not Passing.REFUSED:
                        await self._renew_after(renewals)
                    renewals = self._renewals
                    fault = questions.take(await self._put(asks, questions.left))
        return questions.answers

    async def ask(self, asks: Sequence[Ask], what: str = "a question") -> list[Reply]:
        """The same; raises the first error of the server."""
        return sound(await self.answers(asks, what))

    async def renew(self) -> None:
        """Bring an embedded server back, learn anew which node holds what. Passing faults of its own are
        logged.
        """
        await self._renew_after(self._renewals)

    def hurry(self, patience_s: float) -> None:
        """The process stops: whatever the server does, a question waits no longer than this."""
        self._patience_s = patience_s
        ends = asyncio.get_running_loop().time() + patience_s
        for bound in self._bounds:
            bound.reschedule(ends)

    async def close(self) -> None:
        """Drop all; requests under way fail, their outcome unknown."""
        wires = list(self._wires.values())
        self._wires.clear()  # first: who asks meanwhile makes a new one
        for wire in wires:
            await wire.close()

    async def _put(self, asks: Sequence[Ask], indexes: Sequence[int]) -> Round:
        """These of the questions, once, all nodes at once."""
        by_node: dict[str, list[int]] = {}
        lost: Exception | None = None
        for index in indexes:
            try:
                by_node.setdefault(self.server.node_of(asks[index].key), []).append(index)
            except LOST as error:  # nobody holds the slot for now
                self._troubles.begin(("", ""), error)
                lost = lost or error
        if len(by_node) == 1 and lost is None:
            ((node, own),) = by_node.items()
            return await self._of_node(node, [asks[index] for index in own], own)
        parts = await asyncio.gather(
            *[self._of_node(node, [asks[index] for index in own], own) for node, own in by_node.items()]
        )
        whole = Round(set(), {}, next((part.lost for part in parts if part.lost is not None), lost))
        for part in parts:
            whole.sent.update(part.sent)
            whole.answers.update(part.answers)
        return whole

    async def _of_node(self, node: str, asks: list[Ask], indexes: list[int]) -> Round:
        """Those of one node. What does not pass is raised."""
        sent: list[int] = []
        try:
            wire = await self.of(asks[0].key)
            sent = indexes
            answers = await wire.exchange(*[ask.command for ask in asks])
        except (*LOST, ClusterError, ResponseError) as error:
            if not is_passing(error):
                raise
            self._troubles.begin((node, ""), error)
            return Round(set(sent), {}, error)
        if fault := passing_among(answers):
            self._refused(node, asks, answers)
            if passing_of(fault) is not Passing.REFUSED:
                await (
                    wire.close()
                )  # one made anew loads the scripts, and finds the primary where it is by then
        elif self._troubles:
            self._troubles.end(node, [ask.command for ask in asks])
        return Round.of(indexes, answers)

    def _refused(self, node: str, asks: list[Ask], answers: list[Reply]) -> None:
        for ask, answer in zip(asks, answers, strict=True):
            if isinstance(answer, Exception) and is_passing(answer):
                self._troubles.refused(node, ask.command, answer)

    async def _renew_after(self, renewals: int) -> None:
        """``renew``, once for all whose question was put before it."""
        async with self._renewing:
            if self._renewals != renewals:
                return
            try:
                await aside(self._renew)
            except (RedisError, StreamError, OSError) as error:
                log.warning("server_away", reason=f"{type(error).__name__}: {said(error)}")
            self._renewals += 1

    def _renew(self) -> None:
        if self._recover is not None:
            self._recover()
        self.server.refresh()

    @contextmanager
    def _bounded(self) -> Iterator[asyncio.Timeout]:
        """A bound for one question, that ``hurry`` moves. Raises ServerAway where it is over."""
        began, bound = time.monotonic(), asyncio.timeout(self._patience_s)
        self._bounds.add(bound)
        try:
            yield bound
        except TimeoutError as error:
            if not bound.expired():
                raise
            self._patience_s = HURRIED_AGAIN_S
            raise ServerAway(time.monotonic() - began) from error
        finally:
            self._bounds.discard(bound)
