"""
Check every view on all processors: one process per core, one projection and partition at a time.

A check folds the whole log anew in Python, so it is as long as the log; nothing in it is shared between
partitions. Small logs are checked here, as a process costs half a second to start. Of a view's generations
the live one is checked and the kept ones of our definition. The processes read their settings from the
environment, as this one did.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

from aurastream.processors import find_plugins
from aurastream.projections import Checked, Projection
from aurastream.projections.engine import check_partition, checked_generations
from aurastream.streams import Server, Stream, open_stream
from aurastream.streams.archive import history_of

SMALL = 100_000  # entries, below which other processes would cost more than they save

Task = tuple[str, str, int, int]  # stream, projection, partition, generation


def check_all(
    streams: list[Stream], projections: list[Projection[Any]], apps: tuple[str, ...] = ()
) -> Iterator[Checked]:
    """One Checked per stream, projection and partition, as they are done. None for a log that is in Kafka."""
    here = [stream for stream in streams if stream.is_log_here]
    known = {stream.name: stream for stream in here}
    named = {projection.name: projection for projection in projections}
    sizes = {stream.name: _entries(stream) for stream in here}
    tasks: list[Task] = [
        (stream.name, projection.name, partition, generation)
        for stream in sorted(here, key=lambda stream: -sizes[stream.name])
        for projection in projections
        if projection.folds(stream.name)
        for generation in checked_generations(stream, projection)
        for partition in range(stream.partitions)
    ]
    if sum(sizes.values()) < SMALL or (os.cpu_count() or 1) < 2:
        for name, projection, partition, generation in tasks:
            stream = known[name]
            yield check_partition(stream, named[projection], partition, generation, history_of(stream))
        return
    with ProcessPoolExecutor(
        os.cpu_count(), get_context("spawn"), _begin, (here[0].server.url, apps)
    ) as pool:
        for done in as_completed([pool.submit(_check, task) for task in tasks]):
            yield done.result()


def _entries(stream: Stream) -> int:
    return sum(int(stream.server.client.xlen(keys.log)) for keys in stream.keys)


class _Process:
    """What a process holds between two tasks."""

    server: Server
    projections: dict[str, Projection[Any]]
    streams: dict[str, Stream]


def _begin(url: str, apps: tuple[str, ...]) -> None:
    _Process.server, _Process.projections, _Process.streams = Server(url), find_plugins(apps).projections, {}


def _check(task: Task) -> Checked:
    name, projection, partition, generation = task
    if name not in _Process.streams:
        _Process.streams[name] = open_stream(_Process.server, name)
    stream = _Process.streams[name]
    return check_partition(
        stream, _Process.projections[projection], partition, generation, history_of(stream)
    )
