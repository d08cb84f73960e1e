"""aurastream trim: remove from the live log what is archived and read by all."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line, progress_bar, table
from aurastream.processors.commands.common import Session, json_option, session, stream_option_all
from aurastream.processors.history import parsed_time
from aurastream.streams import OPERATIONS, ArchiveUnseen, Stream
from aurastream.streams.archive import open_archive
from aurastream.streams.retention import Goal, Trimmed, Trimmer

if TYPE_CHECKING:  # pyarrow takes its time
    from aurastream.streams.archive import StreamArchive

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@click.command()
@stream_option_all
@click.option(
    "--before",
    metavar="TIME",
    help="What was appended before it: ISO 8601; a date is 00:00, no offset is UTC.",
)
@click.option("--older-than", "age", metavar="AGE", help="What was appended longer ago: 90m, 36h, 7d, 4w.")
@click.option(
    "--keep-events", type=click.IntRange(min=0), metavar="N", help="All but the newest N of each partition."
)
@click.option("--dry-run", is_flag=True, help="Say what would go and who would hold it back; change nothing.")
@click.option("--why", default="", metavar="TEXT", help="For the audit trail.")
@json_option
@click.pass_context
def trim(
    context: click.Context,
    stream_names: tuple[str, ...],
    before: str | None,
    age: str | None,
    keep_events: int | None,
    dry_run: bool,
    why: str,
    as_json: bool,
) -> int:
    """Remove entries that are archived and read by all from the log, with their event IDs.

    What a group, a rebuild, a worker app, another reader of the server or a dead letter still needs stays,
    and who holds it back is
    said: then the exit code is 1, and 0 when all that was asked for is gone. Their events stay in the
    archive: rebuild, replay, check and views of the past read on from there. An event ID that is trimmed
    counts as new when it is appended again.
    """
    goal = _goal(before, age, keep_events)
    done: list[Trimmed] = []
    with session(context) as found:
        operations = None if dry_run else found.open(OPERATIONS, create=True)
        here = [stream for stream in found.streams(stream_names) if stream_names or stream.is_log_here]
        for stream in here:
            with progress_bar(f"trimming {stream.name}") as bar:
                trimmer = Trimmer(
                    stream,
                    operations,
                    goal,
                    why=why,
                    archive=_archive(found, stream),
                    on_step=lambda _, removed: bar.to(removed),
                )
                trimmed = list(trimmer.run())
            if not as_json:
                _show(stream, trimmed, is_dry=dry_run)
            done += trimmed
    is_held = any(item.blockers for item in done)
    if as_json:
        print_json({"dry_run": dry_run, "complete": not is_held, "partitions": done})
    elif not done:
        line("there is no stream yet: nothing to trim")
    return 1 if is_held else 0


def _archive(found: Session, stream: Stream) -> StreamArchive | None:
    """What is looked at before anything goes; None where nothing is archived, and so nothing can go."""
    archive = open_archive(found.settings, stream)
    if archive is None and any(found.server.client.hexists(keys.archive, "position") for keys in stream.keys):
        raise ArchiveUnseen(stream.name)
    return archive


def _goal(before: str | None, age: str | None, keep_events: int | None) -> Goal:
    if sum(value is not None for value in (before, age, keep_events)) != 1:
        raise click.UsageError(
            "say what shall go, in one way: --before TIME, --older-than AGE or --keep-events N"
        )
    if before is not None:
        return Goal(before=parsed_time(before, "--before"))
    return Goal(keep_events=keep_events) if age is None else Goal(before=_ago(age))


def _ago(text: str) -> datetime:
    number = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if number is None:
        raise click.BadParameter(
            f"{text!r} is no age: use a number and s, m, h, d or w, as 36h or 7d", param_hint="--older-than"
        )
    try:
        return datetime.now(UTC) - timedelta(**{UNITS[number[2]]: int(number[1])})
    except OverflowError as error:
        raise click.BadParameter(f"{text!r} is longer than any log", param_hint="--older-than") from error


def _show(stream: Stream, trimmed: list[Trimmed], *, is_dry: bool) -> None:
    """A row per partition, then who holds back what."""
    table(
        f"Trim of {stream.name}",
        ["partition", "would go" if is_dry else "removed", "up to~", "left in the log"],
        [[item.partition, item.removed, item.until, item.left] for item in trimmed],
    )
    for item in trimmed:
        for holder in item.blockers:
            line(f"{item.stream}/{item.partition} is held back: {harmless(holder.why)}", "yellow")
