"""
The log of a stream: append, and read by position or by time.

    events -> encode and check all -> group by partition -> one append.lua call per 500 and partition ->
        positions

Always true: an event ID is in the live log once, however often it is appended; the events of one call and
partition go in order; a call's chunk of up to 500 events per partition is in the log whole or not at all. An
event refused by the checks stops the call before anything is sent. A producer a budget ahead of the slowest
group waits or is told (pressure.py).

Consuming by group is in groups.py; the streams' registry and the start-up checks are in registry.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import partial
from typing import Any
from zlib import crc32

import msgspec

from aurastream.streams.codec import Codec, RawEntry, check_identifiers, entry_json
from aurastream.streams.connection import Server
from aurastream.streams.drive import Ask, Asking, Command, sound
from aurastream.streams.errors import (
    BacklogFull,
    InvalidEvent,
    InvariantBroken,
    NotReplicated,
    StreamError,
    VersionConflict,
)
from aurastream.streams.events import Event
from aurastream.streams.facts import HERE, StreamFacts
from aurastream.streams.index import field_of
from aurastream.streams.keyring import Keyring
from aurastream.streams.keys import Keys, partition_of
from aurastream.streams.passing import retried
from aurastream.streams.pressure import Gate, Patience
from aurastream.streams.script import Script
from aurastream.streams.settings import Ack, Settings
from aurastream.streams.system import is_system
from aurastream.streams.wire import Wire
from aurastream.streams.wires import Wires

BATCH_MAX = 500  # events a script call: bounds how long the server is busy with one of them
READ_MAX = 1_000  # entries a read
ROUNDS_MAX = 100  # times a call sends what was refused again for another reason than a full log
AHEAD_MAX = timedelta(
    hours=24
)  # event time ahead of the clock beyond this is a broken clock, not an early fact

_APPEND = Script(__file__, "append.lua")


class Outcome(IntEnum):
    """What became of an appended event."""

    APPENDED = 0
    DUPLICATE = 1


class Appended(msgspec.Struct, frozen=True):
    """Where an event is in the log. A duplicate's position is that of its first append."""

    partition: int
    position: str
    outcome: Outcome


class Entry(msgspec.Struct, frozen=True):
    """An event at its place."""

    partition: int
    position: str
    event: Event


class _AppendAnswer(IntEnum):
    OK = 0
    CONFLICT = 1
    DANGLING = 2
    FULL = 3
    REGROUP = 4
    EARLY = 5


class _Chunk(msgspec.Struct):
    """Up to BATCH_MAX events of one partition. args: what append.lua takes first. after: digest of an event
    of the chunk before.
    """

    partition: int
    indexes: list[int]
    args: tuple[bytes, bytes, str, str]
    after: bytes


