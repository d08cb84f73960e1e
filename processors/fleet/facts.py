"""
What is read of one partition: where every group stands, as facts. No judgement here, see judging.py.

    question(keys, groups) -> partition.lua, XINFO GROUPS -> partition_of(replies) -> PartitionFacts

One call of a script a partition for all its groups, from one instant, so that the counts add up. Nothing of
an event's content comes along but the reasons of what was set aside.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    first, and last the newest. is_let_go: of an app, that nobody waits for it until it acknowledges again.
    """

    name: str
    cursor: Cursor = Cursor()
    moved_ms: int = 0
    is_retired: bool = False
    owner: str = ""
    epoch: int = 0
    left_ms: int = 0
    owned_ms: int = 0
    free_ms: int = 0
    set_aside: int = 0
    due: int = 0
    begun: int = 0
    acked: str | None = None
    acked_read: int = 0
    following: str = ""
    shown: tuple[SetAside, ...] = ()
    are_letters: bool = False
    problem: str = ""
    is_let_go: bool = False

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
        marks = (self.cursor.read, self.epoch, self.set_aside, self.problem)
        return any(marks) or self.acked is not None


class ServerGroup(msgspec.Struct, frozen=True):
    """A consumer group as the server has it. lag: as it counts, None where it does not know."""

    name: str
    delivered: str
    pending: int
    lag: int | None


class PartitionFacts(msgspec.Struct, frozen=True):
    """A partition at one instant. now_ms: of its node's clock. added: entries it ever got, -1 before 7.0."""

    keys: Keys
    now_ms: int = 0
    length: int = 0
    trimmed: int = 0
    appended: int = 0
    added: int = -1
    last: str = ""
    joined: frozenset[str] = frozenset()
    servers: tuple[ServerGroup, ...] = ()
    groups: tuple[GroupFacts, ...] = ()
    problem: str = ""

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


def question(keys: Keys, groups: Sequence[str], *, is_thorough: bool = False) -> list[Ask]:
    """Where these groups stand in the partition, and which others there are. is_thorough: count what was
    ever added to the log, so that raw entries that vanished are missed too.
    """
    names = [keys.log, keys.meta, keys.groups]
    for group in groups:
        due, attempts = keys.effects(group, "due"), keys.effects(group, "attempts")
        names += [keys.cursor(group), keys.lease(group), keys.dead(group), due, attempts, keys.acked(group)]
    args = ("1" if is_thorough else "0", len(groups))
    return [Ask(keys.log, _PARTITION.call(names, args)), Ask(keys.log, ("XINFO", "GROUPS", keys.log))]


def partition_of(replies: Sequence[Reply], keys: Keys, groups: Sequence[str]) -> PartitionFacts:
    """Its answers. That there is no log yet is no error."""
    reply = replies[0]
    if isinstance(reply, Exception):
        return PartitionFacts(keys, problem=f"{keys.where} cannot be read: {reply}")
    now_ms, (length, trimmed, appended, added, last), joined, standings = reply
    now = int(now_ms)
    servers = [] if isinstance(replies[1], Exception) else replies[1]
    return PartitionFacts(
        keys,
        now,
        int(length),
        int(trimmed),
        int(appended),
        int(added),
        last.decode(),
        frozenset(map(_text, joined)),
        tuple(map(_server_group, servers)),
        tuple(_group(name, row, now) for name, row in zip(groups, standings, strict=True)),
    )


def _group(name: str, row: Reply, now_ms: int) -> GroupFacts:
    if isinstance(row, bytes):
        return GroupFacts(name, problem=_text(row))
    kept, (owner, epoch, until, since), (aside, due, begun), acked, following, shown = row
    *counts, moved, retired = kept
    stored = {key: _text(value) for key, value in zip(KEPT, counts, strict=True) if value}
    cursor, problem = Cursor(), ""
    try:
        cursor = msgspec.convert(stored, Cursor, strict=False)
        Position.parse(cursor.position)
    except ValueError as error:  # msgspec's among them
        problem = f"its cursor cannot be read: {error}"
    ends = _number(until)
    return GroupFacts(
        name,
        cursor,
        _number(moved),
        bool(retired),
        _text(owner or b""),
        _number(epoch),
        max(0, ends - now_ms) if owner else 0,
        _number(since) if owner else 0,
        ends if 0 < ends <= now_ms else 0,
        aside,
        due,
        begun,
        _text(acked[0] or b"") if any(acked) else None,
        _number(acked[1]) if acked else 0,
        _text(following),
        tuple(_aside(_text(place), why) for place, why in zip(shown[::2], shown[1::2], strict=True)),
        bool(shown) and bytes(shown[1])[:1] == b"{",
        problem,
        is_let_go=bool(acked) and acked[2] is not None,
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


def _server_group(flat: list[Reply]) -> ServerGroup:
    facts = dict(zip(flat[::2], flat[1::2], strict=True))
    name, delivered = _text(facts[b"name"]), _text(facts[b"last-delivered-id"])
    return ServerGroup(name, delivered, int(facts[b"pending"]), facts.get(b"lag"))


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")


def _number(raw: bytes | None) -> int:
    """0 for what is none: a person, or a newer build, may have written there."""
    return int(raw) if raw and raw.isdigit() else 0
