"""
Where a replay goes: lines of a terminal, a pipe or a file; or another stream.

    Lines:   {"stream", "partition", "position", "event"} or a CloudEvent, one a line, personal fields opened
    ToStream: append by event ID, 500 at a time, personal fields sealed as they were; then the journal's row
    says how far

How each goes on after a kill:
    a file     its whole lines say how far each partition is; an incomplete last one is cut off
               (resume_file)
    a pipe     the last line's place, which the reader has: --after STREAM/PARTITION/POSITION
    a stream   the hash aura:replays: after each batch; what was appended but not yet written down is appended
               again, which the
               target's index knows. The row goes when the replay is whole.
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec

from aurastream.processors import harmless
from aurastream.processors.history.selection import Found, Place
from aurastream.projections import ProjectionError
from aurastream.streams import (
    BATCH_MAX,
    PLACE,
    REPLAYS,
    Codec,
    Event,
    Keyring,
    LogReplayed,
    Outcome,
    Server,
    Stream,
    as_pair,
    named_id,
    operator,
    to_cloudevent,
)

TEXT_MAX = 1_000  # of an operator event's field
LINE_MAX = 2**21

Form = Literal["json", "cloudevents"]
BEGINS: dict[Form, bytes] = {"json": b'{"stream":"', "cloudevents": b'{"specversion":"'}


class CannotReplay(ProjectionError):
    """The target cannot take the replay, or an event."""


class Line(msgspec.Struct, frozen=True):
    """What a written line says of its place."""

    stream: str
    partition: int
    position: str


def event_of(found: Found, codec: Codec) -> Event:
    """The event in today's form. Raises CannotReplay for a type that is not installed; what codec.decode
    raises.
    """
    event = codec.decode(found.raw, found.place)
    if event is None:
        raise CannotReplay(
            f"the event at {found.place} is a {found.envelope.type!r}, which is not installed. "
            "Install its package, name its module with --app, or choose other types with --type."
        )
    return event


class Lines:
    """Writes lines. shown: to a person's terminal, which no text may command."""

    def __init__(
        self, file: BinaryIO, form: Form, codec: Codec, keyrings: dict[str, Keyring], *, shown: bool = False
    ) -> None:
        self._file, self._form, self._codec, self._keyrings, self._shown = file, form, codec, keyrings, shown
        self._encode = msgspec.json.Encoder().encode
        self.events: Counter[str] = Counter()
        self.last: Found | None = None

    def put(self, found: Found) -> None:
        """Write the event's line."""
        line = self._line(found)
        if self._shown:
            line = harmless(line.decode()).encode()
        self._file.write(line + b"\n")
        self.events[found.stream] += 1
        self.last = found

    def flush(self) -> None:
        """Hand everything to the system."""
        self._file.flush()

    def _line(self, found: Found) -> bytes:
        opened = self._keyrings[found.stream].open_json(self._today(found))
        if self._form == "cloudevents":
            event = self._codec.decode(opened, found.place)
            return self._encode({**to_cloudevent(event), PLACE: found.place}) if event is not None else b""
        if b"\n" in opened or b"\r" in opened:  # a raw XADD of pretty JSON
            opened = msgspec.json.format(opened, indent=-1)
        place = b'{"stream":"%b","partition":%d,"position":"%b","event":'
        return place % (found.stream.encode(), found.partition, found.position.encode()) + opened + b"}"

    def _today(self, found: Found) -> bytes:
        """The stored JSON where it is of today's version, or of a type unknown here, of which nobody knows a
        newer form.
        """
        if self._form == "json" and found.envelope.type not in self._codec.types:
            return found.raw
        event = event_of(found, self._codec)
        return (
            found.raw if found.envelope.version == type(event).schema_version else self._codec.encode(event)
        )


def resume_file(path: Path, form: Form) -> dict[Place, str]:
    """Cut an incomplete last line off, and say how far each partition is in the file.

    Raises CannotReplay for a line that is none of a replay's, which is then left as it is.
    """
    after: dict[Place, str] = {}
    whole = 0
    with path.open("r+b") as file:
        for number, raw in enumerate(iter(lambda: file.readline(LINE_MAX), b""), start=1):
            line = _place_of(raw, form) if raw.endswith(b"\n") else None
            if (
                line is None
                and not raw.endswith(b"\n")
                and (raw.startswith(BEGINS[form]) or BEGINS[form].startswith(raw))
            ):
                break
            if line is None:
                raise CannotReplay(
                    f"line {number} of {path} is no line of a replay in this form. Name another file, or "
                    "mend that one."
                )
            after[line.stream, line.partition] = line.position
            whole += len(raw)
        file.truncate(whole)
        file.flush()
        os.fsync(file.fileno())
    return after


