"""aurastream replay: events of the past again, to the terminal, a file, another stream or a projection."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, into_nothing, line, remark, table
from aurastream.processors.commands.common import Session, json_option, session, stream_option_all
from aurastream.processors.history import (
    By,
    CannotReplay,
    Form,
    Found,
    Journal,
    Lines,
    Place,
    Selection,
    Sink,
    Speed,
    Stop,
    Tally,
    ToStream,
    after_place,
    parsed_place,
    parsed_speed,
    parsed_time,
    read_past,
    replay,
    resume_file,
    stopping_by_signal,
)
from aurastream.projections import Consumer, Projection, View
from aurastream.streams import (
    NAME,
    OPERATIONS,
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


class Into(msgspec.Struct, frozen=True):
    """Where to. kind: "-", "file", "stream" or "projection". name: of the file, the stream or the projection."""

    kind: str
    name: str = ""


class Asked(msgspec.Struct, frozen=True):
    """What the person asked for."""

    into: Into
    selection: Selection
    speed: Speed
    form: Form
    after: str | None
    is_resumed: bool
    is_afresh: bool
    is_into_live: bool
    why: str
    as_json: bool


class Summary(msgspec.Struct, frozen=True):
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
    "--from", "since", metavar="TIME", help="Not earlier than this. ISO 8601; a date is its midnight UTC."
)
@click.option(
    "--to", "until", metavar="TIME", help="Not later than this: --to T holds what `view --at T` shows."
)
@click.option(
    "--by",
    type=click.Choice(["occurred", "appended"]),
    default="occurred",
    show_default=True,
    help="Whose clock --from, --to and --speed mean: the event's, or the server's that appended it.",
)
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
@click.option("--why", default="", metavar="TEXT", help="For the audit trail.")
@json_option
@click.pass_context
def replay_(context: click.Context, /, **options: Any) -> int:
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
    asked = _asked(options)
    with session(context) as found, stopping_by_signal() as stop:
        histories = [found.history(stream) for stream in _sources(found, options["stream_names"])]
        started, tally = time.perf_counter(), Tally()
        if asked.into.kind in {"stream", "projection"}:
            summary = _into_stream(found, histories, asked, stop, tally, started)
        else:
            summary = _into_lines(found, histories, asked, stop, tally, started)
    return 0 if summary.is_whole else INTERRUPTED


def _asked(options: dict[str, Any]) -> Asked:
    """The options, checked against each other."""
    by: By = options["by"]
    since, until = (
        None if options[name] is None else parsed_time(options[name], f"--{flag}")
        for name, flag in (("since", "from"), ("until", "to"))
    )
    into, speed = _parsed_into(options["into"], options["target"]), parsed_speed(options["speed"])
    sets = [frozenset(options[name]) for name in ("types", "subjects", "correlations")]
    only_for = [
        ("--after", options["after"] is not None, {"-"}),
        ("--resume", options["resume"], {"file"}),
        ("--restart", options["restart"], {"stream", "projection"}),
        ("--yes-into-live", options["yes_into_live"], {"stream"}),
        ("--why", bool(options["why"]), {"stream", "projection"}),
        ("--format cloudevents", options["form"] != "json", {"-", "file"}),
        ("--json", options["as_json"], {"file", "stream", "projection"}),
    ]
    for name, is_given, kinds in only_for:
        if is_given and into.kind not in kinds:
            raise click.UsageError(
                f"{name} goes with --into {' or '.join(sorted(kinds))}, not with {into.kind}"
            )
    if speed.is_step and not sys.stdin.isatty():
        raise click.UsageError("--speed step waits for Enter, and stdin is no terminal: give a speed, as 1x")
    return Asked(
        into,
        Selection(since, until, by, *sets),
        speed,
        options["form"],
        options["after"],
        options["resume"],
        options["restart"],
        options["yes_into_live"],
        options["why"],
        options["as_json"],
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


def _into_lines(
    found: Session, histories: list[History], asked: Asked, stop: Stop, tally: Tally, started: float
) -> Summary:
    """To stdout or a file."""
    if asked.into.kind == "file":
        path = Path(asked.into.name)
        after = resume_file(path, asked.form) if asked.is_resumed and path.exists() else {}
        if not asked.is_resumed and path.exists() and path.stat().st_size:
            raise CannotReplay(
                f"{path} is there already: --resume goes on after its last line. Or name another file."
            )
        with path.open("ab") as file:
            lines, is_whole = _write(found, histories, asked, stop, tally, file, after)
            os.fsync(file.fileno())
        return _tell(asked, str(path), lines.events, 0, tally, started, is_whole)
    lines, is_whole = _write(
        found, histories, asked, stop, tally, sys.stdout.buffer, _after(asked, histories)
    )
    if not is_whole:
        token = lines.last.place if lines.last is not None else asked.after
        remark(f"go on with --after {token}" if token else "nothing was written yet")
    return _tell(asked, "-", lines.events, 0, tally, started, is_whole)


def _write(
    found: Session,
    histories: list[History],
    asked: Asked,
    stop: Stop,
    tally: Tally,
    file: BinaryIO,
    after: dict[Place, str],
) -> tuple[Lines, bool]:
    """Lines, and whether it came to the end."""
    keyrings = {history.stream.name: history.stream.keyring for history in histories}
    lines = Lines(
        file,
        asked.form,
        found.installed.codec(),
        keyrings,
        shown=asked.into.kind == "-" and sys.stdout.isatty(),
    )
    try:
        return lines, _run(histories, asked, stop, tally, after, lines)
    except BrokenPipeError:  # the reader has seen enough: that is its end
        into_nothing(file.fileno())
        return lines, True


def _after(asked: Asked, histories: list[History]) -> dict[Place, str]:
    """Where --after says to go on."""
    if asked.after is None:
        return {}
    last = parsed_place(asked.after)
    if last is None:
        raise click.BadParameter(
            f"{asked.after!r} is not STREAM/PARTITION/POSITION, as a stopped replay names it",
            param_hint="--after",
        )
    return after_place(last, [history.stream for history in histories])


def _run(
    histories: list[History], asked: Asked, stop: Stop, tally: Tally, after: dict[Place, str], sink: Sink
) -> bool:
    events = read_past(histories, asked.selection, after=after, tally=tally, stopping=lambda: stop.was_asked)
    return replay(events, sink, asked.speed, asked.selection.by, stop, step=_show_step)


def _show_step(event: Found) -> None:
    told = f"{event.place} {event.envelope.occurred_at.isoformat()} {event.envelope.type} {event.envelope.subject}: Enter"
    remark(harmless(told))


def _into_stream(
    found: Session, histories: list[History], asked: Asked, stop: Stop, tally: Tally, started: float
) -> Summary:
    """To another stream, and on into the projection where that was asked."""
    projection = found.installed.projection(asked.into.name) if asked.into.kind == "projection" else None
    told = f"stream={','.join(sorted(history.stream.name for history in histories))} {asked.selection.told()}"
    name = asked.into.name if projection is None else _scratch_name(projection, told)
    target = _target(found, name, histories, asked, projection)
    journal = Journal(found.server, name, told, is_afresh=asked.is_afresh)
    sink = ToStream(target, journal)
    try:
        is_whole = _run(histories, asked, stop, tally, journal.after, sink)
    except Exception as error:
        error.add_note("What was replayed so far is kept; repeat the command to go on.")
        raise
    if is_whole:
        journal.close(
            found.open(OPERATIONS, create=True),
            asked.into.name if projection is None else f"projection {projection.name}",
            told,
            asked.why,
        )
        if projection is not None:
            consumer = Consumer(
                found.server, [projection], lambda: [target], recover=found.connection.recover
            )
            consumer.run(lambda: stop.was_asked, until_idle=True)
            is_whole = not stop.was_asked
    summary = _tell(asked, name, sink.events, sink.duplicates, tally, started, is_whole)
    if projection is not None and not asked.as_json and summary.is_whole:
        _show_view(target, projection)
    return summary


def _scratch_name(projection: Projection[Any], told: str) -> str:
    """The stream a selection is replayed into for a projection; the same for the same selection."""
    digest = hashlib.sha256(told.encode()).hexdigest()[:DIGEST_CHARS]
    return f"{REPLAY_PREFIX}{projection.name[: 63 - len(REPLAY_PREFIX) - DIGEST_CHARS]}.{digest}"


def _target(
    found: Session, name: str, histories: list[History], asked: Asked, projection: Projection[Any] | None
) -> Stream:
    """The stream to replay into, made where it is new. Raises CannotReplay for one that must not be."""
    if any(history.stream.name == name for history in histories):
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
    partitions = max((history.stream.partitions for history in histories), default=found.settings.partitions)
    settings = found.settings.model_copy(update={"partitions": partitions})
    target = open_stream(
        found.server, name, codec=found.installed.codec(), settings=settings, create=True, is_replay=True
    )
    if not target.is_replay and not asked.is_into_live:
        raise CannotReplay(
            f"stream {name!r} is no replay: processors would act on every event again. "
            "Name a new stream, or say --yes-into-live if that is what you want."
        )
    return target


def _tell(
    asked: Asked, into: str, events: dict[str, int], known: int, tally: Tally, started: float, is_whole: bool
) -> Summary:
    seconds = time.perf_counter() - started
    count = sum(events.values())
    summary = Summary(
        into,
        dict(sorted(events.items())),
        known,
        tally.damaged,
        round(seconds, 3),
        round(count / max(seconds, 1e-9)),
        is_whole,
    )
    if asked.as_json:
        print_json(summary)
    told = f"{count:,} events in {seconds:.1f} s ({summary.events_per_s:,}/s) into {into}"
    told += f", {known:,} of them already there" if known else ""
    told += f"; {tally.damaged:,} damaged or quarantined entries left out" if tally.damaged else ""
    told += "" if summary.is_whole else "; stopped before the end"
    remark(harmless(told))
    return summary


def _show_view(stream: Stream, projection: Projection[Any]) -> None:
    """The beginning of what was folded, and how to see the rest."""
    reader = View(stream, projection)
    if projection.rankings:
        name = projection.rankings[0].name
        rows = [[item.key, item.score] for item in reader.ranking(name, TOP).rows]
        table(f"{projection.name}: {name}", ["key~", "score"], rows)
    cursors = reader.cursors().values()
    line(
        f"{sum(cursor.applied for cursor in cursors):,} events folded; aurastream view {projection.name} "
        f"--stream {stream.name}",
        "dim",
    )
