"""
Apply events to views exactly once.

    read a batch -> load the states it touches -> fold (pure) -> commit.lua: view and cursor in one script -> read on

Invariant: view == fold(log[.. cursor]); cursor and view move in one script or not at all. Delivery is at least once, so every
path here may run twice; only the commit changes a view. On start, STALE, GAP or a lost connection: forget all states and
continue from the cursor, whatever the group says.

A ``Flow`` is one projection's way through one partition, a generator that yields commands and is sent their answers: no socket,
no clock, no thread in it. ``Consumer`` drives many flows over one connection per node: while the server works on one flow's
commit, another flow folds. Nothing here is blocked by a slow partition but that partition.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from enum import IntEnum
from typing import Any

import msgspec
import structlog

from aurastream.projections.errors import ProjectionRedefined, ViewBroken
from aurastream.projections.fold import Change, Expired, Fold
from aurastream.projections.intake import Batch, Index
from aurastream.projections.projection import Projection
from aurastream.streams import InvariantBroken, Server, Stream
from aurastream.streams.codec import RawEntry, entry_json, read_envelope
from aurastream.streams.connection import Script, Wire, retried
from aurastream.streams.errors import DamagedEntry, UnknownOutcome
from aurastream.streams.groups import Cursor, as_pair, cursor_of, ensure, read_new, seek, wake_up
from aurastream.streams.keys import Keys

WAIT_MS = 500  # the longest wait for news: how late a stop signal or a new stream may be noticed
POLL_FIRST_S, POLL_MAX_S = 0.001, 0.05  # where one command cannot wait for all partitions (a cluster)
REFUSALS_MAX = 50  # times in a row a flow starts again from one position before it stops
RESOLVE_MAX = 3  # times a batch may be found odd before it is read anew

_COMMIT = Script(__file__, "commit.lua")
log = structlog.get_logger(__name__)

Commands = list[tuple[Any, ...]]
Steps = Generator[Commands | None, Any, Any]  # None: nothing to do until there is something new


class Answer(IntEnum):
    """What commit.lua says."""

    OK = 0
    STALE = 1
    GAP = 2
    ODD = 3
    BROKEN = 4
    REDEFINED = 5


class Progress(msgspec.Struct, frozen=True):
    """One committed batch, for whoever watches."""

    projection: str
    stream: str
    partition: int
    cursor: Cursor
    events: int


class Flow:
    """One projection's way through one partition."""

    def __init__(
        self,
        projection: Projection[Any],
        stream: Stream,
        partition: int,
        *,
        generation: int = 1,
        batch_max: int = 1_000,
        on_commit: Callable[[Progress], None] | None = None,
    ) -> None:
        self.projection, self.stream, self.partition = projection, stream, partition
        self.keys: Keys = stream.keys[partition]
        self.generation, self.batch_max, self.on_commit = generation, batch_max, on_commit
        self.cursor = Cursor()
        self.commits = 0
        self._codec = projection.codec()
        self._fold = Fold(projection, self.keys.where)
        self._any_type = projection.events is None
        self._fingerprint = projection.fingerprint

    @property
    def group(self) -> str:
        """The consumer group's name."""
        return self.projection.name

    def steps(self) -> Steps:
        """For ever: settle at the cursor, then batch after batch until something moved without us."""
        refusals, settled_at = 0, ""
        while True:
            yield from self._settle()
            refusals = refusals + 1 if self.cursor.position == settled_at else 0
            settled_at = self.cursor.position
            if refusals > REFUSALS_MAX:
                raise InvariantBroken(
                    f"{self.group} cannot get past {settled_at or 'the start'} of {self.keys.where}: {refusals} batches were refused "
                    "and nobody else advanced. Run `aurastream check`; the log or its index was changed by hand."
                )
            raw = self._fresh((yield [read_new(self.keys, self.group, self.batch_max)])[0])
            while raw is not None:
                if raw:
                    raw = yield from self._commit(raw)
                else:
                    yield None
                    raw = self._fresh((yield [read_new(self.keys, self.group, self.batch_max)])[0])

    def _settle(self) -> Steps:
        """Take the cursor from the server, forget what was folded, and bring the group in line."""
        reply = (yield [("HGETALL", self.keys.cursor(self.group))])[0]
        if isinstance(reply, Exception):
            raise reply
        self.cursor = cursor_of(reply)
        self._fold.reset(self.cursor.watermark)
        if self.cursor.fingerprint not in ("", self._fingerprint):
            raise ProjectionRedefined(self.group, self.keys.where, self.cursor.fingerprint, self._fingerprint)
        made, sought = yield [ensure(self.keys, self.group, self.cursor), seek(self.keys, self.group, self.cursor)]
        if isinstance(made, Exception) and not str(made).startswith("BUSYGROUP"):
            raise made
        if isinstance(sought, Exception):
            raise sought
        yield from self._tidy_pending()

    def _tidy_pending(self) -> Steps:
        """Acknowledge what is pending at or before the cursor: the commit that applied it lost its acknowledgement."""
        while self.cursor.position:
            pending = ("XPENDING", self.keys.log, self.group, "-", self.cursor.position, 1_000)
            reply = (yield [pending])[0]
            if isinstance(reply, Exception):
                raise reply
            if not reply:
                return
            yield [("XACK", self.keys.log, self.group, *[row[0] for row in reply])]

    def _fresh(self, reply: Any) -> list[RawEntry] | None:
        """The entries of a group read that are after the cursor; None when the group is gone and must be settled anew."""
        if isinstance(reply, Exception):
            if str(reply).startswith("NOGROUP"):
                return None
            raise reply
        entries: list[RawEntry] = reply[0][1] if reply else []
        if entries and self.cursor.position and as_pair(entries[0][0].decode()) <= as_pair(self.cursor.position):
            return None  # the group was set back by hand
        return entries

    def _commit(self, raw: list[RawEntry]) -> Steps:
        """Fold and commit one batch. Returns the next batch, or None when the flow must settle again."""
        batch = Batch(raw, self._codec, self.keys.where, self._any_type)
        for _ in range(RESOLVE_MAX):
            changes = yield from self._folded(batch)
            after = batch.advance(self.cursor, self._fingerprint, self._fold.watermark)
            command = self._command(batch, changes, after)
            answer, following = yield [command, read_new(self.keys, self.group, self.batch_max)]
            if isinstance(answer, Exception):
                raise answer
            code = Answer(answer[0])
            if code is Answer.OK:
                self.cursor = after
                self.commits += 1
                if self.on_commit:
                    self.on_commit(Progress(self.group, self.stream.name, self.partition, after, len(raw)))
                return self._fresh(following)
            self._refused(code, answer)
            if code is not Answer.ODD:
                return None
            index = ServerIndex(self.stream, self.partition)
            batch.resolve([place - 1 for place in answer[1]], index)
            self._fold.reset(self.cursor.watermark)
        return None

    def _refused(self, code: Answer, answer: list[Any]) -> None:
        """Say why, where a person must act; STALE, GAP and ODD heal themselves."""
        if code is Answer.BROKEN:
            raise ViewBroken(self.group, answer[1].decode(), answer[2].decode())
        if code is Answer.REDEFINED:
            raise ProjectionRedefined(self.group, self.keys.where, answer[1].decode(), self._fingerprint)
        if code is not Answer.ODD:
            log.warning("commit_refused", answer=code.name, projection=self.group, where=self.keys.where)

    def _folded(self, batch: Batch) -> Generator[Commands, Any, list[Change]]:
        """The changes of a batch, loading what the fold asks for."""
        steps = self._fold.batch(batch.events)
        loaded: Any = None
        try:
            while True:
                need = steps.send(loaded)
                if isinstance(need, Expired):
                    key = self._table(f"{need.ranking}.expiry")
                    (members,) = yield from self._read([("ZRANGEBYSCORE", key, "-inf", need.until)])
                    loaded = [member.decode() for member in members]
                else:
                    replies = yield from self._read([("HMGET", self._table(table), *keys) for table, keys in need.items()])
                    loaded = dict(zip(need, replies, strict=True))
        except StopIteration as finished:
            changes: list[Change] = finished.value
            return changes

    def _read(self, commands: Commands) -> Generator[Commands, Any, list[Any]]:
        """The answers of reads of the view. Raises ViewBroken at a key of another type."""
        replies: list[Any] = yield commands
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, Exception):
                if not str(reply).startswith("WRONGTYPE"):
                    raise reply
                kind = yield [("TYPE", command[1])]
                raise ViewBroken(self.group, command[1], kind[0].decode()) from reply
        return replies

    def _table(self, name: str, part: str | None = None) -> str:
        return self.keys.view(self.group, self.generation, name, part)

    def _command(self, batch: Batch, changes: list[Change], after: Cursor) -> tuple[Any, ...]:
        """The commit call; the sections and their order are commit.lua's header."""
        keys = [self.keys.cursor(self.group), self.keys.log, self.keys.ids]
        cursor, odd = after.fields(), [part for item in batch.odd for part in item.args()]
        operands: list[Any] = []
        operations: list[str] = []
        kinds = ""
        if batch.dead:
            changes = [*changes, Change("", "h", put={key: reason.encode() for key, reason in batch.dead.items()})]
        start = 9 + len(cursor) + len(odd) + len(batch.positions)
        for change in changes:
            keys.append(self._table(change.table, change.part) if change.table else self.keys.dead(self.group))
            kinds += change.kind
            for verb, args in _writes(change):
                operations.append(f"{len(keys)} {verb} {start + len(operands)} {start + len(operands) + len(args) - 1}\n")
                operands += args
        lengths = f"{len(cursor)} {len(odd)} {len(batch.positions)}\n{''.join(operations)}"
        first, at = batch.positions[0], self.cursor.position
        head = (self.group, at, first, batch.digests, batch.packed, self._fingerprint, kinds, lengths)
        return _COMMIT.call(keys, (*head, *cursor, *odd, *batch.positions, *operands))


