"""
aurastream audit: who wrote what when, what led to it and what followed; and whether the archive was tampered
with.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, into_nothing, line, remark, table
from aurastream.processors.commands.common import Session, opened
from aurastream.processors.commands.options import (
    Keyed,
    Time,
    by_option,
    into,
    json_option,
    stream_option_all,
)
from aurastream.processors.history import AROUND_MAX, By, Selection, TrailRow, Trails, drawn, read_past, trees
from aurastream.projections import ProjectionError
from aurastream.streams import OPERATIONS, Stream, list_streams

ENVELOPE = {"type", "event_id", "subject", "occurred_at", "source"}
SHOWN = 1_000  # rows of a table, unless --last says otherwise
# of an operator's event:
SHOWN_APART = frozenset({"why", "correlation_id", "causation_id", "traceparent", "version"})


class AuditOptions(msgspec.Struct, frozen=True):
    """The command line."""

    subject: str | None
    named_subject: str | None
    sources: tuple[str, ...]
    types: tuple[str, ...]
    correlations: tuple[str, ...]
    event_id: str | None
    since: datetime | None
    until: datetime | None
    by: By
    last: int | None
    is_tree: bool
    stream_names: tuple[str, ...]
    as_json: bool


class Question(msgspec.Struct, frozen=True):
    """What is asked."""

    subject: str | None
    event_id: str | None
    selection: Selection

    @property
    def is_open(self) -> bool:
        """Whether nothing is named: neither a subject, nor an event, nor what a selection can."""
        selection = self.selection
        return self.subject is None and self.event_id is None and selection == Selection(by=selection.by)

    def rows(self, trails: Trails) -> Iterator[TrailRow]:
        """By the best index the question allows."""
        if self.event_id is not None:
            return trails.of_event(self.event_id)
        if self.subject is not None:
            return trails.of_subject(self.subject, self.selection)
        if self.selection.correlations:
            return trails.of_correlations(self.selection)
        return map(trails.row_of, read_past(trails.histories, self.selection, tally=trails.tally))

    def nothing(self, trails: Trails) -> str:
        """The sentence for no row."""
        where = ", ".join(history.stream.name for history in trails.histories) or "no stream"
        what = "no such event"
        if self.subject:
            what = f"no event of {self.subject!r}"
        elif self.event_id:
            what = f"no event {self.event_id!r}"
        return f"{what} is in {where}. Is it spelt right? Replays are asked with --stream."


class AuditCommand(Keyed):
    """The query; with `verify` as its first word, the command of that name. (A subject so called: --subject
    verify.)
    """

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: object
    ) -> click.Context:
        """As click asks."""
        if args[:1] == ["verify"]:
            from aurastream.processors.commands.verify import verify

            command: click.Command = verify
            return command.make_context(f"{info_name} verify", args[1:], parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)


@click.command(
    "audit",
    cls=AuditCommand,
    epilog="`aurastream audit verify` says whether archive and log are what was written.",
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
@click.option(
    "--since",
    type=Time(),
    metavar="TIME",
    help="Not earlier than this. ISO 8601; a date is its midnight UTC.",
)
@click.option("--until", type=Time(), metavar="TIME", help="Not later than this.")
@by_option("Whose clock --since and --until mean: the event's, or the server's that appended it.")
@click.option(
    "--last", type=click.IntRange(1), metavar="N", help=f"Only the last N; a table shows {SHOWN:,}, JSON all."
)
@click.option("--tree", "is_tree", is_flag=True, help="What led to what, from first cause to last effect.")
@stream_option_all
@json_option
@into(AuditOptions)
def audit(context: click.Context, options: AuditOptions) -> None:
    """The events of SUBJECT, or of a source, a type, a story, a time: the facts the numbers come from.

    In the order of the log, archived ones too. A subject, a story and an event are found by an index, in time
    that does not grow with the log; other questions read all of it (--since and --by appended narrow that).
    Without any question: what operators did. Replays are left out unless named with --stream.
    """
    question = _question(options)
    last = options.last or (None if options.as_json else SHOWN)
    with opened(context) as session:
        trails = Trails([session.history(stream) for stream in _streams(session, options, question)])
        rows, is_around = question.rows(trails), options.is_tree or options.event_id is not None
        shown = _around(trails, rows, last) if is_around else _some(rows, last)
        first = next(shown, None)
        if first is None:
            raise ProjectionError(question.nothing(trails))
        whole = chain([first], shown)
        if options.is_tree:
            _show_tree(list(whole), options.as_json)
        elif options.as_json:
            _print_rows(whole)
        else:
            title = question.subject or question.event_id or "Audit trail"
            _show_table(title, list(whole), None if is_around else last)
        if trails.tally.scanned > SHOWN:
            remark(
                f"{trails.tally.scanned:,} entries were read one by one: only a subject, a story and an "
                "event have an index"
            )


def _question(options: AuditOptions) -> Question:
    subject = options.subject or options.named_subject
    selection = Selection(
        options.since,
        options.until,
        options.by,
        frozenset(options.types),
        correlations=frozenset(options.correlations),
        sources=frozenset(options.sources),
    )
    if options.event_id and not Question(subject, None, selection).is_open:
        raise click.UsageError(
            "--event asks for one event and what belongs to it: leave the other questions out"
        )
    return Question(subject, options.event_id, selection)


def _streams(session: Session, options: AuditOptions, question: Question) -> list[Stream]:
    """The named streams; or the operations where nothing else is asked; or all but replays."""
    if options.stream_names:
        return session.streams(tuple(dict.fromkeys(options.stream_names)))
    facts = list_streams(session.server)
    if question.is_open:
        if OPERATIONS not in facts:
            raise ProjectionError(
                "no operator has done anything yet. Ask for a subject, a source, a type, a story or a time."
            )
        return [session.open(OPERATIONS)]
    names = tuple(name for name in facts if not facts[name].is_replay and not facts[name].is_topic)
    # what is in Kafka is asked there
    return [stream for stream in session.streams(names) if stream.is_log_here] if names else []


def _some(rows: Iterator[TrailRow], last: int | None) -> Iterator[TrailRow]:
    return rows if last is None else iter(deque(rows, maxlen=last))


def _around(trails: Trails, rows: Iterator[TrailRow], last: int | None) -> Iterator[TrailRow]:
    """The rows with all that led to them and followed from them."""
    listed, is_cut = trails.around(_some(rows, min(last or AROUND_MAX, AROUND_MAX)))
    if is_cut:
        remark(f"only {AROUND_MAX:,} events are shown: ask for less with --last, --since or --event")
    return iter(listed)


def _print_rows(rows: Iterable[TrailRow]) -> None:
    """A JSON list, written as it is read."""
    try:
        start = "[\n"
        for row in rows:
            click.echo(start + msgspec.json.encode(row.plain()).decode(), nl=False)
            start = ",\n"
        click.echo("\n]")
    except BrokenPipeError:
        into_nothing(sys.stdout.fileno())


def _show_tree(rows: list[TrailRow], as_json: bool) -> None:
    roots = trees(rows)
    if as_json:
        print_json([root.plain() for root in roots])
        return
    for lead, node in drawn(roots):
        row, event = node.row, node.row.event
        parts = [event.get("occurred_at", ""), event.get("type", ""), event.get("subject", ""), row.event_id]
        parts += [f"by {event['source']}"] if event.get("source") else []
        parts += [_own(row), f"({node.note})" if node.note else "", f"[{row.place}]"]
        line(lead + harmless(" ".join(str(part) for part in parts if part)), is_cut=True)


def _show_table(title: str, rows: list[TrailRow], last: int | None) -> None:
    """last: how many are shown at most; None where none were left out."""
    streams = list(dict.fromkeys(row.stream for row in rows))
    if streams == [OPERATIONS]:
        columns = ["when", "who~", "what~", "about~", "why~", "facts~"]
        cells = [_of_operator(row) for row in rows]
    else:
        is_one = len(streams) == 1
        columns = ["position" if is_one else "place~", "occurred at", "type~", "event ID~", "facts~"]
        cells = [_of_event(row, row.position if is_one else row.place) for row in rows]
    of_last = "the last " if last is not None and len(rows) == last else ""
    table(f"{title}: {of_last}{len(rows):,} events", columns, cells)
    line(f"in {', '.join(streams)}", "dim")


def _of_operator(row: TrailRow) -> list[str]:
    event = row.event
    when = str(event.get("occurred_at", "")).partition(".")[0].removesuffix("Z").replace("T", " ")
    what = str(event.get("type", row.damage)).replace(".", " ").replace("_", " ")
    return [
        when,
        event.get("source", ""),
        what,
        event.get("subject", ""),
        event.get("why", ""),
        _own(row, SHOWN_APART),
    ]


def _of_event(row: TrailRow, place: str) -> list[str]:
    event = row.event
    return [place, event.get("occurred_at", ""), event.get("type", ""), row.event_id, _own(row)]


def _own(row: TrailRow, without: frozenset[str] = frozenset()) -> str:
    """The event's own fields, in a line."""
    if row.damage:
        return row.damage
    return ", ".join(f"{name}={value}" for name, value in row.event.items() if name not in ENVELOPE | without)
