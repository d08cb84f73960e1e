"""
Processors without a transport: lease the partitions, read the log, run what is new until told to stop or
until there is nothing left.

    every tick: keep and claim leases -> a follower task per partition held: take, look, pause -> surplus:
        stop, release

For `aurastream run`, and for tests. Leases keep two of these from doing the same work twice; the epoch of a
lease refuses the one that was stopped past it. A partition that a person must mend is told in the log and
tried again with a growing pause; the others go on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Any

from aurastream.processors.effects.items import Item
from aurastream.processors.effects.lane import EffectLane
from aurastream.processors.effects.processor import Processor
from aurastream.processors.effects.runner import Asker, LaneRunner
from aurastream.projections.engine import Fenced
from aurastream.streams import (
    LEASE_MS,
    OPERATIONS,
    AsyncWires,
    Claim,
    Codec,
    Leases,
    Logger,
    Server,
    Settings,
    Stream,
    UnknownOutcome,
    open_stream,
)
from aurastream.streams import Ask as Routed

POLL_FIRST_S, POLL_MAX_S = 0.005, 0.2  # between two looks at a log without news
LOOK_S = 0.5  # how late a person's word may be noticed
MEND_MAX_S = 30.0  # between two tries at a partition that a person must mend

log = Logger("aurastream.effects")


class EffectWorker:
    """Every processor on every stream it reads. streams: asked again at every tick, so that new ones are
    taken up.

    codec: of all installed events, the derived ones among them. recover: brings an embedded server back;
    blocking.
    """

    def __init__(
        self,
        server: Server,
        processors: Iterable[Processor],
        streams: Callable[[], list[Stream]],
        *,
        codec: Codec,
        settings: Settings | None = None,
        recover: Callable[[], None] | None = None,
        on_step: Callable[[str, Item], None] = lambda step, item: None,
    ) -> None:
        self._server, self._processors, self._streams = server, {p.name: p for p in processors}, streams
        self._codec, self._settings, self._on_step = codec, settings or Settings(), on_step
        self.leases = Leases(lease_ms=self._settings.lease_ms or LEASE_MS)
        self._wires = AsyncWires(server)
        self._asker = Asker(self._wires, recover)
        self._opened: dict[str, Stream] = {}
        self._runners: dict[Claim, LaneRunner] = {}
        self._followers: dict[Claim, asyncio.Task[None]] = {}
        self.trouble: dict[Claim, str] = {}

    async def run(self, stopping: Callable[[], bool] = lambda: False, *, until_idle: bool = False) -> None:
        """Until told to stop; or until every log is read to its end and nothing waits for another attempt,
        whoever does it.

        Raises what stopped a partition when until_idle is asked and a person must mend it.
        """
        tick_at = 0.0
        loop = asyncio.get_running_loop()
        try:
            while not stopping():
                if loop.time() >= tick_at:
                    await self._tick()
                    tick_at = loop.time() + self.leases.period_s
                if until_idle and await self._is_idle():
                    return
                await asyncio.sleep(min(POLL_MAX_S / 4, max(0.0, tick_at - loop.time())))
        finally:
            await self._close()

    def lane(self, claim: Claim) -> EffectLane:
        """A processor's way through one partition."""
        processor, stream = self._processors[claim.group], self._stream(claim.stream)
        into = stream if processor.into is None else self._stream(processor.into)
        return EffectLane(
            processor,
            stream,
            claim.partition,
            into=into,
            operations=self._stream(OPERATIONS),
            host=self.leases.worker,
            on_step=self._on_step,
        )

    def _stream(self, name: str) -> Stream:
        if name not in self._opened:
            self._opened[name] = open_stream(
                self._server, name, codec=self._codec, settings=self._settings, create=True
            )
        return self._opened[name]

    def _claims(self) -> list[Claim]:
        found = [
            (processor.name, stream)
            for stream in self._streams()
            for processor in self._processors.values()
            if processor.handles(stream)
        ]
        return [
            Claim(name, stream.name, partition)
            for name, stream in found
            for partition in range(stream.partitions)
        ]

    async def _tick(self) -> None:
        """Renew and claim; start followers of what is held, end those of what is not."""
        claims = await asyncio.to_thread(self._claims)
        await self._drive(self.leases.tick(claims))
        ended = {
            claim
            for claim, follower in self._followers.items()
            if claim not in self.leases.held or follower.done()
        }
        for claim in self.leases.surplus | ended:
            await self._end(claim)
        await self._drive(self.leases.release(list(self.leases.surplus)))
        for claim in self.leases.held:
            if claim not in self._followers:
                self._followers[claim] = asyncio.create_task(self._follow(claim), name=f"effects {claim}")

    async def _follow(self, claim: Claim) -> None:
        """Take in what is new and let run what may run again, for as long as the partition is ours."""
        runner = self._runners[claim] = LaneRunner(await asyncio.to_thread(self.lane, claim), self._asker)
        loop = asyncio.get_running_loop()
        pause_s, mend_s, look_at = POLL_FIRST_S, POLL_MAX_S, 0.0
        while claim in self.leases.held:
            try:
                found = await runner.take([], self.leases.held[claim])
                if loop.time() >= look_at:
                    await runner.look()
                    look_at = loop.time() + LOOK_S
                pause_s, mend_s = POLL_FIRST_S if found else min(POLL_MAX_S, pause_s * 2), POLL_MAX_S
                self.trouble.pop(claim, None)
            except Fenced as error:
                log.warning(
                    "effects_fenced", processor=claim.group, where=claim.keys.where, reason=str(error)
                )
                self.leases.lost(claim)
                return
            except Exception as error:
                pause_s = mend_s = min(MEND_MAX_S, mend_s * 2)
                self._troubled(claim, error)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    def _troubled(self, claim: Claim, error: Exception) -> None:
        is_away = isinstance(error, UnknownOutcome)
        log.log(
            30 if is_away else 40,
            "effects_stuck",
            processor=claim.group,
            where=claim.keys.where,
            reason=str(error)[:500],
        )
        self.trouble[claim] = str(error)

    async def _is_idle(self) -> bool:
        """Asks the server about partitions that others hold, too."""
        if any(runner.is_running for runner in self._runners.values()):
            return False
        for claim in await asyncio.to_thread(self._claims):
            runner = self._runners.get(claim)
            if runner is None:
                runner = LaneRunner(await asyncio.to_thread(self.lane, claim), self._asker)
            if not await runner.is_idle():
                return False
        return True

    async def _end(self, claim: Claim) -> None:
        follower, runner = self._followers.pop(claim, None), self._runners.pop(claim, None)
        if follower is not None:
            follower.cancel()
            await asyncio.wait({follower})
            if (
                not follower.cancelled() and (error := follower.exception()) is not None
            ):  # it could not even begin
                log.error(
                    "effects_stuck", processor=claim.group, where=claim.keys.where, reason=str(error)[:500]
                )
        if runner is not None:
            await runner.stop()

    async def _drive(self, steps: Any) -> None:
        answers: Any = None
        try:
            while True:
                routed: list[Routed] = steps.send(answers)
                answers = await self._asker.ask(routed) if routed else []
        except StopIteration:
            return

    async def _close(self) -> None:
        for claim in list(self._followers):
            await self._end(claim)
        try:
            await self._drive(self.leases.leave(self._processors))
        finally:
            await self._wires.close()
            for stream in self._opened.values():
                stream.close()
