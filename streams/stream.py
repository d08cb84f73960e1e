"""
The log of a stream: append, and read by position or by time.

    events -> check all -> group by partition -> one append.lua call per 500 and partition -> positions

Always true: an event ID is in the live log once, however often it is appended; the events of one call and
partition go in order; a call's request of up to 500 events per partition is in the log whole or not at all.
An event refused by the checks stops the call before anything is sent. A producer a budget ahead of the
slowest group waits or is told. A full server refuses all but the audit trail (spare.py).

What is checked and sent is in appending.py, who waits in pressure.py; consuming by group is in groups.py, the
streams' registry and the start-up checks are in registry.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import msgspec

from aurastream.streams.appending import Append, Appended, Appending, Plan, Replicas, admitted
from aurastream.streams.codec import Codec
from aurastream.streams.connection import Server
from aurastream.streams.drive import Ask, Asking, Command, Questions, Reply, sound
from aurastream.streams.entries import Envelope, RawEntry, entry_json, read_envelope
from aurastream.streams.errors import BacklogFull, ServerRefuses, StreamError, UnknownOutcome
from aurastream.streams.events import Event
from aurastream.streams.facts import HERE, OPERATIONS, StreamFacts, is_system
from aurastream.streams.keyring import Keyring
from aurastream.streams.keys import Keys, partition_of
from aurastream.streams.passing import StoredEvent, as_passed_on
from aurastream.streams.positions import Position
from aurastream.streams.pressure import Gate, Patience
from aurastream.streams.settings import Ack, Settings
from aurastream.streams.topics import taken_for_events
from aurastream.streams.wire import Wire
from aurastream.streams.wires import Wires

READ_MAX = 1_000  # entries a read
ROUNDS_MAX = 100  # times a call sends what was refused again for another reason than a full log


class Entry(msgspec.Struct, frozen=True):
    """An event at its place."""

    partition: int
    position: str
    event: Event


class Stream:
    """One stream of a server: its partitions and its codec. Made by ``registry.open_stream``. Not for several
    threads.
    """

    def __init__(
        self, server: Server, name: str, facts: StreamFacts, codec: Codec, settings: Settings
    ) -> None:
        self.server, self.name, self.facts, self.codec, self.settings = server, name, facts, codec, settings
        self.partitions, self.versioned, self.is_replay = facts.partitions, facts.versioned, facts.is_replay
        self.is_topic = bool(facts.is_topic)
        self.is_log_here, self.is_system = facts.log == HERE, is_system(name, facts)
        self.keys = tuple(Keys(name, partition) for partition in range(facts.partitions))
        self.wires = Wires(server, settings.attempts_max, settings.server_wait_s)
        self.keyring = Keyring(self.wires, settings)
        self._gate = Gate(settings.budget_events, settings.budget_bytes)
        self._open_gate = Gate(0, 0)

    def partition_of(self, subject: str) -> int:
        """The partition that holds the subject's events."""
        return partition_of(subject, self.partitions)

    def as_events(self) -> Stream:
        """This stream, whose entries are events to whoever named it, though it was made for messages."""
        self.is_topic = False
        return self

    def append(
        self, events: Iterable[Event], *, expected: Mapping[str, int] | None = None, ack: Ack | None = None
    ) -> list[Appended]:
        """Put the events into the log, each event ID once. Returns one Appended per event, in the order
        given.

        expected: subject -> number of its events the caller has seen (streams created ``versioned``); others
        are refused.
        ack: what success vouches for; default: the settings'.
        Raises InvalidEvent and ServerUnfit (it cannot vouch so) before anything is sent; VersionConflict;
        NotReplicated, BacklogFull, and after server_wait_s ServerRefuses (not written) or UnknownOutcome,
        which name the events that are in the log; after these the same events may be appended again.
        """
        batch, level = list(events), ack or self.settings.ack
        self._check_append(expected, level)
        if not batch:
            return []
        batch = self.keyring.sealed(batch, level)
        return self._sent(self._requests(batch, expected), batch, level)

    def append_stored(self, stored: Iterable[StoredEvent], *, ack: Ack | None = None) -> list[Appended]:
        """``append`` of events of another log, by the JSON that is stored there: what this build does not
        know of them is kept (passing.py). Raises as append does.
        """
        batch, level = list(stored), ack or self.settings.ack
        self._check_append(None, level)
        if not batch:
            return []
        sealed = self.keyring.sealed([item.event for item in batch], level)
        admitted(self.codec, sealed)
        plan = Plan(self.keys, self.versioned, {}, self.name == OPERATIONS)
        requests = plan.requests(sealed, as_passed_on(self.codec, batch, sealed))
        return self._sent(requests, sealed, level)

    def put_back(self, jsons: Iterable[bytes]) -> list[Appended]:
        """Put what this log or its archive has stored into it again, byte for byte, each event ID once: what
        is sealed stays sealed, types and versions that this process does not know are taken too.

        Not held back by budgets. Raises DamagedEntry before anything is sent; else as append does.
        """
        stored, level = list(jsons), self.settings.ack
        self._check_append(None, level)
        batch = [read_envelope(self.name, json) for json in stored]
        lines = [json if b"\n" not in json else msgspec.json.format(json, indent=-1) for json in stored]
        plan = Plan(self.keys, self.versioned, {}, self.name == OPERATIONS)
        return self._sent(plan.requests(batch, lines), batch, level, self._open_gate)

    def _sent(
        self, requests: list[Append], batch: Sequence[Event | Envelope], level: Ack, gate: Gate | None = None
    ) -> list[Appended]:
        """Send until every event is placed, and wait where producers must. batch: of the requests."""
        call = Appending(requests, gate or self._gate, self._replicas(level))
        what = f"append of {len(batch)} events to {self.name}"
        patience, rounds = Patience(self.settings), 0
        while call.left:
            full = self._put(call, batch, what)
            if full is not None:
                patience.wait(full)
            elif call.left and (rounds := rounds + 1) > ROUNDS_MAX:
                raise StreamError(
                    f"{what}: the groups that read it change faster than it can be asked. Append again later."
                )
        return call.result()

    def _put(self, call: Appending, batch: Sequence[Event | Envelope], what: str) -> BacklogFull | None:
        """What is left of a call, once. Raises the server's refusals with what of the call is in the log."""
        questions = Questions(call.asks())
        try:
            self.wires.settle(questions, what)
        except (ServerRefuses, UnknownOutcome) as error:
            call.give_up(error, questions, batch)
            raise
        return call.take(sound(questions.answers))

    def appending(self, events: Iterable[Event]) -> Asking[list[Appended]]:
        """``append`` for who drives the log by generators.

        May be driven again after a lost connection. Not held back by budgets: see pressure.py. Raises as
        append does, the server's errors as they are.
        """
        batch = list(events)
        if not batch:
            return []
        batch = yield from self.keyring.sealing(batch)
        call = Appending(self._requests(batch, None), self._open_gate, self._replicas(self.settings.ack))
        call.take(sound((yield call.asks())))
        return call.result()

    def _check_append(self, expected: Mapping[str, int] | None, level: Ack) -> None:
        if not self.is_log_here:
            raise StreamError(
                f"the log of stream {self.name!r} is in Kafka: produce to its topic. Here are only its views."
            )
        self.server.check_ack(level)
        if self.facts.is_topic:
            self.facts = taken_for_events(self.server, self.name, self.facts)
            self.is_topic = self.is_topic and bool(self.facts.is_topic)
        if expected and not self.versioned:
            raise StreamError(
                f"stream {self.name!r} keeps no versions. Create it with versioned=True to expect one."
            )

    def _requests(self, batch: list[Event], expected: Mapping[str, int] | None) -> list[Append]:
        plan = Plan(self.keys, self.versioned, expected or {}, self.name == OPERATIONS)
        return plan.requests(batch, admitted(self.codec, batch))

    def _replicas(self, level: Ack) -> Replicas | None:
        settings = self.settings
        return Replicas(settings.replicas, settings.wait_ms) if level is Ack.REPLICA else None

    def read(
        self, partition: int, after: str = "0-0", until: str = "+", count: int = READ_MAX
    ) -> list[Entry]:
        """Up to `count` entries after a position (not including it), up to and including `until`.

        Raises DamagedEntry at an entry that cannot be trusted, UnknownEventVersion at one from a newer build.
        Events of types this stream's codec does not know are left out.
        """
        return self._entries(partition, self.read_raw(partition, after, until, count))

    def read_raw(
        self, partition: int, after: str = "0-0", until: str = "+", count: int = READ_MAX
    ) -> list[RawEntry]:
        """The same undecoded: (position, [field, value, ..])."""
        command = ("XRANGE", self.keys[partition].log, f"({after}", until, "COUNT", count)
        answer: list[RawEntry] = self.ask(partition, command, what=f"read of {self.keys[partition].where}")[0]
        return answer

    def read_between(self, partition: int, since: datetime, until: datetime) -> Iterator[Entry]:
        """Entries appended (server time, not event time) from `since` up to but not including `until`."""
        after, last = Position.at(since).before(), Position.at(until).before()
        while raw := self.read_raw(partition, str(after), str(last)):
            yield from self._entries(partition, raw)
            after = Position.parse(raw[-1][0])

    def ask(self, partition: int, *commands: Command, what: str = "") -> list[Reply]:
        """The answers of the partition's node, put again after a passing fault; the server's first error is
        raised.

        what: for the sentence, when nobody answers. Raises UnknownOutcome.
        """
        keys = self.keys[partition]
        return self.wires.ask(
            [Ask(keys.log, command) for command in commands], what or f"a question to {keys.where}"
        )

    def close(self) -> None:
        """Close this stream's connections."""
        self.wires.close()

    def wire(self, partition: int) -> Wire:
        """This stream's own connection to the partition's node."""
        return self.wires.of(self.keys[partition].log)

    def reconnect(self) -> None:
        """Drop the connections and learn the cluster's nodes anew; the next use connects."""
        self.wires.renew()

    def _entries(self, partition: int, raw: list[RawEntry]) -> list[Entry]:
        """Decoded; without those whose type this stream's codec does not know."""
        entries = []
        for place, fields in raw:
            position = place.decode()
            where = f"{self.name}/{partition}/{position}"
            event = self.codec.decode(entry_json(where, fields), where)
            if event is not None:
                entries.append(Entry(partition, position, event))
        return entries
