"""
Read the fleet: all partitions of all streams, the hosts' cards, the views' generations.

    look -> registry, generations, hosts, and every partition with the groups known from the look before
         -> only where streams or groups are new: those partitions once more
         -> judging.py -> Fleet

Always true: nothing is written, nothing is scanned for, and what is not installed here is seen as well: names
come from the partitions themselves (who joined, the server's groups), from the hosts' cards and the records
of generations.

Decision (2026-11): one script call a partition for all its groups, all in one pipeline, so one round trip per
node from the second look on. Measured at 64 partitions x 10 groups x 8 hosts: 13-18 ms of the server and
30-44 of Python a look (two cores at a load of 8). Refused: plain commands in the pipeline, which are a third
of a script's cost and whose counts do not add up while others append; MULTI, which a full server refuses; a
summary that the hosts keep up in a key of its own, which is as blind as they are; SCAN for names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from aurastream.processors.fleet.facts import GroupFacts, PartitionFacts, partition_of, question
from aurastream.processors.fleet.fleet import Fleet
from aurastream.processors.fleet.judging import FleetFacts, judged
from aurastream.processors.fleet.verdicts import OLD_GROUP, still_of
from aurastream.processors.fleet.watch import said_of
from aurastream.projections.engine import RecordDamaged, State, record_of
from aurastream.streams import (
    STREAMS,
    VIEWS,
    WATCH,
    Ask,
    Asking,
    Claim,
    Keys,
    Lag,
    RegistryDamaged,
    Reply,
    Server,
    Wires,
    drive,
    facts_of,
    generation_group,
    members_asks,
    members_of,
    old_members,
    sound,
)

ROUNDS_MAX = 4  # of one look: names that come up meanwhile are seen by the next
ATTEMPTS_MAX = 2  # of a round: scripts may have to be loaded anew

T = TypeVar("T")
Place = tuple[str, int]
Wanted = Mapping[str, frozenset[str]]


class LaneLook(NamedTuple):
    """A lane. still_s: how long events have waited and the cursor has not moved under this owner."""

    facts: GroupFacts
    lag: Lag
    still_s: float


class FleetReader:
    """Looks again and again, with connections of its own. Not for several threads at once."""

    def __init__(
        self, server: Server, attempts_max: int = ATTEMPTS_MAX, *, is_thorough: bool = False
    ) -> None:
        """is_thorough: see facts.question."""
        self._wires, self._is_thorough = Wires(server, attempts_max), is_thorough
        self._names: dict[str, tuple[str, ...]] = {}  # by stream
        self._partitions: dict[str, int] = {}
        self._questions: dict[Keys, tuple[tuple[str, ...], list[Ask]]] = {}
        self._now_ms = 0

    def look(self, wanted: Wanted | None = None) -> Fleet:
        """The fleet now. wanted: stream -> groups installed here. Raises UnknownOutcome, LOST."""
        return judged(self.seen(wanted))

    def seen(self, wanted: Wanted | None = None) -> FleetFacts:
        """What there is to judge."""
        return drive(
            self._looking(wanted or {}), lambda asks: self._wires.answers(asks, "a look at the fleet")
        )

    def lanes(self, claims: Iterable[Claim]) -> dict[Claim, LaneLook]:
        """Where these lanes are, in one round trip per node; the server is tried also where there are none.
        Raises UnknownOutcome, LOST.
        """
        groups: dict[Keys, list[str]] = {}
        for claim in claims:
            groups.setdefault(claim.keys, []).append(claim.group)
        asks = [ask for keys, names in groups.items() for ask in question(keys, names)]
        looks: dict[Claim, LaneLook] = {}
        _, *answers = self._wires.answers([Ask(STREAMS, ("TIME",)), *asks], "a look at lanes")
        for place, (keys, names) in enumerate(groups.items()):
            at = partition_of(answers[2 * place : 2 * place + 2], keys, names)
            for group in at.groups:
                lag = at.lag(group.read, group.reached, group.following)
                claim = Claim(group.name, keys.stream, keys.partition)
                looks[claim] = LaneLook(group, lag, still_of(at, group, lag))
        return looks

    def close(self) -> None:
        """Drop the connections."""
        self._wires.close()

    def _looking(self, wanted: Wanted) -> Asking[FleetFacts]:
        facts: dict[Place, PartitionFacts] = {}
        for _ in range(ROUNDS_MAX):
            head = [*self._head(), *members_asks()]
            calls = self._calls(facts)
            asks = [ask for keys, names in calls for ask in self._question(keys, names)]
            answers = yield [*head, *asks]
            for place, (keys, names) in enumerate(calls):
                first = len(head) + 2 * place
                facts[keys.stream, keys.partition] = partition_of(answers[first : first + 2], keys, names)
            seen = _seen(sound(answers[: len(head)]), wanted, facts)
            self._now_ms = seen.now_ms
            if not self._learn(seen, facts):
                break
        return seen

    def _question(self, keys: Keys, names: tuple[str, ...]) -> list[Ask]:
        """As it was put before, while the groups are the same: it names sixty keys."""
        before = self._questions.get(keys)
        if before is None or before[0] != names:
            before = self._questions[keys] = names, question(keys, names, is_thorough=self._is_thorough)
        return before[1]

    def _head(self) -> list[Ask]:
        """Of the fleet as a whole."""
        return [
            Ask(STREAMS, ("TIME",)),
            Ask(STREAMS, ("HGETALL", STREAMS)),
            Ask(VIEWS, ("HGETALL", VIEWS)),
            Ask(WATCH, ("HGETALL", WATCH)),
            old_members(OLD_GROUP, self._now_ms),
        ]

    def _calls(self, facts: Mapping[Place, PartitionFacts]) -> list[tuple[Keys, tuple[str, ...]]]:
        """The partitions to ask, with their groups: all but those that this look has asked."""
        return [
            (Keys(stream, partition), self._names.get(stream, ()))
            for stream, partitions in self._partitions.items()
            for partition in range(partitions)
            if (stream, partition) not in facts
        ]

    def _learn(self, seen: FleetFacts, facts: dict[Place, PartitionFacts]) -> bool:
        """Streams and groups that are new or gone. Whether some must be asked once more; these are taken out
        of the facts.
        """
        self._partitions = {name: each.partitions for name, each in seen.streams.items()}
        for place in [place for place in facts if place[1] >= self._partitions.get(place[0], 0)]:
            del facts[place]
        names = _names_of(seen, facts.values())
        is_behind = False
        for stream in self._partitions:
            known, now = set(self._names.get(stream, ())), names.get(stream, set())
            self._names[stream] = tuple(sorted(now))
            if not now <= known or (stream, 0) not in facts:
                is_behind = True
                for partition in range(self._partitions[stream]):
                    facts.pop((stream, partition), None)
        return is_behind


def _seen(answers: Sequence[Reply], wanted: Wanted, facts: Mapping[Place, PartitionFacts]) -> FleetFacts:
    """A round's answers, and the facts of all rounds of this look."""
    (seconds, microseconds), streams, records, said, old, *members = answers
    now_ms = int(seconds) * 1000 + int(microseconds) // 1000
    known, damaged = _readable(streams, facts_of)
    views, torn = _readable(records, lambda name, row: record_of(row, name))
    return FleetFacts(
        now_ms=now_ms,
        streams=known,
        partitions=list(facts.values()),
        members=members_of(members, now_ms),
        records=views,
        old_hosts=int(old),
        wanted=wanted,
        damaged=(*damaged, *torn, *(at.problem for at in facts.values() if at.problem)),
        said=said_of(said),
    )


