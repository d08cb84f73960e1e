"""aurastream trim: remove from the live log what is archived and read by all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line, progress_bar, table
from aurastream.processors.commands.common import Session, opened
from aurastream.processors.commands.options import (
    Duration,
    Time,
    into,
    json_option,
    stream_option_all,
    why_option,
)
from aurastream.streams import ArchiveUnseen, Stream
from aurastream.streams.archive import open_archive
from aurastream.streams.retention import Goal, Trimmed, Trimmer

if TYPE_CHECKING:  # pyarrow takes its time
    from aurastream.streams.archive import StreamArchive


class TrimOptions(msgspec.Struct, frozen=True):
    """The command line."""

    stream_names: tuple[str, ...]
    before: datetime | None
    age: timedelta | None
    keep_events: int | None
    dry_run: bool
    why: str
    as_json: bool


@click.command()
@stream_option_all
@click.option(
    "--before",
    type=Time(),
    metavar="TIME",
    help="What was appended before it: ISO 8601; a date is 00:00, no offset is UTC.",
)
@click.option(
    "--older-than",
    "age",
    type=Duration(longest=None),
    metavar="AGE",
    help="What was appended longer ago: 90m, 36h, 7d, 4w.",
)
@click.option(
    "--keep-events", type=click.IntRange(min=0), metavar="N", help="All but the newest N of each partition."
)
@click.option("--dry-run", is_flag=True, help="Say what would go and who would hold it back; change nothing.")
@why_option
@json_option
@into(TrimOptions)
def trim(context: click.Context, options: TrimOptions) -> int:
    """Remove entries that are archived and read by all from the log, with their event IDs.

    What a group, a rebuild, a host, another reader of the server or a dead letter still needs stays, and who
    holds it back is said: then the exit code is 1, and 0 when all that was asked for is gone. Their events
    stay in the archive: rebuild, replay, check and views of the past read on from there. An event ID that is
    trimmed counts as new when it is appended again.
    """
    goal = msgspec.structs.replace(_goal(options), why=options.why)
    done: list[Trimmed] = []
    with opened(context) as session:
        operations = None if options.dry_run else session.operations()
        for stream in session.streams(options.stream_names):
            if not options.stream_names and not stream.is_log_here:
                continue
            trimmed = _trimmed(session, stream, operations, goal)
            if not options.as_json:
                _show(stream, trimmed, is_dry=options.dry_run)
            done += trimmed
    is_held = any(item.blockers for item in done)
    if options.as_json:
        print_json({"dry_run": options.dry_run, "complete": not is_held, "partitions": done})
    elif not done:
        line("there is no stream yet: nothing to trim")
    return 1 if is_held else 0


def _trimmed(session: Session, stream: Stream, operations: Stream | None, goal: Goal) -> list[Trimmed]:
    with progress_bar(f"trimming {stream.name}") as bar:
        trimmer = Trimmer(
            stream,
            operations,
            goal,
            archive=_archive(session, stream),
            on_step=lambda _, removed: bar.to(removed),
        )
        return list(trimmer.run())


def _archive(session: Session, stream: Stream) -> StreamArchive | None:
    """What is looked at before anything goes; None where nothing is archived, and so nothing can go."""
    archive = open_archive(session.settings, stream)
    if archive is None and any(
        session.server.client.hexists(keys.archive, "position") for keys in stream.keys
    ):
        raise ArchiveUnseen(stream.name)
    return archive


def _goal(options: TrimOptions) -> Goal:
    before, age, keep_events = options.before, options.age, options.keep_events
    if sum(value is not None for value in (before, age, keep_events)) != 1:
        raise click.UsageError(
            "say what shall go, in one way: --before TIME, --older-than AGE or --keep-events N"
        )
    if age is None:
        return Goal(keep_events=keep_events) if before is None else Goal(before=before)
    try:
        return Goal(before=datetime.now(UTC) - age)
    except OverflowError as error:
        raise click.BadParameter("that is longer than any log", param_hint="--older-than") from error


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
