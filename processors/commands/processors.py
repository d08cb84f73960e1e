"""aurastream processors: what each handles of a stream, since when, and what a person decides about it."""

from __future__ import annotations

import click
import msgspec

from aurastream.processors import ProcessorError, harmless, line, parsed_time, table
from aurastream.processors import as_json as print_json
from aurastream.processors.commands.common import Session, opened
from aurastream.processors.commands.options import Words, json_option, stream_option_all
from aurastream.processors.effects import (
    Acceptance,
    Accepted,
    Met,
    Processor,
    Since,
    field_of_meeting,
    instant_of,
    processor_standing,
    processors_of,
    read_meetings,
)
from aurastream.streams import Stream


class ProcessorRow(msgspec.Struct, frozen=True):
    """A processor on a stream. since: type -> ISO 8601, append time. standing: why this build must not run
    it, "" where it may.
    """

    processor: str
    stream: str
    version: int
    start: str
    since: dict[str, str]
    standing: str


class From(click.ParamType):
    """now, skipped, beginning or an instant."""

    name = "from"

    def convert(self, value: str | Since, param: click.Parameter | None, ctx: click.Context | None) -> Since:
        """As meeting.py counts it."""
        if isinstance(value, Since):
            return value
        if value in ("now", "skipped"):
            return Since(None, value)
        if value == "beginning":
            return Since(0, value)
        try:
            return Since(round(parsed_time(value).timestamp() * 1_000), value)
        except ValueError:
            self.fail(f"{value!r} is none of now, skipped, beginning, or a time (ISO 8601)", param, ctx)


@click.group()
def processors() -> None:
    """What processors handle, and since when.

    A processor whose event types differ from what is recorded, or whose unread events were trimmed, is run by
    nobody until a person decides. Each verb has --json.
    """


@processors.command("list")
@stream_option_all
@json_option
@click.pass_context
def list_(context: click.Context, stream_names: tuple[str, ...], as_json: bool) -> None:
    """Every installed processor by stream, with its types and since when each is handled."""
    with opened(context) as session:
        rows = [
            _row(session, processor, stream)
            for stream in session.streams(stream_names)
            for _, processor in sorted(processors_of(session.installed).items())
            if processor.handles(stream)
        ]
    if as_json:
        print_json({"processors": rows})
        return
    cells = [
        [row.processor, row.stream, ", ".join(f"{name} {at}" for name, at in row.since.items()), row.standing]
        for row in rows
    ]
    table("Processors", ["processor~", "stream~", "handles since~", "standing~"], cells)


@processors.command()
@click.argument("name")
@stream_option_all
@click.option(
    "--from",
    "since",
    type=From(),
    default="now",
    show_default=True,
    metavar="WHEN",
    help="now; skipped: what was passed over since it began; beginning: of the log; or an instant.",
)
@click.option("--why", required=True, type=Words(), metavar="TEXT", help="For the audit trail.")
@json_option
@click.pass_context
def accept(
    context: click.Context, name: str, stream_names: tuple[str, ...], since: Since, why: str, as_json: bool
) -> None:
    """Let processor NAME go on as this build defines it, on all streams it handles or those named.

    New types are handled from WHEN on (append time); what was passed over runs now, each subject in order.
    Where unread events were trimmed, it goes on behind them: from the beginning of what the log has, or from
    now. Exit code 1 when there is nothing to decide.
    """
    with opened(context) as session:
        processor = _installed(session, name)
        streams = [stream for stream in session.streams(stream_names) if processor.handles(stream)]
        operations = session.operations()
        decided = [Acceptance(processor, stream, operations).decide(since, why) for stream in streams]
    if as_json:
        print_json({"accepted": decided})
    else:
        for item in decided:
            line(harmless(_sentence(item)))
    if not any(item.is_change for item in decided):
        context.exit(1)


def _installed(session: Session, name: str) -> Processor:
    known = processors_of(session.installed)
    if name not in known:
        others = ", ".join(sorted(known)) or "none"
        raise ProcessorError(f"no processor {name!r} is installed here (installed: {others}).")
    return known[name]


def _row(session: Session, processor: Processor, stream: Stream) -> ProcessorRow:
    standing = processor_standing(processor, stream, {})
    met: Met = read_meetings(session.server)[field_of_meeting(processor.name, stream.name)]
    since = {name: instant_of(at) for name, at in met.since.items()}
    return ProcessorRow(processor.name, stream.name, met.version, met.start, since, standing)


def _sentence(item: Accepted) -> str:
    at = f"{item.processor} on {item.stream}"
    if not item.is_change:
        return f"{at}: nothing to decide"
    parts = [
        f"handles {', '.join(item.gained)} too" if item.gained else "",
        f"no longer handles {', '.join(item.lost)}" if item.lost else "",
        f"{item.recalled:,} events that were passed over run now" if item.recalled else "",
        f"{item.passed:,} events are passed by" if item.passed else "",
    ]
    return f"{at}: {'; '.join(part for part in parts if part)}"
