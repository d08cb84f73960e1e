"""
Apply a batch of one partition to one view, exactly once.

    raw entries -> verify, decode -> load the states they touch -> fold (pure) -> commit.lua: view and cursor
    in one script

Invariant: view == fold(log[.. cursor]); cursor and view move in one script or not at all. Delivery is at
least once, so every path here may run twice; only the commit changes a view. On start, STALE, GAP or a lost
connection: forget all states and continue from the cursor, whatever the group, the transport or the lease
says.

A ``Lane`` is generators of questions (streams/drive.py): no socket, no clock, no thread in it. Who drives it
decides how it waits: consumer.py over blocking connections, a host's event loop, a simulation. Where entries
come from is the driver's too: ``commit`` wants the next entries of the log, ``take`` heals whatever it is
given by reading the log itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import msgspec

from aurastream.projections.engine.commit import Commit, CommitAnswer, Source, ViewKeys, held_s
from aurastream.projections.engine.definition import start_of
from aurastream.projections.engine.errors import (
    FoldFailed,
    LogRewound,
    ProjectionRedefined,
    TrimmedUnread,
    ViewBroken,
)
from aurastream.projections.engine.evidence import KnownIndex, NamedIndex, event_id_of
from aurastream.projections.engine.fold import CACHE_MAX, PAUSE, Fold, Placed
from aurastream.projections.engine.intake import Batch
from aurastream.projections.engine.pace import LanePace
from aurastream.projections.engine.projection import AnyProjection
from aurastream.projections.tables import Change, Due, Need
from aurastream.streams import (
    Ask,
    Asking,
    Command,
    Cursor,
    InvariantBroken,
    Keys,
    Logger,
    Position,
    RawEntry,
    Reply,
    Span,
    Stream,
    Unread,
    collided_field_of,
    cursor_of,
    field_of,
    join,
    relay,
    sound,
    unpack_position,
)

REFUSALS_MAX = 50  # batches refused in a row at one cursor before a lane gives up
RESOLVE_MAX = 3  # times a batch may be answered ODD before it is read anew

log = Logger(__name__)


class Progress(msgspec.Struct, frozen=True):
    """One committed batch, for whoever watches. previous: the cursor before it."""

    projection: str
    stream: str
    partition: int
    cursor: Cursor
    events: int
    previous: Cursor


class Fenced(Exception):
    """A newer owner holds the partition's lease; nothing was written. The driver lets it go."""


class Retired(Exception):
    """The generation was given up; nothing was written or will be. The driver lets it go for good."""


