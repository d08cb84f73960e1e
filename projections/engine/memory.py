"""
A view in memory: the fold of a log without a server, for ``check``, for views as of a past time and for tests
of projections.

    view = MemoryView(Clips()); view.take(events); view.tables["clips"]["12766257"]

The tables hold what Redis would: JSON for rows, scores for rankings (by "name" or "name:part").
"""

from __future__ import annotations

from collections.abc import Container

from aurastream.projections.engine.fold import Fold, Placed
from aurastream.projections.engine.intake import Batch
from aurastream.projections.engine.projection import AnyProjection
from aurastream.projections.tables import Change, Due, FoldedEvent, Need, Stored
from aurastream.streams import Cursor, RawEntry, Span, drive

Tables = dict[str, dict[str, Stored]]  # table, or table:part -> row -> JSON or score


class MemoryView:
    """One partition's view by one projection."""

    def __init__(self, projection: AnyProjection, where: str = "memory") -> None:
        self.projection, self.where = projection, where
        self.cursor = Cursor()
        self.tables: Tables = {}
        self.dead: dict[str, str] = {}
        self._set_aside: Container[str] = ()
        self._fold = Fold(projection, where)
        self._codec = projection.codec()

    def restore(self, cursor: Cursor, tables: Tables, dead: dict[str, str]) -> None:
        """Go on from where another view of this projection was."""
        self.cursor, self.tables, self.dead = cursor, tables, dead
        self._fold.reset(cursor.watermark)

    def obeying(self, set_aside: Container[str]) -> MemoryView:
        """This one, to fold as the view was that lists these positions as set aside (definition.py)."""
        self._set_aside = set_aside
        return self

    def decode(self, raw: list[RawEntry], duplicates: frozenset[bytes] | None = None) -> Batch:
        """Raw entries as a batch, which the caller judges before ``fold``.

        duplicates: of archived entries, the positions that are; None where the index knows.
        """
        any_type = self.projection.events is None
        return Batch(Span(raw, duplicates), self._codec, self.where, any_type, self._set_aside)

    def fold(self, batch: Batch) -> list[Change]:
        """Fold a resolved batch and advance the cursor. Returns what was changed."""
        changes = self._store(batch.events)
        self.dead |= batch.dead
        self.cursor = batch.advance(self.cursor, self.projection.fingerprint, self._fold.watermark)
        return changes

    def take(self, events: list[FoldedEvent], first: int = 1) -> None:
        """Fold events as if they were entries number `first`, first + 1 .. of a log."""
        self.step([(f"{first + index}-0", event) for index, event in enumerate(events)])

    def step(self, events: list[Placed]) -> list[Change]:
        """Fold (position, event) pairs, leaving the cursor alone. Returns what was changed."""
        return self._store(events)

    def _store(self, events: list[Placed]) -> list[Change]:
        changes = drive(self._fold.batch(events), self._loaded)
        for change in changes:
            self._write(change)
        return changes

    def _loaded(self, need: Need) -> list[Stored]:
        held = self.tables.get(need.table, {})
        if isinstance(need, Due):
            return [member for member, end in held.items() if int(end) <= need.until]
        return [held.get(key) for key in need.keys]

    def _write(self, change: Change) -> None:
        table = self.tables.setdefault(
            change.table if change.part is None else f"{change.table}:{change.part}", {}
        )
        for key in change.drop:
            table.pop(key, None)
        table.update(change.put)
