"""
The fold: events and the states they touch in, the changes to the view out. Pure; all I/O is the caller's.

    keys of the batch -> [load states] -> apply, event by event -> [load rows of totals, rollups, listings] -> changes

``Fold.batch`` is a generator: it yields what it needs (table -> keys) and is sent the stored JSON; it returns Changes. So the same
code runs live (consumer.py, over HMGET), in ``check`` (everything in memory) and in a test, without a server or a thread.

Invariant: after the caller has stored a batch's Changes, the tables are those of fold(log[.. batch]), whatever the sizes of the
batches. States and rows are cached between batches up to CACHE_MAX; ``reset`` drops them when the log moved without us.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

import msgspec

from .errors import FoldFailed, ProjectionError
from .projection import Listing, Projection, Ranking, Rollup, Totals, Value

CACHE_MAX = 100_000  # states and rows kept per fold; beyond it the cache starts anew with the last batch's
LISTING_CHUNK = 64  # items a full row of a listing has

Need = dict[str, list[str]]  # table -> keys
Loaded = dict[str, list[bytes | None]]  # table -> stored JSON, in the order asked
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

_encode = msgspec.json.Encoder().encode


class Change(msgspec.Struct):
    """What to write to one table: absolute values. kind "h": key -> JSON, "z": key -> score; part splits a ranking."""

    table: str
    kind: str
    part: str = ""
    put: dict[str, Any] = {}
    drop: list[str] = []


class ListRow(msgspec.Struct, frozen=True):
    """The open end of a listing: how many items there are in full rows (``key|0``, ``key|1`` ..) and the rest."""

    stored: int = 0
    tail: tuple[Any, ...] = ()


class Expired(msgspec.Struct, frozen=True):
    """A need of another kind: the members of a ranking that expire at or before `until` (microseconds)."""

    ranking: str
    until: int


Steps = Generator[Need | Expired, Any, list[Change]]


def microseconds(instant: datetime) -> int:
    """Since 1970, exact."""
    return (instant - EPOCH) // MICROSECOND


def _getter(value: Value | int | None) -> Callable[[Any], Any]:
    if value is None:
        return lambda state: ""
    if isinstance(value, int):
        return lambda state: value
    return attrgetter(value) if isinstance(value, str) else value


class _TotalsPlan:
    """A Totals with its functions ready."""

    def __init__(self, spec: Totals) -> None:
        self.name, self.columns = spec.name, tuple(spec.of)
        self.is_windowed = spec.window is not None
        self.part, self.window = _getter(spec.by), _getter(spec.window)
        self.has_part = spec.by is not None
        fields = list(spec.of.values())
        texts = [field for field in fields if isinstance(field, str)]
        if len(fields) > 1 and len(texts) == len(fields):
            self.values: Callable[[Any], tuple[int, ...]] = attrgetter(*texts)  # one call in C
        else:
            getters = [_getter(field) for field in fields]
            self.values = lambda state: tuple([get(state) for get in getters])

    def row_of(self, state: Any) -> str:
        """The row's name."""
        if not self.is_windowed:
            return str(self.part(state))
        return f"{self.window(state)}|{self.part(state)}" if self.has_part else str(self.window(state))

    def add(self, moves: list[tuple[Any, Any]], deltas: dict[str, list[int]]) -> None:
        """Add what the moves from one state to the next change, each key counting once a window."""
        row_of, values, windowed, window = self.row_of, self.values, self.is_windowed, self.window
        for old, new in moves:
            row, counts = row_of(new), values(new)
            if old is not None:
                old_row = row_of(old)
                if old_row == row:
                    before = values(old)
                    if before == counts:
                        continue
                    counts = tuple([a - b for a, b in zip(counts, before, strict=True)])
                elif not windowed or window(old) == window(new):
                    _sum_into(deltas, old_row, [-count for count in values(old)])
            _sum_into(deltas, row, counts)


def _sum_into(deltas: dict[str, list[int]], row: str, counts: Iterable[int]) -> None:
    held = deltas.get(row)
    deltas[row] = list(counts) if held is None else [a + b for a, b in zip(held, counts, strict=True)]


