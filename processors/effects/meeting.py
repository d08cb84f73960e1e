"""
What a processor is recorded to handle of a stream, and since when. One record for all hosts.

    it meets a stream -> the record: its types, each since an instant of append time, by `start`
    a host           -> processor_standing: does this build's definition fit the record? if not, a sentence
    a person decides -> acceptance.py: the record moves on

Always true: whether an event gets its effect is decided by the record and the event's place in the log, never
by which host came first or when. A build whose types differ from the record's takes no lane.

Decision (2026-11): "end", the default, is the instant at which the fleet first ran the processor, or all of a
stream that was made after that. Refused: the end of each partition as a host first sees it, which loses what
is appended to a new stream before a host looks; "beginning" as the default, for a mail to all of history
cannot be taken back, while what was passed over can be handled by a decision.
Decision (2026-11): the record has an instant a type, so that a type which a processor learns later is handled
from where a person said. Refused: handling what the old hosts skipped by itself (the same mails), and
passing over it (what nobody notices).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal

import msgspec

from aurastream.processors import ProcessorError
from aurastream.processors.effects.processor import Processor
from aurastream.streams import PROCESSORS, Ask, Asking, Event, Logger, Server, Stream, drive, sound

log = Logger("aurastream.effects")


class Met(msgspec.Struct, frozen=True, omit_defaults=True):
    """The record. first_ms: when the processor met the stream. start: what its class said then. since: type
    -> ms of append time from which on it is handled. version: counts the decisions. recall: type -> the span
    (from, until) of what was skipped before and is handled by the last decision.
    """

    first_ms: int
    start: str
    since: dict[str, int]
    version: int = 1
    recall: dict[str, tuple[int, int]] = {}

    def handles(self, event: Event, position: str) -> bool:
        """Whether the event at this position is to get its effect, by its type."""
        return ms_of(position) >= self.since.get(type_of(type(event)), self.least_ms)

    @property
    def least_ms(self) -> int:
        """From when on anything is handled."""
        return min(self.since.values(), default=0)


class ProcessorRedefined(ProcessorError):
    """A build's definition of a processor differs from what is recorded."""

    def __init__(self, name: str, stream: str, gained: Iterable[str], lost: Iterable[str]) -> None:
        more, less = ", ".join(sorted(gained)), ", ".join(sorted(lost))
        differs = " and ".join(
            part
            for part in (more and f"handles {more} besides", less and f"no longer handles {less}")
            if part
        )
        super().__init__(
            f"{name} of this build {differs}, which its record for {stream!r} does not say, so this host "
            f"leaves it alone. Decide: `aurastream processors accept {name} --stream {stream} --from now` "
            "(or skipped, beginning, an instant: from when on new types are handled)."
        )
        self.name, self.stream = name, stream


class MeetingDamaged(ProcessorError):
    """A record is none: somebody wrote there by hand."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(
            f"{PROCESSORS} holds no record of {field!r}: {why}. Whoever wrote there must put it back, or "
            "HDEL the field: then the processor begins anew by its `start`, behind its cursor."
        )
        self.field = field


class DecisionUnderWay(ProcessorError):
    """A decision about a processor did not reach all partitions."""

    def __init__(self, name: str, stream: str) -> None:
        super().__init__(
            f"a decision about {name} has not reached all partitions of {stream!r}. Where it does not go on "
            f"by itself: `aurastream processors accept {name} --stream {stream}`."
        )
        self.name, self.stream = name, stream


def ms_of(position: str) -> int:
    """When the server appended it."""
    return int(position.partition("-")[0])


def type_of(kind: type[Event]) -> str:
    """An event type's name in the log."""
    return str(kind.__struct_config__.tag)


def types_of(processor: Processor) -> set[str]:
    """The names of the types it handles."""
    return {type_of(kind) for kind in processor.events}


def met_of(field: str, row: bytes) -> Met:
    """A record as it is stored. Raises MeetingDamaged."""
    try:
        return msgspec.json.decode(row, type=Met)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MeetingDamaged(field, str(error)) from error


def field_of_meeting(processor: str, stream: str) -> str:
    """Where the record is."""
    return f"{stream}/{processor}"


