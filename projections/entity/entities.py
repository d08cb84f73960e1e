"""
Decide on one entity: its state from the newest snapshot and the few events after it, and an append that
nobody else has forestalled.

    entities = Entities(stream, Jobs())                           a stream created versioned=True
    entities.decide("job-7", lambda job: [claimed(job.state)])    at the version loaded; in a conflict, again

    look.py -> the further one of row and snapshot -> the events after it (log, then archive) -> fold
        -> a new snapshot, when due

Always true: the state is what the view's row for that key will be when its cursor has passed the same events.
A snapshot is a cache of our own, kept only forward. One that another definition folded is not looked at.

An entity that grows by decisions is read in pieces of up to SNAPSHOT_EVERY events, since an append that makes
the rest longer leaves a snapshot behind it. One that others fill and a consumer folds is read from the view's
cursor on. One with neither is read whole once, and leaves snapshots on its way.

Where anybody but append.lua has added to the log (a raw XADD), versions do not tell of all events, so neither
index nor snapshot is used: the partition is read from the view's cursor on, or from its beginning. A process
of another definition replaces the snapshots, so during a rolling upgrade both read more.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar, cast

import msgspec

from aurastream.projections.engine import MemoryView, Projection, ServerIndex, View
from aurastream.projections.entity.errors import EntityContended, EntityIncomplete, EntityUnfit
from aurastream.projections.entity.look import PAGE, EntityLook, base_of, look_at
from aurastream.projections.entity.snapshots import Base, drop, keep
from aurastream.streams import (
    BATCH_MAX,
    Ack,
    Appended,
    Backoff,
    Event,
    History,
    RawEntry,
    Stream,
    VersionConflict,
    subject_of,
)
from aurastream.streams.archive import history_of

SNAPSHOT_EVERY = 100  # events folded after which a snapshot is kept
KEEP_PAGES = 10  # pages after which a long read leaves a snapshot
PAUSE_FIRST_S, PAUSE_MAX_S = 0.002, 0.05  # between two tries at an entity that others decide on, too

S = TypeVar("S", bound=msgspec.Struct)


class Loaded(msgspec.Struct, Generic[S], frozen=True):
    """An entity at a version. state: with its personal fields opened; None before its first event.
    events_read: to get there.

    kept: the version that the next look begins with: of the snapshot or the view's row.
    """

    subject: str
    state: S | None
    version: int
    events_read: int
    kept: int


class Decided(msgspec.Struct, Generic[S], frozen=True):
    """What was decided on, and where the decision's events are; [] where there were none. attempts: conflicts
    and the last.
    """

    loaded: Loaded[S]
    appended: list[Appended]
    attempts: int


def _bare(projection: Projection[S]) -> Projection[S]:
    """The same with states alone: what is declared over them is the view's."""
    bare = copy.copy(projection)
    bare.rankings, bare.totals, bare.rollups = (), (), ()
    bare.listings, bare.tables = (), ()
    return bare


