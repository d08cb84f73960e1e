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

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

import msgspec

from aurastream.projections.engine.generations import NEVER_REBUILT, Record, pointer, record_of
from aurastream.projections.engine.projection import Projection
from aurastream.projections.engine.snapshot import Named, snapshot
from aurastream.projections.tables import Answer, ProjectionError, Read, Rows, Table, Whole, pairs
from aurastream.streams import VIEWS, Ask, Command, Cursor, Reply, Stream, cursor_of, generation_group, sound

RESTARTS_MAX = 20  # of a read whose generation was swapped, or retired, while it went on

S = TypeVar("S", bound=msgspec.Struct)


class GenerationGone(ProjectionError):
    """A pinned generation was retired: its tables are no more."""


class View(Generic[S]):
    """Reads one projection's view of one stream. Not for several threads.

    generation: read this one only; None follows the live one, and ``generation`` then says which was read
    last.
    """

    def __init__(self, stream: Stream, projection: Projection[S], *, generation: int | None = None) -> None:
        self.stream, self.projection = stream, projection
        self.is_pinned, self.generation = generation is not None, generation or 1
        self._decode_state = self.decoder(projection.state)

    @property
    def partitions(self) -> range:
        """All of the stream's."""
        return range(self.stream.partitions)

    def decoder(self, kind: Any) -> Callable[[bytes], Any]:
        """Decodes stored JSON. Sealed fields are opened where they are read, never where they are kept."""
        decode, opened = msgspec.json.Decoder(kind).decode, self.stream.keyring.open_json
        return lambda raw: decode(opened(raw))

    def decode_state(self, raw: bytes) -> S:
        """A stored state."""
        return cast(S, self._decode_state(raw))

    def key(self, partition: int, table: str, part: str | None = None) -> str:
        """The Redis key of a table, of the generation that was read last."""
        return self.stream.keys[partition].view(self.projection.name, self.generation, table, part)

    def record(self) -> Record:
        """All generations, and which is live."""
        raw = self._answered({}, with_pointer=True)[1]
        return NEVER_REBUILT if raw is None else record_of(raw)

    def cursor(self, partition: int) -> Cursor:
        """How far one partition's view has come."""
        return self.ask({partition: []})[partition][0]

    def cursors(self) -> dict[int, Cursor]:
        """How far every partition's view has come."""
        answers = self.ask({partition: [] for partition in self.partitions})
        return {partition: cursor for partition, (cursor, _) in answers.items()}

    def state(self, key: str) -> S | None:
        """The key's state, where keys are subjects (the default); None when there is none."""
        # Of a log elsewhere, whoever produced chose the partition.
        places = [self.stream.partition_of(key)] if self.stream.is_log_here else self.partitions
        rows = self.rows(self.projection.table, [key], partitions=places).rows
        stored = [raw for (raw,) in rows.values() if raw is not None]
        return self.decode_state(stored[0]) if stored else None

    def rows(self, table: str, fields: Iterable[str], partitions: Iterable[int] | None = None) -> Answer:
        """The stored JSON of some rows of a table: partition -> values in the order asked."""
        names = list(fields)
        chosen = self.partitions if partitions is None else partitions
        answers = self.ask({partition: [Rows(table, names)] for partition in chosen})
        rows = {partition: values[0] for partition, (_, values) in answers.items()}
        return Answer(rows, {partition: cursor.position for partition, (cursor, _) in answers.items()})

    def tables(self, *tables: str) -> dict[int, tuple[Cursor, list[dict[str, bytes]]]]:
        """Whole tables of every partition at one instant each: partition -> (cursor, one {row: JSON or score}
        per table).
        """
        answers = self.ask({partition: [Whole(table) for table in tables] for partition in self.partitions})
        return {
            partition: (cursor, [pairs(value) for value in values])
            for partition, (cursor, values) in answers.items()
        }

    def keys_at_once(self, partition: int, names: list[str]) -> tuple[Cursor, list[list[bytes]]]:
        """Whole keys of a partition by their Redis names, hashes or sorted sets, and the cursor of the
        generation read last, at one instant. Names know no generation, so none is looked for.
        """
        return self.ask({partition: [Named(name) for name in names]}, goes_on=True)[partition]

    def states(self) -> Answer:
        """Every state: key -> state."""
        tables = self.tables(self.projection.table)
        rows = {key: self.decode_state(raw) for _, (table,) in tables.values() for key, raw in table.items()}
        return Answer(rows, {partition: cursor.position for partition, (cursor, _) in tables.items()})

    def totals(self, name: str) -> Answer:
        """A Totals table added up over the partitions: row -> {column: integer}."""
        return self.read(name)

    def rollup(self, name: str) -> Answer:
        """A Rollup's rows: row -> one struct per partition that has it."""
        return self.read(name)

    def listing(self, name: str, key: str, *, partitions: Iterable[int] | None = None) -> Answer:
        """A listing's items: partition -> list in log order. Full rows never change, so two reads agree."""
        return self.read(name, key=key, partitions=partitions)

    def ranking(self, name: str, top: int = 20, part: str | None = None) -> Answer:
        """The `top` best over all partitions, a list of Ranked; ties by key ascending as bytes; top -1 is
        all.

        part: one category of a split ranking; None ranks over all. Of a ranking with expiry, keys whose end
        the latest event time of any partition has passed are left out.
        """
        known = [spec.name for spec in self.projection.rankings]
        if name not in known:
            names = ", ".join(known) or "none"
            raise ProjectionError(f"{self.projection.name!r} has no ranking {name!r} (rankings: {names}).")
        return self.read(name, top=top, part=part)

    def read(self, name: str, **options: Any) -> Answer:
        """What a declared table answers; options: its kind's. Raises ProjectionError where there is none."""
        table = self.projection.declares(name)
        return self._whole(lambda: table.read(self, **options))

    def listed(self, name: str) -> Answer:
        """All rows of a table, of states or declared, for people: row -> value."""
        if name == self.projection.table:
            return self.states()
        table: Table = self.projection.declares(name)
        return self._whole(lambda: table.listed(self))

    def _whole(self, read: Callable[[], Answer]) -> Answer:
        """A read of several rounds of one generation, begun anew where that was retired meanwhile."""
        for _ in range(RESTARTS_MAX - 1):
            try:
                return read()
            except GenerationGone:
                if self.is_pinned:
                    raise
        return read()

    def ask(
        self, reads: Mapping[int, Sequence[Read | Named]], *, goes_on: bool = False
    ) -> dict[int, tuple[Cursor, list[Reply]]]:
        """All partitions' answers, of the live generation or the pinned one. goes_on: of that of the round
        before, in the same read.

        Raises GenerationGone where that was retired.
        """
        for _ in range(RESTARTS_MAX):
            answers, raw = self._answered(reads, with_pointer=not self.is_pinned and not goes_on)
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
            "retired while it was read. Read again; `aurastream status` shows which are there."
        )

    def _answered(
        self, reads: Mapping[int, Sequence[Read | Named]], *, with_pointer: bool
    ) -> tuple[dict[int, list[Reply]], bytes | None]:
        """All partitions' answers, and the record that was asked for after them."""
        asks = [
            Ask(self.stream.keys[partition].log, self._snapshot(partition, wanted))
            for partition, wanted in reads.items()
        ]
        if with_pointer:
            asks.append(Ask(VIEWS, pointer(self.stream.name, self.projection.name)))
        answers = sound(self.stream.wires.answers(asks, f"read of the view {self.projection.name}"))
        return dict(zip(reads, answers, strict=False)), answers[-1] if with_pointer else None

    def _snapshot(self, partition: int, reads: Sequence[Read | Named]) -> Command:
        group = generation_group(self.projection.name, self.generation)
        cursor = self.stream.keys[partition].cursor(group)
        return snapshot(
            cursor, reads, lambda table, part: self.key(partition, table, part), self.projection.table
        )
