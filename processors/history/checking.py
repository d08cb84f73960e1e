"""
Check every view: one projection and partition at a time, on all cores where the log is long.

A check folds the whole log anew in Python, so it is as long as the log. Of a view's generations the live one
is checked and the kept ones of our definition, which are marked: who reads the view does not read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from aurastream.processors import Fanout, Here, is_worth
from aurastream.projections import Checked, Projection
from aurastream.projections.engine import as_live, check_partition, checked_generations
from aurastream.streams import History, Stream
from aurastream.streams.archive import history_of


class Part(msgspec.Struct, frozen=True):
    """What is checked at a time."""

    stream: str
    projection: str
    partition: int
    generation: int
    is_live: bool


def check_all(
    streams: list[Stream], projections: list[Projection[Any]], apps: tuple[str, ...] = ()
) -> Iterator[Checked]:
    """One Checked per stream, projection and partition, as they are done. None for a log that is in Kafka."""
    here = {stream.name: stream for stream in streams if stream.is_log_here}
    named = {projection.name: projection for projection in projections}
    sizes = {name: _entries(stream) for name, stream in here.items()}
    longest_first = sorted(here.values(), key=lambda stream: -sizes[stream.name])
    parts = [part for stream in longest_first for part in _parts(stream, projections)]
    if is_worth(sum(sizes.values())):
        with Fanout(_check, longest_first[0].server.url, apps) as fanout:
            yield from (checked for _, checked in fanout.each(parts))
        return
    for part in parts:
        yield _checked(history_of(here[part.stream]), named[part.projection], part)


def _parts(stream: Stream, projections: list[Projection[Any]]) -> Iterator[Part]:
    for projection in projections:
        if projection.takes(stream):
            live, generations = checked_generations(stream, projection)
            for generation in generations:
                for partition in range(stream.partitions):
                    yield Part(stream.name, projection.name, partition, generation, generation == live)


def _entries(stream: Stream) -> int:
    return sum(int(stream.server.client.xlen(keys.log)) for keys in stream.keys)


def _check(here: Here, part: Part) -> Checked:
    """In a process of its own."""
    return _checked(here.history(part.stream), here.installed.projection(part.projection), part)


def _checked(history: History, projection: Projection[Any], part: Part) -> Checked:
    recorded = as_live(history.stream, projection, part.generation)
    checked = check_partition(history.stream, recorded, part.partition, part.generation, history)
    return msgspec.structs.replace(checked, is_live=part.is_live)
