"""
Rankings: keys ordered by a score of their states, the highest first, with logical expiry in event time.

Stored as sorted sets, ``name`` and one ``name:part`` for every part, with the sign turned, so that ZRANGE
from 0 gives the best first and ties in byte order; ``name.expiry`` has the members' ends in microseconds,
where they expire.

Decision (2026-11): the sign is turned, as ZREVRANGE gives ties the wrong way round.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from heapq import merge
from itertools import islice
from typing import ClassVar

import msgspec

from aurastream.projections.tables.reading import Answer, Positions, Ranked, Reader, State, Top, positions_of
from aurastream.projections.tables.table import (
    Batched,
    Change,
    Due,
    Loading,
    ProjectionError,
    Row,
    Table,
    TableFold,
    TableKind,
    Touched,
)
from aurastream.projections.tables.values import Score, Value, check_field, getter
from aurastream.streams import EPOCH, MICROSECOND, microseconds

_encode = msgspec.json.Encoder().encode


class Ranking(Table, frozen=True):
    """Keys ordered by a score, the highest first, ties by key ascending as bytes.

    score: field or function of the state; a finite number, or None to be absent. by: field or function giving
    a part (a category) to rank within as well as over all.
    expires_at: event time from which the key is absent, whatever its score; None never. unit: of the score,
    for people.
    """

    score: Score
    by: Value | None = None
    expires_at: Callable[[State], datetime | None] | None = None
    unit: str = "score"

    kind: ClassVar[TableKind] = TableKind.SORTED

    @property
    def expiry(self) -> str:
        """The table of its members' ends."""
        return f"{self.name}.expiry"

    def check(self, state: type[msgspec.Struct], events: tuple[type, ...]) -> None:
        for value in (self.score, self.by):
            check_field(self.name, state, value)

    def fold(self) -> TableFold:
        return _Lasting(self) if self.expires_at is None else _Expiring(self)

    def read(self, view: Reader, top: int = 20, part: str | None = None) -> Answer:
        """The `top` best over all partitions, a list of Ranked; top -1 is all. part: one part of a split
        ranking.

        Every partition is asked for its fair share and a margin first, and for more only where that is not
        enough.
        """
        return _Best(self, view, top, part).answer()

    def listed(self, view: Reader) -> Answer:
        answer = self.read(view, top=-1)
        return Answer({item.key: item.score for item in answer.rows}, answer.positions)

    def stored_as(self, name: str) -> bool:
        return Table.stored_as(self, name) or name == self.expiry

    def value(self, raw: bytes) -> float:
        return 0.0 - float(raw)

    def of_state(self) -> Callable[[State], Row]:
        return getter(self.score)

    def own_rows(self, key: str, raw: bytes | None) -> list[str]:
        return [key]

    def has_left(self, state: State, watermark: int) -> bool:
        end = None if self.expires_at is None else self.expires_at(state)
        return end is not None and microseconds(end) <= watermark


class _Scores:
    """The changes to a ranking being put together: over all, and per part where it is split."""

    def __init__(self, spec: Ranking) -> None:
        self._name = spec.name
        self._all = Change(spec.name, TableKind.SORTED, None, {}, [])
        self._parts: dict[str | None, Change] = {}
        self._part = None if spec.by is None else getter(spec.by)

    def _of(self, part: str | None) -> Change:
        change = self._parts.get(part)
        if change is None:
            change = self._parts[part] = Change(self._name, TableKind.SORTED, part, {}, [])
        return change

    def part(self, state: State) -> str | None:
        """The state's part; None in a ranking that is not split."""
        return None if self._part is None else str(self._part(state))

    def put(self, key: str, state: State, score: float) -> None:
        self._all.put[key] = stored = stored_score(score)
        if self._part is not None:
            self._of(self.part(state)).put[key] = stored

    def drop(self, key: str, state: State, *, only_part: bool = False) -> None:
        if not only_part:
            self._all.drop.append(key)
        if self._part is not None:
            self._of(self.part(state)).drop.append(key)

    def changes(self) -> list[Change]:
        return [self._all, *self._parts.values()]


class _Lasting(TableFold):
    """The fold of a ranking without expiry."""

    def __init__(self, spec: Ranking) -> None:
        self._spec, self._score, self._is_split = spec, getter(spec.score), spec.by is not None

    def changes(self, batch: Batched) -> Loading[list[Change]]:
        scores, score_of, is_split = _Scores(self._spec), self._score, self._is_split
        for key, old, new in batch.touched:
            score = score_of(new)
            old_score = None if old is None else score_of(old)
            moved = is_split and old_score is not None and scores.part(old) != scores.part(new)
            if score == old_score and not moved:
                continue
            if old_score is not None and (score is None or moved):
                scores.drop(key, old, only_part=score is not None)
            if score is not None:
                scores.put(key, new, score)
        return scores.changes()
        yield  # noqa: V201 - it needs nothing, and is a generator as the others are


