"""
Apply a batch of one partition to one view, exactly once.

    raw entries -> verify, decode -> load the states they touch -> fold (pure) -> commit.lua: view and cursor
        in one script

Invariant: view == fold(log[.. cursor]); cursor and view move in one script or not at all. Delivery is at
least once, so every path here may run twice; only the commit changes a view. On start, STALE, GAP or a lost
connection: forget all states and continue from the cursor, whatever the group, the transport or the lease
says.

An ``Lane`` is generators that yield commands and are sent their answers: no socket, no clock, no thread in
it. Who drives it
decides how it waits: consumer.py over blocking connections, a worker's event loop, a simulation. Where
entries come from is the driver's too: ``commit`` wants the next entries of the log, ``take`` heals whatever
it is given by reading the log itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from enum import IntEnum
from typing import Any

import msgspec

from aurastream.projections.engine.errors import LogRewound, LogTrimmed, ProjectionRedefined, ViewBroken
from aurastream.projections.engine.evidence import Judged, KnownIndex, NamedIndex, event_id_of
from aurastream.projections.engine.fold import CACHE_MAX, Change, Expired, Fold
from aurastream.projections.engine.intake import Batch
from aurastream.projections.engine.projection import Projection
from aurastream.streams import (
    Cursor,
    InvariantBroken,
    Keys,
    Logger,
    RawEntry,
    Script,
    Stream,
    as_pair,
    collided_field_of,
    cursor_of,
    ensure,
    field_of,
    generation_group,
    join,
    seek,
    unpack_position,
)

REFUSALS_MAX = 50  # batches refused in a row at one cursor before an applier gives up
RESOLVE_MAX = 3  # times a batch may be found odd before it is read anew

_COMMIT = Script(__file__, "commit.lua")
log = Logger(__name__)

Commands = list[tuple[Any, ...]]


class CommitAnswer(IntEnum):
    """What commit.lua says."""

    OK = 0
    STALE = 1
    GAP = 2
    ODD = 3
    BROKEN = 4
    REDEFINED = 5
    FENCED = 6
    REWOUND = 7
    RETIRED = 8
    BEHIND = 9
    IMPURE = 10


class Progress(msgspec.Struct, frozen=True):
    """One committed batch, for whoever watches. previous: the cursor before it."""

    projection: str
    stream: str
    partition: int
    cursor: Cursor
    events: int
    previous: Cursor


class Fenced(Exception):
    """A newer owner holds the partition's lease; nothing was written. A signal to the driver, which lets the
    partition go.
    """


class Retired(Exception):
    """The generation was given up; nothing was written, and nothing will be. A signal to the driver, which
    lets it go for good.
    """


def is_commit(command: tuple[Any, ...]) -> bool:
    """Whether the command moves a view, for whoever measures how long that takes."""
    return command[:2] == ("EVALSHA", _COMMIT.sha)


class Lane:
    """One projection's way through one partition.

    group: the consumer group to read by and to hold the lease of; default: the generation's
    (streams/keys.py).
    generation: of the view; cursor, tables, dead entries and the place among those producers wait for are its
    own.
    epoch: of the lease under which it commits; None compares no lease (the cursor alone decides).
    is_log_here: False for a log that another system keeps (Kafka): nothing can be read back from it, so the
    caller must hand over what follows the cursor, and event IDs are known by full name, as no entry can be
    looked at to tell two of one digest apart.
    """

    def __init__(
        self,
        projection: Projection[Any],
        stream: Stream,
        partition: int,
        *,
        group: str | None = None,
        generation: int = 1,
        batch_max: int = 2_000,
        is_log_here: bool = True,
        on_commit: Callable[[Progress], None] | None = None,
        states_max: int = CACHE_MAX,
    ) -> None:
        self.projection, self.stream, self.partition = projection, stream, partition
        self.keys: Keys = stream.keys[partition]
        self.view_group = generation_group(projection.name, generation)
        self.group = group or self.view_group
        self.generation, self.batch_max, self.on_commit = generation, batch_max, on_commit
        self.is_log_here = is_log_here
        self.epoch: int | None = None
        self.cursor = Cursor()
        self.commits = 0
        self.on_refusal: Callable[[CommitAnswer], None] | None = None
        self._is_settled = self._has_joined = False
        self._codec = projection.codec()
        self._fold = Fold(projection, self.keys.where, states_max)
        self._any_type = projection.events is None
        self._fingerprint = projection.fingerprint
        self._refusals, self._refused_at = 0, ""

    def settle(self, *, is_trim_passed: bool = False) -> Generator[Commands, Any, None]:
        """Take the cursor from the server and forget what was folded.

        is_trim_passed: what was trimmed before it was read is had from the archive.
        Raises ProjectionRedefined, LogTrimmed, Retired.
        """
        reply, trimmed = yield [
            ("HGETALL", self.keys.cursor(self.view_group)),
            ("HGET", self.keys.meta, "trimmed"),
        ]
        for answer in (reply, trimmed):
            if isinstance(answer, Exception):
                raise answer
        if b"retired" in reply[::2]:
            raise Retired(f"{self.view_group} of {self.keys.where}")
        self.cursor = cursor_of(reply)
        self._fold.reset(self.cursor.watermark)
        self._is_settled = True
        if self.cursor.fingerprint not in ("", self._fingerprint):
            raise ProjectionRedefined(
                self.projection.name, self.keys.where, self.cursor.fingerprint, self._fingerprint
            )
        if self.is_log_here and not is_trim_passed and self.cursor.read < int(trimmed or 0):
            raise LogTrimmed(self.projection.name, self.keys.where, self.cursor.read, int(trimmed))

    def align(self) -> Generator[Commands, Any, None]:
        """Put the server's group where the cursor is, and acknowledge what the cursor has passed."""
        made, sought = yield [
            ensure(self.keys, self.group, self.cursor),
            seek(self.keys, self.group, self.cursor),
        ]
        if isinstance(made, Exception) and not str(made).startswith("BUSYGROUP"):
            raise made
        if isinstance(sought, Exception) and not str(sought).startswith(
            "NOGROUP"
        ):  # destroyed just now: the next read says so
            raise sought
        while self.cursor.position:
            pending = ("XPENDING", self.keys.log, self.group, "-", self.cursor.position, 1_000)
            reply = (yield [pending])[0]
            if isinstance(reply, Exception):
                if str(reply).startswith("NOGROUP"):
                    return
                raise reply
            if not reply:
                return
            yield [("XACK", self.keys.log, self.group, *[row[0] for row in reply])]

    def take(self, raw: list[RawEntry]) -> Generator[Commands, Any, None]:
        """Reach the end of a batch that may be old, overlapping, or not the next one: what is missing is read
        from the log.
        """
        last = raw[-1][0].decode()
        if not self._is_settled:
            yield from self.settle()
        fresh = self._after_cursor(raw)
        while fresh:
            answer, _ = yield from self.commit(fresh)
            if answer is not CommitAnswer.OK:
                yield from self.settle()
            elif self._after_cursor(raw) == []:
                return
            if not self.is_log_here:
                fresh = self._after_cursor(raw)
                continue
            reply = (
                yield [
                    (
                        "XRANGE",
                        self.keys.log,
                        f"({self.cursor.position or '0-0'}",
                        last,
                        "COUNT",
                        self.batch_max,
                    )
                ]
            )[0]
            if isinstance(reply, Exception):
                raise reply
            fresh = reply

    def catch_up(self) -> Generator[Commands, Any, None]:
        """Reach the end of the log as it is now, reading it from the cursor; for a start, a take-over, a new
        projection.
        """
        yield from self.settle()
        while self.is_log_here:
            reply = (
                yield [
                    (
                        "XRANGE",
                        self.keys.log,
                        f"({self.cursor.position or '0-0'}",
                        "+",
                        "COUNT",
                        self.batch_max,
                    )
                ]
            )[0]
            if isinstance(reply, Exception):
                raise reply
            if not reply:
                yield from self.join()
                return
            answer, _ = yield from self.commit(reply)
            if answer is not CommitAnswer.OK:
                yield from self.settle()

    def look(self) -> Generator[Commands, Any, bool]:
        """Whether the cursor moved without us, or the log goes on after it: then ``catch_up``."""
        after = ("XRANGE", self.keys.log, f"({self.cursor.position or '0-0'}", "+", "COUNT", 1)
        stored, following = yield from self._read(
            [("HGET", self.keys.cursor(self.view_group), "position"), after]
        )
        return (stored or b"").decode() != self.cursor.position or bool(following)

    def join(self) -> Generator[Commands, Any, None]:
        """Once, with the first step that succeeded: from now on producers wait for this view. One that cannot
        fold holds nobody up.
        """
        if self.is_log_here and not self._has_joined:
            reply = (yield [join(self.keys, self.view_group)])[0]
            if isinstance(reply, Exception):
                raise reply
            self._has_joined = True

    def reset(self) -> None:
        """The connection was lost or the lease moved: what is held in memory is no longer to be trusted."""
        self._is_settled = False

    def commit(
        self, raw: list[RawEntry], then: tuple[Any, ...] | None = None
    ) -> Generator[Commands, Any, tuple[CommitAnswer, Any]]:
        """Fold and commit the next entries of the log. Returns the answer, and that of the command `then`,
        sent along with it.

        Raises Fenced, Retired, ViewBroken, ProjectionRedefined, LogRewound, LogTrimmed, and FoldFailed of the
        projection;
        InvariantBroken after REFUSALS_MAX refusals at one cursor.
        """
        batch = Batch(raw, self._codec, self.keys.where, self._any_type)
        if not self.is_log_here:
            yield from self._resolve_by_name(batch)
        following: Any = None
        for attempt in range(RESOLVE_MAX):
            changes = yield from self._folded(batch.events)
            after = batch.advance(self.cursor, self._fingerprint, self._fold.watermark)
            command = self._command(batch, changes, after)
            # Sent along once only: a second read would leave out what the first one was given.
            replies = yield [command] if then is None or attempt else [command, then]
            following = replies[1] if len(replies) > 1 else following
            if isinstance(replies[0], Exception):
                raise replies[0]
            answer = CommitAnswer(replies[0][0])
            if answer is CommitAnswer.OK:
                previous, self.cursor = self.cursor, after
                self.commits += 1
                if self.on_commit:
                    self.on_commit(
                        Progress(
                            self.projection.name, self.stream.name, self.partition, after, len(raw), previous
                        )
                    )
                yield from self.join()
                return answer, following
            self._refuse(answer, replies[0])
            if answer is not CommitAnswer.ODD:
                return answer, None
            if self.is_log_here:
                yield from self._resolve(batch, [place - 1 for place in replies[0][1]])
            self._fold.reset(self.cursor.watermark)
        return CommitAnswer.ODD, None

    def _refuse(self, answer: CommitAnswer, reply: list[Any]) -> None:
        """Say why, where a person must act; STALE, GAP and ODD heal themselves."""
        self._is_settled = answer is CommitAnswer.ODD
        if self.on_refusal:
            self.on_refusal(answer)
        if answer is CommitAnswer.BROKEN:
            raise ViewBroken(self.projection.name, reply[1].decode(), reply[2].decode())
        if answer is CommitAnswer.REDEFINED:
            raise ProjectionRedefined(
                self.projection.name, self.keys.where, reply[1].decode(), self._fingerprint
            )
        if answer is CommitAnswer.REWOUND:
            raise LogRewound(self.projection.name, self.keys.where, int(reply[1]), int(reply[2]))
        if answer is CommitAnswer.BEHIND:
            raise LogTrimmed(self.projection.name, self.keys.where, int(reply[1]), int(reply[2]))
        if answer is CommitAnswer.RETIRED:
            raise Retired(f"{self.view_group} of {self.keys.where}")
        if answer is CommitAnswer.FENCED:
            raise Fenced(
                f"{self.keys.where} of {self.group}: epoch {self.epoch} is older than {int(reply[1])}"
            )
        self._count_refusal()
        if answer is not CommitAnswer.ODD:
            log.warning(
                "commit_refused", answer=answer.name, projection=self.projection.name, where=self.keys.where
            )

    def _count_refusal(self) -> None:
        """Raise InvariantBroken when the batches after one cursor were refused REFUSALS_MAX times, and nobody
        else advanced.
        """
        self._refusals = self._refusals + 1 if self.cursor.position == self._refused_at else 1
        self._refused_at = self.cursor.position
        if self._refusals > REFUSALS_MAX:
            self._refusals = 0  # whoever drives may try again
            raise InvariantBroken(
                f"{self.projection.name} cannot get past {self._refused_at or 'the start'} of "
                f"{self.keys.where}: {REFUSALS_MAX} "
                "batches were refused and nobody else advanced. Run `aurastream check`; the log or its "
                "index was changed by hand."
            )

    def _after_cursor(self, raw: list[RawEntry]) -> list[RawEntry]:
        at = as_pair(self.cursor.position)
        if not raw or not self.cursor.position or as_pair(raw[0][0].decode()) > at:
            return raw
        if as_pair(raw[-1][0].decode()) <= at:
            return []
        return [entry for entry in raw if as_pair(entry[0].decode()) > at]

    def _resolve(self, batch: Batch, places: list[int]) -> Generator[Commands, Any, None]:
        """Ask the index and the log about the entries at these places, and let the batch decide what each is."""
        event_ids = batch.event_ids
        names = [event_ids[place] for place in places]
        fields = [field for name in names for field in (field_of(name), collided_field_of(name))]
        rows = (yield from self._read([("HMGET", self.keys.ids, *fields)]))[0]
        positions = list(dict.fromkeys(unpack_position(row) for row in rows if row is not None))
        answers: list[Any] = []
        if positions:
            answers = yield from self._read(
                [("XRANGE", self.keys.log, position, position) for position in positions]
            )
        found = {
            position: event_id_of(self.keys.where, answer[0]) if answer else None
            for position, answer in zip(positions, answers, strict=True)
        }
        batch.resolve(places, KnownIndex(dict(zip(fields, rows, strict=True)), found))

    def _resolve_by_name(self, batch: Batch) -> Generator[Commands, Any, None]:
        """The same for a log elsewhere: which position the full name of every event ID has, if any."""
        names = batch.event_ids
        if not names:
            return
        fields = [collided_field_of(name) for name in names]
        rows = (yield from self._read([("HMGET", self.keys.ids, *fields)]))[0]
        batch.resolve(list(range(len(names))), NamedIndex(dict(zip(fields, rows, strict=True))))

    def _folded(self, events: list[tuple[str, Any]]) -> Generator[Commands, Any, list[Change]]:
        """The changes of a batch's events, loading what the fold asks for."""
        steps = self._fold.batch(events)
        loaded: Any = None
        try:
            while True:
                need = steps.send(loaded)
                if isinstance(need, Expired):
                    key = self._table(f"{need.ranking}.expiry")
                    (members,) = yield from self._read([("ZRANGEBYSCORE", key, "-inf", need.until)])
                    loaded = [member.decode() for member in members]
                else:
                    replies = yield from self._read(
                        [("HMGET", self._table(table), *keys) for table, keys in need.items()]
                    )
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
                raise ViewBroken(self.projection.name, command[1], kind[0].decode()) from reply
        return replies

    def _table(self, name: str, part: str | None = None) -> str:
        return self.keys.view(self.projection.name, self.generation, name, part)

    def _command(self, batch: Batch, changes: list[Change], after: Cursor) -> tuple[Any, ...]:
        """The commit call of a batch that follows the cursor."""
        span, where = (
            (batch.positions[-1], self.cursor.position, batch.positions[0]),
            "here" if self.is_log_here else "elsewhere",
        )
        last = batch.checksum_parts[-1]
        return self._command_of(
            span, batch.digests, batch.packed, batch.judged, batch.dead, last, changes, after, where
        )

    def _command_of(
        self,
        span: tuple[bytes, str, bytes],
        digests: bytes,
        packed: bytes,
        odd: list[Judged],
        dead: dict[str, str],
        last: bytes,
        changes: list[Change],
        after: Cursor,
        where: str,
    ) -> tuple[Any, ...]:
        """The sections and their order are commit.lua's header."""
        name = self.view_group
        keys = [
            self.keys.cursor(name),
            self.keys.log,
            self.keys.ids,
            self.keys.lease(self.group),
            self.keys.meta,
        ]
        cursor, oddities = after.fields(), [part for item in odd for part in item.args()]
        operands: list[Any] = []
        operations: list[str] = []
        kinds = ""
        if dead:
            changes = [*changes, Change("", "h", put={key: reason.encode() for key, reason in dead.items()})]
        start = 13 + len(cursor) + len(oddities)
        for change in changes:
            keys.append(self._table(change.table, change.part) if change.table else self.keys.dead(name))
            kinds += change.kind
            for verb, args in _writes(change):
                operations.append(
                    f"{len(keys)} {verb} {start + len(operands)} {start + len(operands) + len(args) - 1}\n"
                )
                operands += args
        lengths = f"{len(cursor)} {len(oddities)}\n{''.join(operations)}"
        epoch = "" if self.epoch is None else self.epoch
        head = (*span, digests, packed, self._fingerprint, kinds, lengths, epoch, where, last, after.repairs)
        return _COMMIT.call(keys, (*head, *cursor, *oddities, *operands))


def _writes(change: Change) -> list[tuple[str, list[Any]]]:
    """A change as commands and their operands; no row is both put and dropped.

    What is put comes first: a key that loses its last row is gone, and in a slot that is being moved a
    cluster refuses to make it again, in the middle of the script.
    """
    writes: list[tuple[str, list[Any]]] = []
    is_hash = change.kind == "h"
    if change.put and is_hash:
        writes.append(("HSET", [part for pair in change.put.items() for part in pair]))
    elif change.put:
        writes.append(("ZADD", [part for key, score in change.put.items() for part in (score, key)]))
    if change.drop:
        writes.append(("HDEL" if is_hash else "ZREM", change.drop))
    return writes