class Fold:
    """The fold of one partition by one projection."""

    def __init__(self, projection: Projection[Any], where: str = "memory") -> None:
        projection.check()
        self.projection, self.where = projection, where
        self.watermark = 0
        self._totals = [_TotalsPlan(spec) for spec in projection.totals]
        windows = [plan.window for plan in self._totals if plan.is_windowed]
        self._windows: Callable[[Any], Any] | None = (lambda state: [window(state) for window in windows]) if windows else None
        names = [spec.window for spec in projection.totals if isinstance(spec.window, str)]
        if windows and len(names) == len(windows):
            self._windows = attrgetter(*names)
        self._decoders = {projection.table: msgspec.json.Decoder(projection.state)}
        self._decoders |= {spec.name: msgspec.json.Decoder(spec.row) for spec in projection.rollups}
        self._decoders |= {spec.name: msgspec.json.Decoder(ListRow) for spec in projection.listings}
        self._expires = type(projection).expires_at is not Projection.expires_at
        self.reset(0)

    def reset(self, watermark: int) -> None:
        """Forget everything cached, and continue at the stored watermark."""
        self.watermark = watermark
        self._states: dict[str, Any] = {}
        self._rows: dict[str, dict[str, Any]] = {}

    def batch(self, events: list[tuple[str, Any]]) -> Steps:
        """Fold (position, event) pairs; yields needs, returns the changes. Raises what the projection raises."""
        keyed = self._keyed(events)
        yield from self._load(self.projection.table, self._states, {key for key, _, _ in keyed})
        before, moves, rolled, listed = self._apply(keyed)
        changes = [self._state_changes(before)]
        changes += yield from self._total_changes(moves)
        changes += yield from self._rollup_changes(rolled)
        changes += yield from self._listing_changes(listed)
        changes += yield from self._ranking_changes(before)
        self._bound(before)
        return [change for change in changes if change.put or change.drop]

    def _keyed(self, events: list[tuple[str, Any]]) -> list[tuple[str, str, Any]]:
        key_of = self.projection.key
        return [(key, position, event) for position, event in events if (key := key_of(event)) is not None]

    def _load(self, table: str, cache: dict[str, Any], keys: Iterable[str]) -> Generator[Need, Loaded, None]:
        missing = [key for key in keys if key not in cache]
        if not missing:
            return
        decode = self._decoders[table].decode if table in self._decoders else msgspec.json.decode
        loaded = yield {table: missing}
        for key, raw in zip(missing, loaded[table], strict=True):
            cache[key] = None if raw is None else decode(raw)

    def _apply(self, keyed: list[tuple[str, str, Any]]) -> tuple[dict[str, Any], list[Any], list[Any], list[Any]]:
        """Every event in order. Returns the touched keys' states before the batch, the moves between states (one per key and
        window), and what the rollups and listings shall see."""
        projection, states, windows_of = self.projection, self._states, self._windows
        apply, rollups, listings = projection.apply, projection.rollups, projection.listings
        before: dict[str, Any] = {}
        base: dict[str, Any] = {}
        moves: list[tuple[Any, Any]] = []
        rolled: list[tuple[Rollup, str, Any, Any]] = []
        listed: list[tuple[Listing, str, Any]] = []
        watermark = self.watermark
        latest = None
        for key, position, event in keyed:
            old = states[key]
            try:
                if self._expires and old is not None:
                    end = projection.expires_at(old)
                    old = None if end is not None and end <= event.occurred_at else old
                new = apply(old, event)
            except Exception as error:
                raise FoldFailed(projection.name, self.where, event.event_id, error) from error
            if latest is None or event.occurred_at > latest:
                latest = event.occurred_at
            for listing in listings:
                if (item := listing.item(old, new, event, position)) is not None:
                    listed.append((listing, listing.key(event), item))
            if new is old:
                continue
            if key not in before:
                before[key] = base[key] = states[key]
            if windows_of is not None and old is not None and windows_of(old) != windows_of(new):
                if base[key] is not old:
                    moves.append((base[key], old))
                moves.append((old, new))
                base[key] = new
            states[key] = new
            for rollup in rollups:
                if (row := rollup.key(new, event)) is not None:
                    rolled.append((rollup, row, new, event))
        moves += [(start, states[key]) for key, start in base.items() if start is not states[key]]
        if latest is not None:
            self.watermark = max(watermark, microseconds(latest))
        return before, moves, rolled, listed

    def _state_changes(self, before: dict[str, Any]) -> Change:
        states = self._states
        return Change(self.projection.table, "h", put={key: _encode(states[key]) for key in before})

    def _total_changes(self, moves: list[tuple[Any, Any]]) -> Generator[Need, Loaded, list[Change]]:
        changes = []
        for plan in self._totals:
            deltas: dict[str, list[int]] = {}
            plan.add(moves, deltas)
            rows = self._rows.setdefault(plan.name, {})
            yield from self._load(plan.name, rows, deltas)
            change = Change(plan.name, "h", put={}, drop=[])
            for row, counts in deltas.items():
                held = rows[row] or {}
                total = {column: held.get(column, 0) + count for column, count in zip(plan.columns, counts, strict=True)}
                if any(total.values()):
                    rows[row] = total
                    change.put[row] = _encode(total)
                else:  # a part that no key counts in any more is absent, as it is to a fresh fold
                    rows[row] = None
                    change.drop.append(row)
            changes.append(change)
        return changes

    def _rollup_changes(self, rolled: list[tuple[Rollup, str, Any, Any]]) -> Generator[Need, Loaded, list[Change]]:
        changes = {spec.name: Change(spec.name, "h", put={}) for spec in self.projection.rollups}
        wanted: dict[str, dict[str, None]] = {}
        for spec, row, _, _ in rolled:
            wanted.setdefault(spec.name, {})[row] = None
        for name, keys in wanted.items():
            yield from self._load(name, self._rows.setdefault(name, {}), keys)
        for spec, row, state, event in rolled:
            rows = self._rows[spec.name]
            new = spec.apply(rows[row], state, event)
            if new is not rows[row]:
                rows[row] = new
                changes[spec.name].put[row] = None
        for change in changes.values():
            rows = self._rows.get(change.table, {})
            change.put = {row: _encode(rows[row]) for row in change.put}
        return list(changes.values())

    def _listing_changes(self, listed: list[tuple[Listing, str, Any]]) -> Generator[Need, Loaded, list[Change]]:
        changes = {spec.name: Change(spec.name, "h", put={}) for spec in self.projection.listings}
        grown: dict[str, dict[str, list[Any]]] = {}
        for spec, key, item in listed:
            grown.setdefault(spec.name, {}).setdefault(key, []).append(item)
        for name, lists in grown.items():
            rows = self._rows.setdefault(name, {})
            yield from self._load(name, rows, lists)
            for key, items in lists.items():
                held = rows[key] or ListRow()
                tail, stored = [*held.tail, *items], held.stored
                while len(tail) >= LISTING_CHUNK:
                    changes[name].put[f"{key}|{stored}"] = _encode(tail[:LISTING_CHUNK])
                    tail, stored = tail[LISTING_CHUNK:], stored + 1
                rows[key] = ListRow(stored, tuple(tail))
                changes[name].put[key] = _encode(rows[key])
        return list(changes.values())

    def _ranking_changes(self, before: dict[str, Any]) -> Generator[Need | Expired, Any, list[Change]]:
        changes: list[Change] = []
        for spec in self.projection.rankings:
            if spec.expires_at is None:
                changes += _ranked(spec, ((key, old, self._states[key]) for key, old in before.items()))
            else:
                members: list[str] = yield Expired(spec.name, self.watermark)
                yield from self._load(self.projection.table, self._states, members)
                due = {key: self._states[key] for key in members if key not in before}
                pairs = [(key, old, self._states[key]) for key, old in {**due, **before}.items()]
                changes += _expiring(spec, pairs, self.watermark, set(members))
        return changes

    def _bound(self, before: dict[str, Any]) -> None:
        if len(self._states) > CACHE_MAX:
            self._states = {key: self._states[key] for key in before}
        for name, rows in self._rows.items():
            if len(rows) > CACHE_MAX:
                self._rows[name] = {}


