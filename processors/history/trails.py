"""
Rows of the audit trail: events as they are in log and archive, found by subject, by story or by ID without
reading the log.

    subject   trail's positions of it  -> History.entries, and a scan of what the trail has not read yet
    story     trail's positions of it, of all partitions and streams -> the same
    event     ids index of every partition -> its entry
    around    from some rows: their stories, their causes by ID, the effects of each, until nothing new is
              found

Always true: a row is an entry of a stream, with its place, its personal fields opened as far as their keys
are there; what the trail names and nobody has any more, or is damaged, is a row too, with what is wrong with
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import chain, islice
from typing import Any

import msgspec

from aurastream.processors.history.reading import read_past, scan
from aurastream.processors.history.selection import Order, PastEvent, Selection, Tally
from aurastream.projections.built_in import Known, known_of_stories, known_of_subject
from aurastream.streams import (
    DamagedEntry,
    Envelope,
    History,
    Position,
    RawEntry,
    collided_field_of,
    entry_json,
    field_of,
    read_envelope,
    unpack_position,
)

LOOK_MAX = 500  # entries asked for at a time
AROUND_MAX = 10_000  # events of one tree
LOOK_BACK_MAX = 5_000  # entries of a subject searched for a cause that no index names any more


class TrailRow(msgspec.Struct, frozen=True):
    """An entry. event: its JSON, opened; empty for what cannot be read, which damage explains."""

    stream: str
    partition: int
    position: str
    event: dict[str, Any]
    damage: str = ""

    @property
    def order(self) -> Order:
        """Its place among the entries of all streams."""
        return (Position.parse(self.position), self.stream, self.partition)

    @property
    def place(self) -> str:
        """stream/partition/position."""
        return f"{self.stream}/{self.partition}/{self.position}"

    @property
    def event_id(self) -> str:
        """The event's; "" where it cannot be read."""
        return str(self.event.get("event_id", ""))

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        whole = {"stream": self.stream, "partition": self.partition, "position": self.position, **self.event}
        return {**whole, "damage": self.damage} if self.damage else whole