class _Expiring(TableFold):
    """The same with expiry: members whose time has come leave, unless their state gave them more."""

    def __init__(self, spec: Ranking) -> None:
        self._spec, self._score = spec, getter(spec.score)

    def changes(self, batch: Batched) -> Loading[list[Change]]:
        due: set[str] = set((yield Due(self._spec.expiry, batch.watermark)))
        yield from batch.states.load(due)
        rest = due.difference([key for key, _, _ in batch.touched]) if due else due
        states = batch.states.rows
        return self._moved(
            [*[(key, states[key], states[key]) for key in rest], *batch.touched], batch.watermark, due
        )

    def _moved(self, touched: list[Touched], watermark: int, due: set[str]) -> list[Change]:
        scores, score_of, end_of = _Scores(self._spec), self._score, self._spec.expires_at
        if end_of is None:
            raise ProjectionError(f"the ranking {self._spec.name!r} does not expire")
        expiry = Change(self._spec.expiry, TableKind.SORTED, None, {}, [])
        for key, old, new in touched:
            score = score_of(new)
            was_in = key in due or (old is not None and score_of(old) is not None)
            if score is None and not was_in:
                continue
            end = end_of(new)
            is_in = score is not None and (end is None or microseconds(end) > watermark)
            if was_in and old is not None and (not is_in or scores.part(old) != scores.part(new)):
                scores.drop(key, old, only_part=is_in)
            if was_in and (not is_in or end is None):
                expiry.drop.append(key)
            if is_in and score is not None:
                scores.put(key, new, score)
                if end is not None:
                    expiry.put[key] = repr(microseconds(end))
        return [*scores.changes(), expiry]


def stored_score(score: float) -> str:
    """As the sorted set holds it: the sign turned. Raises ProjectionError for NaN and infinity."""
    if score - score != 0:
        raise ProjectionError(f"a ranking's score is {score}: it must be finite.")
    return _encode(-score + 0.0).decode()  # a fifth of repr's time, for a number that reads the same


class _Best:
    """The best over all partitions, asked for in rounds."""

    def __init__(self, spec: Ranking, view: Reader, top: int, part: str | None) -> None:
        self._spec, self._view, self._top, self._part = spec, view, top, part
        self._sizes: dict[int, int] = {}  # partition -> how many were wanted last
        self._lists: dict[int, list[Ranked]] = {}
        self._watermark = 0
        self._positions: Positions = {}

    def answer(self) -> Answer:
        count, top = len(self._view.partitions), self._top
        more = dict.fromkeys(
            self._view.partitions, top if top < 0 or count == 1 else min(top, 4 * top // count + 4)
        )
        best: list[Ranked] = []
        while more:
            self._ask(more)
            best = list(islice(merge(*self._live(), key=_order), None if top < 0 else top))
            more = self._more(best)
        return Answer(best, self._positions)

    def _ask(self, more: dict[int, int]) -> None:
        self._sizes |= more
        reads = {partition: [Top(self._spec.name, self._part, size)] for partition, size in more.items()}
        answers = self._view.ask(reads, goes_on=bool(self._lists))
        for partition, (cursor, ((flat, states),)) in answers.items():
            self._watermark = max(self._watermark, cursor.watermark)
            self._lists[partition] = [
                Ranked(key.decode(), 0.0 - float(score), self._view.decode_state(state))
                for key, score, state in zip(flat[::2], flat[1::2], states, strict=True)
            ]
        self._positions |= positions_of(answers)

    def _live(self) -> list[list[Ranked]]:
        """Without keys whose end the latest event time of any partition has passed."""
        end_of, now = self._spec.expires_at, EPOCH + self._watermark * MICROSECOND
        if end_of is None:
            return list(self._lists.values())
        return [
            [item for item in items if (end := end_of(item.state)) is None or end > now]
            for items in self._lists.values()
        ]

    def _more(self, best: list[Ranked]) -> dict[int, int]:
        """Which partitions must be asked again, and for how many: those whose answer was full and may hide
        one of the best.

        All are looked at each time: what another partition held, and the latest event time, may have moved
        since, so that what was enough is not any more.
        """
        again, top = {}, self._top
        for partition, size in self._sizes.items():
            items = self._lists[partition]
            is_full = 0 < size == len(items)
            if is_full and (len(best) < top or _order(items[-1]) < _order(best[-1])):
                again[partition] = max(size * 2, top) if size < 16 * top else -1
        return again


def _order(item: Ranked) -> tuple[float, bytes]:
    return -item.score, item.key.encode()
