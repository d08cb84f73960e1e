"""
Processors without a transport: lease the partitions, read the log, run what is new until told to stop or
until there is nothing left.

    every tick: keep and claim leases -> a runner per partition held -> surplus: stop, release

For `aurastream run --until-idle`, and for tests. Leases keep two of these from doing the same work twice; the
epoch of a lease refuses the one that was stopped past it. A partition that a person must mend is logged
and tried again; the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import msgspec

from aurastream.processors.effects.handler import Isolation
from aurastream.processors.effects.lane import EffectLane, LaneOptions, LaneStreams
from aurastream.processors.effects.processor import Processor
from aurastream.processors.effects.runner import LaneRunner
from aurastream.streams import OPERATIONS, AsyncWires, Claim, Leases, Logger, Stream, adrive

POLLS_S = (0.005, 0.2)  # between two looks at a log without news
IDLE_S = 0.05  # between two questions whether everything is idle

log = Logger("aurastream.effects")


class EffectStreams(msgspec.Struct, frozen=True):
    """listed: those there are, new ones too. opened: one by name, created where it is new."""

    listed: Callable[[], list[Stream]]
    opened: Callable[[str], Stream]

    def of(self, processor: Processor, source: Stream) -> LaneStreams:
        """Those of a processor's lane."""
        into = source if processor.into is None else self.opened(processor.into)
        return LaneStreams(source, into, self.opened(OPERATIONS))


class EffectConsumer:
    """Every processor on every stream it reads. wires: closed at its end."""

    def __init__(
        self,
        wires: AsyncWires,
        processors: Iterable[Processor],
        streams: EffectStreams,
        leases: Leases,
        options: LaneOptions | None = None,
    ) -> None:
        self._wires, self._streams, self.leases = wires, streams, leases
        self._processors = {processor.name: processor for processor in processors}
        self._options = msgspec.structs.replace(options or LaneOptions(), host=leases.host)
        self._isolation = Isolation()
        self._runners: dict[Claim, LaneRunner] = {}

    async def run(self, stopping: Callable[[], bool] = lambda: False, *, until_idle: bool = False) -> None:
        """Until told to stop; or until nothing is left to read or to attempt, whoever does it.

        Raises what stopped a partition with until_idle, where a person must mend it.
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
                await asyncio.sleep(min(IDLE_S, max(0.0, tick_at - loop.time())))
        finally:
            await self._close()

    def _lane(self, claim: Claim) -> EffectLane:
        """A processor's way through one partition."""
        processor = self._processors[claim.group]
        streams = self._streams.of(processor, self._streams.opened(claim.stream))
        return EffectLane(processor, streams, claim.partition, self._options)

    def _claims(self) -> list[Claim]:
        return [
            Claim(processor.name, stream.name, partition)
            for stream in self._streams.listed()
            for processor in self._processors.values()
            if processor.handles(stream)
            for partition in range(stream.partitions)
        ]

    async def _tick(self) -> None:
        """Renew and claim; start runners of what is held, end those of what is not."""
        for claim, runner in self._runners.items():
            if runner.is_fenced:
                self.leases.lost(claim)
        await adrive(self.leases.tick(await asyncio.to_thread(self._claims)), self._wires.ask)
        gone = {
            claim
            for claim, runner in self._runners.items()
            if claim not in self.leases.held or runner.is_fenced
        }
        for claim in gone | self.leases.surplus:
            await self._end(claim)
        await adrive(self.leases.release(list(self.leases.surplus)), self._wires.ask)
        for claim, epoch in self.leases.held.items():
            await self._begin(claim, epoch)

    async def _begin(self, claim: Claim, epoch: int) -> None:
        """Run the lane under this epoch. One that cannot be made is logged and tried at the next tick."""
        if claim not in self._runners:
            try:
                lane = await asyncio.to_thread(self._lane, claim)
            except Exception as error:
                log.error(
                    "effects_stuck", processor=claim.group, where=claim.keys.where, reason=str(error)[:500]
                )
                return
            self._runners[claim] = LaneRunner(lane, self._wires, self._isolation, POLLS_S)
        self._runners[claim].start(epoch)

    async def _is_idle(self) -> bool:
        """Asks the server about partitions that others hold, too. Raises what a person must mend."""
        for runner in self._runners.values():
            if runner.error is not None:
                raise runner.error
        if any(runner.lines.is_running for runner in self._runners.values()):
            return False
        for claim in await asyncio.to_thread(self._claims):
            held = self._runners.get(claim)
            lane = held.lane if held is not None else await asyncio.to_thread(self._lane, claim)
            if not await adrive(lane.is_idle(), self._wires.answers):
                return False
        return True

    async def _end(self, claim: Claim) -> None:
        runner = self._runners.pop(claim, None)
        if runner is not None:
            await runner.stop()

    async def _close(self) -> None:
        for claim in list(self._runners):
            await self._end(claim)
        try:
            await adrive(self.leases.leave(), self._wires.ask)
        finally:
            await self._wires.close()
