"""
The fold: events and the states they touch in, the changes to the view out. Pure; all I/O is the caller's.

    keys of the batch -> [load states] -> apply, event by event -> [load rows of totals, rollups, listings] ->
        changes

``Fold.batch`` is a generator: it yields what it needs (table -> keys) and is sent the stored JSON; it returns
    Changes. So the same
code runs live (consumer.py, over HMGET), in ``check`` (everything in memory) and in a test, without a server
or a thread.

Invariant: after the caller has stored a batch's Changes, the tables are those of fold(log[.. batch]),
whatever the sizes of the batches. States and rows are cached between batches up to CACHE_MAX; ``reset`` drops
them when the log moved without us.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from operator import add, attrgetter, sub
from typing import Any

import msgspec

from aurastream.projections.engine.errors import FoldFailed, ProjectionError
from aurastream.projections.engine.projection import (
    Listing,
    Projection,
    Ranking,
    Rollup,
    Score,
    Totals,
    Value,
)

# states and rows kept per fold, unless told otherwise; beyond it the cache starts anew with the last batch's
CACHE_MAX = 100_000
LISTING_CHUNK = 16  # items a full row of a listing has

Need = dict[str, list[str]]  # table -> keys
Loaded = dict[str, list[bytes | None]]  # table -> stored JSON, in the order asked
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

_encode = msgspec.json.Encoder().encode


class TableKind(StrEnum):
    """What a table is in the server, by the server's word."""

    HASH = "hash"  # row -> JSON
    SORTED = "zset"  # member -> score


class Change(msgspec.Struct):
    """What to write to one table: absolute values, no row both put and dropped. part: of a split ranking."""

    table: str
    kind: TableKind
    part: str | None = None
    put: dict[str, Any] = {}
    drop: list[str] = []

    def writes(self) -> list[tuple[str, list[Any]]]:
        """As commands and their operands.

        What is put comes first: a key that loses its last row is gone, and in a slot that is being moved a cluster
        refuses to make it again, in the middle of a script.
        """
        is_hash = self.kind is TableKind.HASH
        writes: list[tuple[str, list[Any]]] = []
        if self.put and is_hash:
            writes.append(("HSET", [part for pair in self.put.items() for part in pair]))
        elif self.put:
            writes.append(("ZADD", [part for key, score in self.put.items() for part in (score, key)]))
        if self.drop:
            writes.append(("HDEL" if is_hash else "ZREM", self.drop))
        return writes


class ListRow(msgspec.Struct, frozen=True):
    """The open end of a listing: how many items there are in full rows (``key|0``, ``key|1`` ..) and the
    rest.
    """

    stored: int = 0
    tail: tuple[Any, ...] = ()


class Expired(msgspec.Struct, frozen=True):
    """A need of another kind: the members of a ranking that expire at or before `until` (microseconds)."""

    ranking: str
    until: int


Touched = tuple[str, Any, Any]  # key, state before the batch or None, state after it
Move = tuple[Any, Any]  # a state or None, and a later one of the same key
Seen = list[tuple[str, Any, Any]]  # row, state, event: what a rollup shall apply, in order
Items = dict[str, list[Any]]  # list -> what it grows by

Steps = Generator[Need | Expired, Any, list[Change]]


def microseconds(instant: datetime) -> int:
    """Since 1970, exact."""
    return (instant - EPOCH) // MICROSECOND


def _getter(value: Value | Score | None) -> Callable[[Any], Any]:
    if value is None:
        return lambda state: ""
    return attrgetter(value) if isinstance(value, str) else value


