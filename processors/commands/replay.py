"""aurastream replay: events of the past again, to the terminal, a file, another stream or a projection."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from aurastream.processors import Stop, harmless, into_nothing, line, remark, stopping_by_signal, table
from aurastream.processors import as_json as print_json
from aurastream.processors.commands.common import (
    Session,
    Time,
    by_option,
    into,
    json_option,
    session,
    stream_option_all,
    why_option,
)
from aurastream.processors.history import (
    By,
    CannotReplay,
    Form,
    Journal,
    Lines,
    PastEvent,
    Selection,
    Sink,
    Speed,
    StreamPartition,
    Tally,
    ToStream,
    Writing,
    after_place,
    parsed_place,
    parsed_speed,
    read_past,
    replay,
    resume_file,
)
from aurastream.projections import Consumer, Projection, View
from aurastream.streams import (
    NAME,
    REPLAY_PREFIX,
    History,
    Stream,
    is_audit,
    is_system,
    list_streams,
    open_stream,
)

INTERRUPTED = 130
DIGEST_CHARS = 8
TOP = 10  # rows shown of a view


class ReplayOptions(msgspec.Struct, frozen=True):
    """The command line."""

    target: str | None
    stream_names: tuple[str, ...]
    since: datetime | None
    until: datetime | None
    by: By
    types: tuple[str, ...]
    subjects: tuple[str, ...]
    correlations: tuple[str, ...]
    speed: str
    into: str
    form: Form
    after: str | None
    resume: bool
    restart: bool
    yes_into_live: bool
    why: str
    as_json: bool


class Into(msgspec.Struct, frozen=True):
    """Where to. kind: "-", "file", "stream" or "projection". name: of the file, stream or projection."""

    kind: str
    name: str = ""


class Work(msgspec.Struct, frozen=True):
    """A replay that is under way."""

    found: Session
    options: ReplayOptions
    into: Into
    selection: Selection
    speed: Speed
    histories: list[History]
    stop: Stop
    began: float
    tally: Tally

    def run(self, sink: Sink, after: dict[StreamPartition, str]) -> bool:
        """Hand the events on. False when it was stopped before the end."""
        events = read_past(
            self.histories,
            self.selection,
            after=after,
            tally=self.tally,
            stopping=lambda: self.stop.was_asked,
        )
        return replay(events, sink, self.speed, self.stop, step=_show_step)

    def summary(self, into: str, events: dict[str, int], already_there: int, is_whole: bool) -> ReplaySummary:
        """The account of it."""
        seconds = time.perf_counter() - self.began
        rate = round(sum(events.values()) / max(seconds, 1e-9))
        ordered = dict(sorted(events.items()))
        return ReplaySummary(
            into, ordered, already_there, self.tally.damaged, round(seconds, 3), rate, is_whole
        )


class ReplaySummary(msgspec.Struct, frozen=True):
    """What was done. events: handed on by this run; already_there: of them, known to the target; left_out:
    damaged or quarantined.
    """

    into: str
    events: dict[str, int]
    already_there: int
    left_out: int
    seconds: float
    events_per_s: int
    is_whole: bool


@click.command("replay")
@click.argument("target", required=False)
@stream_option_all
@click.option(
    "--from",
    "since",
    type=Time(),
    metavar="TIME",
    help="Not earlier than this. ISO 8601; a date is its midnight UTC.",
)
@click.option(
    "--to",
    "until",
    type=Time(),
    metavar="TIME",
    help="Not later than this: --to T holds what `view --at T` shows.",
)
@by_option("Whose clock --from, --to and --speed mean: the event's, or the server's that appended it.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only this event type (repeatable).")
@click.option(
    "--subject",
    "subjects",
    multiple=True,
    metavar="SUBJECT",
    help="Only this subject (repeatable): found by the trail.",
)
@click.option(
    "--correlation", "correlations", multiple=True, metavar="ID", help="Only this story (repeatable)."
)
@click.option(
    "--speed",
    default="max",
    show_default=True,
    metavar="1x|10x|max|step",
    help="Paced as it was, faster, or by Enter.",
)
@click.option(
    "--into",
    default="-",
    show_default=True,
    metavar="-|FILE|stream|projection",
    help="Where to; a name follows the last two.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "cloudevents"]),
    default="json",
    show_default=True,
    help="Of lines.",
)
@click.option(
    "--after", metavar="PLACE", help="Into -: go on after the line of this STREAM/PARTITION/POSITION."
)
@click.option("--resume", is_flag=True, help="Into FILE: go on after its last whole line.")
@click.option(
    "--restart",
    is_flag=True,
    help="Into a stream or projection: from the beginning again, although part of it is there.",
)
@click.option(
    "--yes-into-live",
    is_flag=True,
    help="Into a stream that is no replay: its processors do act on what comes.",
)
@why_option
@json_option
@into(ReplayOptions)
def replay_(context: click.Context, options: ReplayOptions) -> int:
    """Replay events in their order, from archive and log, each event once.

    All streams but operations, imports and replays, unless some are named. Effects stay silent: a stream made
    by a replay is marked, and processors leave it alone.

    \b
    aurastream replay --subject clip-1 --speed step
    aurastream replay --from 2026-04-15 --to 2026-04-16 --into april.jsonl
    aurastream replay --stream clips --speed 10x --into stream replay.clips
    aurastream replay --type clip.views_observed --into projection clips

    Stopped or killed, it goes on: a file with --resume, a stream or projection by itself, a pipe with the
    --after it names.
    """
    target, selection, speed = _checked(options)
    with session(context) as found, stopping_by_signal() as stop:
        histories = [found.history(stream) for stream in _sources(found, options.stream_names)]
        began, tally = time.perf_counter(), Tally()
        work = Work(found, options, target, selection, speed, histories, stop, began, tally)
        is_lines = target.kind in {"-", "file"}
        summary = _into_lines(work) if is_lines else _into_stream(work)
    return 0 if summary.is_whole else INTERRUPTED


def _checked(options: ReplayOptions) -> tuple[Into, Selection, Speed]:
    """The options, checked against each other."""
    target = _parsed_into(options.into, options.target)
    _refuse_unfit(options, target)
    try:
        speed = parsed_speed(options.speed, options.by)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--speed") from error
    if speed.is_step and not sys.stdin.isatty():
        raise click.UsageError("--speed step waits for Enter, and stdin is no terminal: give a speed, as 1x")
    chosen = (frozenset(names) for names in (options.types, options.subjects, options.correlations))
    return target, Selection(options.since, options.until, options.by, *chosen), speed


def _refuse_unfit(options: ReplayOptions, target: Into) -> None:
    """Raise UsageError for an option that means nothing for this target."""
    only_for = [
        ("--after", options.after is not None, {"-"}),
        ("--resume", options.resume, {"file"}),
        ("--restart", options.restart, {"stream", "projection"}),
        ("--yes-into-live", options.yes_into_live, {"stream"}),
        ("--why", bool(options.why), {"stream", "projection"}),
        ("--format cloudevents", options.form != "json", {"-", "file"}),
        ("--json", options.as_json, {"file", "stream", "projection"}),
    ]
    for name, is_given, kinds in only_for:
        if is_given and target.kind not in kinds:
            raise click.UsageError(
                f"{name} goes with --into {' or '.join(sorted(kinds))}, not with {target.kind}"
            )


def _parsed_into(text: str, target: str | None) -> Into:
    kind, colon, name = text.partition(":")
    if kind in {"stream", "projection"} and (colon or target is not None):
        if colon and target is not None:
            raise click.UsageError(f"--into {text} names its target already; {target!r} is one too many")
        return Into(kind, _checked_name(kind, name if colon else str(target)))
    if text in {"stream", "projection"}:
        raise click.UsageError(
            f"--into {text} wants a name after it: --into {text} NAME (a file of that name is ./{text})"
        )
    if target is not None:
        raise click.UsageError(
            f"{target!r} is one argument too many: only --into stream and --into projection take a name"
        )
    return Into("-") if text == "-" else Into("file", text)


def _checked_name(kind: str, name: str) -> str:
    if not NAME.fullmatch(name):
        raise click.UsageError(
            f"{name[:80]!r} is no {kind} name: use 1 to 64 of a-z 0-9 _ . - and begin with a letter or a "
            "digit"
        )
    return name


def _sources(found: Session, names: tuple[str, ...]) -> list[Stream]:
    """The named streams, or all that hold facts of their own."""
    if names:
        streams = found.streams(tuple(dict.fromkeys(names)))
        elsewhere = [stream.name for stream in streams if not stream.is_log_here]
        if elsewhere:
            raise click.UsageError(f"the log of {', '.join(elsewhere)} is in Kafka: replay it there")
        return streams
    facts = list_streams(found.server)
    chosen = [name for name in facts if not is_system(name, facts[name])]
    return [stream for stream in found.streams(tuple(chosen)) if stream.is_log_here] if chosen else []


def _into_lines(work: Work) -> ReplaySummary:
    """To stdout or a file."""
    if work.into.kind == "file":
        return _into_file(work, Path(work.into.name))
    lines, is_whole = _write(work, sys.stdout.buffer, _after(work))
    if not is_whole:
        token = lines.last.place if lines.last is not None else work.options.after
        remark(f"go on with --after {token}" if token else "nothing was written yet")
    return _told(work, work.summary("-", lines.events, 0, is_whole))


def _into_file(work: Work, path: Path) -> ReplaySummary:
    is_resumed = work.options.resume and path.exists()
    after = resume_file(path, work.options.form) if is_resumed else {}
    if not is_resumed and path.exists() and path.stat().st_size:
        raise CannotReplay(
            f"{path} is there already: --resume goes on after its last line. Or name another file."
        )
    with path.open("ab") as file:
        lines, is_whole = _write(work, file, after)
        os.fsync(file.fileno())
    return _told(work, work.summary(str(path), lines.events, 0, is_whole))


def _write(work: Work, file: BinaryIO, after: dict[StreamPartition, str]) -> tuple[Lines, bool]:
    """Lines, and whether it came to the end."""
    keyrings = {history.stream.name: history.stream.keyring for history in work.histories}
    is_shown = work.into.kind == "-" and sys.stdout.isatty()
    lines = Lines(file, Writing(work.options.form, work.found.installed.codec(), keyrings, is_shown))
    try:
        return lines, work.run(lines, after)
    except BrokenPipeError:  # the reader has seen enough: that is its end
        into_nothing(file.fileno())
        return lines, True


def _after(work: Work) -> dict[StreamPartition, str]:
    """Where --after says to go on."""
    after = work.options.after
    if after is None:
        return {}
    last = parsed_place(after)
    if last is None:
        raise click.BadParameter(
            f"{after!r} is not STREAM/PARTITION/POSITION, as a stopped replay names it", param_hint="--after"
        )
    return after_place(last, [history.stream for history in work.histories])


def _show_step(event: PastEvent) -> None:
    envelope = event.envelope
    facts = f"{event.place} {envelope.occurred_at.isoformat()} {envelope.type} {envelope.subject}"
    remark(harmless(f"{facts}: Enter"))


def _into_stream(work: Work) -> ReplaySummary:
    """To another stream, and on into the projection where that was asked."""
    found, target = work.found, work.into
    projection = found.installed.projection(target.name) if target.kind == "projection" else None
    names = ",".join(sorted(history.stream.name for history in work.histories))
    selection = f"stream={names} {work.selection.told()}"
    name = target.name if projection is None else _scratch_name(projection, selection)
    stream = _target(work, name, projection)
    journal = Journal(found.server, name, selection, is_afresh=work.options.restart)
    sink = ToStream(stream, journal)
    try:
        is_whole = work.run(sink, journal.after)
    except Exception as error:
        error.add_note("What was replayed so far is kept; repeat the command to go on.")
        raise
    if is_whole:
        into = target.name if projection is None else f"projection {projection.name}"
        journal.close(found.operations(), into, selection, work.options.why)
        is_whole = projection is None or _fold(work, stream, projection)
    summary = _told(work, work.summary(name, sink.events, sink.duplicates, is_whole))
    if projection is not None and not work.options.as_json and summary.is_whole:
        _show_view(stream, projection)
    return summary


def _fold(work: Work, stream: Stream, projection: Projection[Any]) -> bool:
    """The replayed events into the projection. False when it was stopped before the end."""
    recover = work.found.connection.recover
    consumer = Consumer(work.found.server, [projection], lambda: [stream], recover=recover)
    consumer.run(lambda: work.stop.was_asked, until_idle=True)
    return not work.stop.was_asked


def _scratch_name(projection: Projection[Any], selection: str) -> str:
    """The stream a selection is replayed into for a projection; the same for the same selection."""
    digest = hashlib.sha256(selection.encode()).hexdigest()[:DIGEST_CHARS]
    return f"{REPLAY_PREFIX}{projection.name[: 63 - len(REPLAY_PREFIX) - DIGEST_CHARS]}.{digest}"


def _target(work: Work, name: str, projection: Projection[Any] | None) -> Stream:
    """The stream to replay into, made where it is new. Raises CannotReplay for one that must not be."""
    found, sources = work.found, [history.stream for history in work.histories]
    if any(stream.name == name for stream in sources):
        raise CannotReplay(f"stream {name!r} cannot be replayed into itself. Name another one.")
    if is_audit(name):
        raise CannotReplay(
            f"stream {name!r} is the audit trail's: what is replayed into it would read as done again. Name "
            "another one."
        )
    if projection is not None and not projection.folds(name):
        folded = ", ".join(projection.streams or ())
        raise CannotReplay(
            f"the projection {projection.name!r} folds only {folded}, so nothing can be replayed into it."
        )
    partitions = max((stream.partitions for stream in sources), default=found.settings.partitions)
    settings = found.settings.model_copy(update={"partitions": partitions})
    target = open_stream(
        found.server, name, codec=found.installed.codec(), settings=settings, create=True, is_replay=True
    )
    if not target.is_replay and not work.options.yes_into_live:
        raise CannotReplay(
            f"stream {name!r} is no replay: processors would act on every event again. "
            "Name a new stream, or say --yes-into-live if that is what you want."
        )
    return target


def _told(work: Work, summary: ReplaySummary) -> ReplaySummary:
    """Say what was done."""
    if work.options.as_json:
        print_json(summary)
    count, known, damaged = sum(summary.events.values()), summary.already_there, summary.left_out
    account = f"{count:,} events in {summary.seconds:.1f} s ({summary.events_per_s:,}/s) into {summary.into}"
    account += f", {known:,} of them already there" if known else ""
    account += f"; {damaged:,} damaged or quarantined entries left out" if damaged else ""
    account += "" if summary.is_whole else "; stopped before the end"
    remark(harmless(account))
    return summary


def _show_view(stream: Stream, projection: Projection[Any]) -> None:
    """The beginning of what was folded, and how to see the rest."""
    reader = View(stream, projection)
    if projection.rankings:
        name = projection.rankings[0].name
        rows = [[item.key, item.score] for item in reader.ranking(name, TOP).rows]
        table(f"{projection.name}: {name}", ["key~", "score"], rows)
    applied = sum(cursor.applied for cursor in reader.cursors().values())
    line(f"{applied:,} events folded; aurastream view {projection.name} --stream {stream.name}", "dim")
