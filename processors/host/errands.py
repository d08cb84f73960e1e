"""
Errands: one processor's way through one partition, in the worker's event loop.

    poke(batch came) -> runner.take: read the log from the cursor, handlers run in their lines -> and every
        LOOK_S: what may run again

The counterpart of a lane (lanes.py) for handlers with effects. The batch that Faust hands over only wakes it
up: the runner reads the log itself, so a lost or repeated hand-over changes nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable

import structlog

from aurastream.processors.effects import OPERATIONS, Asker, EffectFlow, EffectRunner, Processor
from aurastream.processors.host.lanes import MEND_MAX_S, PAUSE_FIRST_S, PAUSE_MAX_S, Place
from aurastream.projections.engine import Fenced
from aurastream.streams import Stream, UnknownOutcome, is_passing

LOOK_S = 0.5  # how late a person's word, or a batch that nobody told of, may be noticed

log = structlog.get_logger("aurastream.worker")


class Errand:
    """A runner and its task. trouble: why it does not go on, "" while it does."""

    def __init__(self, flow: EffectFlow, asker: Asker) -> None:
        self.flow = flow
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
                self._run(), name=f"errand {self.flow.group} {self.flow.keys.where}"
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
        runner = EffectRunner(self.flow, self._asker)
        pause_s = PAUSE_FIRST_S
        try:
            while not self._is_stopping:
                try:
                    await self._go_on(runner)
                    pause_s = PAUSE_FIRST_S
                except Fenced as error:
                    log.warning(
                        "errand_fenced",
                        processor=self.flow.group,
                        where=self.flow.keys.where,
                        reason=str(error),
                    )
                    return
                except Exception as error:
                    pause_s = self._troubled(error, pause_s)
                    await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        finally:
            await runner.stop()

    async def _go_on(self, runner: EffectRunner) -> None:
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
        where = {"processor": self.flow.group, "where": self.flow.keys.where}
        if is_passing(error) or isinstance(error, UnknownOutcome):
            log.warning("errand_interrupted", **where, reason=f"{type(error).__name__}: {error}"[:300])
            return min(PAUSE_MAX_S, pause_s * 2)
        self.trouble = str(error) or type(error).__name__
        log.error("errand_stuck", **where, reason=self.trouble[:500])
        return min(MEND_MAX_S, max(PAUSE_MAX_S, pause_s * 2))


class Errands:
    """All errands of this process. open_stream: by name, created where it is new."""

    def __init__(
        self,
        processors: Iterable[Processor],
        asker: Asker,
        group: str,
        worker: str,
        open_stream: Callable[[str], Stream],
    ) -> None:
        self.processors = list(processors)
        self._asker, self._group, self._worker, self._open = asker, group, worker, open_stream
        self.errands: dict[tuple[str, Place], Errand] = {}

    def assign(self, stream: Stream, partition: int, epoch: int | None) -> None:
        """The partition is ours, under this epoch."""
        for processor in self.processors:
            if processor.handles(stream):
                name = (processor.name, (stream.name, partition))
                if name not in self.errands:
                    into = stream if processor.into is None else self._open(processor.into)
                    flow = EffectFlow(
                        processor,
                        stream,
                        partition,
                        into=into,
                        operations=self._open(OPERATIONS),
                        worker=self._worker,
                        lease=self._group,
                    )
                    self.errands[name] = Errand(flow, self._asker)
                self.errands[name].start(epoch)

    def poke(self, processor: str, place: Place) -> None:
        """A batch of the partition came."""
        errand = self.errands.get((processor, place))
        if errand is not None:
            errand.poke()

    async def revoke(self, places: Iterable[Place], patience_s: float) -> None:
        """The partitions are somebody else's soon."""
        gone = set(places)
        leaving = {name: errand for name, errand in self.errands.items() if name[1] in gone}
        await asyncio.gather(*[errand.stop(patience_s) for errand in leaving.values()])
        for name in leaving:
            del self.errands[name]

    def troubles(self) -> list[str]:
        """Why some do not go on, each a sentence."""
        return [
            f"{errand.flow.group} at {errand.flow.keys.where}: {errand.trouble}"
            for errand in self.errands.values()
            if errand.trouble
        ]
