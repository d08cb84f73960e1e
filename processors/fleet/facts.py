"""
What is read of one partition: where every group stands, as facts. No judgement here, see judging.py.

    question(keys, groups) -> the call of partition.lua -> partition_of(reply) -> PartitionFacts

One call a partition for all its groups, from one instant, so that the counts add up. Nothing of an event's
content comes along but the reasons of what was set aside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from aurastream.streams import Ask, Cursor, Keys, Lag, Position, Reply, Script, is_reserved

_PARTITION = Script(__file__, "partition.lua")
KEPT = ("position", "read", "applied", "duplicates", "skipped", "dead", "quarantined", "fingerprint")
SEALED = "(sealed: `aurastream dead list` opens it)"


class SetAside(msgspec.Struct, frozen=True):
    """An entry that a group could not use. why: as it was kept."""

    position: str
    why: str
    event_id: str = ""
    attempts: int = 0


class _KeptLetter(msgspec.Struct, frozen=True):
    """What is of interest in a processor's dead letter (effects/letters.py)."""

    reason: str
    event_id: str = ""
    attempts: int = 0


class GroupFacts(msgspec.Struct, frozen=True):
    """A group in a partition. following: the first position after where it is, "" at the end. moved_ms:
    server time at which its cursor moved last, 0 where that is not known. left_ms: of the lease. owned_ms:
    since when it is its owner's. free_ms: since when it has lapsed, 0 where it was given back, or never was.
    set_aside, due: dead entries, and their lines that run again by a person's word; shown: of the entries the
    first, and last the newest.
    """

    name: str
    cursor: Cursor
    moved_ms: int
    is_retired: bool
    owner: str
    epoch: int
    left_ms: int
    owned_ms: int
    free_ms: int
    set_aside: int
    due: int
    begun: int
    acked: str | None
    acked_read: int
    following: str
    shown: tuple[SetAside, ...]
    are_letters: bool
    problem: str

    @property
    def reached(self) -> str:
        """The position up to which it has read; of an app, up to which it has acknowledged."""
        return self.cursor.position if self.cursor.read else self.acked or self.cursor.position

    @property
    def read(self) -> int:
        """How many entries that are."""
        return self.cursor.read or self.acked_read

    @property
    def has_run(self) -> bool:
        """Whether anything is left of somebody who ran it."""
        return bool(self.cursor.read or self.epoch or self.acked is not None or self.set_aside)


class ServerGroup(msgspec.Struct, frozen=True):
    """A consumer group as the server has it. lag: as it counts, -1 where it does not know."""

    name: str
    delivered: str
    pending: int
    lag: int
    following: str


class PartitionFacts(msgspec.Struct, frozen=True):
    """A partition at one instant. now_ms: of its node's clock. added: entries it ever got, -1 before 7.0."""

    keys: Keys
    now_ms: int
    length: int
    trimmed: int
    appended: int
    added: int
    last: str
    joined: frozenset[str]
    servers: tuple[ServerGroup, ...]
    groups: tuple[GroupFacts, ...]

    @property
    def names(self) -> set[str]:
        """All groups that the partition itself knows of."""
        return {*self.joined, *(group.name for group in self.servers)}

    def lag(self, read: int, position: str, following: str) -> Lag:
        """Of who has read so many entries, up to the position; as groups.lag_of counts it."""
        held = self.length + self.trimmed
        missing = max(0, max(read, self.appended, self.added) - held)
        is_rewound = Position.parse(self.last) < Position.parse(position)
        events = max(0, held - read)
        if not following:
            return Lag(0 if missing or is_rewound else events, 0.0, missing, is_rewound)
        waiting_s = (self.now_ms - Position.parse(following).ms) / 1000
        return Lag(max(events, 1), max(0.0, round(waiting_s, 3)), missing, is_rewound)


def question(keys: Keys, groups: Sequence[str]) -> Ask:
    """Where these groups stand in the partition, and which others there are."""
    names = [keys.log, keys.meta, keys.groups]
    for group in groups:
        due, attempts = keys.effects(group, "due"), keys.effects(group, "attempts")
        names += [keys.cursor(group), keys.lease(group), keys.dead(group), due, attempts, keys.acked(group)]
    return Ask(keys.log, _PARTITION.call(names, groups))


def partition_of(reply: Reply, keys: Keys, groups: Sequence[str]) -> PartitionFacts:
    """Its answer."""
    now_ms, (length, trimmed, appended, added, last), joined, servers, standings = reply
    now = int(now_ms)
    return PartitionFacts(
        keys,
        now,
        int(length),
        int(trimmed),
        int(appended),
        int(added),
        last.decode(),
        frozenset(map(_text, joined)),
        tuple(_server_groups(servers)),
        tuple(_group(name, row, now) for name, row in zip(groups, standings, strict=True)),
    )


def _group(name: str, row: Reply, now_ms: int) -> GroupFacts:
    (
        kept,
        (owner, epoch, until, since),
        (aside, due, begun),
        (acked, acked_read),
        following,
        first,
        problem,
    ) = row
    *counts, moved, retired = map(_text, kept)
    stored = {key: value for key, value in zip(KEPT, counts, strict=True) if value}
    cursor, damage = Cursor(), ""
    try:
        cursor = msgspec.convert(stored, Cursor, strict=False)
        Position.parse(cursor.position)
    except ValueError as error:  # msgspec's among them
        damage = f"its cursor cannot be read: {error}"
    ends = _number(until)
    return GroupFacts(
        name,
        cursor,
        _number(moved),
        bool(retired),
        _text(owner),
        _number(epoch),
        max(0, ends - now_ms) if owner else 0,
        _number(since) if owner else 0,
        ends if 0 < ends <= now_ms else 0,
        int(aside),
        int(due),
        int(begun),
        _text(acked) if acked or acked_read else None,
        _number(acked_read),
        _text(following),
        tuple(_aside(_text(place), why) for place, why in zip(first[::2], first[1::2], strict=True)),
        bool(first) and bytes(first[1])[:1] == b"{",
        damage or _text(problem),
    )


def _aside(position: str, raw: bytes) -> SetAside:
    try:
        letter = msgspec.json.decode(raw, type=_KeptLetter)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return SetAside(position, _opened(_text(raw)))
    return SetAside(position, _opened(letter.reason), letter.event_id, letter.attempts)


def _opened(why: str) -> str:
    """Sealed texts are for those alone who ask for them by name."""
    return SEALED if is_reserved(why) or "sealed:1:" in why else why


def _server_groups(flat: list[Reply]) -> Iterator[ServerGroup]:
    for i in range(0, len(flat), 5):
        name, delivered, pending, lag, following = flat[i : i + 5]
        yield ServerGroup(_text(name), _text(delivered), int(pending), int(lag), _text(following))


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")


def _number(raw: bytes | str) -> int:
    """0 for what is none: a person, or a newer build, may have written there."""
    text = raw if isinstance(raw, str) else _text(raw)
    return int(float(text)) if text.replace(".", "", 1).isdecimal() else 0
