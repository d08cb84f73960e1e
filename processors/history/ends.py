"""
Where a reading of the past ends, in every partition, and the words for how far one has come.

    ends_of: the last entry of each log -> the latest millisecond among them -> wait until every node's clock
        is past it -> the last entry up to it, again
    place_text, parsed_places: {(stream, partition): position}  <->  "clips/0/17-0,clips/1/18-2"

Always true: the ends are of one instant. What is appended after ``ends_of`` has returned comes, in the merged
order, behind everything up to the ends; so a reading that goes on after one place of that order misses
nothing.

Decision (2026-11): both, ends of one instant and a place per partition. The ends alone make the place of the
last line enough, which is all that a reader of a killed pipe has, and the next reading's lines continue the
order; but they hold only where no clock goes back. A place per partition holds whatever clocks do (a server
whose clock was set back, a replica promoted that is slower), so it is what a replay prints at its end.
Refused: ends one after the other, as they were (an entry appended to partition 0 while the end of partition
15 is looked up sorts before that end, and was never handed on: 1 of 11,268); a bound at the server's TIME,
which leaves out what was appended in the same millisecond.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec

from aurastream.processors.history.selection import StreamPartition
from aurastream.streams import END, Ask, History, Position

SETTLE_MAX_S = 1.0  # a log that is further ahead of its node's clock was written under another clock
Place = tuple[History, int]


def ends_of(places: Sequence[Place]) -> dict[StreamPartition, Position]:
    """The last entry there is, archived or not, in each partition; START where there is none. Raises
    UnknownOutcome.
    """
    if not places:
        return {}
    latest = max(end.ms for end in _looked_up(places, END))
    _settle(places, latest)
    ends = _looked_up(places, Position(latest + 1, 0).before())
    return {
        (history.stream.name, partition): end for (history, partition), end in zip(places, ends, strict=True)
    }


def _looked_up(places: Sequence[Place], until: Position) -> list[Position]:
    """The last entry of each up to a position."""
    asks = []
    for history, partition in places:
        keys = history.stream.keys[partition]
        asks.append(Ask(keys.log, ("XREVRANGE", keys.log, str(until), "-", "COUNT", 1)))
        asks.append(Ask(keys.log, ("HGET", keys.meta, "trimmed_to")))
    answers = places[0][0].stream.wires.ask(asks, "a look at where the logs end")
    ends = []
    for (history, partition), last, trimmed_to in zip(places, answers[::2], answers[1::2], strict=True):
        if last:
            ends.append(Position.parse(last[0][0]))
            continue
        # Trimmed to nothing, it is in the archive; without one, to read up to there says so.
        archived = history.archive.until(partition) if history.archive is not None else ""
        ends.append(max(Position.parse(archived), Position.parse(trimmed_to or b"")))
    return ends


def _settle(places: Sequence[Place], latest_ms: int) -> None:
    """Wait until no node can append at the millisecond or before: at most SETTLE_MAX_S."""
    end = time.monotonic() + SETTLE_MAX_S
    wires, keys = (
        places[0][0].stream.wires,
        [history.stream.keys[partition].log for history, partition in places],
    )
    while True:
        times = wires.ask([Ask(key, ("TIME",)) for key in keys], "a look at the servers' clocks")
        behind_s = max((latest_ms + 1) / 1000 - int(now[0]) - int(now[1]) / 1e6 for now in times)
        if behind_s <= 0 or behind_s > SETTLE_MAX_S or time.monotonic() > end:
            return
        time.sleep(behind_s)


class EntryPlace(msgspec.Struct, frozen=True):
    """Where an entry is."""

    stream: str
    partition: int
    position: str


def parsed_place(text: str) -> EntryPlace | None:
    """stream/partition/position; None for what is none."""
    stream, _, rest = text.partition("/")
    partition, _, position = rest.partition("/")
    milliseconds, _, sequence = position.partition("-")
    if not (stream and partition.isdecimal() and milliseconds.isdecimal() and sequence.isdecimal()):
        return None
    return EntryPlace(stream, int(partition), position)


def place_text(reached: Mapping[StreamPartition, str]) -> str:
    """How far each partition is, as --after takes it; "" where nothing was reached. A comma ends a single
    one, which would else be a place in the order over all partitions.
    """
    places = [f"{stream}/{partition}/{position}" for (stream, partition), position in sorted(reached.items())]
    return ",".join(places) + ("," if len(places) == 1 else "")


def parsed_places(text: str, streams: Mapping[str, int]) -> dict[StreamPartition, str] | None:
    """What place_text or a line says: after which place to go on in each partition; None for what is neither.

    streams: name -> number of partitions, of those that are read.
    """
    places = [parsed_place(part) for part in text.removesuffix(",").split(",")]
    if None in places:
        return None
    known = [place for place in places if place is not None]
    if "," not in text:
        return after_place(known[0], streams)
    if any(place.partition >= streams.get(place.stream, 0) for place in known):
        return None
    return {(place.stream, place.partition): place.position for place in known}


def after_place(last: EntryPlace, streams: Mapping[str, int]) -> dict[StreamPartition, str]:
    """How far every partition is when the last line of the merged order was this one."""
    before = str(Position.parse(last.position).before())
    return {
        (stream, partition): last.position if (stream, partition) <= (last.stream, last.partition) else before
        for stream, partitions in streams.items()
        for partition in range(partitions)
    }
