"""
The fold: events and the states they touch in, the changes to the view out. Pure; all I/O is the caller's.

    keys of the batch -> [load states] -> apply, event by event -> [load rows of totals, rollups, listings] -> changes

``Fold.batch`` is a generator: it yields what it needs (table -> keys) and is sent the stored JSON; it returns Changes. So the same
code runs live (consumer.py, over HMGET), in ``check`` (everything in memory) and in a test, without a server or a thread.

Invariant: after the caller has stored a batch's Changes, the tables are those of fold(log[.. batch]), whatever the sizes of the
batches. States and rows are cached between batches up to CACHE_MAX; ``reset`` drops them when the log moved without us.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from operator import attrgetter
from typing import Any

import msgspec

from aurastream.projections.errors import FoldFailed, ProjectionError
from aurastream.projections.projection import Listing, Projection, Ranking, Rollup, Score, Totals, Value

CACHE_MAX = 100_000  # states and rows kept per fold; beyond it the cache starts anew with the last batch's
LISTING_CHUNK = 16  # items a full row of a listing has

Need = dict[str, list[str]]  # table -> keys
Loaded = dict[str, list[bytes | None]]  # table -> stored JSON, in the order asked
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

_encode = msgspec.json.Encoder().encode


class Change(msgspec.Struct):
    """What to write to one table: absolute values. kind "h": key -> JSON, "z": key -> score; part: of a split ranking."""

    table: str
    kind: str
    part: str | None = None
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


def _getter(value: Value | Score | None) -> Callable[[Any], Any]:
    if value is None:
        return lambda state: ""
    return attrgetter(value) if isinstance(value, str) else value


class _TotalsPlan:
    """A Totals with its functions ready; they run once per event and table, so each is one call in C where fields allow it."""

    def __init__(self, spec: Totals) -> None:
        self.name = spec.name
        fields = {column: field for column, field in spec.of.items() if not isinstance(field, int)}
        constants = {column: field for column, field in spec.of.items() if isinstance(field, int)}
        self.columns = (*fields, *constants)
        self._constants = tuple(constants.values())
        self._values = _tuple_getter(list(fields.values()))
        self.window = None if spec.window is None else _getter(spec.window)
        self._row = _tuple_getter([value for value in (spec.window, spec.by) if value is not None])

    def deltas(self, moves: list[tuple[Any, Any]]) -> dict[str, list[int]]:
        """What the moves from one state to the next add to each row, every key counting once a window."""
        more: dict[tuple[Any, ...], list[tuple[int, ...]]] = defaultdict(list)
        less: dict[tuple[Any, ...], list[tuple[int, ...]]] = defaultdict(list)
        row_of, values, window = self._row, self._values, self.window
        for old, new in moves:
            row, counts = row_of(new), values(new)
            if old is not None and (window is None or window(old) == window(new)):
                old_row, before = row_of(old), values(old)
                if old_row == row and before == counts:
                    continue
                less[old_row].append(before)
            more[row].append(counts)
        sums = {}
        for row in more.keys() | less.keys():
            came, left = more.get(row, []), less.get(row, [])
            change = [a - b for a, b in zip_longest(_column_sums(came), _column_sums(left), fillvalue=0)]
            change += [(len(came) - len(left)) * constant for constant in self._constants]
            sums["|".join(map(str, row))] = change
        return sums


def _column_sums(rows: list[tuple[int, ...]]) -> list[int]:
    return list(map(sum, zip(*rows, strict=True)))


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

    def __init__(self, projection: Projection[Any], where: str = "memory") -> None:
        projection.check()
        self.projection, self.where = projection, where
        self.watermark = 0
        self._totals = [_TotalsPlan(spec) for spec in projection.totals]
        windows: list[Value] = list(dict.fromkeys(spec.window for spec in projection.totals if spec.window is not None))
        self._windows = _tuple_getter(windows) if windows else None
        plain = [spec for spec in projection.rankings if spec.expires_at is None]
        self._plain_scores = _tuple_getter([*(spec.score for spec in plain), *(spec.by for spec in plain)])
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
        """Fold (position, event) pairs; yields needs, returns the changes. Raises FoldFailed where the projection raises."""
        key_of = self.projection.key
        keyed = [(key, position, event) for position, event in events if (key := key_of(event)) is not None]
        yield from self._load(self.projection.table, self._states, {key for key, _, _ in keyed})
        before, moves, rolled, listed = self._apply(keyed)
        changes = [self._state_changes(before)]
        changes += yield from self._total_changes(moves)
        changes += yield from self._rollup_changes(rolled)
        changes += yield from self._listing_changes(listed)
        changes += yield from self._ranking_changes(before)
        self._bound(before)
        return [change for change in changes if change.put or change.drop]

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
            deltas = plan.deltas(moves)
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
        changes = self._plain_rankings(before)
        for spec in self.projection.rankings:
            if spec.expires_at is not None:
                members: list[str] = yield Expired(spec.name, self.watermark)
                yield from self._load(self.projection.table, self._states, members)
                due = {key: self._states[key] for key in members if key not in before}
                pairs = [(key, old, self._states[key]) for key, old in {**due, **before}.items()]
                changes += _expiring(spec, _getter(spec.score), pairs, self.watermark, set(members))
        return changes

    def _plain_rankings(self, before: dict[str, Any]) -> list[Change]:
        """The changed scores of the rankings without expiry. One tuple of all scores and parts is compared first."""
        specs = [spec for spec in self.projection.rankings if spec.expires_at is None]
        if not specs:
            return []
        scored = [_Scores(spec) for spec in specs]
        scores_of = self._plain_scores
        width, states = len(specs), self._states
        nothing = (None,) * (2 * width)
        for key, old in before.items():
            new = states[key]
            ours, theirs = scores_of(new), nothing if old is None else scores_of(old)
            if ours == theirs:
                continue
            for index, changed in enumerate(scored):
                score, old_score = ours[index], theirs[index]
                moved = ours[width + index] != theirs[width + index] and old_score is not None
                if score == old_score and not moved:
                    continue
                if old_score is not None and (score is None or moved):
                    changed.drop(key, old, only_part=score is not None)
                if score is not None:
                    changed.put(key, new, score)
        return [change for changed in scored for change in changed.changes()]

    def _bound(self, before: dict[str, Any]) -> None:
        if len(self._states) > CACHE_MAX:
            self._states = {key: self._states[key] for key in before}
        for name, rows in self._rows.items():
            if len(rows) > CACHE_MAX:
                self._rows[name] = {}


class _Scores:
    """The changes to a ranking being put together: over all, and per part where it is split."""

    def __init__(self, spec: Ranking) -> None:
        self._name = spec.name
        self._changes: dict[str | None, Change] = {}
        self._part = None if spec.by is None else _getter(spec.by)

    def _of(self, part: str | None) -> Change:
        change = self._changes.get(part)
        if change is None:
            change = self._changes[part] = Change(self._name, "z", part, {}, [])
        return change

    def part(self, state: Any) -> str | None:
        """The state's part; None in a ranking that is not split."""
        return None if self._part is None else str(self._part(state))

    def put(self, key: str, state: Any, score: float) -> None:
        stored = stored_score(score)
        self._of(None).put[key] = stored
        if self._part is not None:
            self._of(self.part(state)).put[key] = stored

    def drop(self, key: str, state: Any, *, only_part: bool = False) -> None:
        if not only_part:
            self._of(None).drop.append(key)
        if self._part is not None:
            self._of(self.part(state)).drop.append(key)

    def changes(self) -> list[Change]:
        return list(self._changes.values())


def _expiring(
    spec: Ranking, score_of: Callable[[Any], Any], pairs: list[tuple[str, Any, Any]], watermark: int, due: set[str]
) -> list[Change]:
    """The same with expiry: `due` are the stored members whose time has come, unless their state gave them more."""
    if spec.expires_at is None:
        raise ProjectionError(f"the ranking {spec.name!r} does not expire")
    scores = _Scores(spec)
    expiry = Change(f"{spec.name}.expiry", "z", None, {}, [])
    for key, old, new in pairs:
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
    return repr(-score + 0.0)
