"""What `aurastream replay` does once its options are understood: lines, a stream, or on into a projection."""

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

from aurastream.processors import Stop, harmless, into_nothing, line, remark, table
from aurastream.processors import as_json as print_json
from aurastream.processors.commands.common import Session
from aurastream.processors.history import (
    By,
    CannotReplay,
    Form,
    Journal,
    LineSink,
    PastEvent,
    Selection,
    Sink,
    Speed,
    StreamPartition,
    Tally,
    ToStream,
    Writing,
    parsed_places,
    place_text,
    read_past,
    replay,
    resume_file,
)
from aurastream.projections import Consumer, Projection, View
from aurastream.streams import REPLAY_PREFIX, History, Stream, is_audit, open_stream

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

    session: Session
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


class Written(msgspec.Struct, frozen=True):
    """What became lines. events: by stream. place: how far each partition is; "" where nobody knows."""

    events: dict[str, int]
    is_whole: bool
    place: str


def replayed(work: Work) -> ReplaySummary:
    """Do it, and say what was done."""
    return _into_lines(work) if work.into.kind in {"-", "file"} else _into_stream(work)


def _into_lines(work: Work) -> ReplaySummary:
    """To stdout or a file."""
    if work.into.kind == "file":
        return _into_file(work, Path(work.into.name))
    written = _write(work, sys.stdout.buffer, _after(work))
    summary = _told(work, work.summary("-", written.events, 0, written.is_whole))
    if not written.is_whole or not sys.stdout.isatty():
        remark(f"go on with --after {written.place}" if written.place else "nothing was written yet")
    return summary


def _into_file(work: Work, path: Path) -> ReplaySummary:
    is_resumed = work.options.resume and path.exists()
    after = resume_file(path, work.options.form) if is_resumed else {}
    if not is_resumed and path.exists() and path.stat().st_size:
        raise CannotReplay(
            f"{path} is there already: --resume goes on after its last line. Or name another file."
        )
    with path.open("ab") as file:
        written = _write(work, file, after)
        os.fsync(file.fileno())
    return _told(work, work.summary(str(path), written.events, 0, written.is_whole))


def _write(work: Work, file: BinaryIO, after: dict[StreamPartition, str]) -> Written:
    """As lines."""
    keyrings = {history.stream.name: history.stream.keyring for history in work.histories}
    is_shown = work.into.kind == "-" and sys.stdout.isatty()
    lines = LineSink(file, Writing(work.options.form, work.session.installed.codec(), keyrings, is_shown))
    try:
        is_whole = work.run(lines, after)
    except BrokenPipeError:  # the reader has seen enough: that is its end, and how much it saw it knows alone
        into_nothing(file.fileno())
        return Written(lines.events, True, "")
    return Written(
        lines.events, is_whole, place_text({**after, **(work.tally.ends if is_whole else lines.reached)})
    )


def _after(work: Work) -> dict[StreamPartition, str]:
    """Where --after says to go on."""
    after = work.options.after
    if after is None:
        return {}
    streams = {history.stream.name: history.stream.partitions for history in work.histories}
    places = parsed_places(after, streams)
    if places is None:
        raise click.BadParameter(
            f"{after[:80]!r} is not STREAM/PARTITION/POSITION, as a line of the replay names its place, nor "
            "the list of such places that a replay of these streams ends with",
            param_hint="--after",
        )
    return places


def _show_step(event: PastEvent) -> None:
    envelope = event.envelope
    facts = f"{event.place} {envelope.occurred_at.isoformat()} {envelope.type} {envelope.subject}"
    remark(harmless(f"{facts}: Enter"))


def _into_stream(work: Work) -> ReplaySummary:
    """To another stream, and on into the projection where that was asked."""
    session, target = work.session, work.into
    projection = session.installed.projection(target.name) if target.kind == "projection" else None
    selection = _in_words(work)
    name = target.name if projection is None else _scratch_name(projection, selection)
    stream = _target(work, name, projection)
    journal = Journal(session.server, name, selection, is_afresh=work.options.restart)
    sink = ToStream(stream, journal)
    is_whole = _run(work, sink, journal)
    if is_whole:
        into = target.name if projection is None else f"projection {projection.name}"
        journal.close(session.operations(), into, selection, work.options.why)
        is_whole = projection is None or _fold(work, stream, projection)
    summary = _told(work, work.summary(name, sink.events, sink.duplicates, is_whole))
    if projection is not None and not work.options.as_json and summary.is_whole:
        _show_view(stream, projection)
    return summary


def _in_words(work: Work) -> str:
    """What is replayed: the streams and the selection."""
    names = ",".join(sorted(history.stream.name for history in work.histories))
    return f"stream={names} {work.selection.in_words()}"


def _run(work: Work, sink: ToStream, journal: Journal) -> bool:
    """From where the journal stands. False when it was stopped before the end."""
    try:
        return work.run(sink, journal.after)
    except Exception as error:
        error.add_note("What was replayed so far is kept; repeat the command to go on.")
        raise


def _fold(work: Work, stream: Stream, projection: Projection[Any]) -> bool:
    """The replayed events into the projection. False when it was stopped before the end."""
    recover = work.session.connection.recover
    consumer = Consumer(work.session.server, [projection], lambda: [stream], recover=recover)
    consumer.run(lambda: work.stop.was_asked, until_idle=True)
    return not work.stop.was_asked


def _scratch_name(projection: Projection[Any], selection: str) -> str:
    """The stream a selection is replayed into for a projection; the same for the same selection."""
    digest = hashlib.sha256(selection.encode()).hexdigest()[:DIGEST_CHARS]
    return f"{REPLAY_PREFIX}{projection.name[: 63 - len(REPLAY_PREFIX) - DIGEST_CHARS]}.{digest}"


def _target(work: Work, name: str, projection: Projection[Any] | None) -> Stream:
    """The stream to replay into, made where it is new. Raises CannotReplay for one that must not be."""
    session, sources = work.session, [history.stream for history in work.histories]
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
    partitions = max((stream.partitions for stream in sources), default=session.settings.partitions)
    settings = session.settings.model_copy(update={"partitions": partitions})
    target = open_stream(
        session.server, name, codec=session.installed.codec(), settings=settings, create=True, is_replay=True
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
