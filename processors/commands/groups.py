"""aurastream groups: whom the producers wait for, and how to stop waiting."""

from __future__ import annotations

from datetime import UTC, datetime

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import line, table
from aurastream.processors.commands.common import opened
from aurastream.processors.commands.options import json_option, stream_option_all, why_option
from aurastream.processors.effects import operator
from aurastream.projections import ProjectionError
from aurastream.streams import Backlog, GroupForgotten, Server, Stream, backlogs, forget, named_id


class JoinedGroup(msgspec.Struct, frozen=True):
    """A group that holds a partition's producers back. events and bytes: how far it is behind."""

    stream: str
    partition: int
    group: str
    events: int
    bytes: int
    joined_at: str


@click.group()
def groups() -> None:
    """The groups of each stream that hold producers back when they fall too far behind.

    Each verb has --json.
    """


@groups.command("list")
@stream_option_all
@json_option
@click.pass_context
def list_(context: click.Context, stream_names: tuple[str, ...], as_json: bool) -> None:
    """Every group that joined, per partition, the slowest first."""
    with opened(context) as session:
        joined = [
            _joined(stream.name, keys.partition, item)
            for stream in session.streams(stream_names)
            for keys in stream.keys
            for item in backlogs(session.server, keys)
        ]
    if as_json:
        print_json({"groups": joined})
    else:
        columns = ["stream~", "partition", "group~", "events behind", "bytes behind", "joined at"]
        table("Groups", columns, [msgspec.structs.astuple(row) for row in joined])


def _joined(stream: str, partition: int, item: Backlog) -> JoinedGroup:
    joined_at = datetime.fromtimestamp(item.joined_ms / 1000, UTC).isoformat()
    return JoinedGroup(stream, partition, item.group, item.events, item.bytes, joined_at)


@groups.command("forget")
@click.argument("name")
@click.option("--stream", "stream_name", required=True, metavar="NAME", help="Which stream.")
@why_option
@json_option
@click.pass_context
def forget_(context: click.Context, name: str, stream_name: str, why: str, as_json: bool) -> None:
    """Let the producers of a stream no longer wait for group NAME. It joins again when it starts again.

    Its cursor and its view stay as they are. Exit code 1 when it had not joined.
    """
    with opened(context) as session:
        stream = session.open(stream_name)
        behind, partitions = _forgotten(session.server, stream, name)
        session.operations().append([_fact(stream_name, name, behind, why)])
    if as_json:
        print_json({"group": name, "stream": stream_name, "partitions": partitions, "behind_events": behind})
    else:
        line(f"producers of {stream_name} no longer wait for {name} ({behind:,} events behind)")


def _forgotten(server: Server, stream: Stream, group: str) -> tuple[int, int]:
    """How many events behind, of how many partitions. Raises ProjectionError when it had not joined."""
    standing = [item for keys in stream.keys for item in backlogs(server, keys)]
    behind = sum(item.events for item in standing if item.group == group)
    partitions = forget(server, stream.keys, group)
    if not partitions:
        raise ProjectionError(
            f"no group {group!r} holds producers of {stream.name!r} back. `aurastream groups list` shows "
            "those that do."
        )
    return behind, partitions


def _fact(stream: str, group: str, behind: int, why: str) -> GroupForgotten:
    """For the audit trail."""
    now = datetime.now(UTC)
    return GroupForgotten(
        event_id=named_id(stream, group, "forgotten", now.isoformat()),
        subject=group,
        occurred_at=now,
        source=operator(),
        producers_of=stream,
        behind_events=behind,
        why=why,
    )
