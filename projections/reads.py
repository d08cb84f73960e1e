"""
Read views: every answer comes from one instant of a partition, with the cursor it reflects.

    view = View(stream, Clips())
    view.state("12766257")          one key's state
    view.ranking("viral", top=20)   the best over all partitions, with their states
    view.totals("categories")       all rows, added up over the partitions

A partition is read by one script call (snapshot.lua), so a ranking agrees with its states and a total with its parts.
Partitions are separate instants: every answer carries a position per partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import merge
from itertools import islice
from typing import Any, Generic, TypeVar, cast

import msgspec

from aurastream.projections.errors import ProjectionError
from aurastream.projections.fold import EPOCH, MICROSECOND, ListRow
from aurastream.projections.projection import Projection
from aurastream.streams import Stream
from aurastream.streams.connection import Script, retried
from aurastream.streams.groups import Cursor, cursor_of

_SNAPSHOT = Script(__file__, "snapshot.lua")
S = TypeVar("S", bound=msgspec.Struct)
Positions = dict[int, str]  # partition -> position


class Ranked(msgspec.Struct, frozen=True):
    """A key's place in a ranking: its score as declared (the highest first) and its state."""

    key: str
    score: float
    state: Any


class Answer(msgspec.Struct, frozen=True):
    """What was read, and the position of every partition it reflects."""

    rows: Any
    positions: Positions


class _Request:
    """One snapshot call being put together."""

    def __init__(self, view: View[Any], partition: int) -> None:
        self._view, self._partition = view, partition
        keys = view.stream.keys[partition]
        self.keys = [keys.cursor(view.projection.name)]
        self.lines: list[str] = []
        self.args: list[str] = []

    def _key(self, table: str, part: str | None = None) -> int:
        name = self._view.key(self._partition, table, part)
        if name not in self.keys:
            self.keys.append(name)
        return self.keys.index(name) + 1

    def everything(self, table: str) -> _Request:
        self.lines.append(f"all {self._key(table)}")
        return self

    def rows(self, table: str, fields: Iterable[str]) -> _Request:
        names = list(fields)
        first = 2 + len(self.args)
        self.args += names
        self.lines.append(f"get {self._key(table)} {first} {first + len(names) - 1}")
        return self

    def top(self, ranking: str, part: str | None, count: int) -> _Request:
        self.lines.append(f"top {self._key(ranking, part)} {count} {self._key(self._view.projection.table)}")
        return self

    def command(self) -> tuple[Any, ...]:
        return _SNAPSHOT.call(self.keys, ("\n".join(self.lines), *self.args))