class _TotalsPlan:
    """A Totals with its functions ready; they run once per event and table, so each is one call in C where
    fields allow it.

    A row is held as a tuple of integers in the order of `columns`, and stored as a JSON object of them.
    """

    def __init__(self, spec: Totals) -> None:
        self.name = spec.name
        fields = {column: field for column, field in spec.of.items() if not isinstance(field, int)}
        constants = {column: field for column, field in spec.of.items() if isinstance(field, int)}
        self.columns = (*fields, *constants)
        self.zeros = (0,) * len(self.columns)
        self._no_fields = (0,) * len(fields)
        self._constants = tuple(constants.values())
        self._values = _tuple_getter(list(fields.values()))
        self._window = None if spec.window is None else _getter(spec.window)
        self._row = _tuple_getter([value for value in (spec.window, spec.by) if value is not None])

    def decode(self, raw: bytes) -> tuple[int, ...]:
        """A stored row."""
        held = msgspec.json.decode(raw)
        return tuple([held.get(column, 0) for column in self.columns])

    def encode(self, row: tuple[int, ...]) -> bytes:
        """The row as it is stored."""
        return _encode(dict(zip(self.columns, row, strict=True)))

    def deltas(self, moves: list[tuple[Any, Any]]) -> dict[str, list[int]]:
        """What the moves from one state to the next add to each row, every key counting once a window."""
        more: dict[tuple[Any, ...], list[tuple[int, ...]]] = defaultdict(list)
        less: dict[tuple[Any, ...], list[tuple[int, ...]]] = defaultdict(list)
        row_of, values, window = self._row, self._values, self._window
        news = [new for _, new in moves]
        for (old, _), row, counts in zip(moves, map(row_of, news), map(values, news), strict=True):
            if old is not None and (window is None or window(old) == row[0]):
                old_row, before = row_of(old), values(old)
                if old_row == row and before == counts:
                    continue
                less[old_row].append(before)
            more[row].append(counts)
        return {
            "|".join(map(str, row)): self._sum(more.get(row, []), less.get(row, []))
            for row in more.keys() | less.keys()
        }

    def _sum(self, came: list[tuple[int, ...]], left: list[tuple[int, ...]]) -> list[int]:
        change = _column_sums(came) if came else self._no_fields
        if left:
            change = tuple(map(sub, change, _column_sums(left)))
        return [*change, *[(len(came) - len(left)) * constant for constant in self._constants]]


def _column_sums(rows: list[tuple[int, ...]]) -> tuple[int, ...]:
    return rows[0] if len(rows) == 1 else tuple(map(sum, zip(*rows, strict=True)))


def _tuple_getter(values: Sequence[Value | Score | None]) -> Callable[[Any], tuple[Any, ...]]:
    """All values of a state as one tuple; None, where there is nothing to take, is "" ."""
    names = [value for value in values if isinstance(value, str)]
    if len(names) == len(values) > 1:
        return attrgetter(*names)
    if len(names) > 1 and values == names + [None] * (len(values) - len(names)):
        get_names, rest = attrgetter(*names), ("",) * (len(values) - len(names))
        return lambda state: get_names(state) + rest
    getters = [_getter(value) for value in values]
    if len(getters) == 1:
        get = getters[0]
        return lambda state: (get(state),)
    return lambda state: tuple([get(state) for get in getters])