class Entities(Generic[S]):
    """Loads and decides on the entities of one stream by one projection's fold. Not for several threads.

    history: where events come from that were trimmed; default: the archive of the settings. attempts_max:
    conflicts a decision bears.
    on_step: called with looked, read, folded, kept, appended, for tests.
    """

    def __init__(
        self,
        stream: Stream,
        projection: Projection[S],
        *,
        history: History | None = None,
        attempts_max: int = 20,
        on_step: Callable[[str], None] = lambda step: None,
    ) -> None:
        """Raises EntityUnfit where the key is not the subject, or the stream keeps no versions."""
        _check_fit(stream, projection)
        self.stream, self.projection = stream, projection
        self._given_history, self._attempts_max, self._on_step = history, attempts_max, on_step
        self._view = View(stream, projection)
        self._bare = _bare(projection)
        self._decode = msgspec.json.Decoder(cast("type[S]", projection.state)).decode

    def load(self, subject: str) -> Loaded[S]:
        """The entity as the log has it now. Raises EntityIncomplete, ArchiveNeeded, FoldFailed."""
        look = look_at(self.stream, self.projection, self._view.record().live, subject)
        self._on_step("looked")
        base = base_of(look, self.projection.fingerprint) if look.is_pure else None
        loaded = None if base is None else self._indexed(look, base)
        return loaded or self._scanned(look)

    def append(
        self, subject: str, events: Iterable[Event], *, after: Loaded[S] | None = None, ack: Ack | None = None
    ) -> list[Appended]:
        """Append the entity's events at the version that was loaded (default: the one it has now).

        Raises VersionConflict where somebody else was first, EntityUnfit for events of another subject or
        more than BATCH_MAX, and what Stream.append raises. Killed before the snapshot, all it costs is one
        longer read.
        """
        batch, loaded = list(events), after or self.load(subject)
        _check_batch(subject, batch)
        placed = self.stream.append(batch, expected={subject: loaded.version}, ack=ack)
        self._on_step("appended")
        if loaded.version + len(batch) - loaded.kept >= SNAPSHOT_EVERY:
            self.load(subject)
        return placed

    def decide(
        self, subject: str, decide: Callable[[Loaded[S]], Iterable[Event]], *, ack: Ack | None = None
    ) -> Decided[S]:
        """Append what `decide` makes of the entity; where somebody else was first, decide again on what is
        there then.

        Derive the events' IDs from what is decided, so that a decision whose outcome is unknown may be
        repeated. Raises EntityContended after attempts_max conflicts, and what ``append`` raises.
        """
        conflict: VersionConflict | None = None
        backoff = Backoff(PAUSE_FIRST_S, PAUSE_MAX_S)
        for attempt in range(1, self._attempts_max + 1):
            loaded = self.load(subject)
            events = list(decide(loaded))
            if not events:
                return Decided(loaded, [], attempt)
            try:
                return Decided(loaded, self.append(subject, events, after=loaded, ack=ack), attempt)
            except VersionConflict as error:
                conflict = error
            time.sleep(backoff.next_s())
        raise EntityContended(subject, self._attempts_max) from conflict

    def forget(self, subject: str) -> None:
        """Drop the entity's snapshot: it is a cache."""
        drop(self.stream, self.projection, subject)

    def _indexed(self, look: EntityLook, base: Base) -> Loaded[S] | None:
        """Fold on from the base what the index names; None where it does not name all."""
        fold, read = self._fold_of(look.subject, base.state), 0
        for start in range(base.version, look.version, PAGE):
            end = min(start + PAGE, look.version)
            positions = [place for place in look.places.between(start, end) if place is not None]
            if len(positions) < end - start:
                return None
            fold.step(fold.decode(self._entries(look.subject, positions)).events)
            self._on_step("folded")
            read += len(positions)
            if (end == look.version and read >= SNAPSHOT_EVERY) or read % (KEEP_PAGES * PAGE) == 0:
                self._keep(look.subject, Base(end, self._state_of(fold, look.subject)), positions[-1])
        kept = look.version if read >= SNAPSHOT_EVERY else base.version
        return self._loaded(look, self._state_of(fold, look.subject), read, kept)

    def _scanned(self, look: EntityLook) -> Loaded[S]:
        """The same where the index cannot be used: from the view's row, or from nothing, through all that
        follows in the partition.
        """
        is_ours = look.is_view_of(self.projection.fingerprint)
        fold, read = self._fold_of(look.subject, look.row if is_ours else b""), 0
        partition = self.stream.partition_of(look.subject)
        index = ServerIndex(self.stream, partition)
        for span in self._history.spans(partition, look.cursor if is_ours else "0-0", look.last):
            read += len(span.raw)
            raw = [entry for entry in span.raw if subject_of(entry[1]) == look.subject]
            batch = fold.decode(raw, span.duplicates)
            batch.judge(index)
            fold.step(batch.events)
        return self._loaded(look, self._state_of(fold, look.subject), read, look.version)

    @property
    def _history(self) -> History:
        if self._given_history is None:
            self._given_history = history_of(self.stream)
        return self._given_history

    def _fold_of(self, subject: str, state: bytes) -> MemoryView:
        fold = MemoryView(self._bare, self.stream.keys[self.stream.partition_of(subject)].where)
        fold.tables[self.projection.table] = {subject: state} if state else {}
        return fold

    def _state_of(self, fold: MemoryView, subject: str) -> bytes:
        state: bytes = fold.tables[self.projection.table].get(subject, b"")
        return state

    def _entries(self, subject: str, positions: list[str]) -> list[RawEntry]:
        """The events at these positions."""
        partition = self.stream.partition_of(subject)
        entries = self._history.entries(partition, positions)
        if missing := [position for position in positions if position not in entries]:
            raise EntityIncomplete(subject, self.stream.keys[partition].where, missing[0])
        self._on_step("read")
        return [entries[position] for position in positions]

    def _keep(self, subject: str, base: Base, position: str) -> None:
        keep(self.stream, self.projection, subject, base, position)
        self._on_step("kept")

    def _loaded(self, look: EntityLook, state: bytes, read: int, kept: int) -> Loaded[S]:
        opened = self._decode(self.stream.keyring.open_json(state)) if state else None
        return Loaded(look.subject, opened, look.version, read, kept)


def _check_fit(stream: Stream, projection: Projection[S]) -> None:
    """Raise EntityUnfit where the key is not the subject, or the stream keeps no versions."""
    projection.check()
    if type(projection).key is not Projection.key:
        raise EntityUnfit(
            f"{projection.name!r} has a key of its own, so its states are not entities: an event's "
            "subject is what has a version. Decide by a projection that keeps the default key."
        )
    if not stream.versioned:
        raise EntityUnfit(
            f"stream {stream.name!r} keeps no versions. Create it with versioned=True to decide on its "
            "entities."
        )


def _check_batch(subject: str, batch: list[Event]) -> None:
    """Raise EntityUnfit for what one append cannot vouch for."""
    if len(batch) > BATCH_MAX:
        raise EntityUnfit(
            f"a decision on {subject!r} has {len(batch)} events; {BATCH_MAX} is what one append can "
            "hold whole."
        )
    if others := sorted({event.subject for event in batch} - {subject}):
        raise EntityUnfit(
            f"a decision on {subject!r} has events of {others[0]!r}: only one entity's version can be "
            "vouched for."
        )
