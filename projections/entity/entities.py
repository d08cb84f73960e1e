"""
Decide on one entity: its state from the newest snapshot and the few events after it, and an append that
nobody else has forestalled.

    entities = Entities(stream, Jobs())                           a stream created versioned=True
    entities.decide("job-7", lambda job: [claimed(job.state)])    load -> decide -> append at that version; in
        a conflict, again

    one script: version, the view's row and cursor, the snapshot, the last places of the index
        -> whichever of row and snapshot is further -> read the events after it (log, then archive) -> fold ->
            a new snapshot, when due

Always true: the state is what the view's row for that key will be when its cursor has passed the same events.
A snapshot is a cache of
our own, kept only forward: dropping all of them changes nothing but what is read. One that another definition
folded is not looked at.

An entity that grows by decisions is read in pieces of up to SNAPSHOT_EVERY events, since an append that makes
the rest longer leaves a snapshot behind it. One that others fill and a consumer folds is read from the view's
cursor on. One with neither is read whole once, and leaves snapshots on its way.

Where anybody but append.lua has added to the log (a raw XADD), versions do not tell of all events, so neither
index nor snapshot is
used: the partition is read from the view's cursor on, or from its beginning. A process of another definition
replaces the snapshots, so during a rolling upgrade both read more.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar
from zlib import crc32

import msgspec

from aurastream.projections.engine import MemoryView, Projection, ProjectionError, ServerIndex, read_record
from aurastream.streams import (
    BATCH_MAX,
    CHUNK,
    PLACE_BYTES,
    Ack,
    Appended,
    Event,
    History,
    Places,
    RawEntry,
    Script,
    Stream,
    VersionConflict,
    as_pair,
    generation_group,
    pack_position,
    retried,
)
from aurastream.streams.archive import history_of

SNAPSHOT_EVERY = 100  # events folded after which a snapshot is kept
PAGE = 1_000  # events a read of a long entity
KEEP_PAGES = 10  # of those, after which a long read leaves a snapshot
TAIL_ROWS = 13  # rows of the index asked for along: nearly 200 events
PAUSE_MAX_S = 0.05  # between two tries at an entity that others decide on, too

_LOOK = Script(__file__, "entity.lua")
_KEEP = Script(__file__, "keep.lua")
S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")


class EntityUnfit(ProjectionError):
    """The projection, the stream or the events are not for deciding on entities."""


class EntityIncomplete(ProjectionError):
    """Events of the entity are neither in the log nor in the archive."""

    def __init__(self, subject: str, where: str, position: str) -> None:
        super().__init__(
            f"{subject!r} cannot be folded: its event at {where}/{position} is neither in the log nor in an "
            "archive. "
            "It was deleted by hand: restore the log from a copy."
        )
        self.subject, self.where, self.position = subject, where, position


class EntityContended(ProjectionError):
    """Others decided on the entity each time before this process could append."""

    def __init__(self, subject: str, attempts: int) -> None:
        super().__init__(
            f"{subject!r} changed {attempts} times between look and append: others decide on it all the "
            "time. Nothing was appended; "
            "decide again later, or let one process decide on it."
        )
        self.subject, self.attempts = subject, attempts


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
    """What was decided on, and where the events of the decision are; [] where there were none. attempts:
    conflicts and the last.
    """

    loaded: Loaded[S]
    appended: list[Appended]
    attempts: int


class _Snapshot(msgspec.Struct, frozen=True):
    """As it is stored; keep.lua reads the first two. crc32: of all before it, as nothing else would find a
    flipped bit in a state.
    """

    version: int
    fingerprint: str
    position: str
    state: msgspec.Raw
    crc32: int

    @property
    def checksum(self) -> int:
        """What crc32 must be."""
        return crc32(
            b"%d %b %b %b"
            % (self.version, self.fingerprint.encode(), self.position.encode(), bytes(self.state))
        )


class _Look(msgspec.Struct):
    """What entity.lua answers."""

    version: int
    is_pure: bool
    last: str
    cursor: str
    fingerprint: str
    row: bytes
    snapshot: bytes
    places: Places


class _Base(msgspec.Struct, frozen=True):
    """Where a fold begins: after so many events of the entity. state: JSON, "" for none."""

    version: int = 0
    state: bytes = b""


class Entities(Generic[S]):
    """Loads and decides on the entities of one stream by one projection's fold. Not for several threads.

    history: where events come from that were trimmed; default: the archive of the settings. attempts_max:
    conflicts a decision bears.
    on_step: told looked, read, folded, kept, appended, for tests.
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
        """Raises EntityUnfit where the projection's key is not the subject, or the stream keeps no versions."""
        projection.check()
        if type(projection).key is not Projection.key:
            raise EntityUnfit(
                f"{projection.name!r} has a key of its own, so its states are not entities: an event's "
                "subject is what has a version. "
                "Decide by a projection that keeps the default key."
            )
        if not stream.versioned:
            raise EntityUnfit(
                f"stream {stream.name!r} keeps no versions. Create it with versioned=True to decide on its "
                "entities."
            )
        self.stream, self.projection = stream, projection
        self._history, self._attempts_max, self._on_step = history, attempts_max, on_step
        self._bare = copy.copy(projection)  # states alone: what is declared over them is the view's
        self._bare.rankings, self._bare.totals, self._bare.rollups, self._bare.listings = (), (), (), ()
        self._decode = msgspec.json.Decoder(projection.state).decode

    def load(self, subject: str) -> Loaded[S]:
        """The entity as the log has it now. Raises EntityIncomplete, ArchiveNeeded, FoldFailed."""
        look = self._look(subject)
        self._on_step("looked")
        base = self._base(subject, look) if look.is_pure else None
        if base is None:
            return self._scanned(subject, look)
        state, read = base.state, 0
        folded = self._folder(subject, state)
        for start in range(base.version, look.version, PAGE):
            end = min(start + PAGE, look.version)
            positions = look.places.between(start, end)
            if None in positions:
                return self._scanned(subject, look)
            read += self._fold(subject, folded, [position for position in positions if position is not None])
            state = folded.tables[self.projection.table].get(subject, b"")
            if (end == look.version and read >= SNAPSHOT_EVERY) or read % (KEEP_PAGES * PAGE) == 0:
                self._keep(subject, _Base(end, state), str(positions[-1]))
        return self._loaded(
            subject, state, look.version, read, look.version if read >= SNAPSHOT_EVERY else base.version
        )

    def append(
        self, subject: str, events: Iterable[Event], *, after: Loaded[S] | None = None, ack: Ack | None = None
    ) -> list[Appended]:
        """Append the entity's events at the version that was loaded (default: the one it has now).

        Raises VersionConflict where somebody else was first, EntityUnfit for events of another subject or
        more than BATCH_MAX, and what Stream.append raises. Killed before the snapshot, all it costs is one
        longer read.
        """
        batch, loaded = list(events), after or self.load(subject)
        if len(batch) > BATCH_MAX:
            raise EntityUnfit(
                f"a decision on {subject!r} has {len(batch)} events; {BATCH_MAX} is what one append can "
                "hold whole."
            )
        if strangers := sorted({event.subject for event in batch} - {subject}):
            raise EntityUnfit(
                f"a decision on {subject!r} has events of {strangers[0]!r}: only one entity's version can "
                "be vouched for."
            )
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
        for attempt in range(1, self._attempts_max + 1):
            loaded = self.load(subject)
            events = list(decide(loaded))
            if not events:
                return Decided(loaded, [], attempt)
            try:
                return Decided(loaded, self.append(subject, events, after=loaded, ack=ack), attempt)
            except VersionConflict as error:
                conflict = error
            time.sleep(random.uniform(0, min(PAUSE_MAX_S, 0.001 * 2**attempt)))  # noqa: S311 - jitter, so that rivals do not return in step
        raise EntityContended(subject, self._attempts_max) from conflict

    def forget(self, subject: str) -> None:
        """Drop the entity's snapshot: it is a cache."""
        keys = self.stream.keys[self.stream.partition_of(subject)]
        self._ask(subject, ("HDEL", keys.snapshots(self.projection.name), subject))

    def _look(self, subject: str) -> _Look:
        keys, name = self.stream.keys[self.stream.partition_of(subject)], self.projection.name
        live = self._retried(subject, lambda: read_record(self.stream.server, self.stream.name, name).live)
        view = (keys.cursor(generation_group(name, live)), keys.view(name, live, self.projection.table))
        names = (keys.versions, keys.entities, *view, keys.snapshots(name), keys.log, keys.meta)
        answer = self._ask(subject, _LOOK.call(names, (subject, CHUNK, TAIL_ROWS)))
        version, is_pure, last, cursor, fingerprint, row, snapshot, first, *rows = answer
        places = Places(self.stream, subject, version, dict(enumerate(rows, start=first)))
        return _Look(
            version,
            bool(is_pure),
            last.decode(),
            cursor.decode(),
            fingerprint.decode(),
            row,
            snapshot,
            places,
        )

    def _base(self, subject: str, look: _Look) -> _Base | None:
        """The newest state there is; None where the index does not know all events after it."""
        base, kept = _Base(), _snapshot_of(look.snapshot)
        is_ours = (
            kept is not None
            and kept.fingerprint == self.projection.fingerprint
            and 0 < kept.version <= look.version
        )
        if (
            kept is not None
            and is_ours
            and look.places.between(kept.version - 1, kept.version) == [kept.position]
        ):
            base = _Base(kept.version, b"" if bytes(kept.state) == b"null" else bytes(kept.state))
        if not look.cursor or look.fingerprint != self.projection.fingerprint:
            return base
        cursor, seen = as_pair(look.cursor), look.version
        while seen > base.version:  # walk back to the last event that the view has folded
            start = max(base.version, seen - PAGE if seen < look.version else seen - CHUNK * (TAIL_ROWS - 1))
            positions = look.places.between(start, seen)
            if None in positions:
                return None
            later = [position for position in positions if as_pair(str(position)) > cursor]
            seen = start + len(positions) - len(later)
            if seen > start:
                return _Base(seen, look.row)
        return base

    def _folder(self, subject: str, state: bytes) -> MemoryView:
        folded = MemoryView(self._bare, self.stream.keys[self.stream.partition_of(subject)].where)
        folded.tables[self.projection.table] = {subject: state} if state else {}
        return folded

    def _fold(self, subject: str, folded: MemoryView, positions: list[str]) -> int:
        """Read the events at these positions and fold them on. Returns how many there are."""
        partition = self.stream.partition_of(subject)
        if self._history is None:
            self._history = history_of(self.stream)
        found = self._history.entries(partition, positions)
        missing = [position for position in positions if position not in found]
        if missing:
            raise EntityIncomplete(subject, self.stream.keys[partition].where, missing[0])
        self._on_step("read")
        folded.step(folded.decode([found[position] for position in positions]).events)
        self._on_step("folded")
        return len(positions)

    def _scanned(self, subject: str, look: _Look) -> Loaded[S]:
        """The same where the index cannot be used: from the view's row, or from nothing, through all that
        follows in the partition.
        """
        is_ours = bool(look.cursor) and look.fingerprint == self.projection.fingerprint
        folded, partition, read = (
            self._folder(subject, look.row if is_ours else b""),
            self.stream.partition_of(subject),
            0,
        )
        index, ids = ServerIndex(self.stream, partition), self.stream.keys[partition].ids
        if self._history is None:
            self._history = history_of(self.stream)
        for span in self._history.spans(partition, look.cursor if is_ours else "0-0", look.last):
            read += len(span.raw)
            batch = folded.decode([entry for entry in span.raw if _is_of(entry, subject)], span.duplicates)
            while not span.is_archived and batch.fields:
                strange = batch.strangers(self._ask(subject, ("HMGET", ids, *batch.fields)))
                if not strange:
                    break
                batch.resolve(strange, index)
            folded.step(batch.events)
        return self._loaded(
            subject, folded.tables[self.projection.table].get(subject, b""), look.version, read, look.version
        )

    def _keep(self, subject: str, base: _Base, position: str) -> None:
        keys, fingerprint = self.stream.keys[self.stream.partition_of(subject)], self.projection.fingerprint
        made = _Snapshot(base.version, fingerprint, position, msgspec.Raw(base.state or b"null"), 0)
        snapshot = msgspec.json.encode(msgspec.structs.replace(made, crc32=made.checksum))
        chunk, slot = divmod(base.version - 1, CHUNK)
        names = (keys.snapshots(self.projection.name), keys.versions, keys.entities)
        place = (f"{subject}|{chunk}", slot, pack_position(position.encode()), PLACE_BYTES)
        self._ask(subject, _KEEP.call(names, (subject, base.version, fingerprint, snapshot, *place)))
        self._on_step("kept")

    def _loaded(self, subject: str, state: bytes, version: int, read: int, kept: int) -> Loaded[S]:
        opened: Any = self._decode(self.stream.keyring.open_json(state)) if state else None
        return Loaded(subject, opened, version, read, kept)

    def _ask(self, subject: str, command: tuple[Any, ...]) -> Any:
        partition = self.stream.partition_of(subject)
        return self._retried(subject, lambda: self.stream.wire(partition).ask(command)[0])

    def _retried(self, subject: str, ask: Callable[[], T]) -> T:
        return retried(
            f"look at {subject} of {self.stream.name}",
            self.stream.settings.attempts_max,
            ask,
            self.stream.reconnect,
        )


def _snapshot_of(raw: bytes) -> _Snapshot | None:
    """None where there is none, where it is damaged, or another build's that this one cannot read: it is a
    cache.
    """
    try:
        found = msgspec.json.decode(raw, type=_Snapshot) if raw else None
        return found if found is not None and found.crc32 == found.checksum else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _is_of(entry: RawEntry, subject: str) -> bool:
    """Whether it may be an event of the subject; what cannot be read as one is none to any fold."""
    raw = dict(zip(entry[1][::2], entry[1][1::2], strict=False)).get(b"event", b"")
    try:
        return bool(msgspec.json.decode(raw, type=_Subject).subject == subject)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


class _Subject(msgspec.Struct, frozen=True):
    subject: str