class Fold:
    """The fold of one partition by one projection."""

    def __init__(
        self, projection: Projection[Any], where: str = "memory", states_max: int = CACHE_MAX
    ) -> None:
        projection.check()
        self.projection, self.where, self._states_max = projection, where, states_max
        self.watermark = 0
        self._totals = [_TotalsPlan(spec) for spec in projection.totals]
        windows: list[Value] = list(
            dict.fromkeys(spec.window for spec in projection.totals if spec.window is not None)
        )
        self._windows = (
            None if not windows else _getter(windows[0]) if len(windows) == 1 else _tuple_getter(windows)
        )
        self._is_by_subject = type(projection).key is Projection.key
        self._key = projection.key
        self._decode: dict[str, Callable[[bytes], Any]] = {
            projection.table: msgspec.json.Decoder(projection.state).decode
        }
        self._decode |= {plan.name: plan.decode for plan in self._totals}
        self._decode |= {spec.name: msgspec.json.Decoder(spec.row).decode for spec in projection.rollups}
        self._decode |= {spec.name: msgspec.json.Decoder(ListRow).decode for spec in projection.listings}
        self._expires = type(projection).expires_at is not Projection.expires_at
        self.reset(0)

    def reset(self, watermark: int) -> None:
        """Forget everything cached, and continue at the stored watermark."""
        self.watermark = watermark
        self._states: dict[str, Any] = {}
        self._rows: dict[str, dict[str, Any]] = {}

    def batch(self, events: list[tuple[str, Any]]) -> Steps:
        """Fold (position, event) pairs; yields needs, returns the changes. Raises FoldFailed where the
        projection raises.
        """
        key_of, table = self._key, self.projection.table
        if self._is_by_subject:
            keyed = [(event.subject, position, event) for position, event in events]
        else:
            keyed = [
                (key, position, event) for position, event in events if (key := key_of(event)) is not None
            ]
        yield from self._load(table, self._states, {key for key, _, _ in keyed})
        before, moves, rolled, listed = self._apply(keyed)
        touched = [(key, old, self._states[key]) for key, old in before.items()]
        try:
            changes = yield from self._changes(touched, moves, rolled, listed)
        except ProjectionError:
            raise
        except (
            Exception
        ) as error:  # of a score, a total or a row, which belong to the batch and to no event alone
            raise FoldFailed(self.projection.name, self.where, keyed[-1][2].event_id, error) from error
        self._bound(before)
        return [change for change in changes if change.put or change.drop]

    def _changes(
        self, touched: list[tuple[str, Any, Any]], moves: list[Move], rolled: list[Seen], listed: list[Items]
    ) -> Steps:
        """What follows from the events for every table."""
        table = self.projection.table
        changes = [Change(table, TableKind.HASH, put={key: _encode(new) for key, _, new in touched})]
        changes += yield from self._total_changes(moves)
        for rollup, seen in zip(self.projection.rollups, rolled, strict=True):
            changes.append((yield from self._rollup_change(rollup, seen)))
        for listing, items in zip(self.projection.listings, listed, strict=True):
            changes.append((yield from self._listing_change(listing, items)))
        changes += yield from self._ranking_changes(touched)
        return changes

    def _load(self, table: str, cache: dict[str, Any], keys: Iterable[str]) -> Generator[Need, Loaded, None]:
        missing = list(set(keys).difference(cache))
        if not missing:
            return
        decode = self._decode[table]
        loaded = yield {table: missing}
        for key, raw in zip(missing, loaded[table], strict=True):
            cache[key] = None if raw is None else decode(raw)

    def _apply(
        self, keyed: list[tuple[str, str, Any]]
    ) -> tuple[dict[str, Any], list[Move], list[Seen], list[Items]]:
        """Every event in order. Returns the touched keys' states before the batch, the moves between states
        (one per key and
        window), what each rollup shall see, and the new items of each listing."""
        projection, states, windows_of = self.projection, self._states, self._windows
        apply, expires = projection.apply, self._expires
        before: dict[str, Any] = {}
        base: dict[str, Any] = {}
        moves: list[Move] = []
        rolled: list[Seen] = [[] for _ in projection.rollups]
        listed: list[Items] = [{} for _ in projection.listings]
        rollups = [(spec.key, seen) for spec, seen in zip(projection.rollups, rolled, strict=True)]
        listings = [
            (spec.key, spec.item, items) for spec, items in zip(projection.listings, listed, strict=True)
        ]
        if not (expires or listings or rollups):
            self._apply_plainly(keyed, before, base, moves)
            keyed_left: list[tuple[str, str, Any]] = []
        else:
            keyed_left = keyed
        for key, position, event in keyed_left:
            old = held = states[key]  # old: as the fold sees it; held: what its tables hold, expired or not
            try:
                if expires and old is not None:
                    end = projection.expires_at(old)
                    old = None if end is not None and end <= event.occurred_at else old
                new = apply(old, event)
                for list_of, item_of, items in listings:
                    if (item := item_of(old, new, event, position)) is not None:
                        items.setdefault(list_of(event), []).append(item)
                if new is old:
                    continue
                if key not in before:
                    before[key] = base[key] = held
                if windows_of is not None and held is not None and windows_of(held) != windows_of(new):
                    if base[key] is not held:
                        moves.append((base[key], held))
                    moves.append((held, new))
                    base[key] = new
                states[key] = new
                for row_of, seen in rollups:
                    if (row := row_of(new, event)) is not None:
                        seen.append((row, new, event))
            except Exception as error:
                raise FoldFailed(projection.name, self.where, event.event_id, error) from error
        moves += [(start, states[key]) for key, start in base.items() if start is not states[key]]
        if keyed:
            self.watermark = max(
                self.watermark, microseconds(max([event.occurred_at for _, _, event in keyed]))
            )
        return before, moves, rolled, listed

    def _apply_plainly(
        self,
        keyed: list[tuple[str, str, Any]],
        before: dict[str, Any],
        base: dict[str, Any],
        moves: list[Move],
    ) -> None:
        """The same for a projection without expiry of states, listings and roll-ups: a tenth of its time
        less.
        """
        states, windows_of, apply = self._states, self._windows, self.projection.apply
        for key, _, event in keyed:
            held = states[key]
            try:
                new = apply(held, event)
                if new is held:
                    continue
                if key not in before:
                    before[key] = base[key] = held
                if windows_of is not None and held is not None and windows_of(held) != windows_of(new):
                    if base[key] is not held:
                        moves.append((base[key], held))
                    moves.append((held, new))
                    base[key] = new
                states[key] = new
            except Exception as error:
                raise FoldFailed(self.projection.name, self.where, event.event_id, error) from error

    def _total_changes(self, moves: list[Move]) -> Generator[Need, Loaded, list[Change]]:
        changes = []
        for plan in self._totals:
            deltas = plan.deltas(moves)
            rows = self._rows.setdefault(plan.name, {})
            yield from self._load(plan.name, rows, deltas)
            change = Change(plan.name, TableKind.HASH, put={}, drop=[])
            for row, counts in deltas.items():
                total = tuple(map(add, rows[row] or plan.zeros, counts))
                if any(total):
                    rows[row] = total
                    change.put[row] = plan.encode(total)
                else:  # a part that no key counts in any more is absent, as it is to a fresh fold
                    rows[row] = None
                    change.drop.append(row)
            changes.append(change)
        return changes

    def _rollup_change(self, spec: Rollup, seen: Seen) -> Generator[Need, Loaded, Change]:
        rows, apply = self._rows.setdefault(spec.name, {}), spec.apply
        yield from self._load(spec.name, rows, [row for row, _, _ in seen])
        changed: set[str] = set()
        for row, state, event in seen:
            old = rows[row]
            new = apply(old, state, event)
            if new is not old:
                rows[row] = new
                changed.add(row)
        return Change(spec.name, TableKind.HASH, put={row: _encode(rows[row]) for row in changed})

    def _listing_change(self, spec: Listing, lists: Items) -> Generator[Need, Loaded, Change]:
        rows = self._rows.setdefault(spec.name, {})
        yield from self._load(spec.name, rows, lists)
        put: dict[str, bytes] = {}
        for key, items in lists.items():
            held = rows[key]
            stored, tail = (held.stored, (*held.tail, *items)) if held is not None else (0, tuple(items))
            while len(tail) >= LISTING_CHUNK:
                put[f"{key}|{stored}"] = _encode(tail[:LISTING_CHUNK])
                tail, stored = tail[LISTING_CHUNK:], stored + 1
            rows[key] = row = ListRow(stored, tail)
            put[key] = _encode(row)
        return Change(spec.name, TableKind.HASH, put=put)

    def _ranking_changes(self, touched: list[Touched]) -> Generator[Need | Expired, Any, list[Change]]:
        changes: list[Change] = []
        for spec in self.projection.rankings:
            if spec.expires_at is None:
                changes += _ranked(spec, touched)
                continue
            members: list[str] = yield Expired(spec.name, self.watermark)
            yield from self._load(self.projection.table, self._states, members)
            due = set(members)
            rest = due.difference([key for key, _, _ in touched]) if due else due
            states = [(key, self._states[key], self._states[key]) for key in rest]
            changes += _expiring(spec, [*states, *touched], self.watermark, due)
        return changes

    def _bound(self, before: dict[str, Any]) -> None:
        if len(self._states) > self._states_max:
            self._states = {key: self._states[key] for key in before}
        for name, rows in self._rows.items():
            if len(rows) > self._states_max:
                self._rows[name] = {}


