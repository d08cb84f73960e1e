"""A clip's state: what its observations have said so far, and the pairs that velocities are of."""

from __future__ import annotations

from datetime import datetime

import msgspec

from aurastream.streams import MICROSECOND

HOUR_US = 3_600_000_000


class Pair(msgspec.Struct, frozen=True):
    """Two neighbouring observations: delta views in elapsed_us microseconds, from start to end."""

    delta: int
    elapsed_us: int
    start: datetime
    end: datetime

    @property
    def velocity_per_hour(self) -> float:
        """Views per hour, 0.0 for a fall."""
        return max(0, self.delta) * HOUR_US / self.elapsed_us


# The velocity of a clip that was seen once. A row leaves it out where it is this very object (msgspec
# compares floats by identity), so who has no velocity to give passes it: another 0.0 would be another row.
AT_REST = 0.0


class Clip(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A clip so far. views is its running total at last_at; gained and lost sum the rises and falls between
    observations.

    age_from: publication, or the first observation. observations: those that counted; ties and late did not.
    pairs_60,
    pairs_180: pairs of at least 60 and 180 views/hour. delta, elapsed_us, last_velocity: of the last pair;
    max_..: of the fastest, which ended at max_at; views/hour, a fall is 0. velocity: the platform's,
    views/minute, at last_at;
    viral_velocity: the same while viral. day_.., hour_..: what the observations of the last day and hour
    added.
    """

    views: int
    first_at: datetime
    last_at: datetime
    age_from: datetime
    day: str
    hour: str
    category: str = ""
    title: str = ""
    channel: str = ""
    observations: int = 1
    ties: int = 0
    late: int = 0
    gained: int = 0
    lost: int = 0
    rises: int = 0
    falls: int = 0
    pairs_60: int = 0
    pairs_180: int = 0
    delta: int = 0
    elapsed_us: int = 0
    last_velocity: float | None = None
    max_delta: int = 0
    max_elapsed_us: int = 0
    max_at: datetime | None = None
    max_velocity: float | None = None
    velocity: float = AT_REST
    viral_velocity: float | None = None
    day_rows: int = 1
    day_observations: int = 1
    day_gained: int = 0
    day_falls: int = 0
    day_viral: int = 0
    day_elapsed_us: int = 0
    hour_observations: int = 1
    hour_gained: int = 0
    hour_viral: int = 0

    @property
    def is_viral(self) -> bool:
        """Whether it was viral at its last observation."""
        return self.viral_velocity is not None

    @property
    def last(self) -> Pair | None:
        """The last pair; None while seen once."""
        if not self.elapsed_us:
            return None
        return Pair(self.delta, self.elapsed_us, self.last_at - self.elapsed_us * MICROSECOND, self.last_at)

    @property
    def fastest(self) -> Pair | None:
        """The fastest pair, the earliest of equals; None while seen once."""
        if self.max_at is None:
            return None
        return Pair(
            self.max_delta, self.max_elapsed_us, self.max_at - self.max_elapsed_us * MICROSECOND, self.max_at
        )
