"""
Views as of a past time.

    when -> reader(..): a View of now, or a PastView whose partitions are folded when it is asked

Few entries are folded here; many by one process per core. Checkpoints are read and left beside the archive,
where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import msgspec

from aurastream.processors import Fanout, Here, is_worth
from aurastream.projections import Projection, View
from aurastream.projections.engine import MemoryView, Tables, as_live
from aurastream.projections.past import AsOf, Checkpoints, Keeper, Past, PastFold, PastView
from aurastream.streams import Cursor, History, Stream
from aurastream.streams.archive import history_of

OnRead = Callable[[int], None]  # how many more entries were read


def _unwatched(entries: int) -> AbstractContextManager[OnRead]:
    return nullcontext(lambda read: None)


class Watch(msgspec.Struct, frozen=True):
    """Who is told of a long folding. progress: of how many entries, for its length; warn: a sentence."""

    progress: Callable[[int], AbstractContextManager[OnRead]] = _unwatched
    warn: Callable[[str], None] = lambda sentence: None


class PastFolder(msgspec.Struct, frozen=True):
    """Folds partitions of one view as of a time."""

    stream: Stream
    projection: Projection[Any]
    when: AsOf
    apps: tuple[str, ...] = ()
    watch: Watch = Watch()

    def __call__(self, partitions: list[int]) -> dict[int, Past]:
        """Each of these partitions as of the time."""
        history = history_of(self.stream)
        checkpoints = kept_for(history, self.projection, self.watch.warn)
        ahead = PastFold(history, self.projection, self.when, checkpoints).ahead
        work = {partition: ahead(partition) for partition in partitions if self.stream.is_log_here}
        entries = sum(work.values())
        with self.watch.progress(entries) as count:
            if len(partitions) > 1 and is_worth(entries):
                pasts = dict(self._by_processes(work, count))
            else:
                fold = PastFold(history, self.projection, self.when, checkpoints, lambda _, read: count(read))
                pasts = {partition: fold.fold(partition) for partition in partitions}
        self._warn_of_gaps(pasts)
        return pasts

    def _by_processes(self, work: dict[int, int], count: OnRead) -> Iterator[tuple[int, Past]]:
        """The longest first, so that the last ones end together."""
        longest = sorted(work, key=lambda partition: -work[partition])
        tasks = [_PastTask(self.stream.name, self.projection.name, number, self.when) for number in longest]
        with Fanout(_fold, self.stream.server.url, self.apps) as fanout:
            for number, folded in fanout.each(tasks):
                partition = longest[number]
                for sentence in folded.warnings:
                    self.watch.warn(sentence)
                count(work[partition])
                yield partition, folded.past(self.projection, self.stream.keys[partition].where)

    def _warn_of_gaps(self, pasts: dict[int, Past]) -> None:
        for partition, past in sorted(pasts.items()):
            if past.missing:
                gone = f"{past.missing} entries of {self.stream.keys[partition].where}"
                self.watch.warn(
                    f"{gone} are gone without the trimmer, and missing here. Run `aurastream check`."
                )


def reader(
    stream: Stream,
    projection: Projection[Any],
    when: AsOf | None,
    apps: tuple[str, ...] = (),
    watch: Watch = Watch(),  # noqa: B008 - frozen
) -> View[Any]:
    """The view of now, or as of a time. Asking it then folds what it needs."""
    if when is None:
        return View(stream, projection)
    folder = PastFolder(stream, projection, when, apps, watch)
    return PastView(History(stream), projection, when, folder=folder)


def kept_for(
    history: History, projection: Projection[Any], warn: Callable[[str], None]
) -> Checkpoints | None:
    """Where the projection's checkpoints are; None without an archive."""
    if history.archive is None:
        return None
    return Checkpoints(cast(Keeper, history.archive), history.stream.name, projection, warn)


class _PastTask(msgspec.Struct, frozen=True):
    stream: str
    projection: str
    partition: int
    when: AsOf


class _Folded(msgspec.Struct, frozen=True):
    """A Past as it comes from another process, without the projection, which does not go through a pipe.

    facts: the Past's own, but for its view.
    """

    facts: dict[str, Any]
    cursor: Cursor
    tables: Tables
    dead: dict[str, str]
    warnings: list[str]

    def past(self, projection: Projection[Any], where: str) -> Past:
        """As it was there."""
        view = MemoryView(projection, where)
        view.restore(self.cursor, self.tables, self.dead)
        return Past(view, **self.facts)


def _fold(here: Here, task: _PastTask) -> _Folded:
    """In a process of its own."""
    history = here.history(task.stream)
    projection = as_live(history.stream, here.installed.projection(task.projection))
    warnings: list[str] = []
    checkpoints = kept_for(history, projection, warnings.append)
    past = PastFold(history, projection, task.when, checkpoints).fold(task.partition)
    facts = {name: value for name, value in msgspec.structs.asdict(past).items() if name != "view"}
    return _Folded(facts, past.view.cursor, past.view.tables, past.view.dead, warnings)
