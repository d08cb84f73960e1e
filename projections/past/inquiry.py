"""
The question "why": which row of which view, as of now or of a past time.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from aurastream.projections.engine import AnyProjection, Table
from aurastream.projections.past.as_of import AsOf
from aurastream.streams import History, Stream


class Inquiry:
    """A row of a view. table: default the table of states; of a ranking it is the key's score.

    as_of: None for what the view says now. on_read: called with the number of entries read, a span at a time.
    """

    def __init__(
        self,
        history: History,
        projection: AnyProjection,
        key: str,
        table: str | None = None,
        as_of: AsOf | None = None,
    ) -> None:
        self.history, self.projection, self.key, self.as_of = history, projection, key, as_of
        self.table = table or projection.table
        self.on_read: Callable[[int], None] = lambda entries: None

    @property
    def stream(self) -> Stream:
        """Whose view it is."""
        return self.history.stream

    @property
    def declared(self) -> Table | None:
        """The table that is meant; None for the states. Raises ProjectionError for a name of none."""
        return None if self.table == self.projection.table else self.projection.declares(self.table)

    def is_in_time(self, position: str, occurred_at: datetime) -> bool:
        """Whether the event is part of the answer."""
        return self.as_of is None or self.as_of.has(position, occurred_at)