def _writes(change: Change) -> list[tuple[str, list[Any]]]:
    """A change as commands and their operands; removals first, as a key is never in both."""
    writes: list[tuple[str, list[Any]]] = []
    is_hash = change.kind == "h"
    if change.drop:
        writes.append(("HDEL" if is_hash else "ZREM", change.drop))
    if change.put and is_hash:
        writes.append(("HSET", [part for pair in change.put.items() for part in pair]))
    elif change.put:
        writes.append(("ZADD", [part for key, score in change.put.items() for part in (score, key)]))
    return writes


class ServerIndex(Index):
    """The index asked row by row: only for the rare odd events."""

    def __init__(self, stream: Stream, partition: int) -> None:
        self._stream, self._partition, self._keys = stream, partition, stream.keys[partition]

    def row(self, field: bytes) -> bytes | None:
        row: bytes | None = self._stream.wire(self._partition).ask(("HGET", self._keys.ids, field))[0]
        return row

    def event_id_at(self, position: bytes) -> str | None:
        found = self._stream.wire(self._partition).ask(("XRANGE", self._keys.log, position, position))[0]
        try:
            return read_envelope(self._keys.where, entry_json(self._keys.where, found[0][1])).event_id if found else None
        except DamagedEntry:
            return None


class Consumer:
    """Drives flows until told to stop. Not for several threads; several processes share by partition or race harmlessly."""

    def __init__(
        self,
        server: Server,
        projections: list[Projection[Any]],
        streams: Callable[[], list[Stream]],
        *,
        batch_max: int = 1_000,
        attempts_max: int = 8,
        on_commit: Callable[[Progress], None] | None = None,
        recover: Callable[[], None] | None = None,
    ) -> None:
        """streams: the streams to consume, asked again while waiting, so that new ones are taken up.
        recover: called before reconnecting, for instance to restart the embedded server."""
        self._server, self._projections, self._streams = server, projections, streams
        self._batch_max, self._attempts_max, self._on_commit, self._recover = batch_max, attempts_max, on_commit, recover
        self._wires: dict[str, Wire] = {}
        self._flows: dict[tuple[str, str, int], Flow] = {}
        self._commits = self._commits_seen = 0
        self._pause_s = POLL_FIRST_S

    def run(self, stopping: Callable[[], bool] = lambda: False, *, until_idle: bool = False) -> None:
        """Consume. until_idle: return once every flow has read all there is. Raises UnknownOutcome when the server stays away
        for attempts_max tries without one commit, and the typed errors of flows that a person must mend."""
        try:
            while True:
                before = self._commits
                try:
                    retried("consuming", self._attempts_max, lambda: self._drive(stopping, until_idle), self._reconnect)
                    return
                except UnknownOutcome:
                    if self._commits == before:
                        raise
        finally:
            self._close()

    def _drive(self, stopping: Callable[[], bool], until_idle: bool) -> None:
        self._adopt_streams()
        running: deque[tuple[Flow, Steps, int]] = deque()
        idle: deque[tuple[Flow, Steps]] = deque()
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
            elif until_idle:
                return
            else:
                self._wait([flow for flow, _ in idle])
                self._adopt_streams()
                self._start_flows(running, started)
                for _ in range(len(idle)):
                    self._resume(*idle.popleft(), None, running, idle)

    def _resume(self, flow: Flow, steps: Steps, answers: Any, running: deque[Any], idle: deque[Any]) -> None:
        before = flow.commits
        commands = steps.send(answers)
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
        for stream in self._streams():
            for projection in self._projections:
                for partition in range(stream.partitions if projection.folds(stream.name) else 0):
                    name = (projection.name, stream.name, partition)
                    if name not in self._flows:
                        self._flows[name] = Flow(projection, stream, partition, batch_max=self._batch_max, on_commit=self._on_commit)

    def _wait(self, flows: list[Flow]) -> None:
        """Until one of the logs has something after what the slowest of its flows has read, or WAIT_MS."""
        waiting: dict[str, str] = {}
        for flow in flows:
            at, key = flow.cursor.position, flow.keys.log
            waiting[key] = min(waiting.get(key, at), at, key=as_pair)
        if waiting and not self._server.facts.is_cluster:
            self._wire(flows[0]).ask(wake_up(waiting, WAIT_MS))
            return
        # No one command can wait for several nodes or slots: poll, slower while nothing comes.
        self._pause_s = POLL_FIRST_S if self._commits > self._commits_seen else min(POLL_MAX_S, self._pause_s * 2)
        self._commits_seen = self._commits
        time.sleep(self._pause_s)

    def _wire(self, flow: Flow) -> Wire:
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