def _ranked(spec: Ranking, pairs: Iterable[tuple[str, Any, Any]]) -> list[Change]:
    """The changed scores of a ranking without expiry, by part."""
    changes: dict[str, Change] = {}
    part_of, score_of, is_split = _getter(spec.by), spec.score, spec.by is not None
    for key, old, new in pairs:
        score = score_of(new)
        old_score = None if old is None else score_of(old)
        part = part_of(new) if is_split else ""
        old_part = part_of(old) if is_split and old is not None else part
        if score == old_score and part == old_part:
            continue
        if old_score is not None and (score is None or old_part != part):
            changes.setdefault(old_part, Change(spec.name, "z", old_part, {}, [])).drop.append(key)
        if score is not None:
            changes.setdefault(part, Change(spec.name, "z", part, {}, [])).put[key] = stored_score(score)
    return list(changes.values())


def _expiring(spec: Ranking, pairs: list[tuple[str, Any, Any]], watermark: int, due: set[str]) -> list[Change]:
    """The same with expiry: `due` are the stored members whose time has come, unless their state gave them more."""
    if spec.expires_at is None:
        raise ProjectionError(f"the ranking {spec.name!r} does not expire")
    changes: dict[str, Change] = {}
    expiry = Change(f"{spec.name}.expiry", "z", "", {}, [])
    part_of = _getter(spec.by)
    for key, old, new in pairs:
        end = spec.expires_at(new)
        score = spec.score(new)
        is_in = score is not None and (end is None or microseconds(end) > watermark)
        part, old_part = str(part_of(new)), None if old is None else str(part_of(old))
        was_in = old is not None and (key in due or spec.score(old) is not None)
        if was_in and old_part is not None and (not is_in or old_part != part):
            changes.setdefault(old_part, Change(spec.name, "z", old_part, {}, [])).drop.append(key)
        if was_in and (not is_in or end is None):
            expiry.drop.append(key)
        if is_in and score is not None:
            changes.setdefault(part, Change(spec.name, "z", part, {}, [])).put[key] = stored_score(score)
            if end is not None:
                expiry.put[key] = repr(microseconds(end))
    return [*changes.values(), expiry]


def stored_score(score: float) -> str:
    """As the sorted set holds it: the sign turned. Raises ProjectionError for NaN and infinity."""
    if score - score != 0:
        raise ProjectionError(f"a ranking's score is {score}: it must be finite.")
    return repr(-score + 0.0)
