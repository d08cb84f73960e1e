"""
Who may still need an entry of the live log.

    look -> joined groups (their cursors, processors' dead letters), worker apps, foreign groups of the
        server, the archive, and event
    IDs that are in the log twice (doubles.py) -> Look.through(..): the last position nobody needs

A look writes nothing and is no promise: trim.lua verifies it, in the script that removes. What cannot change
behind its back is not verified again: cursors, acknowledgements and the archive only advance, and a new
letter is of an entry after its group's cursor.
"""

from __future__ import annotations

from collections.abc import Iterator

from aurastream.streams import START, Command, Keys, Position, Reply, Stream
from aurastream.streams.retention.doubles import search_doubles
from aurastream.streams.retention.look import Holder, Look


class Looker:
    """Looks at the partitions of one stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def look(self, partition: int, keep_events: int | None = None) -> Look:
        """Everything that matters of one partition now."""
        keys = self._stream.keys[partition]
        length, names, archived = self._ask(
            keys, ("XLEN", keys.log), ("HKEYS", keys.groups), ("HGET", keys.archive, "position")
        )
        if not length:
            return Look(keys=[])
        apps, joined = self._named(keys.acked("")), {name.decode() for name in names}
        # Letters of a group that was forgotten may be retried as well.
        groups = sorted(joined.union(self._named(keys.dead(""))))
        of_groups = [key for name in groups for key in (keys.cursor(name), keys.dead(name))]
        look = Look(keys=[*of_groups, *map(keys.acked, apps)], apps=apps)
        look.holders = [
            _archive(archived),
            *[holder for name in groups for holder in self._group(keys, look, name, name in joined)],
            *[self._app(keys, app) for app in apps],
        ]
        look.holders += self._foreign(keys, look)
        self._measure(keys, look)
        if look.raw_entries:
            going = None if keep_events is None else look.entries - keep_events
            search_doubles(self._stream, partition, look, going)
        return look

    def _named(self, prefix: str) -> list[str]:
        """What follows the prefix in the names of keys."""
        names: Iterator[bytes] = self._stream.server.client.scan_iter(match=f"{prefix}*", count=1_000)
        return sorted({key.decode(errors="backslashreplace").removeprefix(prefix) for key in names})

    def _group(self, keys: Keys, look: Look, name: str, is_joined: bool) -> Iterator[Holder]:
        """A group of ours, where it holds something: by its cursor, by its letters."""
        (position, retired), stored = self._ask(
            keys, ("HMGET", keys.cursor(name), "position", "retired"), ("HGETALL", keys.dead(name))
        )
        look.groups[name] = len(stored) // 2
        look.ours.add(name)
        if is_joined and retired is None:
            through = (position or b"").decode()
            why = f"the group {name!r} {_reached('read', through)}. {_remedy(name, keys.stream)}"
            yield Holder("group", name, through, why)
        # A processor's letters are JSON objects and need their entries for a retry; a projection's reasons
        # are sentences.
        letters = [
            Position.parse(place)
            for place, letter in zip(stored[::2], stored[1::2], strict=True)
            if letter[:1] == b"{"
        ]
        if letters:
            least = min(letters)
            why = (
                f"{len(letters)} dead letters of {name!r} need their entries, the first at {least}. "
                f"`aurastream dead list {name}`, then retry or discard them."
            )
            yield Holder("dead letter", name, str(least.before()), why)

    def _app(self, keys: Keys, app: str) -> Holder:
        (position,) = self._ask(keys, ("HGET", keys.acked(app), "position"))
        through = (position or b"").decode()
        remedy = f"Run it; if it is gone for good, delete the key {keys.acked(app)}."
        return Holder(
            "app", app, through, f"the worker app {app!r} {_reached('acknowledged', through)}. {remedy}"
        )

    def _reached(self, keys: Keys, group: dict[bytes, Reply]) -> tuple[Position, str]:
        """Up to where a group needs nothing any more, and how far it has read, for a sentence."""
        through, pending = Position.parse(group[b"last-delivered-id"]), int(group[b"pending"])
        reached = f"has read up to {through}"
        if not pending:
            return through, reached
        least = Position.parse(self._ask(keys, ("XPENDING", keys.log, group[b"name"]))[0][1])
        reached += f" and not acknowledged {pending} entries, the first at {least}"
        return min(through, least.before()), reached

    def _foreign(self, keys: Keys, look: Look) -> Iterator[Holder]:
        """Groups of the server that no cursor of ours stands for."""
        look.ours.update(look.apps)
        for group in map(_paired, self._ask(keys, ("XINFO", "GROUPS", keys.log))[0]):
            name = group[b"name"].decode(errors="backslashreplace")
            if name in look.ours:
                continue
            if self._ask(keys, ("EXISTS", keys.cursor(name)))[0]:
                look.ours.add(name)  # it was forgotten, or given up: a person has decided
                continue
            through, reached = self._reached(keys, group)
            why = (
                f"the server's group {name!r}, which is none of AuraStream's, {reached}. "
                "Let it read on, or XGROUP DESTROY it."
            )
            yield Holder("foreign group", name, str(through), why)

    def _measure(self, keys: Keys, look: Look) -> None:
        flat, (trimmed, appended), first, newest = self._ask(
            keys,
            ("XINFO", "STREAM", keys.log),
            ("HMGET", keys.meta, "trimmed", "appended"),
            ("XRANGE", keys.log, "-", "+", "COUNT", 1),
            ("XREVRANGE", keys.log, "+", "-", "COUNT", 1),
        )
        facts = _paired(flat)
        look.entries = int(facts[b"length"])
        added = int(facts.get(b"entries-added", look.entries + int(trimmed or 0)))
        look.raw_entries = added - int(appended or 0)
        look.first, look.newest = (
            Position.parse(entry[0][0]) if entry else START for entry in (first, newest)
        )

    def _ask(self, keys: Keys, *commands: Command) -> list[Reply]:
        return self._stream.ask(keys.partition, *commands, what=f"look at {keys.where}")


def _reached(verb: str, through: str) -> str:
    return f"has {verb} up to {through}" if through else f"has {verb} nothing yet"


def _remedy(group: str, stream: str) -> str:
    if "@" in group:
        return (
            "It is a generation of a view: let its rebuild or its worker go on, or see `aurastream status`."
        )
    return f"Run its worker; if it is gone for good: `aurastream groups forget {group} --stream {stream}`."


def _archive(position: bytes | None) -> Holder:
    through = (position or b"").decode()
    reached = f"the log is archived up to {through}" if through else "nothing of the log is archived"
    return Holder("archive", "archive", through, f"{reached}. Run `aurastream archive`.")


def _paired(flat: list[Reply]) -> dict[bytes, Reply]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