class View(Generic[S]):
    """Reads one projection's view of one stream. Not for several threads."""

    def __init__(self, stream: Stream, projection: Projection[S], *, generation: int = 1) -> None:
        self.stream, self.projection, self.generation = stream, projection, generation
        self._rankings = {spec.name: spec for spec in projection.rankings}
        self._opened = stream.keyring.open_json  # sealed personal fields are opened where they are read, never where they are kept
        self._decode_state = self._decoder(projection.state)
        self._rollups = {spec.name: self._decoder(spec.row) for spec in projection.rollups}
        self._decode_list = self._decoder(ListRow)

    def _decoder(self, kind: Any) -> Callable[[bytes], Any]:
        decode, opened = msgspec.json.Decoder(kind).decode, self._opened
        return lambda raw: decode(opened(raw))

    def key(self, partition: int, table: str, part: str | None = None) -> str:
        """The Redis key of a table."""
        return self.stream.keys[partition].view(self.projection.name, self.generation, table, part)

    def cursor(self, partition: int) -> Cursor:
        """How far one partition's view has come."""
        return self._ask({partition: _Request(self, partition)})[partition][0]

    def cursors(self) -> dict[int, Cursor]:
        """How far every partition's view has come."""
        answers = self._ask({partition: _Request(self, partition) for partition in range(self.stream.partitions)})
        return {partition: cursor for partition, (cursor, _) in answers.items()}

    def state(self, key: str) -> S | None:
        """The key's state, where keys are subjects (the default); None when there is none."""
        # Of a log elsewhere, whoever produced chose the partition.
        places = [self.stream.partition_of(key)] if self.stream.is_log_here else range(self.stream.partitions)
        found = [raw for (raw,) in self.rows(self.projection.table, [key], partitions=places).rows.values() if raw is not None]
        return cast(S, self._decode_state(found[0])) if found else None

    def rows(self, table: str, fields: Iterable[str], partitions: Iterable[int] | None = None) -> Answer:
        """The stored JSON of some rows of a table: partition -> values in the order asked."""
        names = list(fields)
        chosen = range(self.stream.partitions) if partitions is None else partitions
        answers = self._ask({partition: _Request(self, partition).rows(table, names) for partition in chosen})
        return _answer(answers, {partition: values[0] for partition, (_, values) in answers.items()})

    def tables(self, *tables: str) -> dict[int, tuple[Cursor, list[dict[str, bytes]]]]:
        """Whole tables of every partition at one instant each: partition -> (cursor, one {row: JSON or score} per table)."""
        requests = {}
        for partition in range(self.stream.partitions):
            requests[partition] = _Request(self, partition)
            for table in tables:
                requests[partition].everything(table)
        answers = self._ask(requests)
        return {partition: (cursor, [pairs(value) for value in values]) for partition, (cursor, values) in answers.items()}

    def keys_at_once(self, partition: int, names: list[str]) -> tuple[Cursor, list[list[bytes]]]:
        """Whole keys of a partition by their Redis names, hashes or sorted sets, at one instant."""
        request = _Request(self, partition)
        request.keys += names
        request.lines = [f"all {number}" for number in range(2, 2 + len(names))]
        return self._ask({partition: request})[partition]

    def states(self) -> Answer:
        """Every state: key -> state."""
        found = self.tables(self.projection.table)
        rows = {key: self._decode_state(raw) for _, (table,) in found.values() for key, raw in table.items()}
        return Answer(rows, {partition: cursor.position for partition, (cursor, _) in found.items()})

    def totals(self, name: str) -> Answer:
        """A Totals table added up over the partitions: row -> {column: integer}."""
        found = self.tables(name)
        rows: dict[str, dict[str, int]] = {}
        for _, (table,) in found.values():
            for row, raw in table.items():
                total = rows.setdefault(row, {})
                for column, count in msgspec.json.decode(raw).items():
                    total[column] = total.get(column, 0) + count
        return Answer(dict(sorted(rows.items())), {partition: cursor.position for partition, (cursor, _) in found.items()})

    def rollup(self, name: str) -> Answer:
        """A Rollup's rows: row -> one struct per partition that has it. How they merge is the projection's to know."""
        found = self.tables(name)
        rows: dict[str, list[Any]] = {}
        for _, (table,) in found.values():
            for row, raw in table.items():
                rows.setdefault(row, []).append(self._rollups[name](raw))
        return Answer(rows, {partition: cursor.position for partition, (cursor, _) in found.items()})

    def listing(self, name: str, key: str, *, partitions: Iterable[int] | None = None) -> Answer:
        """A listing's items: partition -> list in log order. Full rows never change, so two reads agree."""
        found = self.rows(name, [key], partitions)
        items: dict[int, list[Any]] = {}
        for partition, (raw,) in found.rows.items():
            if raw is None:
                continue
            head = self._decode_list(raw)
            names = [f"{key}|{number}" for number in range(head.stored)]
            full = self.rows(name, names, [partition]).rows[partition] if names else []
            items[partition] = [item for row in full for item in msgspec.json.decode(self._opened(row))] + list(head.tail)
        return Answer(items, found.positions)

    def ranking(self, name: str, top: int = 20, part: str | None = None) -> Answer:
        """The `top` best over all partitions, a list of Ranked; ties by key ascending as bytes; top -1 is all.

        part: one category of a split ranking; None ranks over all. Of a ranking with expiry, keys whose end the latest event time of
        any partition has passed are left out.
        Every partition is asked for its fair share and a margin first, and for more only where that is not enough.
        """
        spec = self._rankings.get(name)
        if spec is None:
            known = ", ".join(self._rankings) or "none"
            raise ProjectionError(f"{self.projection.name!r} has no ranking {name!r} (rankings: {known}).")
        count = self.stream.partitions
        share = top if top < 0 or count == 1 else min(top, 4 * top // count + 4)
        asked: dict[int, int] = {}
        more = dict.fromkeys(range(count), share)
        lists: dict[int, list[Ranked]] = {}
        cursors: dict[int, Cursor] = {}
        while more:
            asked |= more
            answers = self._ask({p: _Request(self, p).top(name, part, size) for p, size in more.items()})
            for partition, (cursor, (value,)) in answers.items():
                cursors[partition] = cursor
                lists[partition] = [
                    Ranked(item.decode(), 0.0 - float(score), self._decode_state(state))
                    for item, score, state in zip(value[0][::2], value[0][1::2], value[1], strict=True)
                ]
            now = EPOCH + max(cursor.watermark for cursor in cursors.values()) * MICROSECOND
            ends = spec.expires_at
            live = {
                partition: [item for item in items if ends is None or (end := ends(item.state)) is None or end > now]
                for partition, items in lists.items()
            }
            best = list(islice(merge(*live.values(), key=_order), None if top < 0 else top))
            more = _more(best, top, asked, lists)
        return Answer(best, {partition: cursor.position for partition, cursor in cursors.items()})

    def _ask(self, requests: dict[int, _Request]) -> dict[int, tuple[Cursor, list[Any]]]:
        """All partitions' requests out, then all answers in."""

        def ask() -> dict[int, tuple[Cursor, list[Any]]]:
            wires = {partition: self.stream.wire(partition) for partition in requests}
            for partition, request in requests.items():
                wires[partition].send([request.command()])
            replies = {partition: wires[partition].receive() for partition in requests}
            for reply in replies.values():
                if isinstance(reply, Exception):
                    raise reply
            return {partition: (cursor_of(reply[0]), reply[1:]) for partition, reply in replies.items()}

        what = f"read of the view {self.projection.name}"
        return retried(what, self.stream.settings.attempts_max, ask, self.stream.reconnect)


def _order(item: Ranked) -> tuple[float, bytes]:
    return -item.score, item.key.encode()


def _more(best: list[Ranked], top: int, asked: dict[int, int], lists: dict[int, list[Ranked]]) -> dict[int, int]:
    """Which partitions must be asked again, and for how many: those whose answer was full and may hide one of the best.

    asked: for how many each partition was asked last. All are looked at each time: what another partition held, and the latest
    event time, may have moved since, so that what was enough is not any more.
    """
    again = {}
    for partition, size in asked.items():
        is_full = 0 < size == len(lists[partition])
        if is_full and (len(best) < top or _order(lists[partition][-1]) < _order(best[-1])):
            again[partition] = max(size * 2, top) if size < 16 * top else -1
    return again


def pairs(flat: list[bytes]) -> dict[str, bytes]:
    """field, value, .. as a dict."""
    return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}


def _answer(answers: dict[int, tuple[Cursor, list[Any]]], rows: Any) -> Answer:
    return Answer(rows, {partition: cursor.position for partition, (cursor, _) in answers.items()})
