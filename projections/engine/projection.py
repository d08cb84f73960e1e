"""
What a person writes: a keyed fold with types, and what is declared over its state.

    class Views(Projection):                       a view of every clip's highest view count
        name = "peaks"
        events = (ClipViewsObserved,)
        state = Peak
        rankings = (Ranking("highest", score=lambda peak: peak.views),)

        def apply(self, state, event):
            return Peak(views=max(event.views, state.views if state else 0))

The same class runs live, in ``check`` and in memory (memory.py). ``apply`` is pure: no clock, no I/O, no
randomness, or view == fold(log) cannot hold. Returning the state it was given means that nothing changed.

Declared over the state:  rankings  who is highest, over all or per part, with logical expiry in event time
                          totals    integers added up over keys, by part and event-time window; each key
                          counts once a window rollups   a row per key of your choice, folded from states and
                          events listings  an append-only list per key
                          tables    any other kind (projections/tables/)
All of them are plain hashes and sorted sets with JSON values, read by reads.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import msgspec
from pydantic_settings import BaseSettings

from aurastream.projections.engine.definition import fingerprint_of
from aurastream.projections.tables import Listing, ProjectionError, Ranking, Rollup, Table, Totals
from aurastream.streams import Codec, Envelope, Event, Stream, Upcaster, checked_name

S = TypeVar("S", bound=msgspec.Struct)


class Projection(Generic[S]):
    """One view. Subclass it; see the module's example.

    name: 1 to 64 of a-z 0-9 _ . -, also its consumer group. version: raise it when the fold's meaning
    changes.
    events: the types it folds; None folds every event's Envelope. state: a frozen msgspec struct.
    settings: a pydantic-settings class, read from the environment once; part of the view's fingerprint.
    streams: the streams it folds; None folds all. table: name of the table of states. upcasters: of event
    types that do not declare their own (``Event.upcasters``), by (tag, version).
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    events: ClassVar[tuple[type[Event], ...] | None] = ()
    state: ClassVar[type[msgspec.Struct]]
    table: ClassVar[str] = "states"
    settings_type: ClassVar[type[BaseSettings] | None] = None
    streams: ClassVar[tuple[str, ...] | None] = None
    upcasters: ClassVar[Mapping[tuple[str, int], Upcaster]] = {}
    rankings: tuple[Ranking, ...] = ()
    totals: tuple[Totals, ...] = ()
    rollups: tuple[Rollup, ...] = ()
    listings: tuple[Listing, ...] = ()
    tables: tuple[Table, ...] = ()

    def __init__(self, settings: BaseSettings | None = None) -> None:
        self.settings: Any = settings or (self.settings_type() if self.settings_type else None)

    def key(self, event: Any) -> str | None:
        """Which state the event belongs to; None for none. Default: its subject."""
        subject: str = event.subject
        return subject

    def apply(self, state: S | None, event: Any) -> S:
        """The state after one more event. Pure. state is None at the key's first event."""
        raise NotImplementedError(f"{type(self).__name__} has no apply")

    def expires_at(self, state: S) -> datetime | None:
        """Event time from which the state is absent to the fold, which then begins anew; None never."""
        return None

    @property
    def headline(self) -> str:
        """The table that a look at the view begins with. Default: the first ranking, else the states."""
        return self.rankings[0].name if self.rankings else self.table

    def shown(self, state: S) -> dict[str, Any]:
        """A state as columns for people, the most telling first: column -> value. Default: its fields."""
        return {name: getattr(state, name) for name in state.__struct_fields__}

    def declared(self) -> list[Table]:
        """All tables over its states, in the order in which they are written."""
        return [*self.totals, *self.rollups, *self.listings, *self.rankings, *self.tables]

    def declares(self, name: str) -> Table:
        """The table of that name. Raises ProjectionError, which names those there are."""
        for table in self.declared():
            if table.name == name:
                return table
        known = ", ".join([self.table, *(table.name for table in self.declared())])
        raise ProjectionError(f"{self.name!r} has no table {name!r} (tables: {known}).")

    def folds(self, stream: str) -> bool:
        """Whether it has a view of this stream."""
        return self.streams is None or stream in self.streams

    def takes(self, stream: Stream) -> bool:
        """Whether its view of this stream is kept up: of a topic of Faust apps only where it is named, by
        these ``streams`` or by who opened it (Stream.as_events).
        """
        return self.folds(stream.name) and (self.streams is not None or not stream.is_topic)

    def codec(self) -> Codec:
        """Decodes the events it folds."""
        return Codec(self.events or (), self.upcasters)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of name, version, events and settings: two processes with equal ones fold
        alike. That of a view says by which rules of intake besides (definition.py).
        """
        settings = self.settings_json
        tags = [] if self.events is None else sorted(str(kind.__struct_config__.tag) for kind in self.events)
        return fingerprint_of(f"{self.name}\n{self.version}\n{tags}\n{settings}")

    @property
    def settings_json(self) -> str:
        """The settings, as the record of a generation keeps them; "" for none."""
        return "" if self.settings is None else str(self.settings.model_dump_json())

    def check(self) -> None:
        """Raise ProjectionError when the definition cannot work, naming what to mend."""
        checked_name("projection", self.name)
        if not issubclass(self.state, msgspec.Struct) or not self.state.__struct_config__.frozen:
            raise ProjectionError(f"the state of {self.name!r} must be a msgspec.Struct with frozen=True.")
        declared = self.declared()
        names = [self.table, *(table.name for table in declared)]
        for name in names:
            checked_name("table", name)
        if len(set(names)) != len(names):
            raise ProjectionError(f"two tables of {self.name!r} share a name: {sorted(names)}. Rename one.")
        for table in declared:
            table.check(self.state, (Envelope,) if self.events is None else self.events)


AnyProjection: TypeAlias = Projection[Any]  # whatever its state: for who handles projections of others
