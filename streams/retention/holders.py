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
from shlex import quote

from aurastream.streams import START, Command, Keys, Position, Reply, Stream
from aurastream.streams.retention.doubles import search_doubles
from aurastream.streams.retention.look import Holder, Look
from aurastream.streams.retention.names import named_keys, server_groups, shown


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
        apps, joined = named_keys(self._stream, keys.acked("")), {name.decode() for name in names}
        # Letters of a group that was forgotten may be retried as well.
        groups = sorted(joined.union(named_keys(self._stream, keys.dead(""))))
        of_groups = [key for name in groups for key in (keys.cursor(name), keys.dead(name))]
        look = Look(keys=[*of_groups, *map(keys.acked, apps)], apps=apps)
        look.holders = [
            _archive(archived),
            *[holder for name in groups for holder in self._group(keys, look, name, name in joined)],
            *[holder for app in apps for holder in self._app(keys, app)],
        ]
        look.holders += self._foreign(keys, look)
        self._measure(keys, look)
        if look.raw_entries:
            going = None if keep_events is None else look.entries - keep_events
            search_doubles(self._stream, partition, look, going)
        return look

    def _group(self, keys: Keys, look: Look, name: str, is_joined: bool) -> Iterator[Holder]:
        """A group of ours, where it holds something: by its cursor, by its letters."""
        (position, retired), stored = self._ask(
            keys, ("HMGET", keys.cursor(name), "position", "retired"), ("HGETALL", keys.dead(name))
        )
        look.groups[name] = len(stored) // 2
        look.ours.add(name)
        if is_joined and retired is None:
            through = (position or b"").decode()
            why = (
                f"the group {name!r} {_reached('read', through)}. {_remedy(_runner(name), name, keys.stream)}"
            )
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
                "Retry them "
                f"(`aurastream dead list {name}` shows them); to discard them all: "
                f"{_let_go(name, keys.stream, '--letters ')}."
            )
            yield Holder("dead letter", name, str(least.before()), why)

    def _app(self, keys: Keys, app: str) -> Iterator[Holder]:
        """A worker app of Faust; what earlier builds' hosts have left is one as well (aurastream)."""
        ((position, forgotten),) = self._ask(keys, ("HMGET", keys.acked(app), "position", "forgotten"))
        if forgotten is not None:
            return
        through = (position or b"").decode()
        why = f"the worker app {app!r} {_reached('acknowledged', through)}. {_remedy('it', app, keys.stream)}"
        yield Holder("app", app, through, why)

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
        for group in server_groups(self._stream, keys):
            name = shown(group[b"name"])
            if name in look.ours:
                continue
            if self._ask(keys, ("EXISTS", keys.cursor(name)))[0]:
                look.ours.add(name)  # it was forgotten, or given up: a person has decided
                continue
            through, reached = self._reached(keys, group)
            why = (
                f"the server's group {name!r}, which is none of AuraStream's, {reached}. "
                f"{_remedy('its reader', name, keys.stream)}"
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


def _runner(group: str) -> str:
    return "its rebuild or its host (it is a generation of a view)" if "@" in group else "its host"


def _remedy(runner: str, name: str, stream: str) -> str:
    return f"Run {runner}; if it is gone for good: {_let_go(name, stream)}."


def _let_go(name: str, stream: str, option: str = "") -> str:
    """The command, as a shell takes it."""
    words = (
        f"--stream {stream} -- {quote(name)}" if name.startswith("-") else f"{quote(name)} --stream {stream}"
    )
    return f"`aurastream groups forget {option}{words}`"


def _archive(position: bytes | None) -> Holder:
    through = (position or b"").decode()
    reached = f"the log is archived up to {through}" if through else "nothing of the log is archived"
    return Holder("archive", "archive", through, f"{reached}. Run `aurastream archive`.")


def _paired(flat: list[Reply]) -> dict[bytes, Reply]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
