"""
A replay as lines: of a terminal, a pipe or a file.

    {"stream", "partition", "position", "event"} or a CloudEvent, one a line, personal fields opened

How it goes on after a kill:
    a file     its whole lines say how far each partition is; an incomplete last one is cut off (resume_file)
    a pipe     a place per partition, said at the end, or, where it was killed, the last line's, which the
               reader has: --after (ends.py)
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec

from aurastream.processors import harmless
from aurastream.processors.history.ends import EntryPlace, parsed_place
from aurastream.processors.history.selection import PastEvent, StreamPartition
from aurastream.processors.history.sinks import CannotReplay, event_of
from aurastream.streams import PLACE, Codec, Keyring, stored_as_cloudevent

LINE_MAX = 2**21

Form = Literal["json", "cloudevents"]
BEGINS: dict[Form, bytes] = {"json": b'{"stream":"', "cloudevents": b'{"specversion":"'}


class Writing(msgspec.Struct, frozen=True):
    """How lines are written. keyrings: by stream. is_shown: on a terminal, which no text may command."""

    form: Form
    codec: Codec
    keyrings: dict[str, Keyring]
    is_shown: bool = False


class LineSink:
    """Writes lines."""

    def __init__(self, file: BinaryIO, writing: Writing) -> None:
        self._file, self._writing = file, writing
        self._encode = msgspec.json.Encoder().encode
        self.events: Counter[str] = Counter()
        self.reached: dict[StreamPartition, str] = {}

    def put(self, event: PastEvent) -> None:
        """Write the event's line."""
        line = self._line(event)
        if self._writing.is_shown:
            line = harmless(line.decode()).encode()
        self._file.write(line + b"\n")
        self.events[event.stream] += 1
        self.reached[event.stream, event.partition] = event.position

    def flush(self) -> None:
        """Hand everything to the system."""
        self._file.flush()

    def _line(self, stored: PastEvent) -> bytes:
        opened = self._writing.keyrings[stored.stream].open_json(self._today(stored))
        if self._writing.form == "cloudevents":
            return self._encode({**stored_as_cloudevent(opened), PLACE: stored.place})
        if b"\n" in opened or b"\r" in opened:  # a raw XADD of pretty JSON
            opened = msgspec.json.format(opened, indent=-1)
        place = b'{"stream":"%b","partition":%d,"position":"%b","event":'
        return place % (stored.stream.encode(), stored.partition, stored.position.encode()) + opened + b"}"

    def _today(self, stored: PastEvent) -> bytes:
        """The stored JSON where it is of today's version, or of a type unknown here, of which nobody knows a
        newer form; what a newer producer added is in it.
        """
        codec = self._writing.codec
        if self._writing.form == "cloudevents":
            event_of(stored, codec)  # who is given CloudEvents gets no type that nobody here knows
        return codec.today(stored.raw, stored.place)


def _foreign_line(path: Path, number: int) -> CannotReplay:
    return CannotReplay(
        f"line {number} of {path} is no line of a replay in this form. Name another file, or mend that one."
    )


def resume_file(path: Path, form: Form) -> dict[StreamPartition, str]:
    """Cut an incomplete last line off, and say how far each partition is in the file.

    Raises CannotReplay for a line that is none of a replay's, which is then left as it is.
    """
    after: dict[StreamPartition, str] = {}
    whole = 0
    with path.open("r+b") as file:
        for number, raw in enumerate(iter(lambda: file.readline(LINE_MAX), b""), start=1):
            place = _place_of(raw, form) if raw.endswith(b"\n") else None
            if place is None and _is_beginning(raw, form):
                break
            if place is None:
                raise _foreign_line(path, number)
            after[place.stream, place.partition] = place.position
            whole += len(raw)
        file.truncate(whole)
        file.flush()
        os.fsync(file.fileno())
    return after


def _is_beginning(raw: bytes, form: Form) -> bool:
    """Whether a line was cut off while it was written."""
    return not raw.endswith(b"\n") and (raw.startswith(BEGINS[form]) or BEGINS[form].startswith(raw))


def _place_of(raw: bytes, form: Form) -> EntryPlace | None:
    try:
        if form == "json":
            return msgspec.json.decode(raw, type=EntryPlace)
        return parsed_place(str(msgspec.json.decode(raw, type=dict[str, object]).get(PLACE, "")))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