class Lane:
    """One projection's way through one partition.

    generation: of the view; cursor, tables, dead entries and the place among those producers wait for are
    its own. group: the consumer group to read by and to hold the lease of; the generation's
    (streams/keys.py) unless it is set. epoch: of the lease under which it commits; None compares no lease
    (the cursor alone decides). batch_max: entries of a commit; the settings' unless it is given.

    A log that another system keeps (Kafka) is not here: nothing can be read back from it, so the caller must
    hand over what follows the cursor, and event IDs are known by full name, as no entry can be looked at to
    tell two of one digest apart.
    """

    states_max: ClassVar[int] = CACHE_MAX
    has_group: ClassVar[bool] = False  # that follows the cursor

    def __init__(
        self,
        projection: AnyProjection,
        stream: Stream,
        partition: int,
        *,
        generation: int = 1,
        batch_max: int | None = None,
    ) -> None:
        self.projection, self.stream, self.partition = projection, stream, partition
        self.keys: Keys = stream.keys[partition]
        self.generation, self.is_log_here = generation, stream.is_log_here
        self.batch_max = batch_max or stream.settings.batch_max
        self.pace = LanePace(self.batch_max, stream.settings.commit_ms / 1000, projection.name)
        self.view = ViewKeys(self.keys, projection.name, generation)
        self.epoch: int | None = None
        self.cursor = Cursor()
        self.commits = 0
        self.on_commit: Callable[[Progress], None] | None = None
        self.on_refusal: Callable[[CommitAnswer], None] | None = None
        self._is_settled = self._has_joined = False
        self.is_grouped = True
        self._codec = projection.codec()
        self._fold = Fold(projection, self.keys.where, self.states_max)
        self._any_type = projection.events is None
        self._fingerprint = projection.fingerprint
        self._refusals, self._refused_at = 0, ""

    @property
    def group(self) -> str:
        return self.view.lease_group

    @group.setter
    def group(self, group: str) -> None:
        self.view.lease_group = group

    def asks(self, *commands: Command) -> list[Ask]:
        """Commands as questions to the partition's node."""
        return [Ask(self.keys.log, command) for command in commands]

    def settle(self, *, is_trim_passed: bool = False) -> Asking[None]:
        """Take the cursor from the server and forget what was folded.

        is_trim_passed: what was trimmed before it was read is had from the archive.
        Raises ProjectionRedefined, TrimmedUnread, Retired.
        """
        reply, trimmed = sound(
            (yield self.asks(("HGETALL", self.view.cursor), ("HGET", self.keys.meta, "trimmed")))
        )
        if b"retired" in reply[::2]:
            raise Retired(f"{self.view.group} of {self.keys.where}")
        self.cursor = cursor_of(reply)
        self._fold.reset(self.cursor.watermark)
        self.pace.rest()
        self._is_settled = True
        if start_of(self.cursor, self._fingerprint) is None:
            raise ProjectionRedefined(
                self.projection.name, self.keys.where, self.cursor.fingerprint, self._fingerprint
            )
        if self.is_log_here and not is_trim_passed and self.cursor.read < int(trimmed or 0):
            raise TrimmedUnread(self.projection.name, self.keys.where, self.cursor.read, int(trimmed))

    def take(self, raw: list[RawEntry]) -> Asking[None]:
        """Reach the end of a batch, be it old, overlapping or ahead: what is missing is read from the log."""
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
            if self.is_log_here:
                (fresh,) = sound((yield self.asks(self._following(last, self.pace.ask()))))
            else:
                fresh = self._after_cursor(raw)

    def catch_up(self) -> Asking[None]:
        """Reach the end of the log as it is now: for a start, a take-over, a new projection."""
        yield from self.settle()
        while self.is_log_here:
            (raw,) = sound((yield self.asks(self._following("+", self.pace.ask()))))
            if not raw:
                self.pace.rest()
                yield from self.join()
                return
            answer, _ = yield from self.commit(raw)
            if answer is not CommitAnswer.OK:
                yield from self.settle()

    def join(self) -> Asking[None]:
        """Once, with the first step that succeeded: from now on producers wait for this view. One that
        cannot fold holds nobody up.
        """
        if self.is_log_here and not self._has_joined:
            sound((yield self.asks(join(self.keys, self.view.group))))
            self._has_joined = True

    def reset(self) -> None:
        """The connection was lost or the lease moved: what is held in memory is no longer to be trusted."""
        self._is_settled = False

    def commit(
        self, raw: list[RawEntry], *, reads_on: bool = False
    ) -> Asking[tuple[CommitAnswer, list[RawEntry]]]:
        """Fold and commit the next entries of the log. Returns the answer, and what follows them in the log
        where that was to be read along with it.

        Raises Fenced, Retired, ViewBroken, ProjectionRedefined, LogRewound, TrimmedUnread; InvariantBroken
        after REFUSALS_MAX refusals at one cursor; FoldFailed of the projection, and Unread at an event that
        waits for a better build, both once all before the event is committed.
        """
        try:
            return (yield from self._commit(raw, reads_on=reads_on))
        except (Unread, FoldFailed) as error:
            if isinstance(error, FoldFailed) and not error.is_exact:
                raise
            before = [entry for entry in raw if Position.parse(entry[0]) < Position.parse(error.position)]
            if before:
                self._fold.reset(self.cursor.watermark)
                yield from self._commit(before)
            raise

    def _commit(
        self, raw: list[RawEntry], *, reads_on: bool = False
    ) -> Asking[tuple[CommitAnswer, list[RawEntry]]]:
        batch = Batch(Span(raw), self._codec, self.keys.where, self._any_type)
        if not self.is_log_here:
            yield from self._judge_by_name(batch)
        is_timed = self.pace.has_read(len(raw), batch.read_bytes)
        for _ in range(RESOLVE_MAX):
            commit = yield from self._folded_commit(batch)
            asks = self.asks(commit.command(self.view, self.epoch), *[("TIME",)] * is_timed)
            if reads_on:
                asks += self.asks(self._following("+", self.pace.ask(), after=commit.after.position))
            reply, *more = sound((yield asks))
            answer = CommitAnswer(reply[0])
            if answer is CommitAnswer.OK:
                if is_timed:
                    self.pace.has_committed(len(raw), held_s(reply, more[0]))
                self.is_grouped = bool(reply[1])
                self._move(commit.after, len(raw))
                yield from self.join()
                return answer, more[-1] if reads_on else []
            self._refuse(answer, reply)
            if answer is not CommitAnswer.ODD:
                return answer, []
            if self.is_log_here:
                yield from self._judge(batch, [place - 1 for place in reply[1]])
            self._fold.reset(self.cursor.watermark)
        return CommitAnswer.ODD, []

    def _folded_commit(self, batch: Batch) -> Asking[Commit]:
        """The commit of a batch that follows the cursor."""
        changes = yield from self._folded(batch.events)
        start = start_of(self.cursor, self._fingerprint, differs=batch.differs) or self.cursor
        return Commit(
            before=self.cursor,
            after=batch.advance(start, start.fingerprint, self._fold.watermark),
            first=batch.positions[0],
            last=batch.checksum_parts[-1],
            source=Source.HERE if self.is_log_here else Source.ELSEWHERE,
            changes=changes,
            dead=batch.dead,
            digests=batch.digests,
            packed=batch.packed,
            judged=batch.judged,
            group=self.group if self.has_group else "",
        )

    def _move(self, after: Cursor, events: int) -> None:
        """The commit is done."""
        previous, self.cursor = self.cursor, after
        self.commits += 1
        if self.on_commit:
            done = Progress(self.projection.name, self.stream.name, self.partition, after, events, previous)
            self.on_commit(done)

    def _refuse(self, answer: CommitAnswer, reply: list[Reply]) -> None:
        """Say why, where a person must act; STALE, GAP and ODD heal themselves."""
        self._is_settled = answer is CommitAnswer.ODD
        if self.on_refusal:
            self.on_refusal(answer)
        name, where = self.projection.name, self.keys.where
        match answer:
            case CommitAnswer.BROKEN:
                raise ViewBroken(name, reply[1].decode(), reply[2].decode())
            case CommitAnswer.REDEFINED:
                raise ProjectionRedefined(name, where, reply[1].decode(), self._fingerprint)
            case CommitAnswer.REWOUND:
                raise LogRewound(name, where, int(reply[1]), int(reply[2]))
            case CommitAnswer.BEHIND:
                raise TrimmedUnread(name, where, int(reply[1]), int(reply[2]))
            case CommitAnswer.RETIRED:
                raise Retired(f"{self.view.group} of {where}")
            case CommitAnswer.FENCED:
                epoch = int(reply[1])
                raise Fenced(f"{where} of {self.group}: epoch {self.epoch} is older than {epoch}")
        self._count_refusal()
        if answer is not CommitAnswer.ODD:
            log.warning("commit_refused", answer=answer.name, projection=name, where=where)

    def _count_refusal(self) -> None:
        """Raise InvariantBroken after REFUSALS_MAX refusals at one cursor from which nobody else advanced."""
        self._refusals = self._refusals + 1 if self.cursor.position == self._refused_at else 1
        self._refused_at = self.cursor.position
        if self._refusals > REFUSALS_MAX:
            self._refusals = 0  # whoever drives may try again
            raise InvariantBroken(
                f"{self.projection.name} cannot get past {self._refused_at or 'the start'} of "
                f"{self.keys.where}: {REFUSALS_MAX} batches were refused and nobody else advanced. "
                "Run `aurastream check`; the log or its index was changed by hand."
            )

    def _following(self, until: str, count: int, after: str = "") -> Command:
        """The read of the log after the cursor, or after that position."""
        place = after or self.cursor.position or "0-0"
        return ("XRANGE", self.keys.log, f"({place}", until, "COUNT", count)

    def _after_cursor(self, raw: list[RawEntry]) -> list[RawEntry]:
        at = Position.parse(self.cursor.position)
        if not raw or not self.cursor.position or Position.parse(raw[0][0]) > at:
            return raw
        if Position.parse(raw[-1][0]) <= at:
            return []
        return [entry for entry in raw if Position.parse(entry[0]) > at]

    def _judge(self, batch: Batch, places: list[int]) -> Asking[None]:
        """Ask the index and the log about the entries at these places; the batch decides what each is."""
        event_ids = batch.event_ids
        names = [event_ids[place] for place in places]
        fields = [field for name in names for field in (field_of(name), collided_field_of(name))]
        (rows,) = yield from self._read(("HMGET", self.keys.ids, *fields))
        positions = list(dict.fromkeys(unpack_position(row) for row in rows if row is not None))
        looks = [("XRANGE", self.keys.log, position, position) for position in positions]
        answers = (yield from self._read(*looks)) if looks else []
        held = {
            position: event_id_of(self.keys.where, entries[0]) if entries else None
            for position, entries in zip(positions, answers, strict=True)
        }
        batch.resolve(places, KnownIndex(dict(zip(fields, rows, strict=True)), held))

    def _judge_by_name(self, batch: Batch) -> Asking[None]:
        """The same for a log elsewhere: which position the full name of every event ID has, if any."""
        names = batch.event_ids
        if not names:
            return
        fields = [collided_field_of(name) for name in names]
        (rows,) = yield from self._read(("HMGET", self.keys.ids, *fields))
        batch.resolve(list(range(len(names))), NamedIndex(dict(zip(fields, rows, strict=True))))

    def _folded(self, events: list[Placed]) -> Asking[list[Change]]:
        """The changes of a batch's events, loading what the fold needs."""
        return relay(self._fold.batch(events), self._loaded)

    def _loaded(self, need: Need) -> Asking[list[Reply]]:
        if need is PAUSE:
            return (yield [])
        key = self.view.table(need.table)
        if isinstance(need, Due):
            (members,) = yield from self._read(("ZRANGEBYSCORE", key, "-inf", need.until))
            return [member.decode() for member in members]
        (rows,) = yield from self._read(("HMGET", key, *need.keys))
        return list(rows)

    def _read(self, *commands: Command) -> Asking[list[Reply]]:
        """The answers of reads of the view. Raises ViewBroken at a key of another type."""
        replies = yield self.asks(*commands)
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, Exception):
                if not str(reply).startswith("WRONGTYPE"):
                    raise reply
                (kind,) = sound((yield self.asks(("TYPE", command[1]))))
                raise ViewBroken(self.projection.name, command[1], kind.decode()) from reply
        return replies
