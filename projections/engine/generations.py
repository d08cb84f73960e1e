"""
Which generations a view has, and which of them is live.

    building --swap--> live --swap of the next, or rollback--> kept --its time is over--> retired
        \\------------------------- given up ------------------------------------------/
    kept --rollback--> live     retired --> cleared: nothing is left but the tombstone in its cursors

One field of the hash aura:views per view, ``stream/projection``; none means that the first generation is
live, as in a view that was never rebuilt. Always true: one generation is live, at most one is building, and
what was retired never comes back. A change is one compare-and-set of that field, so a swap is all partitions
or none, in a cluster too, whose slots no script can change together.

An event of a change is in the record until it is in the log (``outbox``), so that a process that dies between
the two loses nothing: the next one to look appends it, and its derived ID appends it once.

Decision (2026-11): compare-and-set by a script of three lines. Refused: WATCH, which needs a connection of
its own, two more round trips, and in redis-py's cluster client is not to be had over a key's own node; a
lock, which the dead would hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple

import msgspec

from aurastream.projections.engine.definition import is_same_definition, may_go_on
from aurastream.projections.engine.errors import RecordDamaged
from aurastream.projections.tables import ProjectionError
from aurastream.streams import (
    OPERATIONS,
    VIEWS,
    Ask,
    GenerationRetired,
    RebuildCompared,
    RebuildStarted,
    Script,
    Server,
    Stream,
    ViewRolledBack,
    ViewSwapped,
    generation_group,
    open_stream,
    retried,
    shortened,
)

CHANGES_MAX = 50  # tries of one compare-and-set: each lost one is somebody else's won one

_CHANGE = Script(__file__, "generations.lua")

Outgoing = RebuildStarted | RebuildCompared | ViewSwapped | ViewRolledBack | GenerationRetired


class State(StrEnum):
    """What a generation is."""

    BUILDING = "building"
    LIVE = "live"
    KEPT = "kept"
    RETIRED = "retired"


class Generation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One generation.

    fingerprint: of its definition, "" where nobody has asked yet; settings: JSON of those that are a part of
    it (recorded.py), "" for none, or where nobody said. by: who began to build it, builder: the
    process that last did, from ``since_ms``. compared_with: the live generation it was compared with, 0 for
    none yet; differing: the rows in which the two were not equal; is_accepted: a person wants it all the
    same. Times are the server's, in milliseconds since 1970; 0 is never.
    """

    number: int
    state: State
    fingerprint: str = ""
    by: str = ""
    builder: str = ""
    started_ms: int = 0
    since_ms: int = 0
    swapped_ms: int = 0
    kept_until_ms: int = 0
    compared_with: int = 0
    differing: int = 0
    is_accepted: bool = False
    settings: str = ""


class Record(msgspec.Struct, frozen=True):
    """All generations of one view, the cleared ones left out. last: the highest number there ever was.
    changes: swaps and rollbacks.
    """

    live: int = 1
    generations: tuple[Generation, ...] = (Generation(1, State.LIVE),)
    last: int = 1
    changes: int = 0
    outbox: tuple[Outgoing, ...] = ()

    def find(self, number: int) -> Generation | None:
        """The generation of that number, unless it was cleared."""
        return next((item for item in self.generations if item.number == number), None)

    def of(self, state: State) -> list[Generation]:
        """Those in a state, the newest first."""
        return sorted(
            (item for item in self.generations if item.state is state), key=lambda item: -item.number
        )

    @property
    def building(self) -> Generation | None:
        """The one that is being built."""
        return next(iter(self.of(State.BUILDING)), None)

    def may_swap(self, number: int) -> bool:
        """Whether the generation was found equal to the one that is live now, or accepted in its place."""
        item = self.find(number)
        return (
            item is not None and item.compared_with == self.live and (item.differing == 0 or item.is_accepted)
        )

    def followed(self, fingerprint: str) -> tuple[int, ...]:
        """Those a process with this definition keeps up: the live and the kept of the same definition. Where
        none is, the live one, whose applier then says by which definition it was folded.
        """
        held = [item for item in self.generations if item.state in (State.LIVE, State.KEPT)]
        own = [item.number for item in held if is_same_definition(item.fingerprint, fingerprint)]
        return tuple(own) or (self.live,)

    def runnable(self, fingerprint: str) -> tuple[int, ...]:
        """Those a host with this definition can run: the live and the kept that were folded by it."""
        held = [item for item in self.generations if item.state in (State.LIVE, State.KEPT)]
        return tuple(item.number for item in held if may_go_on(item.fingerprint, fingerprint))

    def due(self, now_ms: int) -> list[Generation]:
        """Those to retire now, and those whose retirement was cut off."""
        return [
            *self.of(State.RETIRED),
            *(item for item in self.of(State.KEPT) if item.kept_until_ms <= now_ms),
        ]


