"""
The changes a rebuild makes to a view's record, each with its fact for the audit trail.

    transition (engine/generations.py) + event into the record's outbox -> one compare-and-set -> announce

Always true: what a person decided is in the record and in the audit trail, by events whose IDs are derived
from it, so that a repeat after a kill appends nothing new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypedDict

import msgspec

from aurastream.projections.engine import (
    AnyProjection,
    ProjectionError,
    Record,
    Start,
    State,
    announce,
    announcing,
    begun,
    change,
    compared,
    is_same_definition,
    now_ms,
    read_record,
    swapped,
)
from aurastream.projections.rebuild.compare import Compared
from aurastream.streams import (
    RebuildCompared,
    RebuildStarted,
    Stream,
    ViewRolledBack,
    ViewSwapped,
    checked_words,
    forget,
    generation_group,
    named_id,
)


class Decision(msgspec.Struct, frozen=True):
    """Who decided, and why, for the audit trail. Raises StreamError for what no event can hold."""

    by: str
    why: str = ""

    def __post_init__(self) -> None:
        checked_words("the name of who decides", self.by)
        checked_words("the reason", self.why)


class _Fact(TypedDict):
    event_id: str
    subject: str
    source: str
    occurred_at: datetime
    stream: str


class ViewRecord:
    """One view's record, for who changes it."""

    def __init__(self, stream: Stream, projection: AnyProjection, decision: Decision) -> None:
        self._stream, self._projection, self._decision = stream, projection, decision

    def read(self) -> Record:
        """All generations as they are now."""
        return read_record(self._stream.server, self._stream.name, self._projection.name)

    def announce(self) -> None:
        """Append the facts that wait in the record."""
        announce(self._stream, self._projection.name)

    def now_ms(self) -> int:
        """The server's clock."""
        return now_ms(self._stream.server)

    def begin(self, host: str, fingerprint_of: Callable[[int], str]) -> Record:
        """A new generation is being built, unless one is.

        fingerprint_of: the definition a generation was folded by; "" where it has no view.
        """

        def transition(record: Record) -> Record:
            if record.building is not None:
                return record
            at_ms, own = self.now_ms(), self._projection.fingerprint
            start = Start(self._decision.by, host, at_ms, self._projection.settings_json)
            after = begun(record, fingerprint_of(record.live), own, start)
            fact = self._fact(at_ms, after.last, "started")
            event = RebuildStarted(**fact, generation=after.last, why=self._decision.why)
            return announcing(after, event)

        return self._change(transition)

    def take_over(self, number: int, host: str) -> Record:
        """This process builds the generation from now on. Raises ProjectionError where nobody does."""

        def transition(record: Record) -> Record:
            item = record.find(number)
            if item is None or item.state is not State.BUILDING:
                raise ProjectionError(
                    f"generation {number} is not being built any more. Look at `aurastream status`, and "
                    "begin again."
                )
            if item.builder == host:
                return record
            return begun(record, "", "", Start(self._decision.by, host, self.now_ms()))

        return self._change(transition)

    def note(self, number: int, live: int, parts: Sequence[Compared], *, accept: bool) -> Record:
        """The generation was compared with the live one, partition by partition."""
        differing = sum(part.differing for part in parts)
        results = [f"{part.events}-{part.differing}" for part in parts]
        fact = self._fact(self.now_ms(), number, "compared", *results)
        events = sum(part.events for part in parts)
        event = RebuildCompared(**fact, generation=number, events=events, differing=differing)

        def transition(record: Record) -> Record:
            self._expect_live(record, live)
            return announcing(compared(record, number, differing, accept and differing > 0), event)

        return self._change(transition)

    def swap(self, number: int, live: int, keep_ms: int, at_ms: int) -> Record:
        """The generation becomes the live one in the place of `live`."""
        fact, why = self._fact(at_ms, number, "swapped"), self._decision.why

        def transition(record: Record) -> Record:
            if record.live == number:
                return record
            self._expect_live(record, live)
            item = record.find(number)
            differing = item.differing if item is not None else 0
            event = ViewSwapped(**fact, generation=number, previous=live, differing=differing, why=why)
            return announcing(swapped(record, number, at_ms, keep_ms), event)

        return self._change(transition)

    def roll_back(self, number: int, live: int, keep_ms: int) -> Record:
        """A kept generation becomes the live one again in the place of `live`."""
        at_ms = self.now_ms()

        def transition(record: Record) -> Record:
            if record.live == number:
                return record
            if record.live != live:
                raise ProjectionError(
                    f"generation {record.live} of {self._projection.name!r} became the live one meanwhile. "
                    "Look, and try again."
                )
            fact = self._fact(at_ms, number, "rolled_back", record.changes)
            event = ViewRolledBack(**fact, generation=number, previous=live, why=self._decision.why)
            return announcing(swapped(record, number, at_ms, keep_ms), event)

        return self._change(transition)

    def leave_alone(self, record: Record, number: int) -> None:
        """Producers and the trimmer do not wait for a kept generation of another definition: nobody may be
        there who keeps it up.
        """
        item, own = record.find(number), self._projection.fingerprint
        if item is not None and item.state is State.KEPT and not is_same_definition(item.fingerprint, own):
            stream = self._stream
            forget(stream.server, stream.keys, generation_group(self._projection.name, number))

    def _change(self, transition: Callable[[Record], Record]) -> Record:
        return change(self._stream.server, self._stream.name, self._projection.name, transition)

    def _fact(self, at_ms: int, *parts: str | int) -> _Fact:
        """What every fact says; its ID is derived from the view and these parts."""
        stream, projection = self._stream.name, self._projection.name
        return _Fact(
            event_id=named_id("rebuild", stream, projection, *parts),
            subject=projection,
            source=self._decision.by,
            occurred_at=datetime.fromtimestamp(at_ms / 1000, UTC),
            stream=stream,
        )

    def _expect_live(self, record: Record, live: int) -> None:
        if record.live != live:
            raise ProjectionError(
                f"generation {record.live} of {self._projection.name} became the live one meanwhile, in the "
                f"place of {live}: ours is to be compared with that. Rebuild again; what was built is kept."
            )
