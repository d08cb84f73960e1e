"""
Rebuild a view beside the live one, compare the two, and swap.

    begin   a new generation in the record, or the one that is being built; its leases; the trimmer and the
            producers know of it
    build   every partition from archive and log up to where the live view is, in processes side by side; a
            kill goes on from there
    compare every partition at equal positions; differences are named, and nobody swaps without --accept
    swap    build to the end of the log, then one compare-and-set of the record: all partitions at once
    follow  keep the new one up until a host has taken over, or until nothing more comes

Always true: the live view is not written to by a rebuild, ever; the swap is all or nothing.

Decision (2026-11): the comparison builds the new generation to the live one's cursor, not the other way
round: a live view that cannot move (nobody consumes it, its code is gone) is compared like any other. Only
what was compared, or accepted, is built past it.
Decision (2026-11): a view that never existed is swapped in without a comparison: a projection that is new on
a log that was trimmed has no other way. A live view that cannot go on (behind what was trimmed), or never
was, is retired by the swap, not kept.
Decision (2026-11): producers and the trimmer wait for a rebuild as for any group, and not for one that was
paused: it reads on in the archive. One that was killed holds them, beyond their budget, until it is begun
again or given up; `aurastream status` shows it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from types import TracebackType

import msgspec

from aurastream.projections.engine import (
    AnyProjection,
    Generation,
    ProjectionError,
    Record,
    View,
    retire,
    retire_due,
)
from aurastream.projections.rebuild.compare import Compared
from aurastream.projections.rebuild.lease import Held, RebuildLease
from aurastream.projections.rebuild.near import NearLanes
from aurastream.projections.rebuild.record import Decision, ViewRecord
from aurastream.projections.rebuild.tasks import Alone, BuildTask, Crew, Done
from aurastream.streams import LEASE_MS, Cursor, History, Stream, forget, generation_group, host_name, join

CATCH_UPS_MAX = 20  # passes over the log before a comparison or a swap, while producers go on
NEAR = 5_000  # events that a pass may read before the next step
TICK_S = 0.2  # between two words on how far it is


class RebuildRunning(ProjectionError):
    """Another process rebuilds the view."""

    def __init__(self, projection: str, stream: str, item: Generation, owner: str, read: str) -> None:
        since = datetime.fromtimestamp(item.since_ms / 1000, UTC).isoformat(timespec="seconds")
        super().__init__(
            f"{projection!r} of {stream!r} is being rebuilt already: generation {item.number}, begun by "
            f"{item.by}, by process {owner or item.builder} since {since}, {read} events read. Wait for it, "
            "or end that process and try again."
        )
        self.item, self.owner = item, owner


class RebuildProgress(msgspec.Struct, frozen=True):
    """How far a rebuild is. read, total: entries of all partitions, archived and trimmed ones included."""

    step: str
    read: int
    total: int


class Rebuild(AbstractContextManager["Rebuild"]):
    """One rebuild of one view. Use as a context: leaving it gives the leases back.

    stopping: called all the time; True pauses after the commit under way. crew: who builds and compares.
    generation: that is built. has_resumed: another process began it. swap_ms: of the compare-and-set alone.
    """

    def __init__(
        self, history: History, projection: AnyProjection, decision: Decision, *, lease_ms: int = LEASE_MS
    ) -> None:
        self.history, self.stream, self.projection = history, history.stream, projection
        self.decision, self.host = decision, host_name()
        self.crew: Crew = Alone(history, projection)
        self.stopping: Callable[[], bool] = lambda: False
        self.on_progress: Callable[[RebuildProgress], None] = lambda progress: None
        self.generation, self.swap_ms, self.has_resumed = 0, 0.0, False
        self._record, self._lease_ms = ViewRecord(self.stream, projection, decision), lease_ms
        self._lease: RebuildLease | None = None
        self._near: NearLanes | None = None
        self._step, self._total, self._ticked = "begin", 0, 0.0

    # Begin.

    def begin(self) -> None:
        """Own a generation to build. Raises RebuildRunning where somebody else does."""
        retire_due(self.stream, self.projection.name, self.decision.by)
        item = self._begun()
        self.own(item)
        self.generation, self.has_resumed = item.number, item.builder != self.host
        self._record.take_over(item.number, self.host)
        self._record.announce()
        for keys in self.stream.keys:
            self.stream.ask(keys.partition, join(keys, self.group), what=f"joining of {self.group}")

    def _begun(self) -> Generation:
        """The generation that is being built, of this definition."""
        name = self.projection.name
        item = self._record.begin(self.host, self._fingerprint_of).building
        if item is not None and item.fingerprint != self.projection.fingerprint:
            self.own(item)  # of another definition than ours: nobody will ever finish it
            self._let_go()
            retire(self.stream, name, item.number, self.decision.by, "its definition has changed")
            item = self._record.begin(self.host, self._fingerprint_of).building
        if item is None:
            raise ProjectionError(
                f"what was being built of {name!r} was swapped in or given up this instant. Begin again."
            )
        return item

    def own(self, item: Generation) -> None:
        """Hold the leases of a generation. Raises RebuildRunning where another process lives that does."""
        lease = RebuildLease(self.stream, self.projection.name, item.number, self.host, self._lease_ms)
        try:
            lease.own()
        except Held as held:
            read = f"{_events_of(self._cursors(item.number)):,} of {self._entries():,}"
            raise RebuildRunning(self.projection.name, self.stream.name, item, held.owner, read) from held
        self._lease = lease

    def _fingerprint_of(self, number: int) -> str:
        cursors = self._cursors(number).values()
        return next((cursor.fingerprint for cursor in cursors if cursor.fingerprint), "")

    # Build and compare.

    def build(self) -> bool:
        """Build every partition to where the live view is now, as near as it stays. False when it was
        stopped.
        """
        self._step, self._total = "build", self._entries()
        return self._passes(self._goals)

    def compare(self, *, accept: bool = False) -> list[Compared] | None:
        """Every partition beside the live view's, noted in the record and the audit trail. None when it was
        stopped.

        [] where there is no live view, and where a rebuild that was stopped later had done it, with a result
        that allows the swap.
        """
        self._step, record = "compare", self._record.read()
        if record.may_swap(self.generation):
            return []
        parts: list[Compared] = []
        if self.has_live():
            tasks = [
                msgspec.structs.replace(self._task(number), until="", compare_with=record.live)
                for number in self._partitions()
            ]
            results = [done.compared for done in self._do(tasks)]
            parts = [part for part in results if part is not None]
            if len(parts) < len(results):
                self._pause()
                return None
        parts.sort(key=lambda part: part.partition)
        self._record.note(self.generation, record.live, parts, accept=accept)
        self._record.announce()
        return parts

    def has_live(self) -> bool:
        """Whether there is a live view to compare with."""
        return any(cursor.position for cursor in self._cursors(self._record.read().live).values())

    # Swap.

    def _swapped(self, live: int, keep_ms: int) -> Record:
        """The record after the swap, which is timed."""
        at_ms, began = self._record.now_ms(), time.perf_counter()
        after = self._record.swap(self.generation, live, keep_ms, at_ms)
        self.swap_ms = round((time.perf_counter() - began) * 1000, 2)
        return after

    def _check_swappable(self, record: Record) -> None:
        if not record.may_swap(self.generation):
            raise ProjectionError(
                f"generation {self.generation} was not found equal to the live view, and nobody accepted it."
            )

    def swap(self, keep_ms: int) -> Record | None:
        """Build to the end of the log, then make the generation live. None when it was stopped before.

        Raises ProjectionError where it differs and nobody accepted that, or another became live meanwhile.
        """
        self._step, before = "swap", self._record.read()
        self._check_swappable(before)
        if not self._passes(lambda: dict.fromkeys(self._partitions(), "+")):
            return None
        self._near_lanes().come_close()
        is_kept = self.has_live() and not self._is_behind(before.live)
        self._check_lease()
        after = self._swapped(before.live, keep_ms if is_kept else 0)
        self._record.announce()
        self._record.leave_alone(after, before.live)
        return after

    def follow(self) -> None:
        """After the swap: keep the new generation up until a host moves it, then retire what is not to be
        kept.
        """
        self._step = "follow"
        self._near_lanes().follow(self.cursors, self.stopping)
        retire_due(self.stream, self.projection.name, self.decision.by)

    def _near_lanes(self) -> NearLanes:
        """Lanes kept for what is left to do."""
        if self._near is None:
            epochs = self._lease.epochs if self._lease is not None else {}
            self._near = NearLanes(self.history, self.projection, self.generation, epochs)
        return self._near

    def _is_behind(self, number: int) -> bool:
        """Whether the generation lacks entries that were trimmed, so that it can never go on."""
        trimmed = [
            int(self.stream.ask(keys.partition, ("HGET", keys.meta, "trimmed"))[0] or 0)
            for keys in self.stream.keys
        ]
        return any(cursor.read < trimmed[partition] for partition, cursor in self._cursors(number).items())

    # What the steps share.

    @property
    def group(self) -> str:
        """Of the generation being built."""
        return generation_group(self.projection.name, self.generation)

    def cursors(self) -> dict[int, Cursor]:
        """Where the generation being built is."""
        return self._cursors(self.generation)

    def _cursors(self, number: int) -> dict[int, Cursor]:
        return View(self.stream, self.projection, generation=number).cursors()

    def _partitions(self) -> range:
        return range(self.stream.partitions)

    def _passes(self, goals: Callable[[], dict[int, str]]) -> bool:
        """Build to the goals (partition -> position), pass after pass, until one reads next to nothing. False
        when it was stopped.
        """
        for _ in range(CATCH_UPS_MAX):
            before = _events_of(self.cursors())
            tasks = [self._task(partition, until) for partition, until in goals().items()]
            if not all(done.is_whole for done in self._do(tasks)):
                self._pause()
                return False
            if _events_of(self.cursors()) - before < NEAR:
                break
        return True

    def _goals(self) -> dict[int, str]:
        """Where to build each partition to: the live view's cursor, or the end of the log where nothing is
        left to be compared.
        """
        record = self._record.read()
        live = self._cursors(record.live)
        if record.may_swap(self.generation) or not any(cursor.position for cursor in live.values()):
            return dict.fromkeys(self._partitions(), "+")
        return {partition: cursor.position or "0-0" for partition, cursor in live.items()}

    def _task(self, partition: int, until: str = "+") -> BuildTask:
        epoch = None if self._lease is None else self._lease.epochs[partition]
        return BuildTask(self.stream.name, self.projection.name, partition, self.generation, epoch, until)

    def _do(self, tasks: list[BuildTask]) -> list[Done]:
        done = self.crew.do(tasks, self._tick, self._is_stopping)
        self._ticked = 0.0  # the last word is what was reached
        self._tick()
        return done

    def _is_stopping(self) -> bool:
        return self.stopping() or (self._lease is not None and self._lease.is_lost)

    def _pause(self) -> None:
        """Nobody waits for what does not move; it joins again when it goes on. Raises Fenced when somebody
        took over.
        """
        self._check_lease()
        forget(self.stream.server, self.stream.keys, self.group)

    def _check_lease(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._ticked >= TICK_S:
            self._ticked = now
            read, total = _events_of(self.cursors()), self._total or self._entries()
            self.on_progress(RebuildProgress(self._step, read, total))

    def _entries(self) -> int:
        """How many entries there ever were, in archive and log."""
        client, total = self.stream.server.client, 0
        for keys in self.stream.keys:
            total += int(client.xlen(keys.log)) + int(client.hget(keys.meta, "trimmed") or 0)
        return total

    def _let_go(self) -> None:
        if self._near is not None:
            self._near.close()
            self._near = None
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()


def abandon(stream: Stream, projection: AnyProjection, decision: Decision) -> int:
    """Give up what is being built. Returns its number.

    Raises ProjectionError where nothing is, RebuildRunning while somebody builds.
    """
    with Rebuild(History(stream), projection, decision) as rebuild:
        item = ViewRecord(stream, projection, decision).read().building
        if item is None:
            raise ProjectionError(
                f"nothing is being built of {projection.name!r} of {stream.name!r}: there is nothing to give "
                "up."
            )
        rebuild.own(item)
        retire(stream, projection.name, item.number, decision.by, decision.why)
        return item.number


def _events_of(cursors: dict[int, Cursor]) -> int:
    return sum(cursor.read for cursor in cursors.values())
