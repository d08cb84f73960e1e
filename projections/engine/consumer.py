"""
Consume: drive appliers over blocking connections, by consumer group.

    read a batch -> apply it (apply.py) and read the next in one round trip -> while the server works, another
        flow folds

A ``GroupLane`` is one projection's way through one partition, a generator that yields commands and is sent their
answers. ``Consumer`` drives many flows over one connection per node. Nothing here is blocked by a slow
partition but that partition. Whatever the group
says, the cursor decides: a group that was set back, emptied or deleted costs a settle, never an event.

Every generation that is this process's to keep up has flows of its own (generations.py); the records are
looked at while waiting and every LOOK_EVERY_S, so that a new live one is taken up; a flow whose generation
was retired ends.

Sharing partitions between processes by leases is not here but in the worker (processors/); several Consumers
on the same partitions race harmlessly.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from aurastream.projections.engine.apply import Commands, CommitAnswer, Lane, Progress, Retired
from aurastream.projections.engine.generations import NEVER_REBUILT, field_of, read_records
from aurastream.projections.engine.projection import Projection
from aurastream.streams import (
    RawEntry,
    Server,
    Stream,
    UnknownOutcome,
    Wire,
    as_pair,
    read_new,
    retried,
    wake_up,
)

WAIT_MS = 500  # the longest wait for news: how late a stop signal or a new stream may be noticed
LOOK_EVERY_S = 1.0  # at the streams and the generations there are, while there is no end of work
POLL_FIRST_S, POLL_MAX_S = 0.001, 0.05  # where one command cannot wait for all partitions (a cluster)

Steps = Generator[Commands | None, Any, Any]  # None: nothing to do until there is something new


class GroupLane(Lane):
    """An applier that reads by its group."""

    def steps(self) -> Steps:
        """For ever: settle at the cursor, then batch after batch until something moved without us."""
        while True:
            yield from self.settle()
            yield from self.align()
            raw = yield from self._look()
            while raw is not None:
                if raw:
                    answer, following = yield from self.commit(raw, self._next())
                    raw = self._fresh(following) if answer is CommitAnswer.OK else None
                    if raw == []:
                        raw = yield from self._look()
                else:
                    yield from self.join()
                    yield None
                    raw = yield from self._look()

    def _look(self) -> Generator[Commands, Any, list[RawEntry] | None]:
        """What the group has not delivered yet; None where it says nothing while the log has more: it was set
        ahead by hand, or
        somebody else has read (a lost reply, a thief). Asked in this order, so an entry that arrives in
        between is in the answer."""
        beyond, reply = yield [
            ("XRANGE", self.keys.log, f"({self.cursor.position or '0-0'}", "+", "COUNT", 1),
            self._next(),
        ]
        if isinstance(beyond, Exception):
            raise beyond
        raw = self._fresh(reply)
        return None if raw == [] and beyond else raw

    def _next(self) -> tuple[Any, ...]:
        return read_new(self.keys, self.group, self.batch_max)

    def _fresh(self, reply: Any) -> list[RawEntry] | None:
        """The entries of a group read that are after the cursor; None when the group is gone and must be
        settled anew.
        """
        if isinstance(reply, Exception):
            if str(reply).startswith("NOGROUP"):
                return None
            raise reply
        entries: list[RawEntry] = reply[0][1] if reply else []
        if (
            entries
            and self.cursor.position
            and as_pair(entries[0][0].decode()) <= as_pair(self.cursor.position)
        ):
            return None  # the group was set back by hand
        return entries


class Consumer:
    """Drives flows until told to stop. Not for several threads; several processes share by partition or race
    harmlessly.
    """

    def __init__(
        self,
        server: Server,
        projections: list[Projection[Any]],
        streams: Callable[[], list[Stream]],
        *,
        batch_max: int = 2_000,
        attempts_max: int = 8,
        on_commit: Callable[[Progress], None] | None = None,
        recover: Callable[[], None] | None = None,
    ) -> None:
        """streams: the streams to consume, asked again while waiting, so that new ones are taken up.
        recover: called before reconnecting, for instance to restart the embedded server."""
        self._server, self._projections, self._streams = server, projections, streams
        self._batch_max, self._attempts_max, self._on_commit, self._recover = (
            batch_max,
            attempts_max,
            on_commit,
            recover,
        )
        self._wires: dict[str, Wire] = {}
        self._flows: dict[tuple[str, str, int, int], GroupLane] = {}
        self._commits = self._commits_seen = 0
        self._pause_s, self._look_at = POLL_FIRST_S, 0.0

    def run(self, stopping: Callable[[], bool] = lambda: False, *, until_idle: bool = False) -> None:
        """Consume. until_idle: return once every flow has read all there is. Raises UnknownOutcome when the
        server stays away
        for attempts_max tries without one commit, and the typed errors of flows that a person must mend."""
        try:
            while True:
                before = self._commits
                try:
                    retried(
                        "consuming",
                        self._attempts_max,
                        lambda: self._drive(stopping, until_idle),
                        self._reconnect,
                    )
                    return
                except UnknownOutcome:
                    if self._commits == before:
                        raise
                    # answers to the flows of before are still under way there, and would be taken for the new
                    # ones'
                    self._close()
        finally:
            self._close()

    def _drive(self, stopping: Callable[[], bool], until_idle: bool) -> None:
        self._adopt_streams()
        running: deque[tuple[GroupLane, Steps, int]] = deque()
        idle: deque[tuple[GroupLane, Steps]] = deque()
        started: set[int] = set()
        self._start_flows(running, started)
        while not stopping():
            if running:
                flow, steps, count = running.popleft()
                wire = self._wire(flow)
                commits = self._commits
                self._resume(flow, steps, [wire.receive() for _ in range(count)], running, idle)
                if idle and self._commits > commits:  # look at the quiet flows in turn with the busy ones
                    self._resume(*idle.popleft(), None, running, idle)
                if time.monotonic() > self._look_at:  # it may never be idle
                    self._adopt_streams()
                    self._start_flows(running, started)
            elif until_idle:
                return
            else:
                self._wait([flow for flow, _ in idle])
                self._adopt_streams()
                self._start_flows(running, started)
                for _ in range(len(idle)):
                    self._resume(*idle.popleft(), None, running, idle)

    def _resume(
        self, flow: GroupLane, steps: Steps, answers: Any, running: deque[Any], idle: deque[Any]
    ) -> None:
        before = flow.commits
        try:
            commands = steps.send(answers)
        except Retired:
            return  # for good: its record says so by now, and it is not taken up again
        self._commits += flow.commits - before
        if commands is None:
            idle.append((flow, steps))
        else:
            self._wire(flow).send(commands)
            running.append((flow, steps, len(commands)))

    def _start_flows(self, running: deque[Any], started: set[int]) -> None:
        for flow in self._flows.values():
            if id(flow) not in started:
                started.add(id(flow))
                self._resume(flow, flow.steps(), None, running, deque())

    def _adopt_streams(self) -> None:
        self._look_at = time.monotonic() + LOOK_EVERY_S
        records = read_records(self._server)
        for stream in self._streams():
            for projection in self._projections:
                if not projection.folds(stream.name):
                    continue
                record = records.get(field_of(stream.name, projection.name), NEVER_REBUILT)
                for generation in record.followed(projection.fingerprint):
                    for partition in range(stream.partitions):
                        name = (projection.name, stream.name, partition, generation)
                        if name not in self._flows:
                            self._flows[name] = self._flow(projection, stream, partition, generation)

    def _flow(
        self, projection: Projection[Any], stream: Stream, partition: int, generation: int
    ) -> GroupLane:
        options: dict[str, Any] = {
            "generation": generation,
            "batch_max": self._batch_max,
            "on_commit": self._on_commit,
        }
        return GroupLane(projection, stream, partition, **options)

    def _wait(self, flows: list[GroupLane]) -> None:
        """Until one of the logs has something after what the slowest of its flows has read, or WAIT_MS."""
        waiting: dict[str, str] = {}
        for flow in flows:
            at, key = flow.cursor.position, flow.keys.log
            waiting[key] = min(waiting.get(key, at), at, key=as_pair)
        if waiting and not self._server.facts.is_cluster:
            self._wire(flows[0]).ask(wake_up(waiting, WAIT_MS))
            return
        # No one command can wait for several nodes or slots: poll, slower while nothing comes.
        self._pause_s = (
            POLL_FIRST_S if self._commits > self._commits_seen else min(POLL_MAX_S, self._pause_s * 2)
        )
        self._commits_seen = self._commits
        time.sleep(self._pause_s)

    def _wire(self, flow: GroupLane) -> Wire:
        node = self._server.node_of(flow.keys.log)
        if node not in self._wires:
            self._wires[node] = self._server.wire(flow.keys.log)
        return self._wires[node]

    def _reconnect(self) -> None:
        self._close()
        if self._recover is not None:
            self._recover()
        self._server.refresh()

    def _close(self) -> None:
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()