def meet(processor: Processor, stream: Stream) -> Asking[Met]:
    """The record, made where there is none."""
    field = field_of_meeting(processor.name, stream.name)
    row = sound((yield [Ask(PROCESSORS, ("HGET", PROCESSORS, field))]))[0]
    if row is None:
        row = yield from _recorded(processor, stream, field)
    return met_of(field, row)


def difference(processor: Processor, stream: str, met: Met) -> ProcessorRedefined | None:
    """Why a build does not fit the record; None where it does."""
    own, recorded = types_of(processor), set(met.since)
    if own == recorded:
        return None
    return ProcessorRedefined(processor.name, stream, own - recorded, recorded - own)


def introduce(server: Server, processors: Iterable[Processor]) -> None:
    """From now on the fleet has these: a stream made later is handled from its beginning. Repeat at will."""
    known = server.client.hkeys(PROCESSORS)  # a full server that knows them need not be written to
    for processor in processors:
        if processor.name.encode() in known:
            continue
        seconds, microseconds = server.client.time()
        server.client.hsetnx(PROCESSORS, processor.name, seconds * 1_000 + microseconds // 1_000)


def read_meetings(server: Server) -> dict[str, Met]:
    """All records by field_of_meeting, for who looks at many; damaged ones are left out."""
    rows: dict[bytes, bytes] = server.client.hgetall(PROCESSORS)  # type: ignore[assignment]
    meetings = {}
    for name, row in rows.items():
        field = name.decode(errors="backslashreplace")
        if "/" in field:
            with suppress(MeetingDamaged):  # whoever asks for this one is told
                meetings[field] = met_of(field, row)
    return meetings


def processor_standing(processor: Processor, stream: Stream, known: Mapping[str, Met]) -> str:
    """Why a host of this build must not run the processor on the stream, as a sentence; "" where it may.

    known: as read_meetings has them; a processor that is new to the stream is recorded.
    """
    met = known.get(field_of_meeting(processor.name, stream.name))
    if met is None:
        met = drive(meet(processor, stream), stream.wires.ask)
    return str(difference(processor, stream.name, met) or "")


def _recorded(processor: Processor, stream: Stream, field: str) -> Asking[bytes]:
    """Record it, whoever does so first."""
    first, time, *begun = sound(
        (
            yield [
                Ask(PROCESSORS, ("HGET", PROCESSORS, processor.name)),
                Ask(PROCESSORS, ("TIME",)),
                *[
                    Ask(keys.log, ("HEXISTS", keys.cursor(processor.name), "position"))
                    for keys in stream.keys
                ],
            ]
        )
    )
    now_ms = int(time[0]) * 1_000 + int(time[1]) // 1_000
    first_ms = int(first) if first is not None else now_ms
    # One that is at work since before there were records has handled whatever it met.
    since = 0 if any(begun) else _since(processor.start, first_ms, now_ms, stream.facts.created_ms)
    start = processor.start
    text = start.isoformat() if isinstance(start, datetime) else start
    met = Met(now_ms, text, dict.fromkeys(sorted(types_of(processor)), since))
    answers = yield [
        Ask(PROCESSORS, ("HSETNX", PROCESSORS, processor.name, first_ms)),
        Ask(PROCESSORS, ("HSETNX", PROCESSORS, field, msgspec.json.encode(met))),
        Ask(PROCESSORS, ("HGET", PROCESSORS, field)),
    ]
    _, is_ours, row = sound(answers)
    if is_ours:
        facts = {"processor": processor.name, "stream": stream.name, "start": text}
        log.info("processor_met", **facts, handles_since=instant_of(since))
    stored: bytes = row
    return stored


def instant_of(ms: int) -> str:
    """As people read it."""
    return "the beginning" if ms == 0 else datetime.fromtimestamp(ms / 1_000, UTC).isoformat()


def _since(start: Literal["end", "beginning"] | datetime, first_ms: int, now_ms: int, created_ms: int) -> int:
    """From when on a stream's events are handled, in ms of append time."""
    if isinstance(start, datetime):
        return round(start.timestamp() * 1_000)
    if start == "beginning" or (created_ms and created_ms >= first_ms):
        return 0
    return now_ms
