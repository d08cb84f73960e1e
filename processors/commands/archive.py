"""aurastream archive: close what the log holds into segments of the archive; list them; tell the server that
they were moved; take back what a log that was set back lacks of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line, remark, table
from aurastream.processors.commands.common import Session, opened
from aurastream.processors.commands.options import Time, into, json_option, stream_option_all, why_option
from aurastream.streams import (
    OPERATIONS,
    ArchiveDamaged,
    ArchiveRefused,
    Position,
    Stream,
    StreamError,
    operator,
)
from aurastream.streams.archive import open_archive

if TYPE_CHECKING:
    from aurastream.streams.archive import Archiver, Manifest, SegmentAhead, StreamArchive

SHOWN = {name: name for name in ("stream", "partition", "number", "first", "last", "entries")} | {
    "bytes": "file_bytes",
    "head": "hash",
}
SHOWN_MAX = 20  # events that the log lacks, in a table
COLUMNS = ["stream~", "partition", "number", "first", "last", "entries", "bytes", "head~"]


class AheadOptions(msgspec.Struct, frozen=True):
    """The command line of `archive ahead`."""

    stream_names: tuple[str, ...]
    is_append: bool
    why: str
    as_json: bool


class Ahead(msgspec.Struct, frozen=True):
    """A segment ahead of the log, and how many of its events were appended."""

    segment: SegmentAhead
    appended: int


class Moved(msgspec.Struct, frozen=True):
    """A partition whose archive the server was told the new place of."""

    stream: str
    partition: int
    segments: int


@click.group(invoke_without_command=True)
@stream_option_all
@click.option(
    "--until",
    type=Time(),
    metavar="TIME",
    help="Only what was appended before this (ISO 8601; a date is 00:00 UTC).",
)
@click.option(
    "--min-events", default=1, show_default=True, type=click.IntRange(1), help="Close no smaller segment."
)
@json_option
@click.pass_context
def archive(
    context: click.Context,
    stream_names: tuple[str, ...],
    until: datetime | None,
    min_events: int,
    as_json: bool,
) -> int:
    """Close what the log holds into segments of the archive (AURASTREAM_ARCHIVE).

    Segments are Parquet files, chained by hash, of at most AURASTREAM_SEGMENT_EVENTS entries. Nothing leaves
    the log: see trim. A partition that is refused is named and left, the others are archived; then the exit
    code is 1.
    """
    if context.invoked_subcommand is not None:
        return 0
    end = _position_before(until)
    refused: list[tuple[str, int, str]] = []
    with opened(context) as session:
        archivers = [_archiver(session, stream) for stream in _archivable(session, stream_names)]
        for archiver in archivers:
            archiver.check_place()
        made = [item for archiver in archivers for item in _close(archiver, end, min_events, refused)]
    if as_json:
        left = [
            {"stream": name, "partition": partition, "message": message}
            for name, partition, message in refused
        ]
        print_json({"segments": _rows(made), "refused": left})
    else:
        _show(f"{len(made)} segments closed", made)
    return 1 if refused else 0


@archive.command("list")
@stream_option_all
@json_option
@click.pass_context
def list_(context: click.Context, stream_names: tuple[str, ...], as_json: bool) -> None:
    """The segments, per partition, the oldest first."""
    with opened(context) as session:
        held = [
            manifest
            for stream in _archivable(session, stream_names)
            for partition in range(stream.partitions)
            for manifest in _opened(session, stream).segments(partition)
        ]
    if as_json:
        print_json({"segments": _rows(held)})
    else:
        _show("Segments", held)


@archive.command("move")
@stream_option_all
@json_option
@click.pass_context
def move_(context: click.Context, stream_names: tuple[str, ...], as_json: bool) -> None:
    """Tell the server that the archive is at AURASTREAM_ARCHIVE now.

    Copy all its files there first. Every file is read and compared with its hash before the server is told.
    """
    with opened(context) as session:
        moved = list(_moved(session, stream_names))
        place = session.settings.archive
    if as_json:
        print_json({"archive": place, "partitions": moved})
    else:
        line(f"the archive is at {place}: {sum(one.segments for one in moved)} segments found there")


def _moved(session: Session, stream_names: tuple[str, ...]) -> Iterator[Moved]:
    from aurastream.streams.archive import move

    for stream in _archivable(session, stream_names):
        for partition in range(stream.partitions):
            yield Moved(stream.name, partition, move(_opened(session, stream), partition))


@archive.command("ahead")
@stream_option_all
@click.option(
    "--append", "is_append", is_flag=True, help="Append the events again, and set the segments aside."
)
@why_option
@json_option
@into(AheadOptions)
def ahead_(context: click.Context, options: AheadOptions) -> int:
    """Show what the archive has and the log lacks, after a fail-over to a replica that lagged or a restore.

    Such segments keep `aurastream archive` from going on. With --append their events come to the end of the
    log, each event ID once, however often it is done, and the segments' files are set aside, in the folder
    _aside beside the others. The decision is an event of the stream "operations". Exit code 1 while there is
    anything that was not appended.
    """
    failed: list[str] = []
    with opened(context) as session:
        done = list(_each_ahead(session, options, failed))
    if options.as_json:
        appended = sum(one.appended for one in done)
        print_json({"segments": [one.segment for one in done], "appended": appended, "refused": failed})
    else:
        _show_ahead(done, options)
    return 1 if failed or (done and not options.is_append) else 0


def _each_ahead(session: Session, options: AheadOptions, failed: list[str]) -> Iterator[Ahead]:
    """Each segment, taken back where that was decided. failed: sentences on partitions that are left."""
    from aurastream.streams.archive import WhoAndWhy, segments_ahead, take_back, verify_key

    settings, decision = session.settings, WhoAndWhy(operator(), options.why)
    key = verify_key(settings.archive_verify_key) if settings.archive_verify_key else None
    for stream in _archivable(session, options.stream_names):
        held, operations = _opened(session, stream), session.operations()
        for partition in range(stream.partitions):
            try:
                for segment in segments_ahead(held, partition, key):
                    appended = take_back(held, operations, segment, decision) if options.is_append else 0
                    yield Ahead(segment, appended)
            except (ArchiveRefused, ArchiveDamaged) as error:
                failed.append(f"{stream.name}/{partition}: {error}")
                remark(f"{stream.name}/{partition}: {harmless(str(error))}", "red")


def _show_ahead(done: list[Ahead], options: AheadOptions) -> None:
    columns = ["stream~", "partition", "number", "first", "last", "entries", "lacking", "unreadable"]
    rows = [
        [one.stream, one.partition, one.number, one.first, one.last, one.entries, *_lacking(one)]
        for one in (item.segment for item in done)
    ]
    table("Ahead of the log", columns, rows)
    missing = [(item.segment, event) for item in done for event in item.segment.missing]
    if missing:
        cells = [
            [
                f"{segment.stream}/{segment.partition}/{event.position}",
                event.type,
                event.subject,
                event.event_id,
            ]
            for segment, event in missing[:SHOWN_MAX]
        ]
        table("Events that the log lacks", ["place", "type", "subject~", "event ID~"], cells)
    if len(missing) > SHOWN_MAX:
        line(f"and {len(missing) - SHOWN_MAX:,} more; --json has them all", "dim")
    if options.is_append:
        appended = sum(item.appended for item in done)
        line(f"{appended:,} events appended again; {len(done):,} segments set aside", "bold green")
    elif done:
        line("`aurastream archive ahead --append --why ..` appends them again, and sets the segments aside")


def _lacking(segment: SegmentAhead) -> tuple[int, int]:
    return len(segment.missing), len(segment.unreadable)


def _archiver(session: Session, stream: Stream) -> Archiver:
    from aurastream.streams.archive import Archiver

    operations = None if stream.name == OPERATIONS else session.operations()
    return Archiver(_opened(session, stream), operations)


def _close(
    archiver: Archiver, end: str, min_events: int, refused: list[tuple[str, int, str]]
) -> Iterator[Manifest]:
    """Archive one stream, telling of each segment, and of partitions that are refused."""
    stream = archiver.stream
    for partition in range(stream.partitions):
        try:
            for manifest in archiver.run(partition, end, min_events):
                remark(f"{stream.name}/{partition}: {_in_words(manifest)}")
                yield manifest
        except (ArchiveRefused, ArchiveDamaged) as error:
            refused.append((stream.name, partition, str(error)))
            remark(f"{stream.name}/{partition}: {harmless(str(error))}", "red")


def _in_words(manifest: Manifest) -> str:
    each = f"{manifest.file_bytes / manifest.entries:.1f} bytes each"
    return f"segment {manifest.number}, {manifest.entries:,} entries, {each}"


def _archivable(session: Session, names: tuple[str, ...]) -> list[Stream]:
    """The named streams, or all whose log is here; operations comes last, and is there, as archiving the
    others appends to it.
    """
    session.operations()
    streams = session.streams(names)
    chosen = streams if names else [stream for stream in streams if stream.is_log_here]
    return sorted(chosen, key=lambda stream: stream.name == OPERATIONS)


def _opened(session: Session, stream: Stream) -> StreamArchive:
    opened = open_archive(session.settings, stream)
    if opened is None:
        raise StreamError(
            "no archive is set. Set AURASTREAM_ARCHIVE to a directory or an fsspec URL (s3://bucket/prefix)."
        )
    return opened


def _position_before(until: datetime | None) -> str:
    """The last position that can have been appended before the time; "+" for no time."""
    return "+" if until is None else str(Position.at(until).before().ms)


def _rows(held: list[Manifest]) -> list[dict[str, Any]]:
    return [{column: getattr(manifest, name) for column, name in SHOWN.items()} for manifest in held]


def _show(title: str, held: list[Manifest]) -> None:
    table(title, COLUMNS, [list(row.values()) for row in _rows(held)])
