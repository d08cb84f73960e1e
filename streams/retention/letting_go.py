"""
Letting go: producers and the trimmer no longer wait for a name, whatever has it.

    holds_of(stream, name)   joined groups (views, their generations, processors), worker apps of Faust,
    foreign
                             groups of the server
        -> GroupForgotten, in the audit trail first
        -> let_go(..)        HDEL of the group's place; a mark in the app's; XGROUP DESTROY of the foreign
            group

What comes back joins again: a group's cursor and an app's place stay as they are, and the mark goes with the
app's next acknowledgement. A foreign group is the server's and has no place but itself, so that it is
gone; so is the server's group of one of ours that has read nothing yet, as without a cursor it would pass
for foreign.

Decision (2026-11): an app that is let go is marked. Refused: deleting its place, after which it would read
all the log again, and its server's group would hold back the trimmer as a foreign one.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from aurastream.streams import Command, Keys, Stream, backlogs, beyond
from aurastream.streams.retention.names import named_everywhere, server_groups, shown

GROUP, APP, FOREIGN = "group", "app", "foreign group"


class Hold(msgspec.Struct, frozen=True):
    """What of a name may hold back one partition. kind: group, app or foreign group. events, bytes: how
    far it is behind; bytes are counted for groups alone. joined_ms: server time, 0 where nobody knows.
    """

    kind: str
    name: str
    partition: int
    events: int
    bytes: int = 0
    joined_ms: int = 0


def holds_of(stream: Stream, name: str | None = None) -> list[Hold]:
    """Of a name, or of all; the furthest behind first in each partition."""
    apps = named_everywhere(stream, lambda keys: keys.acked(""))
    return [
        hold
        for keys in stream.keys
        for hold in sorted(_holds(stream, keys, apps[keys]), key=lambda hold: (-hold.events, hold.name))
        if name in (None, hold.name)
    ]


def let_go(stream: Stream, holds: list[Hold]) -> None:
    """Wait for them no longer. Repeating it changes nothing."""
    for hold in holds:
        keys = stream.keys[hold.partition]
        stream.ask(keys.partition, *_commands(stream, keys, hold), what=f"letting {hold.name} go")


def _commands(stream: Stream, keys: Keys, hold: Hold) -> Iterator[Command]:
    if hold.kind == GROUP:
        yield ("HDEL", keys.groups, hold.name)
    if hold.kind == APP:
        seconds, _ = stream.ask(keys.partition, ("TIME",))[0]
        yield beyond(keys.acked(hold.name), "HSET", "forgotten", f"{int(seconds)}000")
    elif hold.kind == FOREIGN or not stream.ask(keys.partition, ("EXISTS", keys.cursor(hold.name)))[0]:
        for group in server_groups(stream, keys):
            if shown(group[b"name"]) == hold.name:
                yield ("XGROUP", "DESTROY", keys.log, group[b"name"])


def _holds(stream: Stream, keys: Keys, apps: list[str]) -> Iterator[Hold]:
    joined = backlogs(stream.server, keys)
    for item in joined:
        yield Hold(GROUP, item.group, keys.partition, item.events, item.bytes, item.joined_ms)
    length, trimmed, *places = stream.ask(
        keys.partition,
        ("XLEN", keys.log),
        ("HGET", keys.meta, "trimmed"),
        *[("HMGET", keys.acked(app), "read", "forgotten") for app in apps],
    )
    for app, (read, forgotten) in zip(apps, places, strict=True):
        if forgotten is None:
            yield Hold(APP, app, keys.partition, max(0, length + int(trimmed or 0) - int(read or 0)))
    ours = {*apps, *(item.group for item in joined)}  # who has joined and read nothing yet has no cursor
    for group in server_groups(stream, keys):
        name = shown(group[b"name"])
        if name not in ours and not stream.ask(keys.partition, ("EXISTS", keys.cursor(name)))[0]:
            yield Hold(FOREIGN, name, keys.partition, int(group.get(b"lag") or 0) + int(group[b"pending"]))
