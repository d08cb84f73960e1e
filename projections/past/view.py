"""
Read a view as of a past time, with everything ``View`` answers.

    PastView(history, Clips(), AsOf(T)).ranking("viral")     the same methods, positions included

A partition is folded (folding.py) when it is first asked for, and then read from memory as often as wanted.
What expires is judged by the latest event time as of T, as a live view judges it by its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import nsmallest
from typing import TypeVar

import msgspec

from aurastream.projections.engine import Named, Projection, ProjectionError, Tables, View
from aurastream.projections.past.as_of import AsOf
from aurastream.projections.past.checkpoints import Checkpoints
from aurastream.projections.past.folding import Past, PastFold
from aurastream.projections.tables import Read, Rows, TableKind, Top, Whole
from aurastream.streams import Cursor, History, Reply

S = TypeVar("S", bound=msgspec.Struct)
Stored = bytes | str  # JSON, or a score as text
Folder = Callable[[list[int]], dict[int, Past]]  # partitions -> each folded


class PastView(View[S]):
    """One projection's view of one stream as of a time. Not for several threads."""

    def __init__(
        self,
        history: History,
        projection: Projection[S],
        as_of: AsOf,
        *,
        checkpoints: Checkpoints | None = None,
        folder: Folder | None = None,
    ) -> None:
        """folder: who folds partitions; default: here, one after the other."""
        super().__init__(
            history.stream, projection, generation=1
        )  # which generation is live makes no difference to a new fold
        self.as_of, self.pasts = as_of, dict[int, Past]()
        fold = PastFold(history, projection, as_of, checkpoints)
        self._folder = folder or (lambda partitions: {number: fold.fold(number) for number in partitions})

    def ask(
        self, reads: Mapping[int, Sequence[Read | Named]], *, goes_on: bool = False
    ) -> dict[int, tuple[Cursor, list[Reply]]]:
        """The reads of snapshot.lua, answered from memory."""
        if unknown := [partition for partition in reads if partition not in self.pasts]:
            self.pasts |= self._folder(unknown)
        return {
            partition: self._answers(self.pasts[partition], wanted) for partition, wanted in reads.items()
        }

    def _answers(self, past: Past, reads: Sequence[Read | Named]) -> tuple[Cursor, list[Reply]]:
        answers = [self._answer(past.view.tables, read) for read in reads]
        return msgspec.structs.replace(past.view.cursor, position=past.position), answers

    def _answer(self, tables: Tables, read: Read | Named) -> Reply:
        match read:
            case Whole(name):
                rows = tables.get(name, {})
                return _flat(_ranked(rows) if self._is_sorted(name) else rows.items())
            case Rows(name, fields):
                rows = tables.get(name, {})
                return [_stored(rows.get(field)) for field in fields]
            case Top(name, part, most):
                best = _ranked(tables.get(name if part is None else f"{name}:{part}", {}), most)
                states = tables.get(self.projection.table, {})
                return [_flat(best), [_stored(states.get(key)) for key, _ in best]]
        raise ProjectionError(
            "a view as of a past time has no keys in the server: read its tables by their names."
        )

    def _is_sorted(self, name: str) -> bool:
        return any(
            table.kind is TableKind.SORTED and table.stored_as(name) for table in self.projection.declared()
        )


def _ranked(rows: dict[str, Stored], count: int = -1) -> list[tuple[str, Stored]]:
    """The first members as a sorted set orders them: by score, then by their bytes."""
    return sorted(rows.items(), key=_place) if count < 0 else nsmallest(count, rows.items(), key=_place)


def _place(item: tuple[str, Stored]) -> tuple[float, bytes]:
    return float(item[1]), item[0].encode()


def _flat(rows: Iterable[tuple[str, Stored]]) -> list[bytes | None]:
    return [part for key, value in rows for part in (key.encode(), _stored(value))]


def _stored(value: Stored | None) -> bytes | None:
    """As the server would answer it."""
    return value.encode() if isinstance(value, str) else value