def _readable(flat: list[bytes], read: Callable[[str, bytes], T]) -> tuple[dict[str, T], list[str]]:
    """The rows of a hash that can be read, and why others cannot: anybody may have written there."""
    rows: dict[str, T] = {}
    reasons = []
    for name, row in zip(flat[::2], flat[1::2], strict=True):
        text = name.decode(errors="backslashreplace")
        try:
            rows[text] = read(text, row)
        except (RegistryDamaged, RecordDamaged) as error:
            reasons.append(str(error))
    return rows, reasons


def is_group(name: str) -> bool:
    """Whether the name is that of a group that reads: hosts share other things by leases, too (@leader)."""
    return not name.startswith("@")


def _names_of(seen: FleetFacts, partitions: Iterable[PartitionFacts]) -> dict[str, set[str]]:
    """The groups of each stream that anybody names; of those asked before, the ones that are still there."""
    names: dict[str, set[str]] = {stream: set(groups) for stream, groups in seen.wanted.items()}
    for at in partitions:
        there = names.setdefault(at.keys.stream, set())
        there.update(at.names)
        there.update(group.name for group in at.groups if group.has_run)
    for member in seen.members:
        for stream, groups in member.card.offers.items():
            names.setdefault(stream, set()).update(filter(is_group, groups))
    for field, record in seen.records.items():
        stream, _, view = field.rpartition("/")
        names.setdefault(stream, set()).update(
            generation_group(view, item.number)
            for item in record.generations
            if item.state is not State.RETIRED
        )
    return names