class _Scores:
    """The changes to a ranking being put together: over all, and per part where it is split."""

    def __init__(self, spec: Ranking) -> None:
        self._name = spec.name
        self._all = Change(spec.name, TableKind.SORTED, None, {}, [])
        self._parts: dict[str | None, Change] = {}
        self._part = None if spec.by is None else _getter(spec.by)

    def _of(self, part: str | None) -> Change:
        change = self._parts.get(part)
        if change is None:
            change = self._parts[part] = Change(self._name, TableKind.SORTED, part, {}, [])
        return change

    def part(self, state: Any) -> str | None:
        """The state's part; None in a ranking that is not split."""
        return None if self._part is None else str(self._part(state))

    def put(self, key: str, state: Any, score: float) -> None:
        self._all.put[key] = stored = stored_score(score)
        if self._part is not None:
            self._of(self.part(state)).put[key] = stored

    def drop(self, key: str, state: Any, *, only_part: bool = False) -> None:
        if not only_part:
            self._all.drop.append(key)
        if self._part is not None:
            self._of(self.part(state)).drop.append(key)

    def changes(self) -> list[Change]:
        return [self._all, *self._parts.values()]


def _ranked(spec: Ranking, touched: list[Touched]) -> list[Change]:
    """The changed scores of a ranking without expiry."""
    scores, score_of, is_split = _Scores(spec), _getter(spec.score), spec.by is not None
    for key, old, new in touched:
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


def _expiring(spec: Ranking, touched: list[Touched], watermark: int, due: set[str]) -> list[Change]:
    """The same with expiry: `due` are the stored members whose time has come, unless their state gave them
    more.
    """
    if spec.expires_at is None:
        raise ProjectionError(f"the ranking {spec.name!r} does not expire")
    scores, score_of = _Scores(spec), _getter(spec.score)
    expiry = Change(f"{spec.name}.expiry", TableKind.SORTED, None, {}, [])
    for key, old, new in touched:
        score = score_of(new)
        was_in = key in due or (old is not None and score_of(old) is not None)
        if score is None and not was_in:
            continue
        end = spec.expires_at(new)
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
