"""aurastream dead: events that got no effect, and what a person decides about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line, table
from aurastream.processors.commands.common import Session, opened
from aurastream.processors.commands.options import Words, json_option, stream_option_all, why_option
from aurastream.processors.effects import (
    DeadLetter,
    DeadLetterUnknown,
    LetterPlace,
    discard,
    list_letters,
    retry,
)
from aurastream.streams import DamagedEntry, Stream, backlogs, entry_json

group_argument = click.argument("group")
place_argument = click.argument("place", metavar="STREAM/PARTITION/POSITION")


@click.group()
def dead() -> None:
    """Dead letters: events a processor gave up on, and those of the same subject that wait behind them.

    A projection's are listed too: entries that are no events. They cannot be retried. Each verb has --json.
    """


@dead.command("list")
@click.argument("group", required=False)
@stream_option_all
@json_option
@click.pass_context
def list_(context: click.Context, group: str | None, stream_names: tuple[str, ...], as_json: bool) -> None:
    """All dead letters, or those of GROUP, in the order of the log."""
    with opened(context) as session:
        letters = [
            letter for stream in session.streams(stream_names) for letter in _letters(session, stream, group)
        ]
    if as_json:
        print_json({"letters": letters})
        return
    rows = [
        [item.group, _place(item), item.state, item.subject, item.attempts, item.reason] for item in letters
    ]
    table("Dead letters", ["group~", "place", "state", "subject~", "attempts", "reason~"], rows)


@dead.command()
@group_argument
@place_argument
@json_option
@click.pass_context
def show(context: click.Context, group: str, place: str, as_json: bool) -> None:
    """One dead letter of GROUP with its event."""
    with opened(context) as session:
        stream, partition, position = _parsed(session, place)
        letter = _letter(stream, LetterPlace(group, partition, position))
        if letter is None:
            raise DeadLetterUnknown(group, place)
        event = _event(stream, partition, position)
    if as_json:
        print_json({"letter": letter, "event": event})
        return
    for name, value in msgspec.structs.asdict(letter).items():
        line(f"{name:10} {harmless(str(value))}")
    line(f"{'entry':10} {harmless(msgspec.json.encode(event).decode(), 2_000)}")


@dead.command("retry")
@group_argument
@place_argument
@why_option
@json_option
@click.pass_context
def retry_(context: click.Context, group: str, place: str, why: str, as_json: bool) -> None:
    """Let a parked event of GROUP run again, then those that wait behind it.

    Its worker does it, within half a second of running. Exit code 1 when the event waits behind another one.
    """
    with opened(context) as session:
        stream, partition, position = _parsed(session, place)
        is_new = retry(stream, session.operations(), LetterPlace(group, partition, position), why)
    told = "runs again" if is_new else "runs again already"
    _tell(
        {"group": group, "place": place, "state": "due", "changed": is_new},
        f"{place} {told}, as soon as {group} does",
        as_json,
    )


@dead.command("discard")
@group_argument
@place_argument
@click.option("--why", required=True, type=Words(), metavar="TEXT", help="For the audit trail.")
@json_option
@click.pass_context
def discard_(context: click.Context, group: str, place: str, why: str, as_json: bool) -> None:
    """Give a dead event of GROUP no effect, for good; those that wait behind a parked one run."""
    with opened(context) as session:
        stream, partition, position = _parsed(session, place)
        discard(stream, session.operations(), LetterPlace(group, partition, position), why)
    _tell(
        {"group": group, "place": place, "state": "discarded", "changed": True},
        f"{place} is discarded",
        as_json,
    )


def _letter(stream: Stream, place: LetterPlace) -> DeadLetter | None:
    there = (place.partition, place.position)
    letters = list_letters(stream, place.group)
    return next((letter for letter in letters if (letter.partition, letter.position) == there), None)


def _letters(session: Session, stream: Stream, group: str | None) -> Iterator[DeadLetter]:
    """Of the groups installed here and of those that joined the stream, wherever they run."""
    joined = {item.group for keys in stream.keys for item in backlogs(session.server, keys)}
    names = joined | session.installed.processors.keys() | session.installed.projections.keys()
    for name in sorted(names) if group is None else [group]:
        yield from list_letters(stream, name)


def _parsed(session: Session, place: str) -> tuple[Stream, int, str]:
    name, _, rest = place.partition("/")
    partition, _, position = rest.partition("/")
    milliseconds, _, sequence = position.partition("-")
    if not (partition.isdecimal() and milliseconds.isdecimal() and sequence.isdecimal()):
        raise click.BadParameter(
            f"{place!r} is not STREAM/PARTITION/POSITION, as `aurastream dead list` shows it",
            param_hint="PLACE",
        )
    stream = session.open(name)
    if int(partition) >= stream.partitions:
        raise click.BadParameter(
            f"{name} has partitions 0 to {stream.partitions - 1}, not {partition}", param_hint="PLACE"
        )
    return stream, int(partition), position


def _event(stream: Stream, partition: int, position: str) -> Any:
    """The entry's event as it is in the log, opened, or what is there instead."""
    entries = stream.wire(partition).ask(("XRANGE", stream.keys[partition].log, position, position))[0]
    if not entries:
        return None
    try:
        return msgspec.json.decode(
            stream.keyring.open_json(entry_json(f"{stream.name}/{partition}/{position}", entries[0][1]))
        )
    except (DamagedEntry, msgspec.MsgspecError):
        return {"fields": [field.decode(errors="replace")[:1_000] for field in entries[0][1]]}


def _place(item: DeadLetter) -> str:
    return f"{item.stream}/{item.partition}/{item.position}"


def _tell(content: dict[str, Any], sentence: str, as_json: bool) -> None:
    if as_json:
        print_json(content)
    else:
        line(harmless(sentence))
