"""
A view in memory: the fold of a log without a server, for ``check`` and for tests of projections.

    view = MemoryView(Clips()); view.take(events); view.tables["clips"]["12766257"]

The tables hold what Redis would: JSON for rows, scores for rankings (by "name" or "name:part").
"""

from __future__ import annotations

from typing import Any

from aurastream.projections.fold import Change, Expired, Fold
from aurastream.projections.intake import Batch
from aurastream.projections.projection import Projection
from aurastream.streams.codec import RawEntry
from aurastream.streams.groups import Cursor


class MemoryView:
    """One partition's view by one projection."""

    def __init__(self, projection: Projection[Any], where: str = "memory") -> None:
        self.projection, self.where = projection, where
        self.cursor = Cursor()
        self.tables: dict[str, dict[str, Any]] = {}
        self.dead: dict[str, str] = {}
        self._fold = Fold(projection, where)
        self._codec = projection.codec()

    def decode(self, raw: list[RawEntry]) -> Batch:
        """Raw entries as a batch, whose odd events the caller resolves before ``fold``."""
        return Batch(raw, self._codec, self.where, self.projection.events is None)

    def fold(self, batch: Batch) -> None:
        """Fold a resolved batch and advance the cursor."""
        self._store(batch.events)
        self.dead |= batch.dead
        self.cursor = batch.advance(self.cursor, self.projection.fingerprint, self._fold.watermark)

    def take(self, events: list[Any], first: int = 1) -> None:
        """Fold events as if they were entries number `first`, first + 1 .. of a log."""
        self._store([(f"{first + index}-0", event) for index, event in enumerate(events)])

    def _store(self, events: list[tuple[str, Any]]) -> None:
        steps = self._fold.batch(events)
        answer: Any = None
        try:
            while True:
                need = steps.send(answer)
                if isinstance(need, Expired):
                    held = self.tables.get(f"{need.ranking}.expiry", {})
                    answer = [member for member, end in held.items() if int(end) <= need.until]
                else:
                    answer = {table: [self.tables.get(table, {}).get(key) for key in keys] for table, keys in need.items()}
        except StopIteration as finished:
            for change in finished.value:
                self._write(change)

    def _write(self, change: Change) -> None:
        table = self.tables.setdefault(change.table if change.part is None else f"{change.table}:{change.part}", {})
        for key in change.drop:
            table.pop(key, None)
        table.update(change.put)
