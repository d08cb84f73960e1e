"""
Who may still need an entry of the live log, and up to where it may be trimmed without them.

    look -> joined groups (their cursors, processors' dead letters), worker apps, foreign groups of the
        server, the archive,
            and event IDs that are in the log twice -> Look.through(..): the last position nobody needs

A look writes nothing and is no promise: trim.lua verifies it, in the script that removes. What cannot change
behind its back is not
verified again: cursors, acknowledgements and the archive only advance, and a new letter is of an entry after
its group's cursor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from aurastream.streams import (
    READ_MAX,
    RawEntry,
    Stream,
    as_pair,
    collided_field_of,
    field_of,
    pack_position,
    retried,
    unpack_position,
)

Pair = tuple[int, int]  # a position in a form that compares; before any is NONE
NONE: Pair = (0, 0)
SEQUENCE_MAX = 2**64 - 1

_PLAIN_ID = re.compile(rb'\{"type":"[^"\\]*","event_id":"([^"\\]*)"')


class Holder(msgspec.Struct, frozen=True):
    """Who holds entries back. kind: group, app, foreign group, archive, dead letter, or second entry.

    through: the last position that may go as far as it is concerned; "" none. why: a sentence with the
    remedy.
    """

    kind: str
    name: str
    through: str
    why: str


class Look(msgspec.Struct):
    """One look at a partition; see the module. entries, first, newest: of the log. groups: those that joined
    or have dead entries -> how many.

    ours: the server's groups that are a projection's, a processor's or an app's. strange_entries: added
    without append.lua.
    doubles: (canonical, other) positions of event IDs that are in the log twice. kept_from: the last entry a
    number of kept ones lets go, where doubles had to be looked for.
    """

    keys: list[str]
    entries: int = 0
    first: Pair = NONE
    newest: Pair = NONE
    groups: dict[str, int] = {}
    ours: set[str] = set()
    apps: list[str] = []
    strange_entries: int = 0
    holders: list[Holder] = []
    doubles: list[tuple[Pair, Pair]] = []
    kept_from: Pair | None = None

    @property
    def group_lines(self) -> str:
        """As trim.lua takes them."""
        return "".join([f"{name} {dead}\n" for name, dead in self.groups.items()])

    @property
    def ours_lines(self) -> str:
        """As trim.lua takes them."""
        return "".join([f"{name}\n" for name in sorted(self.ours)])

    @property
    def app_lines(self) -> str:
        """As trim.lua takes them."""
        return "".join([f"{name}\n" for name in self.apps])

    def through(self, end: Pair) -> Pair:
        """The last position up to `end` that nobody needs."""
        return self._limit(end)[0]

    def blocking(self, first: Pair, end: Pair) -> list[Holder]:
        """Who needs the entry at `first`, which is the first of those that were to go up to `end`."""
        found = sorted(
            [holder for holder in self.holders if as_pair(holder.through) < first],
            key=lambda holder: as_pair(holder.through),
        )
        last, double = self._limit(end)
        if found or double is None or last >= first:
            return found
        canonical, second = map(text_of, double)
        why = (
            f"the event at {canonical} was added again at {second}, not by an append: both can only go "
            "together. "
            "Archive and trim up to the second one."
        )
        return [Holder("second entry", second, text_of(last), why)]

    def _limit(self, end: Pair) -> tuple[Pair, tuple[Pair, Pair] | None]:
        """That position, and the two entries of one ID that would be parted after it, if any."""
        last, double = min([end, *[as_pair(holder.through) for holder in self.holders]]), None
        while split := [pair for pair in self.doubles if pair[0] <= last < pair[1]]:
            double = min(split)
            last = before(double[0])
        return last, double


class Looker:
    """Looks at the partitions of one stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def look(self, partition: int, keep_events: int | None = None) -> Look:
        """Everything that matters of one partition now."""
        keys = self._stream.keys[partition]
        length, names, archived = self._ask(
            partition, ("XLEN", keys.log), ("HKEYS", keys.groups), ("HGET", keys.archive, "position")
        )
        if not length:
            return Look(keys=[])
        apps, joined = self._named(keys.acked("")), {name.decode() for name in names}
        groups = sorted(
            joined.union(self._named(keys.dead("")))
        )  # letters of a group that was forgotten may be retried as well
        look = Look(
            keys=[
                *[key for name in groups for key in (keys.cursor(name), keys.dead(name))],
                *[keys.acked(app) for app in apps],
            ]
        )
        look.apps = apps
        holders = [
            _archive(archived),
            *self._groups(partition, look, groups, joined),
            *self._app_holders(partition, apps),
        ]
        look.holders = [*holders, *self._foreign(partition, look)]
        self._measure(partition, look)
        if look.strange_entries:
            self._find_doubles(partition, look, None if keep_events is None else look.entries - keep_events)
        return look

    def _named(self, prefix: str) -> list[str]:
        """What follows the prefix in the names of keys."""
        found: Iterator[bytes] = self._stream.server.client.scan_iter(match=f"{prefix}*", count=1_000)
        return sorted({key.decode(errors="backslashreplace").removeprefix(prefix) for key in found})

    def _groups(self, partition: int, look: Look, groups: list[str], joined: set[str]) -> Iterator[Holder]:
        keys = self._stream.keys[partition]
        for name in groups:
            at, stored = self._ask(
                partition, ("HMGET", keys.cursor(name), "position", "retired"), ("HGETALL", keys.dead(name))
            )
            look.groups[name], look.ours = len(stored) // 2, look.ours | {name}
            position = (at[0] or b"").decode()
            if name in joined and at[1] is None:
                told = f"has read up to {position}" if position else "has read nothing yet"
                remedy = f"Run its worker; if it is gone for good: `aurastream groups forget {name} --stream {keys.stream}`."
                if "@" in name:
                    remedy = "It is a generation of a view: let its rebuild or its worker go on, or see `aurastream status`."
                yield Holder("group", name, position, f"the group {name!r} {told}. {remedy}")
            # A processor's letters are JSON objects and need their entries for a retry; a projection's
            # reasons are sentences.
            letters = [
                as_pair(stored[i].decode()) for i in range(0, len(stored), 2) if stored[i + 1][:1] == b"{"
            ]
            if letters:
                least = min(letters)
                why = (
                    f"{len(letters)} dead letters of {name!r} need their entries, the first at "
                    f"{text_of(least)}. "
                    f"`aurastream dead list {name}`, then retry or discard them."
                )
                yield Holder("dead letter", name, text_of(before(least)), why)

    def _app_holders(self, partition: int, apps: list[str]) -> Iterator[Holder]:
        keys = self._stream.keys[partition]
        for app in apps:
            (raw,) = self._ask(partition, ("HGET", keys.acked(app), "position"))
            position = (raw or b"").decode()
            told = f"has acknowledged up to {position}" if position else "has acknowledged nothing yet"
            why = f"the worker app {app!r} {told}. Run it; if it is gone for good, delete the key {keys.acked(app)}."
            yield Holder("app", app, position, why)

    def _foreign(self, partition: int, look: Look) -> Iterator[Holder]:
        """Groups of the server that no cursor of ours stands for."""
        keys = self._stream.keys[partition]
        look.ours |= set(look.apps)
        for group in [_pairs(flat) for flat in self._ask(partition, ("XINFO", "GROUPS", keys.log))[0]]:
            name = group[b"name"].decode(errors="backslashreplace")
            if name in look.ours:
                continue
            if self._ask(partition, ("EXISTS", keys.cursor(name)))[0]:
                look.ours.add(name)  # it was forgotten, or given up: a person has decided
                continue
            position, pending = group[b"last-delivered-id"].decode(), int(group[b"pending"])
            told = f"has read up to {position}"
            if pending:
                least = self._ask(partition, ("XPENDING", keys.log, group[b"name"]))[0][1]
                told += f" and not acknowledged {pending} entries, the first at {least.decode()}"
                position = text_of(min(as_pair(position), before(as_pair(least.decode()))))
            why = f"the server's group {name!r}, which is none of AuraStream's, {told}. Let it read on, or XGROUP DESTROY it."
            yield Holder("foreign group", name, position, why)

    def _measure(self, partition: int, look: Look) -> None:
        keys = self._stream.keys[partition]
        questions = [("XINFO", "STREAM", keys.log), ("HMGET", keys.meta, "trimmed", "appended")]
        ends = [("XRANGE", keys.log, "-", "+", "COUNT", 1), ("XREVRANGE", keys.log, "+", "-", "COUNT", 1)]
        facts, (trimmed, appended), first, newest = self._ask(partition, *questions, *ends)
        look.entries = int(_pairs(facts)[b"length"])
        added = int(_pairs(facts).get(b"entries-added", look.entries + int(trimmed or 0)))
        look.strange_entries = added - int(appended or 0)
        look.first, look.newest = (
            as_pair(entry[0][0].decode()) if entry else NONE for entry in (first, newest)
        )

    def _find_doubles(self, partition: int, look: Look, going: int | None) -> None:
        """Read the whole log for event IDs that are in it twice. cost O(log), and only where others than
        append.lua wrote to it.
        """
        after, count = "0-0", 0
        while raw := self._stream.read_raw(partition, after, "+", READ_MAX):
            if going is not None and count < going <= count + len(raw):
                look.kept_from = as_pair(raw[going - count - 1][0].decode())
            count, after = count + len(raw), raw[-1][0].decode()
            look.doubles += self._doubles(partition, raw)

    def _doubles(self, partition: int, raw: list[RawEntry]) -> Iterator[tuple[Pair, Pair]]:
        named = [
            (position, event_id) for position, fields in raw if (event_id := event_id_of(fields)) is not None
        ]
        if not named:
            return
        fields = [
            field for _, event_id in named for field in (field_of(event_id), collided_field_of(event_id))
        ]
        (rows,) = self._ask(partition, ("HMGET", self._stream.keys[partition].ids, *fields))
        for (position, _), short, long in zip(named, rows[::2], rows[1::2], strict=True):
            own = pack_position(position)
            holder = long if long is not None else short
            if holder is None or own in (short, long):
                continue
            canonical, second = as_pair(unpack_position(holder).decode()), as_pair(position.decode())
            if canonical < second:
                yield canonical, second

    def _ask(self, partition: int, *commands: tuple[Any, ...]) -> list[Any]:
        def ask() -> list[Any]:
            return self._stream.wire(partition).ask(*commands)

        what = f"look at {self._stream.keys[partition].where}"
        return retried(what, self._stream.settings.attempts_max, ask, self._stream.reconnect)


def before(pair: Pair) -> Pair:
    """The last possible position before this one."""
    milliseconds, sequence = pair
    return (
        (milliseconds, sequence - 1)
        if sequence
        else (max(0, milliseconds - 1), SEQUENCE_MAX if milliseconds else 0)
    )


def text_of(pair: Pair) -> str:
    """The position as the server writes it."""
    return f"{pair[0]}-{pair[1]}"


def event_id_of(fields: list[bytes]) -> str | None:
    """Of an entry, damaged or not, as far as it can be read."""
    found = dict(zip(fields[::2], fields[1::2], strict=False))
    raw = found.get(b"event", b"")
    plain = _PLAIN_ID.match(raw)
    try:
        if plain is not None:
            return plain[1].decode()
        event_id = msgspec.json.decode(raw)["event_id"]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        return None
    return event_id if isinstance(event_id, str) else None


def _archive(position: bytes | None) -> Holder:
    told = f"the log is archived up to {position.decode()}" if position else "nothing of the log is archived"
    return Holder("archive", "archive", (position or b"").decode(), f"{told}. Run `aurastream archive`.")


def _pairs(flat: list[Any]) -> dict[bytes, Any]:
    return {flat[i]: flat[i + 1] for i in range(0, len(flat), 2)}