class Start(NamedTuple):
    """Who begins to build, or goes on. by: the person. builder: the process. at_ms: server time. settings: of
    the definition.
    """

    by: str
    builder: str
    at_ms: int
    settings: str = ""


def begun(record: Record, held: str, own: str, start: Start) -> Record:
    """A new generation is being built, or this process goes on with the one that is. held: the live one's
    fingerprint, "" for a view that does not exist; own: of the definition it is built by.
    """
    going = record.building
    if going is not None:
        return _with(record, msgspec.structs.replace(going, builder=start.builder, since_ms=start.at_ms))
    number = record.last + 1
    known = tuple(
        msgspec.structs.replace(item, fingerprint=item.fingerprint or held)
        if item.number == record.live
        else item
        for item in record.generations
    )
    new = Generation(
        number,
        State.BUILDING,
        own,
        start.by,
        start.builder,
        start.at_ms,
        start.at_ms,
        settings=start.settings,
    )
    return msgspec.structs.replace(record, generations=(*known, new), last=number)


def defined(record: Record, held: str, settings: str = "") -> Record:
    """The live generation is of this definition; nothing changes where it has one that stands. settings:
    "" as they are, where the definition is the same.
    """
    live = record.find(record.live)
    if live is None:
        return record
    kept = live.settings if is_same_definition(live.fingerprint, held.partition(".")[0]) else ""
    return _with(record, msgspec.structs.replace(live, fingerprint=held, settings=settings or kept))


def compared(record: Record, number: int, differing: int, is_accepted: bool) -> Record:
    """The generation being built was compared with the live one. Raises ProjectionError where it is not being
    built.
    """
    item = record.find(number)
    if item is None or item.state is not State.BUILDING:
        raise ProjectionError(
            f"generation {number} is not being built any more. Look at `aurastream status`."
        )
    noted = msgspec.structs.replace(
        item, compared_with=record.live, differing=differing, is_accepted=is_accepted
    )
    return _with(record, noted)


def swapped(record: Record, number: int, now_ms: int, keep_ms: int) -> Record:
    """The generation is live from now on; the one before is kept for keep_ms, or retired where that is <= 0.

    Nothing changes where it is live already. Raises ProjectionError when it is neither building nor kept.
    """
    if record.live == number:
        return record
    new, old = record.find(number), record.find(record.live)
    if new is None or old is None or new.state not in (State.BUILDING, State.KEPT):
        raise _unfit_to_live(number, new)
    left = State.KEPT if keep_ms > 0 else State.RETIRED
    old = msgspec.structs.replace(old, state=left, kept_until_ms=now_ms + max(0, keep_ms))
    new = msgspec.structs.replace(new, state=State.LIVE, swapped_ms=now_ms, kept_until_ms=0)
    changed = _with(_with(record, old), new)
    return msgspec.structs.replace(changed, live=number, changes=record.changes + 1)


def _unfit_to_live(number: int, item: Generation | None) -> ProjectionError:
    is_what = "gone" if item is None else item.state.value
    return ProjectionError(
        f"generation {number} cannot become the live one: it is {is_what}. Look at `aurastream status`."
    )


def retired(record: Record, number: int) -> Record:
    """The generation is given up, for good, unless it was before. Raises ProjectionError for the live one."""
    item = record.find(number)
    if item is None or item.state is State.RETIRED:
        return record
    if item.state is State.LIVE:
        raise ProjectionError(
            f"generation {number} is the live one and cannot be retired. Make another one live first."
        )
    return _with(record, msgspec.structs.replace(item, state=State.RETIRED))


def cleared(record: Record, number: int) -> Record:
    """Nothing is left of the retired generation but its tombstone."""
    left = tuple(item for item in record.generations if item.number != number)
    return msgspec.structs.replace(record, generations=left)


def announcing(record: Record, event: Outgoing) -> Record:
    """The same with an event to append; one that waits already is not added again."""
    if any(event.event_id == waiting.event_id for waiting in record.outbox):
        return record
    return msgspec.structs.replace(record, outbox=(*record.outbox, event))


def announced(record: Record, event_ids: Iterable[str]) -> Record:
    """The events of these IDs are in the log."""
    appended = set(event_ids)
    return msgspec.structs.replace(
        record, outbox=tuple(event for event in record.outbox if event.event_id not in appended)
    )


def _with(record: Record, changed: Generation) -> Record:
    items = tuple(changed if item.number == changed.number else item for item in record.generations)
    return msgspec.structs.replace(record, generations=items)


_decode = msgspec.json.Decoder(Record).decode
NEVER_REBUILT = Record()


def field_of(stream: str, projection: str) -> str:
    """The view's field in the hash."""
    return f"{stream}/{projection}"


