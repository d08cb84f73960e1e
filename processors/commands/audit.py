"""aurastream audit: who wrote what when, what led to it and what followed; and whether the archive was
tampered with.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, into_nothing, line, remark, table
from aurastream.processors.commands.common import Session, json_option, session, stream_option_all
from aurastream.processors.history import (
    AROUND_MAX,
    Row,
    Selection,
    Trails,
    drawn,
    parsed_time,
    read_past,
    trees,
)
from aurastream.projections import ProjectionError
from aurastream.streams import OPERATIONS, Stream, list_streams

ENVELOPE = {"type", "event_id", "subject", "occurred_at", "source"}
SHOWN = 1_000  # rows of a table, unless --last says otherwise
SHOWN_APART = frozenset(
    {"why", "correlation_id", "causation_id", "traceparent", "version"}
)  # of an operator's event


class _Audit(click.Command):
    """The query; with `verify` as its first word, the command of that name. (A subject so called: --subject
    verify.)
    """

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args[:1] == ["verify"]:
            from aurastream.processors.commands.verify import verify

            command: click.Command = verify
            return command.make_context(f"{info_name} verify", args[1:], parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)


@click.command(
    "audit", cls=_Audit, epilog="`aurastream audit verify` says whether archive and log are what was written."
)
@click.argument("subject", required=False)
@click.option("--subject", "named_subject", metavar="SUBJECT", help="The same, for a subject called verify.")
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="S",
    help="Only of this source: a worker, or worker@host:n (repeatable).",
)
@click.option("--type", "types", multiple=True, metavar="T", help="Only of this event type (repeatable).")
@click.option(
    "--correlation",
    "correlations",
    multiple=True,
    metavar="C",
    help="Only of this story (repeatable): found by an index.",
)
@click.option(
    "--event",
    "event_id",
    metavar="ID",
    help="This event, what led to it and what followed: found by an index.",
)
@click.option("--since", metavar="TIME", help="Not earlier than this. ISO 8601; a date is its midnight UTC.")
@click.option("--until", metavar="TIME", help="Not later than this.")
@click.option(
    "--by",
    type=click.Choice(["occurred", "appended"]),
    default="occurred",
    show_default=True,
    help="Whose clock --since and --until mean: the event's, or the server's that appended it.",
)
@click.option(
    "--last", type=click.IntRange(1), metavar="N", help=f"Only the last N; a table shows {SHOWN:,}, JSON all."
)
@click.option("--tree", "is_tree", is_flag=True, help="What led to what, from first cause to last effect.")
@stream_option_all
@json_option
@click.pass_context
def audit(context: click.Context, /, **options: Any) -> None:
    """The events of SUBJECT, or of a source, a type, a story, a time: the facts the numbers come from.

    In the order of the log, archived ones too. A subject, a story and an event are found by an index, in time
    that does not grow with the log; other questions read all of it (--since and --by appended narrow that).
    Without any question: what operators did. Replays are left out unless named with --stream.
    """
    subject = options["subject"] or options["named_subject"]
    selection = _selection(options)
    if options["event_id"] and (subject or selection != Selection(by=selection.by)):
        raise click.UsageError(
            "--event asks for one event and what belongs to it: leave the other questions out"
        )
    last = options["last"] or (None if options["as_json"] else SHOWN)
    with session(context) as found:
        trails = Trails([found.history(stream) for stream in _streams(found, options, subject, selection)])
        rows = _rows(trails, subject, options["event_id"], selection)
        if options["is_tree"] or options["event_id"]:
            listed, is_cut = trails.around(_some(rows, min(last or AROUND_MAX, AROUND_MAX)))
            count, shown = len(listed), iter(listed)
            if is_cut:
                remark(f"only {AROUND_MAX:,} events are shown: ask for less with --last, --since or --event")
        else:
            count, shown = 0, _some(rows, last)
        first = next(shown, None)
        if first is None:
            raise ProjectionError(_nothing(trails, subject, options["event_id"]))
        whole = _chained(first, shown)
        if options["is_tree"]:
            _show_tree(list(whole), options["as_json"])
        elif options["as_json"]:
            _print_rows(whole)
        else:
            _show_table(subject or options["event_id"] or "Audit trail", list(whole), count, last)
        if trails.tally.scanned > SHOWN:
            remark(
                f"{trails.tally.scanned:,} entries were read one by one: only a subject, a story and an "
                "event have an index"
            )


def _selection(options: dict[str, Any]) -> Selection:
    since, until = (
        None if options[name] is None else parsed_time(options[name], f"--{name}")
        for name in ("since", "until")
    )
    return Selection(
        since,
        until,
        options["by"],
        frozenset(options["types"]),
        correlations=frozenset(options["correlations"]),
        sources=frozenset(options["sources"]),
    )


def _streams(
    found: Session, options: dict[str, Any], subject: str | None, selection: Selection
) -> list[Stream]:
    """The named streams; or the operations where nothing else is asked; or all but replays."""
    if options["stream_names"]:
        return found.streams(tuple(dict.fromkeys(options["stream_names"])))
    facts = list_streams(found.server)
    if subject is None and options["event_id"] is None and selection == Selection(by=selection.by):
        if OPERATIONS not in facts:
            raise ProjectionError(
                "no operator has done anything yet. Ask for a subject, a source, a type, a story or a time."
            )
        return [found.open(OPERATIONS)]
    names = tuple(name for name in facts if not facts[name].is_replay)
    return (
        [stream for stream in found.streams(names) if stream.is_log_here] if names else []
    )  # what is in Kafka is asked there


def _rows(trails: Trails, subject: str | None, event_id: str | None, selection: Selection) -> Iterator[Row]:
    """By the best index the question allows."""
    if event_id is not None:
        return trails.of_event(event_id)
    if subject is not None:
        return trails.of_subject(subject, selection)
    if selection.correlations:
        return trails.of_correlations(selection)
    return map(trails.row_of, read_past(trails.histories, selection, tally=trails.tally))


def _some(rows: Iterator[Row], last: int | None) -> Iterator[Row]:
    return rows if last is None else iter(deque(rows, maxlen=last))


def _chained(first: Row, rest: Iterable[Row]) -> Iterator[Row]:
    yield first
    yield from rest


def _nothing(trails: Trails, subject: str | None, event_id: str | None) -> str:
    where = ", ".join(history.stream.name for history in trails.histories) or "no stream"
    what = (
        f"no event of {subject!r}" if subject else f"no event {event_id!r}" if event_id else "no such event"
    )
    return f"{what} is in {where}. Is it spelt right? Replays are asked with --stream."


def _print_rows(rows: Iterable[Row]) -> None:
    """A JSON list, written as it is read."""
    try:
        start = "[\n"
        for row in rows:
            click.echo(start + msgspec.json.encode(row.plain()).decode(), nl=False)
            start = ",\n"
        click.echo("\n]")
    except BrokenPipeError:
        into_nothing(sys.stdout.fileno())


def _show_tree(rows: list[Row], as_json: bool) -> None:
    roots = trees(rows)
    if as_json:
        print_json([root.plain() for root in roots])
        return
    for lead, node in drawn(roots):
        event = node.row.event
        told = [
            event.get("occurred_at", ""),
            event.get("type", ""),
            event.get("subject", ""),
            node.row.event_id,
        ]
        told += [f"by {event['source']}"] if event.get("source") else []
        told += [_own(node.row), f"({node.note})" if node.note else "", f"[{node.row.place}]"]
        shown = harmless(" ".join(str(part) for part in told if part))
        line(lead + shown, is_cut=True)


def _show_table(title: str, rows: list[Row], count: int, last: int | None) -> None:
    streams = list(dict.fromkeys(row.stream for row in rows))
    is_one = len(streams) == 1
    if streams == [OPERATIONS]:
        columns = ["when", "who~", "what~", "about~", "why~", "facts~"]
        shown = [
            [
                _short(row),
                row.event.get("source", ""),
                str(row.event.get("type", row.damage)).replace(".", " ").replace("_", " "),
                row.event.get("subject", ""),
                row.event.get("why", ""),
                _own(row, SHOWN_APART),
            ]
            for row in rows
        ]
    else:
        columns = ["position" if is_one else "place~", "occurred at", "type~", "event ID~", "facts~"]
        shown = [
            [
                row.position if is_one else row.place,
                row.event.get("occurred_at", ""),
                row.event.get("type", ""),
                row.event_id,
                _own(row),
            ]
            for row in rows
        ]
    is_cut = last is not None and len(rows) == last and not count
    table(f"{title}: {'the last ' if is_cut else ''}{len(rows):,} events", columns, shown)
    line(f"in {', '.join(streams)}", "dim")


def _short(row: Row) -> str:
    """When, to the second."""
    return str(row.event.get("occurred_at", "")).partition(".")[0].removesuffix("Z").replace("T", " ")


def _own(row: Row, without: frozenset[str] = frozenset()) -> str:
    """The event's own fields, in a line."""
    if row.damage:
        return row.damage
    return ", ".join(f"{name}={value}" for name, value in row.event.items() if name not in ENVELOPE | without)
