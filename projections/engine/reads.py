"""
Read views: every answer comes from one instant of a partition, with the cursor it reflects.

    view = View(stream, Clips())
    view.state("12766257")          one key's state
    view.ranking("viral", top=20)   the best over all partitions, with their states
    view.totals("categories")       all rows, added up over the partitions

A partition is read by one script call (snapshot.lua), so a ranking agrees with its states and a total with
its parts.
Partitions are separate instants: every answer carries a position per partition.

A view follows the live generation: which one that is is asked along with the first round of every read, and
an answer of another one is thrown away. What follows in the same read is of the same generation, or the read
begins anew where that was retired by then. So no answer mixes generations, and a swap costs one repeated
question.

Decision (2026-11): the pointer is asked after the snapshots, in the same pipeline (in a cluster at the same
time, of its own node): an answer is of the generation that was live at an instant of the read. Refused:
asking first, a round trip more for every read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from heapq import merge
from itertools import islice
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

import msgspec

from aurastream.projections.engine.errors import ProjectionError
from aurastream.projections.engine.fold import EPOCH, MICROSECOND, ListRow
from aurastream.projections.engine.generations import NEVER_REBUILT, Record, pointer, record_of
from aurastream.projections.engine.projection import Projection
from aurastream.streams import VIEWS, Cursor, Script, Stream, cursor_of, generation_group, retried

RESTARTS_MAX = 20  # of a read whose generation was swapped, or retired, while it went on

_SNAPSHOT = Script(__file__, "snapshot.lua")
S = TypeVar("S", bound=msgspec.Struct)
P = ParamSpec("P")
R = TypeVar("R")
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


class GenerationGone(ProjectionError):
    """A pinned generation was retired: its tables are no more."""


class _Request:
    """One snapshot call being put together. Keys get their names when it is sent, as they have the generation
    in them.
    """

    def __init__(self, view: View[Any], partition: int) -> None:
        self._view, self._partition = view, partition
        self.tables: list[tuple[str, str | None]] = []
        self.names: list[str] = []  # of keys given by name
        self.lines: list[str] = []
        self.args: list[str] = []

    def _key(self, table: str, part: str | None = None) -> int:
        if (table, part) not in self.tables:
            self.tables.append((table, part))
        return self.tables.index((table, part)) + 2  # the first is the cursor's

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
        view, partition = self._view, self._partition
        group = generation_group(view.projection.name, view.generation)
        keys = [
            view.stream.keys[partition].cursor(group),
            *(view.key(partition, *table) for table in self.tables),
            *self.names,
        ]
        return _SNAPSHOT.call(keys, ("\n".join(self.lines), *self.args))


def _begun_anew(read: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """A read of several rounds, all of one generation: begun anew where that was retired before the last
    round.
    """

    @wraps(read)
    def whole(view: View[Any], /, *arguments: P.args, **named: P.kwargs) -> R:
        for _ in range(RESTARTS_MAX - 1):
            try:
                return read(view, *arguments, **named)
            except GenerationGone:
                if view.is_pinned:
                    raise
        return read(view, *arguments, **named)

    return whole


class View(Generic[S]):
    """Reads one projection's view of one stream. Not for several threads.

    generation: read this one only; None follows the live one, and ``generation`` then says which was read
    last.
    """

    def __init__(self, stream: Stream, projection: Projection[S], *, generation: int | None = None) -> None:
        self.stream, self.projection = stream, projection
        self.is_pinned, self.generation = generation is not None, generation or 1
        self._rankings = {spec.name: spec for spec in projection.rankings}
        self._opened = (
            stream.keyring.open_json
        )  # sealed personal fields are opened where they are read, never where they are kept
        self._decode_state = self._decoder(projection.state)
        self._rollups = {spec.name: self._decoder(spec.row) for spec in projection.rollups}
        self._decode_list = self._decoder(ListRow)

    def _decoder(self, kind: Any) -> Callable[[bytes], Any]:
        decode, opened = msgspec.json.Decoder(kind).decode, self._opened
        return lambda raw: decode(opened(raw))

    def key(self, partition: int, table: str, part: str | None = None) -> str:
        """The Redis key of a table, of the generation that was read last."""
        return self.stream.keys[partition].view(self.projection.name, self.generation, table, part)

    def record(self) -> Record:
        """All generations, and which is live."""
        raw = self._asked({}, with_pointer=True)[1]
        return NEVER_REBUILT if raw is None else record_of(raw)

    def cursor(self, partition: int) -> Cursor:
        """How far one partition's view has come."""
        return self._ask({partition: _Request(self, partition)})[partition][0]

    def cursors(self) -> dict[int, Cursor]:
        """How far every partition's view has come."""
        answers = self._ask(
            {partition: _Request(self, partition) for partition in range(self.stream.partitions)}
        )
        return {partition: cursor for partition, (cursor, _) in answers.items()}

    def state(self, key: str) -> S | None:
        """The key's state, where keys are subjects (the default); None when there is none."""
        # Of a log elsewhere, whoever produced chose the partition.
        places = [self.stream.partition_of(key)] if self.stream.is_log_here else range(self.stream.partitions)
        found = [
            raw
            for (raw,) in self.rows(self.projection.table, [key], partitions=places).rows.values()
            if raw is not None
        ]
        return cast(S, self._decode_state(found[0])) if found else None

    def rows(self, table: str, fields: Iterable[str], partitions: Iterable[int] | None = None) -> Answer:
        """The stored JSON of some rows of a table: partition -> values in the order asked."""
        names = list(fields)
        chosen = range(self.stream.partitions) if partitions is None else partitions
        return self._rows(table, names, chosen)

    def _rows(self, table: str, names: list[str], chosen: Iterable[int], *, goes_on: bool = False) -> Answer:
        answers = self._ask(
            {partition: _Request(self, partition).rows(table, names) for partition in chosen}, goes_on=goes_on
        )
        return _answer(answers, {partition: values[0] for partition, (_, values) in answers.items()})

    def tables(self, *tables: str) -> dict[int, tuple[Cursor, list[dict[str, bytes]]]]:
        """Whole tables of every partition at one instant each: partition -> (cursor, one {row: JSON or score}
        per table).
        """
        requests = {}
        for partition in range(self.stream.partitions):
            requests[partition] = _Request(self, partition)
            for table in tables:
                requests[partition].everything(table)
        answers = self._ask(requests)
        return {
            partition: (cursor, [pairs(value) for value in values])
            for partition, (cursor, values) in answers.items()
        }

    def keys_at_once(self, partition: int, names: list[str]) -> tuple[Cursor, list[list[bytes]]]:
        """Whole keys of a partition by their Redis names, hashes or sorted sets, and the cursor of the
        generation read last, at one
        instant. Names know no generation, so none is looked for."""
        request = _Request(self, partition)
        request.names = names
        request.lines = [f"all {number}" for number in range(2, 2 + len(names))]
        return self._ask({partition: request}, goes_on=True)[partition]

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
        return Answer(
            dict(sorted(rows.items())),
            {partition: cursor.position for partition, (cursor, _) in found.items()},
        )

    def rollup(self, name: str) -> Answer:
        """A Rollup's rows: row -> one struct per partition that has it. How they merge is the projection's to
        know.
        """
        found = self.tables(name)
        rows: dict[str, list[Any]] = {}
        for _, (table,) in found.values():
            for row, raw in table.items():
                rows.setdefault(row, []).append(self._rollups[name](raw))
        return Answer(rows, {partition: cursor.position for partition, (cursor, _) in found.items()})

    @_begun_anew
    def listing(self, name: str, key: str, *, partitions: Iterable[int] | None = None) -> Answer:
        """A listing's items: partition -> list in log order. Full rows never change, so two reads agree."""
        found = self.rows(name, [key], partitions)
        items: dict[int, list[Any]] = {}
        for partition, (raw,) in found.rows.items():
            if raw is None:
                continue
            head = self._decode_list(raw)
            names = [f"{key}|{number}" for number in range(head.stored)]
            full = self._rows(name, names, [partition], goes_on=True).rows[partition] if names else []
            items[partition] = [
                item for row in full for item in msgspec.json.decode(self._opened(row))
            ] + list(head.tail)
        return Answer(items, found.positions)

    @_begun_anew
    def ranking(self, name: str, top: int = 20, part: str | None = None) -> Answer:
        """The `top` best over all partitions, a list of Ranked; ties by key ascending as bytes; top -1 is
        all.

        part: one category of a split ranking; None ranks over all. Of a ranking with expiry, keys whose end
        the latest event time of any partition has passed are left out. Every partition is asked for its fair
        share and a margin first, and for more only where that is not enough.
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
            answers = self._ask(
                {p: _Request(self, p).top(name, part, size) for p, size in more.items()}, goes_on=bool(lists)
            )
            for partition, (cursor, (value,)) in answers.items():
                cursors[partition] = cursor
                lists[partition] = [
                    Ranked(item.decode(), 0.0 - float(score), self._decode_state(state))
                    for item, score, state in zip(value[0][::2], value[0][1::2], value[1], strict=True)
                ]
            now = EPOCH + max(cursor.watermark for cursor in cursors.values()) * MICROSECOND
            ends = spec.expires_at
            live = {
                partition: [
                    item for item in items if ends is None or (end := ends(item.state)) is None or end > now
                ]
                for partition, items in lists.items()
            }
            best = list(islice(merge(*live.values(), key=_order), None if top < 0 else top))
            more = _more(best, top, asked, lists)
        return Answer(best, {partition: cursor.position for partition, cursor in cursors.items()})

    def _ask(
        self, requests: dict[int, _Request], *, goes_on: bool = False
    ) -> dict[int, tuple[Cursor, list[Any]]]:
        """All partitions' answers, of the live generation or the pinned one. goes_on: of that of the round
        before, in the same read.

        Raises GenerationGone where that was retired.
        """
        for _ in range(RESTARTS_MAX):
            answers, raw = self._asked(requests, with_pointer=not self.is_pinned and not goes_on)
            if not self.is_pinned and not goes_on:
                live = record_of(raw).live
                if live != self.generation:
                    self.generation = live
                    continue
            if any(b"retired" in reply[0][::2] for reply in answers.values()):
                break
            return {partition: (cursor_of(reply[0]), reply[1:]) for partition, reply in answers.items()}
        raise GenerationGone(
            f"generation {self.generation} of the view {self.projection.name!r} of {self.stream.name!r} was "
            "retired while it was read. "
            "Read again; `aurastream status` shows which are there."
        )

    def _asked(
        self, requests: dict[int, _Request], *, with_pointer: bool
    ) -> tuple[dict[int, list[Any]], bytes | None]:
        """All partitions' requests out, and after them the question for the live generation; then all answers
        in.
        """
        where = pointer(self.stream.name, self.projection.name)

        def ask() -> tuple[dict[int, list[Any]], bytes | None]:
            wires = {partition: self.stream.wire(partition) for partition in requests}
            for partition, request in requests.items():
                wires[partition].send([request.command()])
            raw = None
            if with_pointer:
                last = self.stream.wires.of(VIEWS)
                last.send([where])
            replies = {partition: wires[partition].receive() for partition in requests}
            if with_pointer:
                raw = last.receive()
            for reply in (*replies.values(), raw):
                if isinstance(reply, Exception):
                    raise reply
            return replies, raw

        what = f"read of the view {self.projection.name}"
        return retried(what, self.stream.settings.attempts_max, ask, self.stream.reconnect)


def _order(item: Ranked) -> tuple[float, bytes]:
    return -item.score, item.key.encode()


def _more(
    best: list[Ranked], top: int, asked: dict[int, int], lists: dict[int, list[Ranked]]
) -> dict[int, int]:
    """Which partitions must be asked again, and for how many: those whose answer was full and may hide one of
    the best.

    asked: for how many each partition was asked last. All are looked at each time: what another partition
    held, and the latest event time, may have moved since, so that what was enough is not any more.
    """
    again = {}
    for partition, size in asked.items():
        is_full = 0 < size == len(lists[partition])
        if is_full and (len(best) < top or _order(lists[partition][-1]) < _order(best[-1])):
            again[partition] = max(size * 2, top) if size < 16 * top else -1
    return again


def pairs(flat: list[bytes]) -> dict[str, bytes]:
    """field, value, .. as a dict. What is no text (a flipped bit) is shown as what it is."""
    return {flat[i].decode(errors="backslashreplace"): flat[i + 1] for i in range(0, len(flat), 2)}


def _answer(answers: dict[int, tuple[Cursor, list[Any]]], rows: Any) -> Answer:
    return Answer(rows, {partition: cursor.position for partition, (cursor, _) in answers.items()})
