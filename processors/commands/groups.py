"""aurastream groups: whom producers and the trimmer wait for, and how to stop waiting."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line, table
from aurastream.processors.commands.common import Session, opened
from aurastream.processors.commands.options import Keyed, into, json_option, stream_option_all, why_option
from aurastream.processors.effects import DeadLetter, LetterPlace, discard, list_letters
from aurastream.projections import ProjectionError
from aurastream.streams import IDENTIFIER, GroupForgotten, Stream, named_id, operator
from aurastream.streams.retention import GROUP, Hold, holds_of, let_go


class JoinedGroup(msgspec.Struct, frozen=True):
    """Who holds a partition's trimmer back, and, where it is a group of a view or a processor, its producers.

    kind: group, app (of Faust), or foreign group (of the server). events and bytes: how far it is behind;
    bytes and joined_at are known of groups alone.
    """

    stream: str
    partition: int
    group: str
    kind: str
    events: int
    bytes: int
    joined_at: str | None


class ForgetOptions(msgspec.Struct, frozen=True):
    """The command line."""

    name: str
    stream_name: str
    with_letters: bool
    why: str
    as_json: bool


class Forgotten(msgspec.Struct, frozen=True):
    """What was let go. kinds: what had the name. letters: dead letters that were discarded."""

    group: str
    stream: str
    kinds: list[str]
    partitions: int
    behind_events: int
    letters: int


@click.group()
def groups() -> None:
    """Whom a stream waits for: who is too far behind holds producers back, and its log from being trimmed.

    Groups of views and processors, worker apps of Faust, and foreign groups of the server. Each verb has
    --json.
    """


@groups.command("list")
@stream_option_all
@json_option
@click.pass_context
def list_(context: click.Context, stream_names: tuple[str, ...], as_json: bool) -> None:
    """Everybody the streams wait for, per partition, the slowest first."""
    with opened(context) as session:
        rows = [
            _row(stream.name, hold)
            for stream in session.streams(stream_names)
            if stream.is_log_here
            for hold in holds_of(stream)
        ]
    if as_json:
        print_json({"groups": rows})
    else:
        columns = ["stream~", "partition", "group~", "kind~", "events behind", "bytes behind", "joined at"]
        table("Groups", columns, [msgspec.structs.astuple(row) for row in rows])


def _row(stream: str, hold: Hold) -> JoinedGroup:
    joined_at = datetime.fromtimestamp(hold.joined_ms / 1000, UTC).isoformat() if hold.joined_ms else None
    return JoinedGroup(stream, hold.partition, hold.name, hold.kind, hold.events, hold.bytes, joined_at)


@groups.command("forget", cls=Keyed)
@click.argument("name")
@click.option("--stream", "stream_name", required=True, metavar="NAME", help="Which stream.")
@click.option(
    "--letters",
    "with_letters",
    is_flag=True,
    help="Discard its dead letters as well: those events get no effect.",
)
@why_option
@json_option
@into(ForgetOptions)
def forget_(context: click.Context, options: ForgetOptions) -> None:
    """Let producers and trimmer of a stream no longer wait for NAME: a group of a view (clips, or clips@2
    of a generation) or of a processor, a worker app of Faust, a foreign group of the server.

    A group or an app joins again when it goes on; its cursor, its place and its view stay as they are. A
    foreign group is removed from the server. Exit code 1 when nothing of that name holds the stream back.
    """
    with opened(context) as session:
        done = _forgotten(session, session.open(options.stream_name), options)
    if options.as_json:
        print_json(done)
        return
    letters = f"; {done.letters:,} of its dead letters are discarded" if done.letters else ""
    what = f"nobody waits for {harmless(done.group)} in {done.stream} any more"
    line(f"{what} ({done.behind_events:,} events behind){letters}")


def _forgotten(session: Session, stream: Stream, options: ForgetOptions) -> Forgotten:
    """The facts first: what the audit trail cannot tell is not done. Raises ProjectionError for an unknown
    name.
    """
    letters = _letters(stream, options.name)
    holds = holds_of(stream, options.name) if stream.is_log_here else []
    if not holds and not (letters and options.with_letters):
        raise _unknown(options, letters)
    operations = session.operations()
    operations.append(list(_facts(options, holds)))
    let_go(stream, holds)
    dropped = reversed(letters) if options.with_letters else ()  # the last first: none is behind nobody then
    for letter in dropped:
        discard(stream, operations, LetterPlace(letter.group, letter.partition, letter.position), options.why)
    return Forgotten(
        options.name,
        stream.name,
        _kinds(holds),
        len({hold.partition for hold in holds}),
        sum(hold.events for hold in holds),
        len(letters) if options.with_letters else 0,
    )


def _letters(stream: Stream, name: str) -> list[DeadLetter]:
    """Those that a processor may still be given; what a projection could not use holds nothing back."""
    return [letter for letter in list_letters(stream, name) if letter.state != "damaged"]


def _unknown(options: ForgetOptions, letters: list[DeadLetter]) -> ProjectionError:
    if letters:
        return ProjectionError(
            f"{options.name!r} holds {options.stream_name!r} back by its {len(letters):,} dead letters "
            "alone. "
            f"Retry or discard them (`aurastream dead list {options.name}`), or add --letters to discard all."
        )
    return ProjectionError(
        f"nothing called {options.name[:200]!r} holds {options.stream_name!r} back. `aurastream groups list` "
        "shows what does."
    )


def _kinds(holds: list[Hold]) -> list[str]:
    return sorted({hold.kind for hold in holds})


def _facts(options: ForgetOptions, holds: list[Hold]) -> Iterator[GroupForgotten]:
    """For the audit trail, one of each kind that has the name."""
    now, name = datetime.now(UTC), options.name
    is_subject = IDENTIFIER.fullmatch(name) is not None
    for kind in _kinds(holds):
        subject = name if is_subject else re.sub(r"[^A-Za-z0-9_.:-]", "_", name)[:128]
        yield GroupForgotten(
            event_id=named_id(options.stream_name, subject, kind, "forgotten", now.isoformat()),
            subject=subject,
            occurred_at=now,
            source=operator(),
            producers_of=options.stream_name,
            behind_events=sum(hold.events for hold in holds if hold.kind == kind),
            why=options.why,
            kind="" if kind == GROUP else kind,
            group="" if is_subject else name,
        )
