"""aurastream status: where everything stands."""

from __future__ import annotations

from collections.abc import Iterator

import click

from aurastream.processors import as_json as print_json
from aurastream.processors import line, table
from aurastream.processors.commands.common import opened
from aurastream.processors.commands.options import json_option
from aurastream.processors.commands.standing import GroupStanding, Standing, standing

MIB = 2**20
SUMMED = ("applied", "duplicates", "skipped", "dead")


@click.command()
@json_option
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Server, streams, partitions, groups, lag and memory."""
    with opened(context) as session:
        now = standing(session)
    if as_json:
        print_json(now)
    else:
        _show(now)


def _show(now: Standing) -> None:
    server = now.server
    line(f"{server.name}, {server.memory_bytes / MIB:,.1f} MiB used, eviction {server.eviction or 'unknown'}")
    if now.home:
        line(f"embedded, home {now.home}")
    columns = ["stream~", "partitions", "events", "repeats", "log MiB", "ids MiB"]
    table("Streams", columns, _stream_rows(now))
    columns = ["stream~", "group~", "lag", "lag s", "pending", "applied", "dupl.", "skipped", "dead"]
    table("Groups", columns, [[stream, *_group_row(name, parts)] for stream, name, parts in _groups(now)])
    generations = list(_generation_rows(now))
    if generations:
        columns = ["stream~", "view~", "generation", "state", "read", "kept until"]
        table("Generations", columns, generations)
    _show_findings(now)


def _stream_rows(now: Standing) -> Iterator[list[object]]:
    for name, stream in now.streams.items():
        parts = stream.partitions
        events, repeats = sum(part.events for part in parts), sum(part.appends_repeated for part in parts)
        log, ids = sum(part.log_bytes for part in parts), sum(part.ids_bytes for part in parts)
        shown = f"{name} (topic)" if stream.is_topic else name
        yield [shown, len(parts), events, repeats, log / MIB, ids / MIB]


def _groups(now: Standing) -> Iterator[tuple[str, str, list[GroupStanding]]]:
    for name, stream in now.streams.items():
        for group, parts in stream.groups.items():
            yield name, group, parts


def _group_row(name: str, parts: list[GroupStanding]) -> list[object]:
    lag, waiting = sum(part.lag_events for part in parts), max(part.lag_seconds for part in parts)
    pending = sum(part.pending for part in parts)
    return [name, lag, waiting, pending, *(sum(getattr(part, field) for part in parts) for field in SUMMED)]


def _generation_rows(now: Standing) -> Iterator[list[object]]:
    for name, stream in now.streams.items():
        for view, items in stream.generations.items():
            for item in items:
                read = f"{item.read:,} of {item.entries:,}"
                yield [name, view, item.generation, item.state, read, item.kept_until]


def _show_findings(now: Standing) -> None:
    """What a person must act on."""
    if broken := ", ".join(_broken(now)):
        line(f"the log lost entries without the trimmer: {broken}; run `aurastream check`", "bold red")
    for name, stream in now.streams.items():
        for row in stream.partitions:
            held, where = row.pressure, f"{name}/{row.partition}"
            if held and held.is_full:
                behind = f"{held.events:,} events behind"
                line(f"producers of {where} wait for {held.slowest}, {behind}", "bold red")


def _broken(now: Standing) -> Iterator[str]:
    """The partitions, each with the group that missed entries there."""
    for name, group, parts in _groups(now):
        for part in parts:
            if part.missing or part.rewound:
                yield f"{name}/{part.partition} ({group})"