def record_of(raw: bytes | None, field: str = "") -> Record:
    """From the field's value; none is a view that was never rebuilt. Raises RecordDamaged where it cannot be
    one of ours.
    """
    if raw is None:
        return NEVER_REBUILT
    try:
        record = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        record = _with_words_bounded(raw, field, error)
    if [item.number for item in record.generations if item.state is State.LIVE] != [record.live]:
        raise RecordDamaged(
            field, f"it says that generation {record.live} is live, and does not have it as that"
        )
    return record


def _with_words_bounded(raw: bytes, field: str, error: Exception) -> Record:
    """The record, where nothing is wrong with it but that an earlier build let a person's words into an event
    that waits in it which no event can hold: without the rest of them. Raises RecordDamaged.
    """
    try:
        plain = msgspec.json.decode(raw)
        for event in plain["outbox"]:
            event |= {name: shortened(text) for name, text in event.items() if isinstance(text, str)}
        return _decode(msgspec.json.encode(plain))
    except (msgspec.MsgspecError, UnicodeError, LookupError, TypeError, AttributeError):
        raise RecordDamaged(field, str(error)) from error


def pointer(stream: str, projection: str) -> tuple[str, ...]:
    """The command that reads the record."""
    return ("HGET", VIEWS, field_of(stream, projection))


def read_record(server: Server, stream: str, projection: str) -> Record:
    """The view's generations as they are now."""
    raw: bytes | None = server.client.hget(VIEWS, field_of(stream, projection))  # type: ignore[assignment]
    return record_of(raw, field_of(stream, projection))


def read_records(server: Server) -> dict[str, Record]:
    """Of every view that was ever rebuilt: field -> record."""
    rows: dict[bytes, bytes] = server.client.hgetall(VIEWS)  # type: ignore[assignment]
    return {
        name.decode(errors="backslashreplace"): record_of(raw, name.decode(errors="backslashreplace"))
        for name, raw in rows.items()
    }


def change(server: Server, stream: str, projection: str, transition: Callable[[Record], Record]) -> Record:
    """Bring the record through a transition, on whatever it is by then. Returns the new one; a transition may
    raise to refuse.

    Idempotent where the transition is: after a lost answer it is tried on its own result.
    """
    field = field_of(stream, projection)

    def once() -> Record | None:
        raw: bytes | None = server.client.hget(VIEWS, field)  # type: ignore[assignment]
        before = record_of(raw, field)
        after = transition(before)
        if after == before:
            return after
        return (
            after if server.run(_CHANGE, (VIEWS,), (field, raw or b"", msgspec.json.encode(after))) else None
        )

    for _ in range(CHANGES_MAX):
        done = retried(f"change of the generations of {field}", 8, once, server.refresh)
        if done is not None:
            return done
    raise ProjectionError(
        f"the generations of {field} were changed by others {CHANGES_MAX} times in a row. Try again."
    )


def claim_definition(stream: Stream, projection: str, fingerprint: str, settings: str = "") -> Record:
    """The record, with the definition of the live generation in it: that of its cursors, and where nothing
    was folded yet, this one. settings: of this definition, recorded where it is the one.

    Before anybody commits to a fresh view, so that of hosts with unlike versions one definition is for all
    from the first event on. A definition by which nothing was folded gives way to whoever asks.
    """
    record = read_record(stream.server, stream.name, projection)
    live = record.find(record.live)
    if live is not None and may_go_on(live.fingerprint, fingerprint) and live.settings == settings:
        return record
    group = generation_group(projection, record.live)
    cursors = [Ask(keys.log, ("HGET", keys.cursor(group), "fingerprint")) for keys in stream.keys]
    rows = stream.wires.ask(cursors, f"the definition of {group} in {stream.name}")
    folded = next((row.decode() for row in rows if row), fingerprint)
    recorded = settings if may_go_on(folded, fingerprint) else ""
    return change(
        stream.server,
        stream.name,
        projection,
        # as it was seen; otherwise somebody else was faster, and theirs stands
        lambda held: defined(held, folded, recorded) if held == record else held,
    )


def announce(stream: Stream, projection: str) -> int:
    """Append the events that wait in the record. Returns how many there were."""
    waiting = read_record(stream.server, stream.name, projection).outbox
    if waiting:
        operations = open_stream(stream.server, OPERATIONS, settings=stream.settings, create=True)
        try:
            operations.append(waiting)
        finally:
            operations.close()
        ids = [event.event_id for event in waiting]
        change(stream.server, stream.name, projection, lambda record: announced(record, ids))
    return len(waiting)


def now_ms(server: Server) -> int:
    """The server's clock."""
    seconds, microseconds = server.client.time()
    return int(seconds) * 1000 + int(microseconds) // 1000
