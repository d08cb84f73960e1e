"""aurastream dead: events that got no effect, and what a person decides about them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line, table
from aurastream.processors.commands.common import Session, opened
from aurastream.processors.commands.options import (
    F,
    Time,
    Words,
    into,
    json_option,
    stream_option_all,
    why_option,
)
from aurastream.processors.effects import (
    BulkDecision,
    BulkOutcome,
    DeadLetter,
    DeadLetterUnknown,
    LetterFilter,
    LetterPlace,
    discard,
    discard_all,
    list_letters,
    outcome_of,
    retry,
    retry_all,
)
from aurastream.streams import Backoff, DamagedEntry, Stream, backlogs, entry_json

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
        for part in str(value).splitlines() or [""]:
            line(f"{name:10} {harmless(part)}")
    line(f"{'entry':10} {harmless(msgspec.json.encode(event).decode(), 2_000)}")


def _decides(command: F) -> F:
    """One letter, by its place; or many, by what they are."""
    options = [
        click.argument("group", required=False),
        click.argument("place", metavar="STREAM/PARTITION/POSITION", required=False),
        click.option("--all", "is_all", is_flag=True, help="All that the other options leave."),
        click.option("--processor", "groups", multiple=True, metavar="NAME", help="Only its (repeatable)."),
        stream_option_all,
        click.option(
            "--type", "types", multiple=True, metavar="TYPE", help="Only events of it (repeatable)."
        ),
        click.option("--reason", default="", metavar="TEXT", help="Only where the reason has this in it."),
        click.option("--since", type=Time(), metavar="T", help="Only what became a letter since then."),
        click.option("--until", type=Time(), metavar="T", help="Only what became one before."),
        json_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


class DeadOptions(msgspec.Struct, frozen=True):
    """The command line of retry and discard."""

    group: str | None
    place: str | None
    is_all: bool
    groups: tuple[str, ...]
    stream_names: tuple[str, ...]
    types: tuple[str, ...]
    reason: str
    since: datetime | None
    until: datetime | None
    as_json: bool
    why: str
    wait_s: float = 0.0

    @property
    def filter(self) -> LetterFilter:
        """Which letters are meant."""
        return LetterFilter(self.types, self.reason, self.since, self.until)

    @property
    def single(self) -> tuple[str, str] | None:
        """The one letter that is meant; None for many. Raises UsageError where it is neither."""
        narrowed = bool(self.groups or self.stream_names or self.filter != LetterFilter())
        if self.group is not None and self.place is not None:
            if narrowed or self.is_all:
                raise click.UsageError("a place is one letter: leave the options that choose among many")
            return self.group, self.place
        if not (narrowed or self.is_all):
            raise click.UsageError(
                "which letters? GROUP and STREAM/PARTITION/POSITION name one; --processor, --stream, --type, "
                "--reason, --since, --until choose among many, --all means all that they leave"
            )
        return None


@dead.command("retry")
@_decides
@why_option
@click.option(
    "--wait",
    "wait_s",
    default=0.0,
    type=click.FloatRange(0, 86_400),
    metavar="SECONDS",
    help="Wait so long for what comes of it.",
)
@into(DeadOptions)
def retry_(context: click.Context, decision: DeadOptions) -> None:
    """Let a parked event of GROUP run again, or all that are meant, then those that wait behind them.

    Their worker does it, within half a second of running. Exit code 1 when the event waits behind another
    one; with --wait when one was parked again, or is not done after that time.
    """
    with opened(context) as session:
        single = decision.single
        if single is None:
            _bulk(context, session, decision, retry_all)
            return
        stream, partition, position = _parsed(session, single[1])
        place = LetterPlace(single[0], partition, position)
        letter = _letter(stream, place) if decision.wait_s else None
        is_new = retry(stream, session.operations(), place, decision.why)
        line_of = (letter.subject if letter is not None else "") or f"@{position}"
        decided = [(stream, place.group, BulkDecision(1, 0, 0, {partition: {position: line_of}}))]
        outcome = _awaited(decided, decision.wait_s) if decision.wait_s else None
    sentence = "runs again" if is_new else "runs again already"
    content = {"group": single[0], "place": single[1], "state": "due", "changed": is_new}
    if outcome is not None:
        content["outcome"] = outcome
    _tell(
        content,
        f"{single[1]} {sentence}, {_came(outcome) or f'as soon as {single[0]} does'}",
        decision.as_json,
    )
    _exit_by(context, outcome)


@dead.command("discard")
@_decides
@click.option("--why", required=True, type=Words(), metavar="TEXT", help="For the audit trail.")
@into(DeadOptions)
def discard_(context: click.Context, decision: DeadOptions) -> None:
    """Give a dead event of GROUP no effect, or all that are meant, for good; what waited behind them runs."""
    with opened(context) as session:
        single = decision.single
        if single is None:
            _bulk(context, session, decision, discard_all)
            return
        stream, partition, position = _parsed(session, single[1])
        discard(stream, session.operations(), LetterPlace(single[0], partition, position), decision.why)
    content = {"group": single[0], "place": single[1], "state": "discarded", "changed": True}
    _tell(content, f"{single[1]} is discarded", decision.as_json)


Bulk = Callable[[Stream, Stream, str, LetterFilter, str], BulkDecision]
Decided = list[tuple[Stream, str, BulkDecision]]


def _bulk(context: click.Context, session: Session, decision: DeadOptions, decide: Bulk) -> None:
    """Decide about all that are meant, and say how many; then what came of it, where that is waited for."""
    operations = session.operations()
    decided: Decided = []
    for stream in session.streams(decision.stream_names):
        named = decision.groups or ((decision.group,) if decision.group else ())
        for group in named or _groups(session, stream):
            done = decide(stream, operations, group, decision.filter, decision.why)
            if done.matching:
                decided.append((stream, group, done))
    outcome = _awaited(decided, decision.wait_s) if decision.wait_s and decided else None
    count = sum(item.count for _, _, item in decided)
    behind, changed = sum(item.behind for _, _, item in decided), sum(item.changed for _, _, item in decided)
    verb = "run again" if decide is retry_all else "are discarded"
    content: dict[str, Any] = {"decided": count, "behind": behind, "changed": changed}
    if outcome is not None:
        content["outcome"] = outcome
    parts = [f"{count:,} events {verb}"]
    parts += [f"{behind:,} follow them, as they wait behind others"] if behind else []
    parts += [f"{changed:,} changed meanwhile: look again"] if changed else []
    parts += [_came(outcome)] if outcome is not None else []
    _tell(content, "; ".join(parts), decision.as_json)
    _exit_by(context, outcome)


def _awaited(decided: Decided, wait_s: float) -> BulkOutcome:
    """What came of it, once nothing runs any more, or after so long."""
    ends, pauses = time.monotonic() + wait_s, Backoff(0.05, 1.0)
    while True:
        parts = [outcome_of(stream, group, item) for stream, group, item in decided]
        outcome = BulkOutcome(
            sum(part.done for part in parts),
            sum(part.parked for part in parts),
            sum(part.running for part in parts),
        )
        left_s = ends - time.monotonic()
        if not outcome.running or left_s <= 0:
            return outcome
        time.sleep(min(left_s, pauses.next_s()))


def _came(outcome: BulkOutcome | None) -> str:
    if outcome is None:
        return ""
    return f"{outcome.done:,} done, {outcome.parked:,} parked again, {outcome.running:,} still running"


def _exit_by(context: click.Context, outcome: BulkOutcome | None) -> None:
    if outcome is not None and (outcome.parked or outcome.running):
        context.exit(1)


def _letter(stream: Stream, place: LetterPlace) -> DeadLetter | None:
    there = (place.partition, place.position)
    letters = list_letters(stream, place.group)
    return next((letter for letter in letters if (letter.partition, letter.position) == there), None)


def _letters(session: Session, stream: Stream, group: str | None) -> Iterator[DeadLetter]:
    """Of the groups installed here and of those that joined the stream, wherever they run."""
    for name in _groups(session, stream) if group is None else [group]:
        yield from list_letters(stream, name)


def _groups(session: Session, stream: Stream) -> list[str]:
    joined = {item.group for keys in stream.keys for item in backlogs(session.server, keys)}
    return sorted(joined | session.installed.processors.keys() | session.installed.projections.keys())


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
