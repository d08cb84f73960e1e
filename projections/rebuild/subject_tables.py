"""
Which tables of a view have rows of one key, and which rows those are.

    states      one row, by the key             rankings  one place in each, over all and in the key's part
    listings    the row under the key and its full rows, where the listing goes by the key
    totals, roll-ups, other listings            shared: they add up several keys
"""

from __future__ import annotations

from typing import Any

from aurastream.projections.engine import Projection


class SubjectTables:
    """The tables of one key. Names are as stored: with a part, and a ranking's ends apart."""

    def __init__(self, projection: Projection[Any], subject: str) -> None:
        self._projection, self._subject = projection, subject
        self._rankings = {spec.name for spec in projection.rankings}
        self._listings = {spec.name for spec in projection.listings}

    def is_ranking(self, name: str) -> bool:
        """Whether it is a ranking, or the ends of one."""
        return plain(name) in self._rankings

    def may_have_rows(self, name: str) -> bool:
        """Whether rows of the key can be in it."""
        declared = plain(name)
        is_state = declared == self._projection.table
        return is_state or declared in self._rankings or declared in self._listings

    def is_own(self, name: str, row: str) -> bool:
        """Whether the row is the key's."""
        return self.may_have_rows(name) and row.partition("|")[0] == self._subject

    def shared(self, own_listings: set[str]) -> list[str]:
        """Those that add up several keys. own_listings: those that have a row under the key."""
        projection = self._projection
        declared: list[Any] = [*projection.totals, *projection.rollups, *projection.listings]
        return [spec.name for spec in declared if spec.name not in own_listings]


def plain(name: str) -> str:
    """The declared name of a table: without a part, and of the table of ends the ranking's."""
    return name.partition(":")[0].removesuffix(".expiry")
