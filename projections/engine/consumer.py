"""
Consume: drive lanes over blocking connections.

    read a batch -> apply it (apply.py) and read the next in one round trip -> while the server works,
    another lane folds

A ``GroupLane`` is one projection's way through one partition. ``Consumer`` drives many over one connection a
node: each has its questions under way, and whichever is answered next folds on. Nothing here is blocked by a
slow partition but that partition. A lane reads after its cursor, and its consumer group follows: a group
that was moved, emptied or deleted costs nothing, and is where the cursor is after the next commit.

Every generation that is this process's to keep up has lanes of its own (generations.py); the records are
looked at while waiting and every LOOK_EVERY_S, so that a new live one is taken up; a lane whose generation
was retired ends.

Sharing partitions between processes by leases is not here but in the host (processors/); several Consumers
on the same partitions race harmlessly.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from typing import NamedTuple, TypedDict, Unpack

from aurastream.projections.engine.apply import Lane, Progress, Retired
from aurastream.projections.engine.commit import CommitAnswer
from aurastream.projections.engine.generations import NEVER_REBUILT, field_of, read_records
from aurastream.projections.engine.projection import AnyProjection
from aurastream.streams import (
    Ask,
    Asking,
    Backoff,
    NotAnswered,
    Position,
    RawEntry,
    Reply,
    Server,
    Stream,
    Wire,
    Wires,
    align,
    retried,
    sound,
    wake_up,
)

PENDING_MAX = 1_000  # entries acknowledged at once
RESTS = 64  # between two looks at what others have read by the group
ATTEMPTS_MAX = 8  # unless the caller says otherwise
WAIT_MS = 500  # the longest wait for news: how late a stop signal or a new stream may be noticed
LOOK_EVERY_S = 1.0  # at the streams and the generations there are, while there is no end of work
POLL_FIRST_S, POLL_MAX_S = 0.001, 0.05  # where one command cannot wait for all partitions (a cluster)

Steps = Generator[list[Ask] | None, Reply, None]  # None: nothing to do until there is something new


class GroupLane(Lane):
    """A lane that reads for itself, and whose group follows. is_ending: ``steps`` shall end after the commit
    under way.
    """

    has_group = True
    is_ending = False
    _rests = 0

    def steps(self) -> Steps:
        """Settle at the cursor, then batch after batch until something moved without us; then anew. Now and
        then it asks for nothing ([]), for others to go on.
        """
        self._fold.pauses = True
        while not self.is_ending:
            yield from self.settle()
            yield from self.align()
            raw = yield from self._next()
            while raw is not None and not self.is_ending:
                if raw:
                    raw = yield from self._applied(raw)
                else:
                    yield from self._rested()
                    yield None
                    raw = yield from self._next()

    def _rested(self) -> Asking[None]:
        """All is read."""
        self.pace.rest()
        yield from self.join()
        self._rests += 1
        if self._rests % RESTS == 0:
            yield from self.acknowledge()

    def align(self) -> Asking[None]:
        """Put the server's group where the cursor is, and let go what others hold of it."""
        sound((yield self.asks(align(self.keys.log, self.view.cursor, self.group))))
        yield from self.acknowledge()

    def acknowledge(self) -> Asking[None]:
        """What others read by the group and the cursor has passed: nobody is to wait for it."""
        while self.cursor.position:
            pending = ("XPENDING", self.keys.log, self.group, "-", self.cursor.position, PENDING_MAX)
            (reply,) = yield self.asks(pending)
            if not reply or is_without_group(reply):
                return
            (rows,) = sound([reply])
            yield self.asks(("XACK", self.keys.log, self.group, *[row[0] for row in rows]))

    def _next(self) -> Asking[list[RawEntry] | None]:
        """What follows the cursor; None where it is not where it was: a fail-over takes it back without a
        word, and somebody else may have advanced.
        """
        read = self._following("+", self.pace.ask())
        position, raw = sound((yield self.asks(("HGET", self.view.cursor, "position"), read)))
        return raw if (position or b"").decode() == self.cursor.position else None

    def _applied(self, raw: list[RawEntry]) -> Asking[list[RawEntry] | None]:
        """Apply; what follows, None where the commit was refused."""
        answer, following = yield from self.commit(raw, reads_on=True)
        if answer is not CommitAnswer.OK:
            return None
        if not self.is_grouped:  # destroyed by hand
            yield from self.align()
        return following


def is_without_group(reply: Reply) -> bool:
    """Whether the answer says that the group is gone."""
    return isinstance(reply, Exception) and str(reply).startswith("NOGROUP")


class _Turn(NamedTuple):
    """A lane that is driven. awaited: how many answers are under way; 0 where it waits for news."""

    lane: GroupLane
    steps: Steps
    awaited: int = 0


class Consuming(TypedDict, total=False):
    """How to consume. batch_max: entries of a commit; the settings' of each stream unless it is given.
    attempts_max: tries without one commit, before it ends.
    on_commit: told of every commit. recover: called before reconnecting, for instance to restart the server.
    """

    batch_max: int | None
    attempts_max: int
    on_commit: Callable[[Progress], None] | None
    recover: Callable[[], None] | None


