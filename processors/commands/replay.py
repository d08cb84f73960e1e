"""aurastream replay: events of the past again, to the terminal, a file, another stream or a projection."""

from __future__ import annotations

import sys
import time

import click

from aurastream.processors import stopping_by_signal
from aurastream.processors.commands.common import Session, opened
from aurastream.processors.commands.options import (
    Time,
    by_option,
    into,
    json_option,
    stream_option_all,
    why_option,
)
from aurastream.processors.commands.replaying import Into, ReplayOptions, Work, replayed
from aurastream.processors.history import Selection, Speed, Tally, parsed_speed
from aurastream.streams import NAME, Stream, is_system, list_streams

INTERRUPTED = 130


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
    "--after",
    metavar="PLACES",
    help="Into -: go on after the places a replay ends with, or a line's STREAM/PARTITION/POSITION.",
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

    Ended, stopped or killed, it goes on: a file with --resume, a stream or projection by itself, a pipe with
    the --after that it names at its end, or, where it was killed, with the place of its last line.
    """
    target, selection, speed = _checked(options)
    with opened(context) as session, stopping_by_signal() as stop:
        histories = [session.history(stream) for stream in _sources(session, options.stream_names)]
        began, tally = time.perf_counter(), Tally()
        work = Work(session, options, target, selection, speed, histories, stop, began, tally)
        summary = replayed(work)
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


def _sources(session: Session, names: tuple[str, ...]) -> list[Stream]:
    """The named streams, or all that hold facts of their own."""
    if names:
        streams = session.streams(tuple(dict.fromkeys(names)))
        elsewhere = [stream.name for stream in streams if not stream.is_log_here]
        if elsewhere:
            raise click.UsageError(f"the log of {', '.join(elsewhere)} is in Kafka: replay it there")
        return streams
    facts = list_streams(session.server)
    chosen = [name for name in facts if not is_system(name, facts[name]) and not facts[name].is_topic]
    return [stream for stream in session.streams(tuple(chosen)) if stream.is_log_here] if chosen else []
