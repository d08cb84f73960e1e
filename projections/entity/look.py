"""
What is known of one entity at one instant, and where its fold begins.

    entity.lua: version, the view's row and cursor, the snapshot, the last places of the index -> EntityLook
    whichever of row and snapshot is further -> Base

The index of entities says which event made a version, and so whether a snapshot is of this history, and how
many events of the entity the view's cursor has passed.
"""

from __future__ import annotations

import msgspec

from aurastream.projections.engine import AnyProjection, by_todays_rules, has_all
from aurastream.projections.entity.snapshots import Base, snapshot_of
from aurastream.streams import CHUNK, Places, Position, Script, Stream, generation_group

PAGE = 1_000  # events a read of a long entity
TAIL_ROWS = 13  # rows of the index that come with a look: nearly 200 events

_LOOK = Script(__file__, "entity.lua")


class _LookHead(msgspec.Struct):
    """What entity.lua takes first."""

    subject: str
    row_places: int = CHUNK
    rows_max: int = TAIL_ROWS


class EntityLook(msgspec.Struct):
    """One entity at one instant. cursor, fingerprint, dead, row: the view's. last: the log's last position.

    is_pure: append.lua made every entry of the log, so that versions and index tell of all events.
    """

    subject: str
    version: int
    is_pure: bool
    last: str
    cursor: str
    fingerprint: str
    dead: int
    row: bytes
    snapshot: bytes
    places: Places

    def is_view_of(self, fingerprint: str) -> bool:
        """Whether there is a view, folded by that definition, and it has all that today's rules read."""
        return bool(self.cursor) and has_all(self.fingerprint, self.dead, fingerprint)


def look_at(stream: Stream, projection: AnyProjection, generation: int, subject: str) -> EntityLook:
    """One look, by one script call. generation: the live one."""
    partition, name = stream.partition_of(subject), projection.name
    keys = stream.keys[partition]
    view = (keys.cursor(generation_group(name, generation)), keys.view(name, generation, projection.table))
    names = (keys.versions, keys.entities, *view, keys.snapshots(name), keys.log, keys.meta)
    command = _LOOK.call(names, (msgspec.msgpack.encode(_LookHead(subject)),))
    answer = stream.ask(partition, command, what=f"look at {subject} of {stream.name}")[0]
    version, is_pure, *texts, row, snapshot, first = answer[:9]
    last, cursor, fingerprint, dead = (text.decode() for text in texts)
    places = Places(stream, subject, version, dict(enumerate(answer[9:], start=first)))
    return EntityLook(
        subject, version, bool(is_pure), last, cursor, fingerprint, int(dead), row, snapshot, places
    )


def base_of(look: EntityLook, fingerprint: str) -> Base | None:
    """The newest state there is of the definition; None where the index does not know all events after it."""
    base = _of_snapshot(look, fingerprint)
    return _of_view(look, base) if look.is_view_of(fingerprint) else base


def _of_snapshot(look: EntityLook, fingerprint: str) -> Base:
    """The snapshot, where it is of this definition and this history; else nothing."""
    kept = snapshot_of(look.snapshot)
    if (
        kept is None
        or kept.fingerprint != by_todays_rules(fingerprint)
        or not 0 < kept.version <= look.version
    ):
        return Base()
    if look.places.between(kept.version - 1, kept.version) != [kept.position]:
        return Base()
    state = bytes(kept.state)
    return Base(kept.version, b"" if state == b"null" else state)


def _of_view(look: EntityLook, base: Base) -> Base | None:
    """The view's row, where it is further: walks back through the index to the last event that the view has
    folded.
    """
    cursor, seen = Position.parse(look.cursor), look.version
    while seen > base.version:
        count = PAGE if seen < look.version else CHUNK * (TAIL_ROWS - 1)
        start = max(base.version, seen - count)
        positions = look.places.between(start, seen)
        if None in positions:
            return None
        passed = [position for position in positions if position and Position.parse(position) <= cursor]
        if passed:
            return Base(start + len(passed), look.row)
        seen = start
    return base
