"""
One call of append, without its connections: what to send, and what the answers mean.

    admitted events -> Append requests: one script call per 500 and partition (append.lua)
    Appending.asks -> whoever drives puts them -> Appending.take: placed for good, or left to be sent again

Always true: the events of one call and partition go in order, and a request is in the log whole or not at
all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import NoReturn
from zlib import crc32

import msgspec

from aurastream.streams.codec import Codec
from aurastream.streams.drive import Ask, Command, Questions, Reply
from aurastream.streams.entries import Envelope, check_identifiers
from aurastream.streams.errors import (
    BacklogFull,
    InvalidEvent,
    InvariantBroken,
    NotReplicated,
    ServerRefuses,
    UnknownOutcome,
    VersionConflict,
)
from aurastream.streams.events import Event
from aurastream.streams.index import field_of
from aurastream.streams.keys import Keys, partition_of
from aurastream.streams.pressure import Budget, Gate
from aurastream.streams.wire import Script

AHEAD_MAX = timedelta(hours=24)  # event time further ahead of the clock is a broken clock, not an early fact


def admitted(codec: Codec, batch: list[Event]) -> list[bytes]:
    """Every event's JSON. Raises InvalidEvent, naming the first that must not enter."""
    encoded = codec.encode_each(batch) or _encoded_singly(codec, batch)
    check_identifiers(batch)
    _check_times(batch)
    return encoded


def _encoded_singly(codec: Codec, batch: list[Event]) -> list[bytes]:
    encoded: list[bytes] = []
    for index, event in enumerate(batch):
        try:
            encoded.append(codec.encode(event))
        except InvalidEvent as error:
            raise InvalidEvent(error.event_id, error.reason, index) from error.__cause__
    return encoded


def _check_times(batch: list[Event]) -> None:
    """Raise InvalidEvent for the first event from the future, or whose time is none (a struct checks no
    types).
    """
    latest = datetime.now(UTC) + AHEAD_MAX
    times = [event.occurred_at for event in batch]
    try:
        if max(times) <= latest:
            return
    except TypeError as error:
        index = next(index for index, at in enumerate(times) if not isinstance(at, datetime))
        raise InvalidEvent(
            batch[index].event_id, f"occurred_at {times[index]!r} is no datetime", index
        ) from error
    index = next(index for index, at in enumerate(times) if at > latest)
    raise InvalidEvent(batch[index].event_id, f"occurred_at {times[index]} is more than 24 h ahead", index)


BATCH_MAX = 500  # events a script call: bounds how long the server is busy with one of them

APPEND = Script(
    __file__,
    "append/names.lua",
    "append/places.lua",
    "append/known.lua",
    "append/versions.lua",
    "append/budget.lua",
    "append/entities.lua",
    "append.lua",
)


class Outcome(IntEnum):
    """What became of an appended event."""

    APPENDED = 0
    DUPLICATE = 1


class Appended(msgspec.Struct, frozen=True):
    """Where an event is in the log. A duplicate's position is that of its first append."""

    partition: int
    position: str
    outcome: Outcome


class AppendAnswer(IntEnum):
    """The first item of what append.lua answers; append/names.lua has the same."""

    OK = 0
    CONFLICT = 1
    DANGLING = 2
    FULL = 3
    REGROUP = 4
    EARLY = 5


class Replicas(msgspec.Struct, frozen=True):
    """How many replicas must have an append before it counts as done, and how long they may take."""

    wanted: int
    wait_ms: int


class AppendHead(msgspec.Struct, omit_defaults=True):
    """The first argument of append.lua, as msgpack: text and numbers, as the server's knows no bytes."""

    subjects: list[str] = []
    expected: dict[str, int] = {}
    budget: Budget | None = None
    groups: list[str] = []
    spare: bool = False


class Append(msgspec.Struct):
    """A request: up to BATCH_MAX events of one partition.

    indexes: of the events, in the caller's batch. after: digest of an event of the request before, or b"".
    subjects, expected: in a stream with versions, else empty. is_spare: a full server takes it (spare.py).
    """

    keys: Keys
    indexes: list[int]
    digests: bytes
    lines: bytes
    after: bytes
    subjects: list[str]
    expected: dict[str, int]
    is_spare: bool = False

    def command(self, gate: Gate) -> Command:
        """The call of the script as this gate makes it now."""
        keys = self.keys
        budget, groups = gate.question(keys.partition)
        head = AppendHead(self.subjects, self.expected, budget, groups, self.is_spare)
        names = [keys.log, keys.ids, keys.meta, keys.versions, keys.entities]
        if budget is not None:
            names += [keys.groups, *map(keys.cursor, groups)]
        return APPEND.call(names, (msgspec.msgpack.encode(head), self.digests, self.lines, self.after))