class Stream:
    """One stream of a server: its partitions and its codec. Made by ``registry.open_stream``. Not for several
    threads.
    """

    def __init__(
        self, server: Server, name: str, facts: StreamFacts, codec: Codec, settings: Settings
    ) -> None:
        self.server, self.name, self.facts, self.codec, self.settings = server, name, facts, codec, settings
        self.partitions, self.versioned, self.is_replay = facts.partitions, facts.versioned, facts.is_replay
        self.is_log_here, self.is_system = facts.log == HERE, is_system(name, facts)
        self.keyring = Keyring(server, settings)
        self.keys = tuple(Keys(name, partition) for partition in range(facts.partitions))
        self.wires = Wires(server, settings.attempts_max)
        self._gate, self._open_gate = (
            Gate(settings),
            Gate(settings.model_copy(update={"budget_events": 0, "budget_bytes": 0})),
        )

    def partition_of(self, subject: str) -> int:
        """The partition that holds the subject's events."""
        return partition_of(subject, self.partitions)

    def append(
        self, events: Iterable[Event], *, expected: Mapping[str, int] | None = None, ack: Ack | None = None
    ) -> list[Appended]:
        """Put the events into the log, each event ID once. Returns one Appended per event, in the order
        given.

        expected: subject -> number of its events the caller has seen (streams created ``versioned``); others
            are refused.
        ack: what success vouches for; default: the settings'.
        Raises InvalidEvent and ServerUnfit (it cannot vouch so) before anything is sent; VersionConflict;
        NotReplicated, BacklogFull and UnknownOutcome, after which the same events may be appended again.
        """
        batch = list(events)
        if not self.is_log_here:
            raise StreamError(
                f"the log of stream {self.name!r} is in Kafka: produce to its topic. Here are only its views."
            )
        level = ack or self.settings.ack
        self.server.check_ack(level)
        if not batch:
            return []
        if expected and not self.versioned:
            raise StreamError(
                f"stream {self.name!r} keeps no versions. Create it with versioned=True to expect one."
            )
        batch = self.keyring.sealed(batch, level)
        chunks = self._chunks(batch, self._encode(batch), expected or {})
        what = f"append of {len(batch)} events to {self.name}"
        placed: list[Appended | None] = [None] * len(batch)
        patience = Patience(self.settings)
        left, rounds = chunks, 0
        while left:
            answers = retried(
                what, self.settings.attempts_max, partial(self._send, left, level), self.reconnect
            )
            left, full = self._sort_out(left, answers, placed)
            if full is not None:
                patience.wait(full)
            elif left and (rounds := rounds + 1) > ROUNDS_MAX:
                raise StreamError(
                    f"{what}: the groups that read it change faster than it can be asked. Append again later."
                )
        return [item for item in placed if item is not None]

    def appending(self, events: Iterable[Event]) -> Asking[list[Appended]]:
        """``append`` for who drives the log by generators: yields (routing key, command) pairs and is sent
        the answers.

        May be driven again after a lost connection. Not held back by budgets: see pressure.py. Raises as
        append does, the server's errors as they are.
        """
        batch = list(events)
        if not batch:
            return []
        batch = yield from self.keyring.sealing(batch)
        chunks = self._chunks(batch, self._encode(batch), {})
        wait = (
            [("WAIT", self.settings.replicas, self.settings.wait_ms)]
            if self.settings.ack is Ack.REPLICA
            else []
        )
        answers = sound(
            (
                yield [
                    Ask(self.keys[chunk.partition].log, command)
                    for chunk in chunks
                    for command in [self._command(chunk, self._open_gate), *wait]
                ]
            )
        )
        vouched = [int(answer) for answer in answers[1::2]] if wait else []
        if vouched and min(vouched) < self.settings.replicas:
            raise NotReplicated(self.settings.replicas, min(vouched), self.settings.wait_ms)
        placed: list[Appended | None] = [None] * len(batch)
        for chunk, answer in zip(chunks, answers[:: 2 if wait else 1], strict=True):
            self._place(chunk, answer, placed)
        return [item for item in placed if item is not None]

    def read(
        self, partition: int, after: str = "0-0", until: str = "+", count: int = READ_MAX
    ) -> list[Entry]:
        """Up to `count` entries after a position (not including it), up to and including `until`.

        Raises DamagedEntry at an entry that cannot be trusted, UnknownEventVersion at one from a newer build.
        Events of types this stream's codec does not know are left out.
        """
        raw = self.read_raw(partition, after, until, count)
        return [entry for entry in (self._entry(partition, item) for item in raw) if entry is not None]

    def read_raw(
        self, partition: int, after: str = "0-0", until: str = "+", count: int = READ_MAX
    ) -> list[RawEntry]:
        """The same undecoded: (position, [field, value, ..])."""

        command = ("XRANGE", self.keys[partition].log, f"({after}", until, "COUNT", count)
        answer: list[RawEntry] = self.ask(partition, command, what=f"read of {self.name}/{partition}")[0]
        return answer

    def read_between(self, partition: int, since: datetime, until: datetime) -> Iterator[Entry]:
        """Entries appended (server time, not event time) from `since` up to but not including `until`."""
        after, last = f"{_ms(since) - 1}-18446744073709551615", f"{_ms(until) - 1}-18446744073709551615"
        while raw := self.read_raw(partition, after, last):
            yield from (
                entry for entry in (self._entry(partition, item) for item in raw) if entry is not None
            )
            after = raw[-1][0].decode()

    def ask(self, partition: int, *commands: Command, what: str = "") -> list[Any]:
        """The answers of the partition's node, put again after a passing fault; the first error of the server is raised.

        what: for the sentence, when nobody answers. Raises UnknownOutcome.
        """
        log = self.keys[partition].log
        return self.wires.ask(
            [Ask(log, command) for command in commands], what or f"a question to {self.keys[partition].where}"
        )

    def close(self) -> None:
        """Close this stream's connections."""
        self.wires.close()
        self.keyring.close()

    def wire(self, partition: int) -> Wire:
        """This stream's own connection to the partition's node."""
        return self.wires.of(self.keys[partition].log)

    def reconnect(self) -> None:
        """Drop the connections and learn the cluster's nodes anew; the next use connects."""
        self.close()
        self.server.refresh()

    def _entry(self, partition: int, raw: RawEntry) -> Entry | None:
        where = f"{self.name}/{partition}/{raw[0].decode()}"
        event = self.codec.decode(entry_json(where, raw[1]), where)
        return None if event is None else Entry(partition, raw[0].decode(), event)

    def _encode(self, batch: list[Event]) -> list[bytes]:
        """Every event's JSON, once all pass every check."""
        encoded = self.codec.encode_each(batch) or self._encode_singly(batch)
        check_identifiers(batch)
        _check_times(batch)
        return encoded

    def _encode_singly(self, batch: list[Event]) -> list[bytes]:
        encoded: list[bytes] = []
        for index, event in enumerate(batch):
            try:
                encoded.append(self.codec.encode(event))
            except InvalidEvent as error:
                raise InvalidEvent(error.event_id, error.reason, index) from error.__cause__
        return encoded

    def _chunks(self, batch: list[Event], encoded: list[bytes], expected: Mapping[str, int]) -> list[_Chunk]:
        """The script calls, in order; each with up to BATCH_MAX events of one partition."""
        by_partition: dict[int, list[int]] = {}
        partitions = self.partitions
        for index, event in enumerate(batch):
            by_partition.setdefault(partition_of(event.subject, partitions), []).append(index)
        chunks = []
        for partition, indexes in by_partition.items():
            for start in range(0, len(indexes), BATCH_MAX):
                part = indexes[start : start + BATCH_MAX]
                after = field_of(batch[indexes[start - BATCH_MAX]].event_id) if start else b""
                chunks.append(_Chunk(partition, part, self._args(part, batch, encoded, expected), after))
        return chunks

    def _args(
        self, part: list[int], batch: list[Event], encoded: list[bytes], expected: Mapping[str, int]
    ) -> tuple[bytes, bytes, str, str]:
        digests = b"".join([field_of(batch[index].event_id) for index in part])
        lines = b"".join([b"%d %b\n" % (crc32(encoded[index]), encoded[index]) for index in part])
        subjects, wanted = "", ""
        if self.versioned:
            subjects = "".join([f"{batch[index].subject}\n" for index in part])
            here = {batch[index].subject for index in part}
            wanted = "".join(
                [f"{subject} {version}\n" for subject, version in expected.items() if subject in here]
            )
        return digests, lines, subjects, wanted

    def _command(self, chunk: _Chunk, gate: Gate) -> tuple[Any, ...]:
        keys = self.keys[chunk.partition]
        asked_keys, asked = gate.question(keys, chunk.after)
        return _APPEND.call(
            (keys.log, keys.ids, keys.meta, keys.versions, keys.entities, *asked_keys), (*chunk.args, *asked)
        )

    def _send(self, chunks: Sequence[_Chunk], ack: Ack) -> list[Any]:
        """All chunks out, then all answers in; WAIT follows each in its own connection, where alone it means
        something.
        """
        wait = ("WAIT", self.settings.replicas, self.settings.wait_ms)
        wires = [self.wire(chunk.partition) for chunk in chunks]
        for chunk, wire in zip(chunks, wires, strict=True):
            command = self._command(chunk, self._gate)
            wire.send([command, wait] if ack is Ack.REPLICA else [command])
        answers: list[Any] = []
        vouched = self.settings.replicas
        for wire in wires:
            answers.append(wire.receive())
            if ack is Ack.REPLICA and isinstance(confirmed := wire.receive(), int):
                vouched = min(vouched, confirmed)
        sound(answers)
        if vouched < self.settings.replicas:
            raise NotReplicated(self.settings.replicas, vouched, self.settings.wait_ms)
        return answers

    def _sort_out(
        self, chunks: Sequence[_Chunk], answers: list[Any], placed: list[Appended | None]
    ) -> tuple[list[_Chunk], BacklogFull | None]:
        """Place what was answered for good. Returns what must be sent again, and why, where that is a full
        log.
        """
        left: list[_Chunk] = []
        told: list[tuple[int, Any]] = []
        for chunk, answer in zip(chunks, answers, strict=True):
            code = _AppendAnswer(answer[0])
            if code not in {_AppendAnswer.FULL, _AppendAnswer.REGROUP, _AppendAnswer.EARLY}:
                self._place(chunk, answer, placed)
                self._gate.passed(chunk.partition)
                continue
            left.append(chunk)
            if code is _AppendAnswer.FULL:
                told.append((chunk.partition, answer))
            elif code is _AppendAnswer.REGROUP:
                self._gate.learn(chunk.partition, answer[1:])
        if not told:
            return left, None
        partition, (_, group, events, size) = max(told, key=lambda pair: int(pair[1][2]))
        refused = sum(len(chunk.indexes) for chunk in left)
        return left, BacklogFull(
            self.name, partition, group.decode(), (int(events), int(size)), self._gate.budget, refused
        )

    def _place(self, chunk: _Chunk, answer: Any, placed: list[Appended | None]) -> None:
        code = _AppendAnswer(answer[0])
        if code is _AppendAnswer.CONFLICT:
            subject = answer[1].decode()
            raise VersionConflict(subject, self._expected_of(chunk, subject), int(answer[2]))
        if code is _AppendAnswer.DANGLING:
            raise InvariantBroken(
                f"the index of {self.keys[chunk.partition].where} names {answer[2].decode()} for event "
                f"{answer[1].decode()!r}, "
                "but the log has no such entry: it was deleted by hand. Nothing was appended; restore the "
                "entry or its index row."
            )
        positions, duplicates = answer[1], set(answer[2])
        for number, (index, position) in enumerate(zip(chunk.indexes, positions, strict=True), start=1):
            outcome = Outcome.DUPLICATE if number in duplicates else Outcome.APPENDED
            placed[index] = Appended(chunk.partition, position.decode(), outcome)

    @staticmethod
    def _expected_of(chunk: _Chunk, subject: str) -> int:
        wanted = dict(line.split(" ") for line in chunk.args[3].splitlines())
        return int(wanted[subject])


def _check_times(batch: list[Event]) -> None:
    """Raise InvalidEvent for the first event that is from the future, or whose time is none (a struct checks
    no types).
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


def _ms(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)
