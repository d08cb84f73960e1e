"""
One projection's way through one partition, in an event loop.

    feed(batch) -> bounded queue -> take: fold, commit, heal -> the next
    no batch for IDLE_S -> look at the log: the transport's position is a hint, the cursor the truth

A lane starts when its partition is assigned and ends when it is revoked, after the commit that is under way.
A lost connection, a fail-over or a restart of the server costs a pause and a settle; an error that a person
must mend is kept for /health and tried again.

Every generation of a view that is this process's to keep up has lanes of its own: the live one, and one that
is kept for a rollback, where they were folded by the same definition. ``follow`` is told the records, and
starts and ends lanes by them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from aurastream.projections import Projection, ProjectionError
from aurastream.projections.engine import NEVER_REBUILT, Fenced, Lane, Record, Retired, field_of, is_commit
from aurastream.streams import (
    Asking,
    AsyncWire,
    AsyncWires,
    InvariantBroken,
    Lag,
    Logger,
    RawEntry,
    Server,
    Stream,
    StreamError,
    is_passing,
    lag_of,
)

IDLE_S = 1.0  # without a batch, after which a lane looks for itself
QUEUED_MAX = (
    2  # batches a lane holds besides the one it applies: bounds memory, and what a revoke throws away
)
PAUSE_FIRST_S, PAUSE_MAX_S = 0.05, 1.0  # after a passing fault
MEND_MAX_S = 30.0  # after an error that a person must mend

T = TypeVar("T")
Place = tuple[str, int]  # stream, partition
log = Logger("aurastream.host")


async def drive(
    wire: AsyncWire,
    steps: Asking[T],
    on_commit: Callable[[float], None],
    stopping: Callable[[], bool] = lambda: False,
) -> T | None:
    """Answer a lane's questions until it returns; its result, or None when it was stopped between two
    commits.

    on_commit: told how many seconds a commit took.
    """
    answers: Any = None
    was_commit = False
    try:
        while True:
            asks = steps.send(answers)
            if answers is not None and was_commit and stopping():
                steps.close()
                return None
            asked_at = time.perf_counter()
            answers = await wire.exchange(*[ask.command for ask in asks])
            was_commit = is_commit(asks[0].command)
            if was_commit:
                on_commit(time.perf_counter() - asked_at)
    except StopIteration as finished:
        result: T = finished.value
        return result


class HostedLane:
    """One applier and what waits for it. trouble: why it does not advance, "" while it does. moved_at:
    monotonic seconds.
    """

    def __init__(self, applier: Lane, wires: AsyncWires) -> None:
        self.applier, self._wires = applier, wires
        self.trouble = ""
        self.moved_at = time.monotonic()
        self.on_commit: Callable[[float], None] = lambda seconds: None
        self.highwater: Callable[[], int] = lambda: 0  # the offset after the last entry of a log elsewhere
        self.rewind: Callable[[int], Awaitable[None]] = _cannot_rewind  # to an offset of a log elsewhere
        self._current: list[RawEntry] = []
        self._asked_back = (-1, -1)
        self._queue: asyncio.Queue[list[RawEntry]] = asyncio.Queue(QUEUED_MAX)
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._pause_s = PAUSE_FIRST_S

    def start(self, epoch: int | None) -> None:
        """Begin at the cursor; with a new epoch where it runs already."""
        self.applier.epoch = epoch
        if self._task is None or self._task.done():
            self._is_stopping = False
            self._task = asyncio.create_task(
                self._run(), name=f"lane {self.applier.projection.name} {self.applier.keys.where}"
            )

    async def put(self, entries: list[RawEntry]) -> None:
        """Hand over a batch; waits while the lane is behind. Dropped when the lane has ended: its next owner
        reads it again.
        """
        task = self._task
        if task is None or task.done() or self._is_stopping:
            return
        putting = asyncio.ensure_future(self._queue.put(entries))
        await asyncio.wait({putting, task}, return_when=asyncio.FIRST_COMPLETED)
        putting.cancel()

    async def stop(self, patience_s: float) -> None:
        """End after the batch under way, or after patience_s without it: a commit cut off is known by the
        cursor.
        """
        self._is_stopping = True
        if self._task is None:
            return
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait([])
        done, _ = await asyncio.wait({self._task}, timeout=patience_s)
        if not done:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._task = None

    async def _run(self) -> None:
        while not self._is_stopping:
            try:
                await self._apply(self.applier.settle())
                await self._follow()
                return
            except Fenced as error:
                log.warning(
                    "lane_fenced",
                    where=self.applier.keys.where,
                    projection=self.applier.projection.name,
                    reason=str(error),
                )
                return
            except Retired as error:
                log.info(
                    "lane_retired",
                    where=self.applier.keys.where,
                    projection=self.applier.projection.name,
                    reason=str(error),
                )
                self._is_well()
                return
            except Exception as error:
                self._pause_s = self._troubled(error)
            await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            await self._heal()

    def lag(self, server: Server) -> Lag:
        """What the lane has not applied. Blocking, for a log that is here."""
        if self.applier.is_log_here:
            return lag_of(server, self.applier.keys, self.applier.cursor)
        waiting = max(0, self.highwater() - _offset(self.applier.cursor.position) - 1)
        return Lag(waiting, time.monotonic() - self.moved_at if waiting else 0.0, 0, rewound=False)

    async def _is_early(self, entries: list[RawEntry]) -> bool:
        """Whether a batch of a log elsewhere leaves out what follows the cursor; asks for that to be handed
        over then.

        Asked twice and answered with the same batch, there is nothing in between: such a log may have holes
        (compaction, retention).
        """
        if self.applier.is_log_here:
            return False
        expected, first = _offset(self.applier.cursor.position) + 1, _offset(entries[0][0].decode())
        if first <= expected or self._asked_back == (expected, first):
            return False
        self._asked_back = (expected, first)
        await self.rewind(expected)
        return True

    async def _handed(self) -> list[RawEntry]:
        """The next batch. While none comes, look whether there should have been one: the transport's position
        is a hint, and a
        fail-over takes the cursor back without a word."""
        try:
            return await asyncio.wait_for(self._queue.get(), IDLE_S)
        except TimeoutError:
            if self.applier.is_log_here and await self._apply(self.applier.look()):
                await self._apply(self.applier.catch_up())
            self._is_well()
            return []

    async def _follow(self) -> None:
        while not self._is_stopping:
            self._current = self._current or await self._handed()
            if self._current and not await self._is_early(self._current):
                await self._apply(self.applier.take(self._current))
            self._current = []  # only now: a log elsewhere hands it over once

    async def _apply(self, steps: Asking[T]) -> T | None:
        """Drive the steps to their end, or, when the lane must stop, to that of the commit under way."""
        before = self.applier.commits
        wire = await self._wires.of(self.applier.keys.log)
        result = await drive(wire, steps, self.on_commit, lambda: self._is_stopping)
        if self.applier.commits > before:
            self.moved_at = time.monotonic()
            self._is_well()
        return result

    def _is_well(self) -> None:
        self.trouble, self._pause_s = "", PAUSE_FIRST_S

    def _troubled(self, error: Exception) -> float:
        """Keep the reason and return the next pause."""
        self.applier.reset()
        where = {"projection": self.applier.projection.name, "where": self.applier.keys.where}
        if is_passing(error):
            log.warning("lane_interrupted", **where, reason=f"{type(error).__name__}: {error}"[:300])
            return min(PAUSE_MAX_S, self._pause_s * 2)
        self.trouble = str(error) or type(error).__name__
        log.error(
            "lane_stuck",
            **where,
            reason=self.trouble[:500],
            exc_info=not isinstance(error, ProjectionError | StreamError),
        )
        return min(MEND_MAX_S, max(PAUSE_MAX_S, self._pause_s * 2))

    async def _heal(self) -> None:
        try:
            await self._wires.renew()
        except Exception as error:
            log.warning("server_away", reason=f"{type(error).__name__}: {error}"[:300])


def _offset(position: str) -> int:
    """Of a log elsewhere; -1 before the first."""
    return int(position.partition("-")[0] or -1)


async def _cannot_rewind(offset: int) -> None:
    raise InvariantBroken(f"nobody can hand over offset {offset} again: the lane has no transport.")


class HostedLanes:
    """All lanes of this process, by projection, place and generation."""

    def __init__(
        self, wires: AsyncWires, projections: Iterable[Projection[Any]], group: str, batch_max: int
    ) -> None:
        self.projections = list(projections)
        self._wires, self._group, self._batch_max = wires, group, batch_max
        self.lanes: dict[tuple[str, Place, int], HostedLane] = {}
        self.owned: dict[Place, int | None] = {}  # place -> epoch
        self.records: Mapping[str, Record] = {}
        self.on_lane: Callable[[HostedLane], None] = lambda lane: None
        self._streams: dict[str, Stream] = {}

    def assign(self, stream: Stream, partition: int, epoch: int | None) -> None:
        """The partition is ours, under this epoch: start its lanes."""
        place = (stream.name, partition)
        self.owned[place], self._streams[stream.name] = epoch, stream
        for name in self._wanted(place):
            lane = self.lanes.get(name)
            if lane is None:
                lane = self.lanes[name] = self._lane(name)
            lane.start(epoch)

    async def follow(self, records: Mapping[str, Record], patience_s: float = 1.0) -> None:
        """The views have these generations now: start the lanes of what is new, end those of what is ours no
        longer.
        """
        self.records = records
        wanted = {name for place in self.owned for name in self._wanted(place)}
        for name in sorted(wanted.difference(self.lanes)):
            lane = self.lanes[name] = self._lane(name)
            lane.start(self.owned[name[1]])
        await self._end(
            [name for name in self.lanes if name not in wanted and name[1] in self.owned], patience_s
        )

    def _wanted(self, place: Place) -> list[tuple[str, Place, int]]:
        wanted = []
        for projection in self.projections:
            if projection.folds(place[0]):
                record = self.records.get(field_of(place[0], projection.name), NEVER_REBUILT)
                wanted += [
                    (projection.name, place, number) for number in record.followed(projection.fingerprint)
                ]
        return wanted

    def _lane(self, name: tuple[str, Place, int]) -> HostedLane:
        projection = next(item for item in self.projections if item.name == name[0])
        stream, (_, partition), generation = self._streams[name[1][0]], name[1], name[2]
        applier = Lane(projection, stream, partition, generation=generation, batch_max=self._batch_max)
        applier.group = self._group
        lane = HostedLane(applier, self._wires)
        self.on_lane(lane)
        return lane

    async def feed(self, projection: str, place: Place, entries: list[RawEntry]) -> None:
        """Hand a batch to the lanes of a projection; ignored where the partition is not ours."""
        for lane in [lane for name, lane in self.lanes.items() if name[:2] == (projection, place)]:
            await lane.put(entries)

    async def revoke(self, places: Iterable[Place], patience_s: float = 1.0) -> None:
        """The partitions are somebody else's soon: end their lanes after the commit under way."""
        gone = set(places)
        for place in gone:
            self.owned.pop(place, None)
        await self._end([name for name in self.lanes if name[1] in gone], patience_s)

    async def _end(self, names: list[tuple[str, Place, int]], patience_s: float) -> None:
        leaving = {name: self.lanes[name] for name in names}
        await asyncio.gather(*[lane.stop(patience_s) for lane in leaving.values()])
        for name, lane in leaving.items():
            if self.lanes.get(name) is lane:
                del self.lanes[name]

    async def close(self) -> None:
        """End all lanes."""
        await self.revoke({place for _, place, _ in self.lanes})
        await self._wires.close()
