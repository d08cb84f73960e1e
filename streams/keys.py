"""
The names of keys, and which partition a subject belongs to. No other module writes a key.

All keys of a partition share the hash tag {stream.partition}, so one script may change them on one server and
in a cluster alike. Raw input never becomes part of a key: stream, group and projection names are checked,
anything else is percent-quoted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from xxhash import xxh3_64_intdigest

from aurastream.streams.errors import StreamError

STREAMS = "aura:streams"  # hash: stream -> JSON of its fixed properties
# hash: stream/projection -> JSON of its generations: which is live (projections/generations.py)
VIEWS = "aura:views"
# hash: processor -> server ms at which it was first run; stream/processor -> JSON of what it is recorded to
# handle there, and since when (processors/effects/meeting.py)
PROCESSORS = "aura:processors"
CREATORS = "aura:{creators}:names"  # hash: creator -> pseudonym (personal/keyring.py)
CREATOR_KEYS = "aura:{creators}:keys"  # hash: pseudonym -> key of its personal fields; "" once it is erased
ERASURES = "aura:{creators}:erased"  # hash: pseudonym -> JSON of the erasure's event until that is in the log
REPLAYS = (
    "aura:replays"  # hash: name of an unfinished replay -> JSON of how far it is (processors/replay_sinks.py)
)
HOSTS = "aura:{fleet}:hosts"  # sorted set: host -> server ms until which it counts as living (members.py)
CARDS = "aura:{fleet}:cards"  # hash: host -> what it says of itself: "lease_ms JSON" (members.py)
CHANGES = "aura:{fleet}:changes"  # string: counts who came, went or said something new (members.lua)
WATCH = "aura:{fleet}:watch"  # hash: lane -> JSON of what was logged of it last (fleet/watch.py)
PARTITIONS_MAX = 1024
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


def checked_name(kind: str, name: str) -> str:
    """The name, when it is legal in a key. Raises StreamError naming the rule."""
    if not NAME.fullmatch(name):
        raise StreamError(
            f"{name[:80]!r} is no {kind} name: use 1 to 64 of a-z 0-9 _ . - and begin with a letter or a "
            "digit."
        )
    return name


def partition_of(subject: str, partitions: int) -> int:
    """0 <= partition < partitions, by XXH3-64 of the subject's UTF-8 (seed 0). Fixed for ever: order per
    subject rests on it.
    """
    return xxh3_64_intdigest(subject.encode()) % partitions


def old_members_key(group: str) -> str:
    """Sorted set: the living hosts of builds before lanes had leases of their own -> server ms until which
    they count as living. Only looked at: while one lives, effect lanes of a group are not begun.
    """
    return f"aura:members:{checked_name('group', group)}"


def generation_group(projection: str, generation: int) -> str:
    """The group of a view's generation: whose cursor, dead entries and place among those producers wait for
    it has.

    The first is the projection's name alone, so that a view that was never rebuilt reads as before; no other
    group has an @.
    """
    return projection if generation == 1 else f"{projection}@{generation}"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one partition."""

    stream: str
    partition: int

    @property
    def where(self) -> str:
        """For sentences: stream/partition."""
        return f"{self.stream}/{self.partition}"

    def _key(self, tail: str) -> str:
        return f"aura:{{{self.stream}.{self.partition}}}:{tail}"

    @property
    def log(self) -> str:
        """Stream: the events, in order."""
        return self._key("log")

    @property
    def ids(self) -> str:
        """Hash: digest of event_id -> position of its canonical entry (index.py)."""
        return self._key("ids")

    @property
    def meta(self) -> str:
        """Hash: counts of what the append script did: appended, bytes, duplicates; trimmed by the trimmer."""
        return self._key("meta")

    @property
    def groups(self) -> str:
        """Hash: group -> where the log was when it joined; producers wait for these (pressure.py)."""
        return self._key("groups")

    @property
    def versions(self) -> str:
        """Hash: subject -> number of its events, in streams that ask for expected versions."""
        return self._key("versions")

    @property
    def archive(self) -> str:
        """Hash: how far the partition is archived: number, position, entries, head, url (archive/)."""
        return self._key("archive")

    @property
    def entities(self) -> str:
        """Hash: subject|chunk -> packed positions of its events, in streams with versions."""
        return self._key("entities")

    def snapshots(self, name: str) -> str:
        """Hash: subject -> JSON of its state, version and position, by the fold of that name
        (projections/entity.py).
        """
        return self._key(f"snapshots:{name}")

    def lease(self, group: str) -> str:
        """Hash: who owns the partition for the group, until when, and the fencing epoch (leases.py)."""
        return self._key(f"lease:{group}")

    @property
    def producers(self) -> str:
        """Hash: producer of foreign messages -> its last chunk (the Faust transport's send.lua)."""
        return self._key("producers")

    def acked(self, group: str) -> str:
        """Hash: how far an app has acknowledged the partition (the Faust transport's acknowledge.lua)."""
        return self._key(f"acked:{group}")

    def cursor(self, group: str) -> str:
        """Hash: how far the group's view has come."""
        return self._key(f"cursor:{group}")

    def dead(self, group: str) -> str:
        """Hash: position -> why the group could not use the entry."""
        return self._key(f"dead:{group}")

    def effects(self, group: str, part: str) -> str:
        """What a processor keeps besides its cursor and its dead letters: attempts, done, line, due or outbox
        (effects/step.lua).
        """
        return self._key(f"{part}:{group}")

    def view(self, projection: str, generation: int, table: str, part: str | None = None) -> str:
        """A table of a view; `part` (any text, quoted; "" too) is one category of a split ranking."""
        tail = f"view:{projection}:{generation}:{table}"
        return self._key(tail if part is None else f"{tail}:{quote(part, safe='')}")