class Consumer:
    """Drives lanes until told to stop. Not for several threads."""

    def __init__(
        self,
        server: Server,
        projections: list[AnyProjection],
        streams: Callable[[], list[Stream]],
        **options: Unpack[Consuming],
    ) -> None:
        """streams: the streams to consume, asked again while waiting, so that new ones are taken up."""
        self._server, self._projections, self._streams = server, projections, streams
        self._batch_max = options.get("batch_max")
        self._on_commit, self._recover = options.get("on_commit"), options.get("recover")
        self._wires = Wires(server, options.get("attempts_max", ATTEMPTS_MAX))
        self._lanes: dict[tuple[str, str, int, int], GroupLane] = {}
        self._running: deque[_Turn] = deque()
        self._idle: deque[_Turn] = deque()
        self._started: set[int] = set()
        self._commits = self._commits_seen = 0
        self._poll, self._look_at = Backoff(POLL_FIRST_S, POLL_MAX_S), 0.0

    def run(self, stopping: Callable[[], bool] = lambda: False, *, until_idle: bool = False) -> None:
        """Consume. until_idle: return once every lane has read all there is.

        Raises UnknownOutcome or ServerRefuses when the server stays away, or refuses, for attempts_max tries
        without one commit, and the typed errors of lanes that a person must mend.
        """
        try:
            while not self._has_ended(stopping, until_idle):
                # Answers to the lanes of before are under way there, and would be taken for the new ones'.
                self._wires.close()
        finally:
            self._wires.close()

    def _has_ended(self, stopping: Callable[[], bool], until_idle: bool) -> bool:
        """Drive the lanes; False when the server stayed away, but after a commit, so that we try on."""
        before, attempts_max = self._commits, self._wires.attempts_max
        try:
            retried("consuming", attempts_max, lambda: self._drive(stopping, until_idle), self._reconnect)
        except NotAnswered:
            if self._commits == before:
                raise
            return False
        return True

    def _drive(self, stopping: Callable[[], bool], until_idle: bool) -> None:
        for held in (self._running, self._idle, self._started):
            held.clear()
        self._start_lanes()
        while not stopping():
            if self._running:
                self._go_on(self._running.popleft())
                if time.monotonic() > self._look_at:  # it may never be idle
                    self._start_lanes()
            elif until_idle:
                return
            else:
                self._wait([turn.lane for turn in self._idle])
                self._start_lanes()
                for _ in range(len(self._idle)):
                    self._resume(self._idle.popleft(), None)

    def _go_on(self, turn: _Turn) -> None:
        wire, commits = self._wire(turn.lane), self._commits
        self._resume(turn, [wire.receive() for _ in range(turn.awaited)])
        if self._idle and self._commits > commits:  # look at the quiet lanes in turn with the busy ones
            self._resume(self._idle.popleft(), None)

    def _resume(self, turn: _Turn, answers: Reply) -> None:
        lane, steps, _ = turn
        before = lane.commits
        try:
            asks = steps.send(answers)
        except Retired:
            return  # for good: its record says so by now, and it is not taken up again
        self._commits += lane.commits - before
        if asks is None:
            self._idle.append(_Turn(lane, steps))
        else:
            self._wire(lane).send([ask.command for ask in asks])
            self._running.append(_Turn(lane, steps, len(asks)))

    def _start_lanes(self) -> None:
        """Those of new streams and new generations."""
        self._look_at = time.monotonic() + LOOK_EVERY_S
        records = read_records(self._server)
        for stream in self._streams():
            for projection in self._projections:
                if projection.takes(stream):
                    record = records.get(field_of(stream.name, projection.name), NEVER_REBUILT)
                    for generation in record.followed(projection.fingerprint):
                        self._add(projection, stream, generation)
        for lane in self._lanes.values():
            if id(lane) not in self._started:
                self._started.add(id(lane))
                self._resume(_Turn(lane, lane.steps()), None)

    def _add(self, projection: AnyProjection, stream: Stream, generation: int) -> None:
        for partition in range(stream.partitions):
            name = (projection.name, stream.name, partition, generation)
            if name not in self._lanes:
                lane = GroupLane(
                    projection, stream, partition, generation=generation, batch_max=self._batch_max
                )
                self._lanes[name] = lane
                lane.on_commit = self._on_commit

    def _wait(self, lanes: list[GroupLane]) -> None:
        """Until one of the logs has something after what the slowest of its lanes has read, or WAIT_MS."""
        waiting: dict[str, str] = {}
        for lane in lanes:
            at, key = lane.cursor.position, lane.keys.log
            waiting[key] = min(waiting.get(key, at), at, key=Position.parse)
        if waiting and not self._server.facts.is_cluster:
            self._wire(lanes[0]).ask(wake_up(waiting, WAIT_MS))
            return
        # No one command can wait for several nodes or slots: poll, slower while nothing comes.
        if self._commits > self._commits_seen:
            self._poll.reset()
        self._commits_seen = self._commits
        time.sleep(self._poll.next_s())

    def _wire(self, lane: GroupLane) -> Wire:
        return self._wires.of(lane.keys.log)

    def _reconnect(self) -> None:
        self._wires.close()
        if self._recover is not None:
            self._recover()
        self._wires.renew()