class Plan(msgspec.Struct, frozen=True):
    """How a stream's events become requests. expected: subject -> version, in a stream that is versioned.

    is_spare: a full server takes them.
    """

    partitions: Sequence[Keys]
    is_versioned: bool
    expected: Mapping[str, int] = {}
    is_spare: bool = False

    def requests(self, batch: Sequence[Event | Envelope], encoded: list[bytes]) -> list[Append]:
        """Every event in one of them, in order."""
        by_partition: dict[int, list[int]] = {}
        count = len(self.partitions)
        for index, event in enumerate(batch):
            by_partition.setdefault(partition_of(event.subject, count), []).append(index)
        requests = []
        for partition, indexes in by_partition.items():
            after = b""
            for start in range(0, len(indexes), BATCH_MAX):
                part = indexes[start : start + BATCH_MAX]
                request = self._request(self.partitions[partition], part, batch, encoded)
                request.after, after = after, request.digests[:8]
                requests.append(request)
        return requests

    def _request(
        self, keys: Keys, part: list[int], batch: Sequence[Event | Envelope], encoded: list[bytes]
    ) -> Append:
        digests = b"".join([field_of(batch[index].event_id) for index in part])
        lines = b"".join([b"%d %b\n" % (crc32(encoded[index]), encoded[index]) for index in part])
        if not self.is_versioned:
            return Append(keys, part, digests, lines, b"", [], {}, self.is_spare)
        subjects = [batch[index].subject for index in part]
        expected = {name: self.expected[name] for name in self.expected.keys() & set(subjects)}
        return Append(keys, part, digests, lines, b"", subjects, expected, self.is_spare)


class Appending:
    """A call under way. left: the requests that are still to be sent."""

    def __init__(self, requests: list[Append], gate: Gate, replicas: Replicas | None) -> None:
        self.left, self._gate, self._replicas = requests, gate, replicas
        self._placed: dict[int, Appended] = {}

    def asks(self) -> list[Ask]:
        """What to send now; WAIT follows each request in its connection, where alone it means something."""
        asks: list[Ask] = []
        for request in self.left:
            asks.append(Ask(request.keys.log, request.command(self._gate)))
            if self._replicas is not None:
                asks.append(Ask(request.keys.log, ("WAIT", self._replicas.wanted, self._replicas.wait_ms)))
        return asks

    def take(self, answers: list[Reply]) -> BacklogFull | None:
        """Place what was answered for good; the rest is left. Returns why, where that is a full log.

        answers: to ``asks``, without errors. Raises VersionConflict, NotReplicated, InvariantBroken.
        """
        if self._replicas is not None:
            self._check_replicated(self._replicas, answers[1::2])
            answers = answers[::2]
        left: list[Append] = []
        full: list[tuple[Append, Reply]] = []
        for request, answer in zip(self.left, answers, strict=True):
            code = AppendAnswer(answer[0])
            if code is AppendAnswer.OK:
                self._place(request, answer[1], set(answer[2]))
                self._gate.passed(request.keys.partition)
                continue
            left.append(request)
            if code is AppendAnswer.FULL:
                full.append((request, answer))
            elif code is AppendAnswer.REGROUP:
                self._gate.learn(request.keys.partition, answer[1:])
            elif code is not AppendAnswer.EARLY:
                _refuse(request, code, answer)
        self.left = left
        return self._worst(full) if full else None

    def give_up(
        self, error: ServerRefuses | UnknownOutcome, questions: Questions, batch: Sequence[Event | Envelope]
    ) -> None:
        """Say in the error what is known of each event: in the log for sure, perhaps (its answer was lost),
        or not. questions: made of ``asks``.
        """
        per_request = 1 if self._replicas is None else 2
        unsure: set[str] = set()
        for number, request in enumerate(self.left):
            index = number * per_request
            if index not in questions.left and not isinstance(questions.answers[index], Exception):
                code, positions, *_ = questions.answers[index]
                if code == AppendAnswer.OK:
                    self._place(request, positions, set())
            elif index in questions.unsure:
                unsure.update(batch[event].event_id for event in request.indexes)
        stream = self.left[0].keys.stream
        for event, at in self._placed.items():
            error.appended[batch[event].event_id] = f"{stream}/{at.partition}/{at.position}"
        if isinstance(error, UnknownOutcome):
            error.unknown = frozenset(unsure)

    def result(self) -> list[Appended]:
        """One per event, in the order given."""
        return [self._placed[index] for index in sorted(self._placed)]

    def _place(self, request: Append, positions: list[bytes], duplicates: set[int]) -> None:
        partition, placed = request.keys.partition, self._placed
        for number, (index, position) in enumerate(zip(request.indexes, positions, strict=True), start=1):
            outcome = Outcome.DUPLICATE if number in duplicates else Outcome.APPENDED
            placed[index] = Appended(partition, position.decode(), outcome)

    def _worst(self, full: list[tuple[Append, Reply]]) -> BacklogFull:
        """Of the partition whose slowest group is furthest behind."""
        request, (_, group, events, size) = max(full, key=lambda pair: int(pair[1][2]))
        return BacklogFull(
            request.keys.where,
            group.decode(),
            (int(events), int(size)),
            self._gate.limits,
            sum(len(request.indexes) for request in self.left),
        )

    @staticmethod
    def _check_replicated(replicas: Replicas, confirmed: list[Reply]) -> None:
        if confirmed and (least := min(map(int, confirmed))) < replicas.wanted:
            raise NotReplicated(replicas.wanted, least, replicas.wait_ms)


def _refuse(request: Append, code: AppendAnswer, answer: Reply) -> NoReturn:
    """What the script will never take."""
    if code is AppendAnswer.CONFLICT:
        subject = answer[1].decode()
        raise VersionConflict(subject, request.expected[subject], int(answer[2]))
    raise InvariantBroken(
        f"the index of {request.keys.where} names {answer[2].decode()} for event {answer[1].decode()!r}, but "
        "the log has no such entry: it was deleted by hand. Nothing was appended; restore the entry or its "
        "index row."
    )
