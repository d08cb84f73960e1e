"""
Views as of a past time, for the verbs that take ``--at``.

    --at T [--by occurred|appended] -> as_of -> reader(..): a View of now, or a PastView whose partitions are
        folded when asked for

Few entries are folded here; many by one process per core, as the fold is Python and partitions share nothing.
Checkpoints are read and left beside the archive, where there is one. The processes read their settings from
the environment, as this one did.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import click
import msgspec

from aurastream.processors import progress_bar, remark
from aurastream.processors.history.selection import parsed_time
from aurastream.projections import Projection, ProjectionError, View
from aurastream.projections.engine import MemoryView, Positions, Tables
from aurastream.projections.past import AsOf, By, Checkpoints, Keeper, Past, PastFold, PastView
from aurastream.streams import Cursor, History, Stream, StreamError
from aurastream.streams.archive import history_of

SMALL = 100_000  # entries to read, below which other processes would cost more than they save
SHOWN_FROM = 20_000  # entries to read, from which a progress bar is worth its place

Tell = Callable[[int, int], None]


def at_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--at and --by; the command gets ``at`` and ``by``."""
    told = "As of this time (ISO 8601; a date is its midnight, no offset means UTC)."
    by = "The clock of --at: event time, or when it was appended."
    command = click.option(
        "--by", type=click.Choice(["occurred", "appended"]), default="occurred", show_default=True, help=by
    )(command)
    return click.option("--at", metavar="T", help=told)(command)


def as_of(at: str | None, by: str) -> AsOf | None:
    """What was asked for; None for now. Raises BadParameter."""
    if at is None:
        if by != "occurred":
            raise click.UsageError("--by says which clock --at means: give --at a time as well")
        return None
    return AsOf(parsed_time(at, "--at"), cast(By, by))


def reader(
    stream: Stream, projection: Projection[Any], when: AsOf | None, apps: tuple[str, ...] = ()
) -> View[Any]:
    """The view of now, or as of a time. Asking it then folds what it needs; warnings and progress go to
    stderr.
    """
    if when is None:
        return View(stream, projection)
    return PastView(
        History(stream),
        projection,
        when,
        folder=lambda partitions: folded(stream, projection, when, partitions, apps),
    )


def title_of(title: str, when: AsOf | None) -> str:
    """With the time it is about."""
    return title if when is None else f"{title} as of {when}"


def told_of(when: AsOf | None) -> dict[str, Any]:
    """For JSON: the time it is about, and by which clock."""
    return {} if when is None else {"at": when.at, "by": when.by}


def positions_told(positions: Positions) -> str:
    """For people: which position of which partition an answer reflects."""
    return f"at {', '.join(f'{number}: {position or 0}' for number, position in positions.items())}"


def kept_for(history: History, projection: Projection[Any]) -> Checkpoints | None:
    """Where the projection's checkpoints are; None without an archive."""
    if history.archive is None:
        return None
    return Checkpoints(cast(Keeper, history.archive), history.stream.name, projection, warn)


def warn(sentence: str) -> None:
    """A remark on stderr."""
    remark(sentence)


def folded(
    stream: Stream, projection: Projection[Any], when: AsOf, partitions: list[int], apps: tuple[str, ...]
) -> dict[int, Past]:
    """Each of these partitions as of a time."""
    history = history_of(stream)
    checkpoints = kept_for(history, projection)
    ahead = PastFold(history, projection, when, checkpoints).ahead
    work = {partition: ahead(partition) for partition in partitions if stream.is_log_here}
    with _progress(sum(work.values())) as tell:
        if len(partitions) == 1 or sum(work.values()) < SMALL or (os.cpu_count() or 1) < 2:
            fold = PastFold(history, projection, when, checkpoints, tell)
            pasts = {partition: fold.fold(partition) for partition in partitions}
        else:
            pasts = dict(_by_processes(stream, projection, when, work, apps, tell))
    for partition, past in sorted(pasts.items()):
        if past.missing:
            gone = f"{past.missing} entries of {stream.keys[partition].where}"
            warn(f"{gone} are gone without the trimmer, and missing here. Run `aurastream check`.")
    return pasts


@contextmanager
def _progress(entries: int) -> Iterator[Tell]:
    """A bar on stderr, where a person watches and it takes a while."""
    with progress_bar("folding", entries, is_hidden=entries < SHOWN_FROM) as bar:
        yield lambda partition, read: bar.by(read)


class _Folded(msgspec.Struct, frozen=True):
    """A Past as it comes from another process."""

    position: str
    read: int
    began: str
    is_whole: bool
    latest_us: int
    missing: int
    cursor: Cursor
    tables: Tables
    dead: dict[str, str]
    warnings: list[str]


def _by_processes(
    stream: Stream,
    projection: Projection[Any],
    when: AsOf,
    work: dict[int, int],
    apps: tuple[str, ...],
    tell: Tell,
) -> Iterator[tuple[int, Past]]:
    """The longest first, so that the last ones end together."""
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        longest = sorted(work, key=lambda partition: -work[partition])
        url = stream.server.url
        tasks = {
            pool.submit(_fold, url, apps, stream.name, projection.name, partition, when): partition
            for partition in longest
        }
        for task in as_completed(tasks):
            partition, found = tasks[task], task.result()
            view = MemoryView(projection, stream.keys[partition].where)
            view.restore(found.cursor, found.tables, found.dead)
            for sentence in found.warnings:
                warn(sentence)
            tell(partition, work[partition])
            yield (
                partition,
                Past(
                    view,
                    found.position,
                    found.read,
                    found.began,
                    found.is_whole,
                    found.latest_us,
                    found.missing,
                ),
            )


def _fold(
    url: str, apps: tuple[str, ...], name: str, projection_name: str, partition: int, when: AsOf
) -> _Folded:
    """In a process of its own."""
    from aurastream.processors import find_plugins
    from aurastream.streams import Server, open_stream

    projection = find_plugins(apps).projections[projection_name]
    history = history_of(open_stream(Server(url), name))
    warnings: list[str] = []
    checkpoints = None
    if history.archive is not None:
        checkpoints = Checkpoints(cast(Keeper, history.archive), name, projection, warnings.append)
    try:
        past = PastFold(history, projection, when, checkpoints).fold(partition)
    except (
        ProjectionError,
        StreamError,
    ) as error:  # those with facts of their own do not come through a pipe
        raise ProjectionError(str(error)) from None
    return _Folded(
        past.position,
        past.read,
        past.began,
        past.is_whole,
        past.latest_us,
        past.missing,
        past.view.cursor,
        past.view.tables,
        past.view.dead,
        warnings,
    )
