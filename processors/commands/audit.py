"""aurastream audit: the events behind a subject."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from aurastream.processors.commands.common import Session, json_option, session, stream_option
from aurastream.processors.show import as_json as print_json
from aurastream.processors.show import line, table
from aurastream.projections import ProjectionError, View
from aurastream.streams import DamagedEntry, Stream
from aurastream.streams.codec import entry_json

ENVELOPE = {"type", "event_id", "subject", "occurred_at", "source"}


@click.command()
@click.argument("subject")
@stream_option
@json_option
@click.pass_context
def audit(context: click.Context, subject: str, stream_name: str | None, as_json: bool) -> None:
    """The events of SUBJECT: the facts its numbers come from.

    In the order of the log, each with its position.
    """
    with session(context) as found:
        trails = _find(found, subject, stream_name)
        if not trails:
            raise ProjectionError(
                f"no event of {subject!r} is in the audit trail. "
                "Is the subject spelt right, and is `trail` consumed (aurastream status)?"
            )
        rows = [row for stream, positions in trails for row in _entries(stream, subject, positions)]
    if as_json:
        print_json(rows)
        return
    shown = [[row["position"], row.get("occurred_at", ""), row.get("type", ""), row.get("event_id", ""), _own(row)] for row in rows]
    table(f"{subject}: {len(rows):,} events", ["position", "occurred at", "type~", "event ID~", "facts~"], shown)
    line(f"in {', '.join(stream.name for stream, _ in trails)}", "dim")


def _find(found: Session, subject: str, stream_name: str | None) -> list[tuple[Stream, list[str]]]:
    trail = found.installed.projection("trail")
    result = []
    for stream in found.streams((stream_name,) if stream_name else ()):
        partition = stream.partition_of(subject)
        items = View(stream, trail).listing("positions", subject, partitions=[partition]).rows
        if items:
            result.append((stream, items[partition]))
    return result


def _entries(stream: Stream, subject: str, positions: list[str]) -> list[dict[str, Any]]:
    partition = stream.partition_of(subject)
    log, rows = stream.keys[partition].log, []
    for start in range(0, len(positions), 500):
        part = positions[start : start + 500]
        answers = stream.wire(partition).ask(*[("XRANGE", log, position, position) for position in part])
        for position, answer in zip(part, answers, strict=True):
            row: dict[str, Any] = {"stream": stream.name, "partition": partition, "position": position}
            if not answer:
                row["damage"] = "the entry is gone from the log"
            else:
                try:
                    row |= msgspec.json.decode(entry_json(f"{stream.name}/{partition}/{position}", answer[0][1]))
                except (DamagedEntry, msgspec.MsgspecError) as error:
                    row["damage"] = str(error)
            rows.append(row)
    return rows


def _own(row: dict[str, Any]) -> str:
    """The event's own fields, in a line."""
    if "damage" in row:
        return str(row["damage"])
    own = {name: value for name, value in row.items() if name not in ENVELOPE | {"stream", "partition", "position"}}
    return ", ".join(f"{name}={value}" for name, value in own.items())
