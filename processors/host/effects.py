"""
One processor's way through one partition, in the host's event loop.

    poke(batch came) -> runner.take: read the log from the cursor, handlers run in their lines -> and every
        LOOK_S: what may run again

The counterpart of lanes.py for handlers with effects. The batch that Faust hands over only wakes it
up: the runner reads the log itself, so a lost or repeated hand-over changes nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable

from aurastream.processors.effects import OPERATIONS, Asker, EffectLane, LaneRunner, Processor
from aurastream.processors.host.lanes import MEND_MAX_S, PAUSE_FIRST_S, PAUSE_MAX_S, Place
from aurastream.projections.engine import Fenced
from aurastream.streams import Logger, Stream, UnknownOutcome, is_passing

LOOK_S = 0.5  # how late a person's word, or a batch that nobody told of, may be noticed

log = Logger("aurastream.host")


class HostedEffects:
    """A lane's runner and its task. trouble: why it does not go on, "" while it does."""

    def __init__(self, lane: EffectLane, asker: Asker) -> None:
        self.lane = lane
        self.trouble = ""
        self.epoch: int | None = None
        self._asker = asker
        self._poked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    def start(self, epoch: int | None) -> None:
        """Begin, or go on under a new epoch."""
        self.epoch = epoch
        if self._task is None or self._task.done():
            self._is_stopping = False
            self._task = asyncio.create_task(
                self._run(), name=f"effects {self.lane.group} {self.lane.keys.where}"
            )

    def poke(self) -> None:
        """There is something new."""
        self._poked.set()

    async def stop(self, patience_s: float) -> None:
        """End when the handlers that run are done, at most patience_s later."""
        self._is_stopping = True
        self.poke()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=patience_s)
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    async def _run(self) -> None:
        runner = LaneRunner(self.lane, self._asker)
        pause_s = PAUSE_FIRST_S
        try:
            while not self._is_stopping:
                try:
                    await self._go_on(runner)
                    pause_s = PAUSE_FIRST_S
                except Fenced as error:
                    log.warning(
                        "effects_fenced",
                        processor=self.lane.group,
                        where=self.lane.keys.where,
                        reason=str(error),
                    )
                    return
                except Exception as error:
                    pause_s = self._troubled(error, pause_s)
                    await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        finally:
            await runner.stop()

    async def _go_on(self, runner: LaneRunner) -> None:
        self._poked.clear()
        has_more = await runner.take([], self.epoch)
        await runner.look()
        self.trouble = ""
        if has_more:
            return
        try:
            await asyncio.wait_for(self._poked.wait(), LOOK_S)
        except TimeoutError:
            return

    def _troubled(self, error: Exception, pause_s: float) -> float:
        where = {"processor": self.lane.group, "where": self.lane.keys.where}
        if is_passing(error) or isinstance(error, UnknownOutcome):
            log.warning("effects_interrupted", **where, reason=f"{type(error).__name__}: {error}"[:300])
            return min(PAUSE_MAX_S, pause_s * 2)
        self.trouble = str(error) or type(error).__name__
        log.error("effects_stuck", **where, reason=self.trouble[:500])
        return min(MEND_MAX_S, max(PAUSE_MAX_S, pause_s * 2))


class HostedEffectLanes:
    """All effect lanes of this process. open_stream: by name, created where it is new."""

    def __init__(
        self,
        processors: Iterable[Processor],
        asker: Asker,
        group: str,
        host: str,
        open_stream: Callable[[str], Stream],
    ) -> None:
        self.processors = list(processors)
        self._asker, self._group, self._host, self._open = asker, group, host, open_stream
        self.lanes: dict[tuple[str, Place], HostedEffects] = {}

    def assign(self, stream: Stream, partition: int, epoch: int | None) -> None:
        """The partition is ours, under this epoch."""
        for processor in self.processors:
            if processor.handles(stream):
                name = (processor.name, (stream.name, partition))
                if name not in self.lanes:
                    into = stream if processor.into is None else self._open(processor.into)
                    lane = EffectLane(
                        processor,
                        stream,
                        partition,
                        into=into,
                        operations=self._open(OPERATIONS),
                        host=self._host,
                        lease=self._group,
                    )
                    self.lanes[name] = HostedEffects(lane, self._asker)
                self.lanes[name].start(epoch)

    def poke(self, processor: str, place: Place) -> None:
        """A batch of the partition came."""
        lane = self.lanes.get((processor, place))
        if lane is not None:
            lane.poke()

    async def revoke(self, places: Iterable[Place], patience_s: float) -> None:
        """The partitions are somebody else's soon."""
        gone = set(places)
        leaving = {name: lane for name, lane in self.lanes.items() if name[1] in gone}
        await asyncio.gather(*[lane.stop(patience_s) for lane in leaving.values()])
        for name in leaving:
            del self.lanes[name]

    def troubles(self) -> list[str]:
        """Why some do not go on, each a sentence."""
        return [
            f"{lane.lane.group} at {lane.lane.keys.where}: {lane.trouble}"
            for lane in self.lanes.values()
            if lane.trouble
        ]
