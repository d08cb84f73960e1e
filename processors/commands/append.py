"""aurastream append: JSON lines or CloudEvents on stdin, each line an event."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line
from aurastream.processors.commands.common import opened
from aurastream.processors.commands.options import json_option
from aurastream.streams import (
    BATCH_MAX,
    EVENT_BYTES_MAX,
    Codec,
    DamagedEntry,
    Event,
    InvalidEvent,
    Outcome,
    Stream,
    StreamError,
    from_cloudevent,
    is_cloudevent,
)

LINE_MAX = 2 * EVENT_BYTES_MAX


class _Counts(msgspec.Struct):
    appended: int = 0
    duplicates: int = 0
    refused: int = 0


@click.command()
@click.option(
    "--stream",
    "stream_name",
    default="events",
    show_default=True,
    metavar="NAME",
    help="Created where it is new.",
)
@click.option(
    "--expect",
    multiple=True,
    metavar="SUBJECT=N",
    help="Refuse unless the subject has N events (versioned streams).",
)
@json_option
@click.pass_context
def append(context: click.Context, stream_name: str, expect: tuple[str, ...], as_json: bool) -> int:
    """Append the events on stdin, one JSON object a line: ours, or CloudEvents 1.0.

    A line that is no event, or has a field that its type does not have, is named on stderr and left out; the
    others are appended. Exit code 2 when any was.
    """
    counts = _Counts()
    with opened(context) as session:
        stream = session.open(stream_name, create=True)
        batch: list[tuple[int, Event]] = []  # with the line it came from
        for number, raw in _lines(sys.stdin.buffer):
            try:
                batch.append((number, _event(raw, stream.codec)))
            except StreamError as error:
                _refuse(number, error, counts)
            if len(batch) == BATCH_MAX:
                _send(stream, batch, counts, _expected(expect))
                batch = []
        _send(stream, batch, counts, _expected(expect))
    if as_json:
        print_json({"stream": stream_name, **msgspec.structs.asdict(counts)})
    else:
        line(
            f"{stream_name}: {counts.appended} appended, {counts.duplicates} already there, "
            f"{counts.refused} refused"
        )
    return 2 if counts.refused else 0


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not blank; one longer than LINE_MAX is cut, which the size check refuses."""
    number = 0
    while raw := file.readline(LINE_MAX):
        number += 1
        whole = raw
        while not raw.endswith(b"\n") and len(raw) == LINE_MAX:
            raw = file.readline(LINE_MAX)
        if whole.strip() or len(whole) == LINE_MAX:  # of a cut one, blanks may be all that is left
            yield number, whole


def _event(raw: bytes, codec: Codec) -> Event:
    """The line as an event, decoded once; what only append checks is left to it. Raises InvalidEvent."""
    if len(raw) > EVENT_BYTES_MAX:
        raise InvalidEvent(
            "", f"the line has more than {EVENT_BYTES_MAX} bytes; send what is large by reference"
        )
    if b'"specversion"' in raw and is_cloudevent(content := _content(raw)):
        return from_cloudevent(content, codec)
    try:
        event = codec.admit(raw, "stdin")
    except DamagedEntry as error:
        raise InvalidEvent(_event_id(_content(raw)), error.reason) from error
    if event is None:
        raise _unknown_type(_content(raw), codec)
    return event


def _unknown_type(content: dict[str, Any], codec: Codec) -> InvalidEvent:
    known = ", ".join(sorted(codec.types))
    return InvalidEvent(_event_id(content), f"type {content.get('type')!r} is not installed ({known})")


def _content(raw: bytes) -> dict[str, Any]:
    """The line as plain JSON. Raises InvalidEvent where it is no object."""
    try:
        content = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent("", f"it is no JSON ({error}); write one object a line in UTF-8") from error
    if not isinstance(content, dict):
        raise InvalidEvent("", "it is no JSON object; write {..} on every line")
    return content


def _event_id(content: dict[str, Any]) -> str:
    """For sentences, whatever it is."""
    return str(content.get("event_id", ""))[:128]


def _expected(pairs: tuple[str, ...]) -> dict[str, int]:
    expected = {}
    for pair in pairs:
        subject, _, version = pair.rpartition("=")
        if not subject or not version.isdecimal():
            raise click.BadParameter(f"{pair!r} is not SUBJECT=N", param_hint="--expect")
        expected[subject] = int(version)
    return expected


def _refuse(number: int, error: StreamError, counts: _Counts) -> None:
    """Count the line and say why it is left out."""
    counts.refused += 1
    sentence = (
        f"event {error.event_id!r} was refused: {error.reason}."
        if isinstance(error, InvalidEvent)
        else str(error)
    )
    click.echo(f"aurastream: line {number}: {harmless(sentence)} Mend the line and send it again.", err=True)


def _send(stream: Stream, batch: list[tuple[int, Event]], counts: _Counts, expected: dict[str, int]) -> None:
    """Append the batch; where one of it is refused for its time, only that one is left out."""
    while batch:
        try:
            placed = stream.append([event for _, event in batch], expected=expected)
        except InvalidEvent as error:
            if error.index is None:
                raise
            _refuse(batch[error.index][0], error, counts)
            batch = [*batch[: error.index], *batch[error.index + 1 :]]
            continue
        duplicates = sum(item.outcome is Outcome.DUPLICATE for item in placed)
        counts.appended += len(placed) - duplicates
        counts.duplicates += duplicates
        return