def _place_of(raw: bytes, form: Form) -> Line | None:
    try:
        if form == "json":
            return msgspec.json.decode(raw, type=Line)
        return parsed_place(str(msgspec.json.decode(raw, type=dict[str, Any]).get(PLACE, "")))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def parsed_place(text: str) -> Line | None:
    """stream/partition/position; None for what is none."""
    stream, _, rest = text.partition("/")
    partition, _, position = rest.partition("/")
    milliseconds, _, sequence = position.partition("-")
    if not (stream and partition.isdecimal() and milliseconds.isdecimal() and sequence.isdecimal()):
        return None
    return Line(stream, int(partition), position)


def after_place(last: Line, streams: list[Stream]) -> dict[Place, str]:
    """How far every partition is when the last line of the merged order was this one."""
    at = as_pair(last.position)
    before = f"{at[0]}-{at[1] - 1}" if at[1] else f"{max(at[0] - 1, 0)}-{2**64 - 1}" if at[0] else "0-0"
    return {
        (stream.name, partition): last.position
        if (stream.name, partition) <= (last.stream, last.partition)
        else before
        for stream in streams
        for partition in range(stream.partitions)
    }


class Row(msgspec.Struct):
    """An unfinished replay. began: names it; after: "stream/partition" -> position; events: of each stream."""

    began: datetime
    after: dict[str, str] = {}
    events: dict[str, int] = {}


class Journal:
    """How far a replay into a stream is, kept at the server until it is whole."""

    def __init__(self, server: Server, into: str, selection: str, *, is_afresh: bool = False) -> None:
        self._client = server.client
        self._field = named_id("replay", into, selection)
        if is_afresh:
            self._client.hdel(REPLAYS, self._field)
        self._client.hsetnx(REPLAYS, self._field, msgspec.json.encode(Row(datetime.now(UTC))))
        raw: Any = self._client.hget(REPLAYS, self._field)
        self.row = msgspec.json.decode(raw, type=Row)

    @property
    def after(self) -> dict[Place, str]:
        """Where to go on."""
        places = (text.rpartition("/") for text in self.row.after)
        return {
            (stream, int(partition)): self.row.after[f"{stream}/{partition}"]
            for stream, _, partition in places
        }

    def save(self, batch: list[Found]) -> None:
        """The batch is in the target."""
        for found in batch:
            self.row.after[f"{found.stream}/{found.partition}"] = found.position
            self.row.events[found.stream] = self.row.events.get(found.stream, 0) + 1
        self._client.hset(REPLAYS, self._field, msgspec.json.encode(self.row))

    def close(self, operations: Stream, into: str, selection: str, why: str) -> None:
        """The replay is whole: say so in the audit trail, then forget the row. Repeated after a kill, it
        appends nothing new.
        """
        began = self.row.began.isoformat()
        operations.append(
            LogReplayed(
                event_id=named_id("replayed", self._field, stream, began),
                subject=stream,
                occurred_at=self.row.began,
                source=operator(),
                into=into,
                events=events,
                selection=selection[:TEXT_MAX],
                why=why[:TEXT_MAX],
            )
            for stream, events in self.row.events.items()
        )
        self._client.hdel(REPLAYS, self._field)


class ToStream:
    """Appends to another stream. Waits where its producers must."""

    def __init__(self, target: Stream, journal: Journal) -> None:
        self._target, self._journal = target, journal
        self._batch: list[tuple[Found, Event]] = []
        self.events: Counter[str] = Counter()
        self.duplicates = 0  # of them, what the target had already

    def put(self, found: Found) -> None:
        """Take the event; every BATCH_MAX are appended together."""
        self._batch.append((found, event_of(found, self._target.codec)))
        if len(self._batch) >= BATCH_MAX:
            self.flush()

    def flush(self) -> None:
        """Append what is held back, then write down how far it is."""
        batch, self._batch = self._batch, []
        if not batch:
            return
        placed = self._target.append([event for _, event in batch])
        self.duplicates += sum(item.outcome is Outcome.DUPLICATE for item in placed)
        self._journal.save([found for found, _ in batch])
        self.events.update(found.stream for found, _ in batch)