class Trails:
    """Finds rows in some streams."""

    def __init__(self, histories: list[History]) -> None:
        self.histories, self.tally = histories, Tally()
        self._by_name = {history.stream.name: history for history in histories}

    def row_of(self, event: PastEvent) -> TrailRow:
        """An entry that was read, as a row."""
        opened = self._by_name[event.stream].stream.keyring.open_json(event.raw)
        return TrailRow(event.stream, event.partition, event.position, msgspec.json.decode(opened))

    def of_subject(self, subject: str, selection: Selection) -> Iterator[TrailRow]:
        """The subject's rows that fit, in order; those that cannot be read fit always."""
        chosen = msgspec.structs.replace(selection, subjects=frozenset({subject}))
        return merge(
            *[self._of_subject(history, subject, chosen) for history in self.histories],
            key=lambda row: row.order,
        )

    def _of_subject(self, history: History, subject: str, chosen: Selection) -> Iterator[TrailRow]:
        return self._known(
            history, history.stream.partition_of(subject), known_of_subject(history.stream, subject), chosen
        )

    def _known(self, history: History, partition: int, known: Known, chosen: Selection) -> Iterator[TrailRow]:
        """The rows at the positions the trail knows, and those of what it has not read."""
        yield from self._at(history, partition, list(filter(chosen.is_within, known.positions)), chosen.fits)
        yield from map(self.row_of, scan(history, partition, known.until, chosen, self.tally))

    def of_stories(self, stories: Iterable[str], selection: Selection | None = None) -> Iterator[TrailRow]:
        """The rows of these stories that fit, in order, most first causes left out; those that cannot be read
        fit always.
        """
        chosen = msgspec.structs.replace(selection or Selection(), correlations=frozenset(stories))
        if not chosen.correlations:
            return iter(())
        readings = [
            self._known(history, partition, known, chosen)
            for history in self.histories
            for partition, known in known_of_stories(history.stream, chosen.correlations).items()
        ]
        return merge(*readings, key=lambda row: row.order)

    def of_correlations(self, selection: Selection) -> Iterator[TrailRow]:
        """The rows of the selection's stories with their first causes, in order."""
        causes = self.of_events(selection.correlations)
        rest = self.of_stories(selection.correlations, selection)
        early = list(islice(rest, LOOK_MAX))
        causes += self._of_lost_causes(set(selection.correlations) - {row.event_id for row in causes}, early)
        chosen = (
            row for row in causes if selection.fits(_envelope(row)) and selection.is_within(row.position)
        )
        fitting = sorted(chosen, key=lambda row: row.order)
        held = {row.place for row in fitting}
        return merge(
            fitting, (row for row in chain(early, rest) if row.place not in held), key=lambda row: row.order
        )

    def of_event(self, event_id: str) -> Iterator[TrailRow]:
        """The rows of an event ID; of one that was trimmed with its index row, by reading everything."""
        indexed = self.of_events([event_id])
        if indexed:
            return iter(indexed)
        return map(
            self.row_of, read_past(self.histories, Selection(events=frozenset({event_id})), tally=self.tally)
        )

    def of_events(self, event_ids: Iterable[str]) -> list[TrailRow]:
        """The rows of these event IDs that the live log has."""
        wanted = list(dict.fromkeys(event_ids))
        rows: list[TrailRow] = []
        for history in self.histories:
            for partition in range(history.stream.partitions):
                for start in range(0, len(wanted), LOOK_MAX):
                    rows += self._by_index(history, partition, wanted[start : start + LOOK_MAX])
        return rows

    def around(self, rows: Iterable[TrailRow]) -> tuple[list[TrailRow], bool]:
        """These, what led to them and what followed, in order; and whether AROUND_MAX left some out."""
        held: dict[str, TrailRow] = {}
        seen, new, is_cut = _Seen(), list(rows), False
        while new and not is_cut:
            is_cut = len(new) > AROUND_MAX - len(held)
            for row in new[: AROUND_MAX - len(held)]:
                held[row.place] = row
            stories, causes = seen.not_looked_for(new)
            related = [*islice(self.of_stories(stories), 2 * AROUND_MAX), *self.of_events(causes)]
            # A cause no index names stays wanted: every new row's subject is another place to look for it.
            seen.lost -= {row.event_id for row in related} | {row.event_id for row in held.values()}
            related += self._of_lost_causes(seen.lost, new)
            new = list({row.place: row for row in related if row.place not in held}.values())
        return sorted(held.values(), key=lambda row: row.order), is_cut

    def _at(
        self, history: History, partition: int, positions: list[str], fits: Callable[[Envelope], bool]
    ) -> Iterator[TrailRow]:
        """The rows at these positions, as far as they fit or cannot be read."""
        for start in range(0, len(positions), LOOK_MAX):
            part = positions[start : start + LOOK_MAX]
            entries = history.entries(partition, part)
            for position in part:
                row = self._row(history, partition, position, entries.get(position), fits)
                if row is not None:
                    yield row

    def _row(
        self,
        history: History,
        partition: int,
        position: str,
        entry: RawEntry | None,
        fits: Callable[[Envelope], bool],
    ) -> TrailRow | None:
        stream = history.stream
        if entry is None:
            return TrailRow(stream.name, partition, position, {}, "the entry is gone from the log")
        try:
            raw = entry_json(f"{stream.name}/{partition}/{position}", entry[1])
            envelope = read_envelope(stream.keys[partition].where, raw)
        except DamagedEntry as error:
            return TrailRow(stream.name, partition, position, {}, str(error))
        return (
            self.row_of(PastEvent(stream.name, partition, position, envelope, raw))
            if fits(envelope)
            else None
        )

    def _by_index(self, history: History, partition: int, event_ids: list[str]) -> list[TrailRow]:
        stream, ids = history.stream, history.stream.keys[partition].ids
        fields = [field_of(event_id) for event_id in event_ids] + [
            collided_field_of(event_id) for event_id in event_ids
        ]
        held = stream.ask(partition, ("HMGET", ids, *fields), what=f"read of {stream.name}/{partition}")[0]
        positions = sorted(
            {unpack_position(row).decode() for row in held if row is not None}, key=Position.parse
        )
        wanted = set(event_ids)
        rows = self._at(history, partition, positions, lambda event: event.event_id in wanted)
        return [row for row in rows if not row.damage]

    def _of_lost_causes(self, causes: set[str], rows: list[TrailRow]) -> list[TrailRow]:
        """Causes that were trimmed, with their index rows: among the archived events of their effects'
        subjects, before the effect.
        """
        located: dict[str, TrailRow] = {}
        archived = [history for history in self.histories if history.archive is not None] if causes else []
        for row in rows:
            for cause in _causes_of(row) & (causes - located.keys()):
                for history in archived:
                    held = self._before(history, str(row.event["subject"]), row.position, cause)
                    if held is not None:
                        located[cause] = held
        return list(located.values())

    def _before(self, history: History, subject: str, position: str, event_id: str) -> TrailRow | None:
        """The subject's event of this ID, appended before a position; None where it is not among the
        LOOK_BACK_MAX last.
        """
        partition = history.stream.partition_of(subject)
        before = [
            place
            for place in known_of_subject(history.stream, subject).positions
            if Position.parse(place) < Position.parse(position)
        ]
        for end in range(len(before), max(0, len(before) - LOOK_BACK_MAX), -LOOK_MAX):
            places = before[max(0, end - LOOK_MAX) : end]
            for row in self._at(history, partition, places, lambda event: event.event_id == event_id):
                if not row.damage:
                    return row
        return None


class _Seen(msgspec.Struct):
    """What a look around has looked for: event IDs and stories; lost: causes it has not come upon yet."""

    ids: set[str] = msgspec.field(default_factory=set)
    stories: set[str] = msgspec.field(default_factory=set)
    lost: set[str] = msgspec.field(default_factory=set)

    def not_looked_for(self, rows: list[TrailRow]) -> tuple[set[str], set[str]]:
        """The stories and the causes that these rows are the first to name."""
        ids = {row.event_id for row in rows if row.event_id}
        self.ids |= ids
        named = set().union(*(_causes_of(row) for row in rows if row.event_id))
        stories, causes = (ids | named) - self.stories, named - self.ids
        self.stories |= stories
        self.ids |= causes
        self.lost |= causes
        return stories, causes


def _causes_of(row: TrailRow) -> set[str]:
    return {str(row.event.get(name, "")) for name in ("causation_id", "correlation_id")} - {""}


def _envelope(row: TrailRow) -> Envelope:
    return msgspec.convert(
        {name: row.event[name] for name in Envelope.__struct_fields__ if name in row.event},
        Envelope,
        strict=False,
    )
