"""
Rebuild a view beside the live one, compare the two, and swap.

    begin   a new generation in the record, or the one that is being built; its leases; the trimmer and the
            producers know of it
    build   every partition from archive and log up to where the live view is, in processes side by side; a
            kill goes on from there
    compare every partition at equal positions; differences are named, and nobody swaps without --accept
    swap    build to the end of the log, then one compare-and-set of the record: all partitions at once
    follow  keep the new one up until a worker has taken over, or until nothing more comes

Always true: the live view is not written to by a rebuild, ever; the swap is all or nothing; what a person
decided is in the record and in the audit trail, by events whose IDs are derived from it, so that a repeat
after a kill appends nothing new.

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

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import msgspec

from aurastream.projections.engine import (
    Generation,
    Projection,
    ProjectionError,
    Record,
    State,
    View,
    announce,
    announcing,
    begun,
    change,
    compared,
    now_ms,
    read_record,
    retire,
    retire_due,
    swapped,
)
from aurastream.projections.rebuild.builder import BuildLane
from aurastream.projections.rebuild.compare import Compared
from aurastream.projections.rebuild.lease import Held, RebuildLease, lapsed
from aurastream.projections.rebuild.tasks import Alone, Crew, Done, Task
from aurastream.streams import (
    LEASE_MS,
    Cursor,
    History,
    RebuildCompared,
    RebuildStarted,
    Stream,
    ViewSwapped,
    forget,
    generation_group,
    join,
    named_id,
    worker_name,
)

CATCH_UPS_MAX = 20  # passes over the log before a comparison or a swap, while producers go on
NEAR = 5_000  # events that a pass may find before the next step
CLOSE, CLOSE_PASSES_MAX = (
    100,
    200,
)  # the same right before the swap: what the new one lacks then, readers see it lack for a moment
FOLLOW_S = 5.0  # how long the new generation is kept up after the swap, unless somebody takes over before


class RebuildRunning(ProjectionError):
    """Another process rebuilds the view."""

    def __init__(
        self, projection: str, stream: str, item: Generation, owner: str, read: int, total: int
    ) -> None:
        since = datetime.fromtimestamp(item.since_ms / 1000, UTC).isoformat(timespec="seconds")
        super().__init__(
            f"{projection!r} of {stream!r} is being rebuilt already: generation {item.number}, begun by "
            f"{item.by}, by process "
            f"{owner or item.builder} since {since}, {read:,} of {total:,} events read. Wait for it, or end "
            "that process and try again."
        )
        self.item, self.owner, self.read, self.total = item, owner, read, total


class Progress(msgspec.Struct, frozen=True):
    """How far a rebuild is. read, total: entries of all partitions, archived and trimmed ones included."""

    step: str
    read: int
    total: int


class Rebuild(AbstractContextManager["Rebuild"]):
    """One rebuild of one view. Use as a context: leaving it gives the leases back.

    by, why: for the audit trail. stopping: asked all the time; True pauses after the commit under way. crew:
    who builds and compares.
    swap_ms: what the swap itself took, the compare-and-set.
    """

    def __init__(
        self,
        history: History,
        projection: Projection[Any],
        *,
        by: str,
        why: str = "",
        lease_ms: int = LEASE_MS,
        stopping: Callable[[], bool] = lambda: False,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self.history, self.stream, self.projection = history, history.stream, projection
        self.by, self.why, self.worker = by, why, worker_name()
        self.crew: Crew = Alone(history, projection)
        self.record = Record()
        self.generation, self.swap_ms = 0, 0.0
        self.has_resumed = self.is_paused = False
        self._lease_ms, self._on_progress, self._is_told = lease_ms, on_progress, stopping
        self._lease: RebuildLease | None = None
        self._near: list[BuildLane] = []
        self._step, self._total, self._ticked = "begin", 0, 0.0

    # Begin.

    def begin(self) -> None:
        """Own a generation to build. Raises RebuildRunning where somebody else does."""
        retire_due(self.stream, self.projection.name, self.by)
        item = self._change(self._begun).building
        if item is not None and item.fingerprint != self.projection.fingerprint:
            self._own(item)  # of another definition than ours: nobody will ever finish it
            self._let_go()
            retire(self.stream, self.projection.name, item.number, self.by, "its definition has changed")
            item = self._change(self._begun).building
        if item is None:
            raise ProjectionError(
                f"what was being built of {self.projection.name!r} was swapped in or given up this instant. "
                "Begin again."
            )
        self._own(item)
        self.generation = item.number
        self.has_resumed = item.builder != self.worker
        self._change(lambda record: self._taken(record, item.number))
        announce(self.stream, self.projection.name)
        for keys in self.stream.keys:
            self.stream.wire(keys.partition).ask(join(keys, self.group))

    def _begun(self, record: Record) -> Record:
        if record.building is not None:
            return record
        at_ms, held = (
            self._now(),
            next((c.fingerprint for c in self._cursors(record.live).values() if c.fingerprint), ""),
        )
        after = begun(record, held, self.projection.fingerprint, self.by, self.worker, at_ms)
        event = RebuildStarted(
            event_id=named_id("rebuild", self.stream.name, self.projection.name, after.last, "started"),
            subject=self.projection.name,
            source=self.by,
            occurred_at=_instant(at_ms),
            stream=self.stream.name,
            generation=after.last,
            why=self.why,
        )
        return announcing(after, event)

    def _taken(self, record: Record, number: int) -> Record:
        item = record.find(number)
        if item is None or item.state is not State.BUILDING:
            raise ProjectionError(
                f"generation {number} is not being built any more. Look at `aurastream status`, and begin "
                "again."
            )
        return (
            record
            if item.builder == self.worker
            else begun(record, "", "", self.by, self.worker, self._now())
        )

    def _own(self, item: Generation) -> None:
        lease = RebuildLease(self.stream, self.projection.name, item.number, self.worker, self._lease_ms)
        try:
            lease.claim()
        except Held as held:
            if not (_is_dead(held.owner) and lapsed(lease, held)):
                read, total = (
                    sum(cursor.read for cursor in self._cursors(item.number).values()),
                    self._entries(),
                )
                raise RebuildRunning(
                    self.projection.name, self.stream.name, item, held.owner, read, total
                ) from held
        self._lease = lease

    # Build and compare.

    def build(self) -> bool:
        """Build every partition to where the live view is now, as near as it stays. Returns False when it was
        told to stop.
        """
        self._step, self._total = "build", self._entries()
        for _ in range(CATCH_UPS_MAX):
            before = self._read()
            if not all(
                done.is_whole
                for done in self._do([self._task(p, until=goal) for p, goal in self._goals().items()])
            ):
                return self._pause()
            if self._read() - before < NEAR:
                break
        return True

    def compare(self, *, accept: bool = False) -> list[Compared] | None:
        """Every partition beside the live view's, noted in the record and the audit trail. [] where there is
        no live view, and where
        a rebuild that was stopped later had done it, with a result that allows the swap. None when it was
        told to stop."""
        self._step, record = "compare", self._record()
        if record.may_swap(self.generation):
            return []
        found: list[Compared] = []
        if self.has_live():
            for done in self._do(
                [self._task(p, until="", compare_with=record.live) for p in self._partitions()]
            ):
                if done.compared is None:
                    self._pause()
                    return None
                found.append(done.compared)
        found.sort(key=lambda one: one.partition)
        differing, at_ms = sum(one.differing for one in found), self._now()
        event = RebuildCompared(
            event_id=named_id(
                "rebuild",
                self.stream.name,
                self.projection.name,
                self.generation,
                "compared",
                *[f"{one.events}-{one.differing}" for one in found],
            ),
            subject=self.projection.name,
            source=self.by,
            occurred_at=_instant(at_ms),
            stream=self.stream.name,
            generation=self.generation,
            events=sum(one.events for one in found),
            differing=differing,
        )
        self._change(lambda held: announcing(self._noted(held, record.live, differing, accept), event))
        announce(self.stream, self.projection.name)
        return found

    def _noted(self, record: Record, live: int, differing: int, accept: bool) -> Record:
        self._expect_live(record, live)
        return compared(record, self.generation, differing, accept and differing > 0)

    def has_live(self) -> bool:
        """Whether there is a live view to compare with."""
        return any(cursor.position for cursor in self._cursors(self._record().live).values())

    # Swap.

    def swap(self, keep_ms: int) -> Record | None:
        """Build to the end of the log, then make the generation live. None when it was told to stop before.

        Raises ProjectionError where it differs and nobody accepted that, and where another generation has
        become live meanwhile.
        """
        self._step, before = "swap", self._record()
        item = before.find(self.generation)
        if item is None or not before.may_swap(self.generation):
            raise ProjectionError(
                f"generation {self.generation} was not found equal to the live view, and nobody accepted it."
            )
        for _ in range(CATCH_UPS_MAX):
            read = self._read()
            if not all(done.is_whole for done in self._do([self._task(p) for p in self._partitions()])):
                self._pause()
                return None
            if self._read() - read < NEAR:
                break
        self._come_close()
        is_kept = self.has_live() and not self._is_behind(before.live)
        self._check_lease()
        at_ms = self._now()
        event = ViewSwapped(
            event_id=named_id("rebuild", self.stream.name, self.projection.name, self.generation, "swapped"),
            subject=self.projection.name,
            source=self.by,
            occurred_at=_instant(at_ms),
            stream=self.stream.name,
            generation=self.generation,
            previous=before.live,
            differing=item.differing,
            why=self.why,
        )

        def flipped(record: Record) -> Record:
            if record.live == self.generation:
                return record
            self._expect_live(record, before.live)
            return announcing(swapped(record, self.generation, at_ms, keep_ms if is_kept else 0), event)

        began = time.perf_counter()
        after = self._change(flipped)
        self.swap_ms = round((time.perf_counter() - began) * 1000, 2)
        announce(self.stream, self.projection.name)
        leave_alone(self.stream, self.projection, after, before.live)
        return after

    def follow(self) -> None:
        """After the swap: keep the new generation up until a worker moves it, until nothing more comes, or
        for FOLLOW_S. Then retire
        what is not to be kept."""
        self._step, ends = "follow", time.monotonic() + FOLLOW_S
        while time.monotonic() < ends and not self._is_told():
            before = self.cursors()
            for builder in self._builders():
                builder.is_shared = True
            after = {builder.partition: builder.build() for builder in self._builders()}
            if after == before or self.cursors() != after:  # nothing came; or somebody else has moved it
                break
        retire_due(self.stream, self.projection.name, self.by)

    def _come_close(self) -> None:
        """Pass after pass by builders that stay, until one finds next to nothing: a pass takes some
        milliseconds.
        """
        for _ in range(CLOSE_PASSES_MAX):
            before = sum(builder.cursor.read for builder in self._builders())
            if sum(builder.build().read for builder in self._builders()) - before < CLOSE:
                return

    def _builders(self) -> list[BuildLane]:
        """One for each partition, kept for what is left to do."""
        if not self._near:
            for partition in self._partitions():
                epoch = self._task(partition).epoch
                self._near.append(
                    BuildLane(self.projection, self.history, partition, self.generation, epoch=epoch)
                )
        return self._near

    def _is_behind(self, number: int) -> bool:
        """Whether the generation lacks entries that were trimmed, so that it can never go on."""
        trimmed = [
            self.stream.wire(keys.partition).ask(("HGET", keys.meta, "trimmed"))[0]
            for keys in self.stream.keys
        ]
        return any(
            cursor.read < int(trimmed[partition] or 0) for partition, cursor in self._cursors(number).items()
        )

    # What the steps share.

    @property
    def group(self) -> str:
        """Of the generation being built."""
        return generation_group(self.projection.name, self.generation)

    def cursors(self) -> dict[int, Cursor]:
        """Where the generation being built is."""
        return self._cursors(self.generation)

    def _read(self) -> int:
        return sum(cursor.read for cursor in self.cursors().values())

    def _cursors(self, number: int) -> dict[int, Cursor]:
        return View(self.stream, self.projection, generation=number).cursors()

    def _partitions(self) -> range:
        return range(self.stream.partitions)

    def _goals(self) -> dict[int, str]:
        """Where to build each partition to: the live view's cursor, or the end of the log where nothing is
        left to be compared.
        """
        record = self._record()
        live = self._cursors(record.live)
        if record.may_swap(self.generation) or not any(cursor.position for cursor in live.values()):
            return dict.fromkeys(self._partitions(), "+")
        return {partition: cursor.position or "0-0" for partition, cursor in live.items()}

    def _task(self, partition: int, until: str = "+", compare_with: int = 0) -> Task:
        epoch = None if self._lease is None else self._lease.epochs[partition]
        return Task(
            self.stream.name, self.projection.name, partition, self.generation, epoch, until, compare_with
        )

    def _do(self, tasks: list[Task]) -> list[Done]:
        done = self.crew.do(tasks, self._tick, self._stopping)
        self._ticked = 0.0  # the last word is what was reached
        self._tick()
        return done

    def _stopping(self) -> bool:
        return self._is_told() or (self._lease is not None and self._lease.is_lost)

    def _pause(self) -> bool:
        """Told to stop: nobody waits for what does not move. It joins again when it goes on. Raises Fenced
        when somebody took over.
        """
        self._check_lease()
        self.is_paused = True
        forget(self.stream.server, self.stream.keys, self.group)
        return False

    def _check_lease(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._ticked >= 0.2:
            self._ticked = now
            self._on_progress(Progress(self._step, self._read(), self._total or self._entries()))

    def _entries(self) -> int:
        """How many entries there ever were, in archive and log."""
        client, total = self.stream.server.client, 0
        for keys in self.stream.keys:
            total += int(client.xlen(keys.log)) + int(client.hget(keys.meta, "trimmed") or 0)
        return total

    def _record(self) -> Record:
        return read_record(self.stream.server, self.stream.name, self.projection.name)

    def _change(self, transition: Callable[[Record], Record]) -> Record:
        self.record = change(self.stream.server, self.stream.name, self.projection.name, transition)
        return self.record

    def _expect_live(self, record: Record, live: int) -> None:
        if record.live != live:
            raise ProjectionError(
                f"generation {record.live} of {self.projection.name} became the live one meanwhile, in the "
                f"place of {live}: ours is to "
                "be compared with that. Rebuild again; what was built is kept."
            )

    def _now(self) -> int:
        return now_ms(self.stream.server)

    def _let_go(self) -> None:
        for builder in self._near:
            builder.close()
        self._near = []
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()


def leave_alone(stream: Stream, projection: Projection[Any], record: Record, number: int) -> None:
    """Producers and the trimmer do not wait for a kept generation of another definition: nobody may be there
    who keeps it up.
    """
    item = record.find(number)
    if item is not None and item.state is State.KEPT and item.fingerprint not in ("", projection.fingerprint):
        forget(stream.server, stream.keys, generation_group(projection.name, number))


def abandon(stream: Stream, projection: Projection[Any], *, by: str, why: str = "") -> int:
    """Give up what is being built. Returns its number.

    Raises ProjectionError where nothing is, RebuildRunning while somebody builds.
    """
    with Rebuild(History(stream), projection, by=by, why=why) as rebuild:
        item = read_record(stream.server, stream.name, projection.name).building
        if item is None:
            raise ProjectionError(
                f"nothing is being built of {projection.name!r} of {stream.name!r}: there is nothing to "
                "give up."
            )
        rebuild._own(item)
        retire(stream, projection.name, item.number, by, why)
        return item.number


def _instant(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _is_dead(worker: str) -> bool:
    """Whether the process that a worker is named for (host-pid-random) was one of this host and is no more."""
    host, _, pid = worker.rpartition("-")[0].rpartition("-")
    if host != worker_name().rpartition("-")[0].rpartition("-")[0] or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # somebody else's, and alive
    return False
