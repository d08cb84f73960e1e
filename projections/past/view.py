"""
Read a view as of a past time, with everything ``View`` answers.

    PastView(history, Clips(), AsOf(T)).ranking("viral")     the same methods, positions included

A partition is folded (folding.py) when it is first asked for, and then read from memory as often as wanted.
What expires is judged by the latest event time as of T, as a live view judges it by its own.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import nsmallest
from typing import Any, TypeVar

import msgspec

from aurastream.projections.engine import Projection, ProjectionError, View
from aurastream.projections.past.as_of import AsOf
from aurastream.projections.past.checkpoints import Checkpoints
from aurastream.projections.past.folding import Past, PastFold
from aurastream.streams import Cursor, History

S = TypeVar("S", bound=msgspec.Struct)
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
        self._scored = {spec.name for spec in projection.rankings}
        fold = PastFold(history, projection, as_of, checkpoints)
        self._folder = folder or (lambda partitions: {number: fold.fold(number) for number in partitions})

    def _ask(self, requests: dict[int, Any], *, goes_on: bool = False) -> dict[int, tuple[Cursor, list[Any]]]:
        """The requests of snapshot.lua, answered from memory."""
        if unknown := [partition for partition in requests if partition not in self.pasts]:
            self.pasts |= self._folder(unknown)
        return {
            partition: self._answers(self.pasts[partition], request)
            for partition, request in requests.items()
        }

    def _answers(self, past: Past, request: Any) -> tuple[Cursor, list[Any]]:
        arguments = ["", *request.args]  # as in the script: the operations are the first
        answers: list[Any] = []
        for line in request.lines:
            verb, *numbers = line.split(" ")
            first, *rest = map(int, numbers)
            name, rows = self._table(past, request, first)
            if verb == "all":
                answers.append(_flat(_ranked(rows) if self._is_scored(name) else rows.items()))
            elif verb == "get":
                answers.append([_stored(rows.get(field)) for field in arguments[rest[0] - 1 : rest[1]]])
            elif verb == "top":
                best = _ranked(rows, rest[0])
                states = self._table(past, request, rest[1])[1]
                answers.append([_flat(best), [_stored(states.get(key)) for key, _ in best]])
            else:
                raise ProjectionError(f"a view as of a past time cannot answer {verb!r}.")
        return msgspec.structs.replace(past.view.cursor, position=past.position), answers

    @staticmethod
    def _table(past: Past, request: Any, number: int) -> tuple[str, dict[str, Any]]:
        """A table by its place among the request's keys, the first of which is the cursor's: its name and its
        rows.
        """
        if number - 2 >= len(request.tables):
            raise ProjectionError(
                "a view as of a past time has no keys in the server: read its tables by their names."
            )
        name, part = request.tables[number - 2]
        return name, past.view.tables.get(name if part is None else f"{name}:{part}", {})

    def _is_scored(self, table: str) -> bool:
        return table.removesuffix(".expiry") in self._scored


def _ranked(rows: dict[str, Any], count: int = -1) -> list[tuple[str, Any]]:
    """The first members as a sorted set orders them: by score, then by their bytes."""
    return sorted(rows.items(), key=_place) if count < 0 else nsmallest(count, rows.items(), key=_place)


def _place(item: tuple[str, Any]) -> tuple[float, bytes]:
    return float(item[1]), item[0].encode()


def _flat(rows: Any) -> list[bytes]:
    return [part for key, value in rows for part in (key.encode(), _stored(value))]


def _stored(value: Any) -> Any:
    """As the server would answer it."""
    return value.encode() if isinstance(value, str) else value
