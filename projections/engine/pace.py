"""
How many entries a lane's next read asks for. Pure: no clock, no I/O.

    ask() -> a read -> has_read(entries, bytes) -> was there as much as asked for? Then the lane is behind
                    -> ask four times as many next, up to
        entries_max        16,000: what one commit.lua takes in its stride
        bytes              of the entries: a lane's own bound, and its share of the process's (Room)
        commit_s           that a commit may hold the server, by what the last ones took an entry
    a commit of a lane that is behind is timed by the server -> has_committed(entries, seconds)

A lane that keeps up reads what there is, at most ENTRIES_FIRST when it began: nothing waits for a batch to
fill, so append-to-visible is as it was.

Decision (2026-11): the batch grows with the lag, as several looks at one clip become one write and the commit
has a fixed cost. Measured, 10,000 clips, a backlog of 100,000, us per event of client and server: batches of
2,000: Pulse 14.5 (server 4.3), Clips 28.5 (6.5); of 8,000: 9.2 (2.1) and 20.6 (3.4); of 16,000: 8.1 (1.5) and
17.9 (2.7). Time is the server's own: the script says when it began and TIME behind it when it was over, as a
round trip, seen from a loop that folds for other lanes meanwhile, is mostly the fold. Refused: batches of
16,000 from the start, which would hold the server for as long as a rich view takes and know nothing of the
size of an entry; a bound for each lane alone, by which 600 lanes that fell behind hold 600 large batches.
"""

from __future__ import annotations

from collections import deque
from weakref import WeakSet

ENTRIES_FIRST = 1_000  # of a lane that knows nothing yet: at most 256 MB, as an event has at most 256 kB
ENTRIES_MAX = 16_000
GROWTH = 4
COSTS = 32  # commits of a view whose cost is remembered; the least counts: a neighbour makes one look dear
ROUNDING = 1e-6
LANE_BYTES = 8 * 2**20  # of JSON: 16,000 entries of 500 bytes; in Python about seven times as much
PROCESS_BYTES = 32 * 2**20


class Room:
    """What the lanes of a process share: the bytes that those which are behind may hold, and what an entry of
    a view costs the server.
    """

    def __init__(self, bytes_max: int = PROCESS_BYTES) -> None:
        self._bytes_max = bytes_max
        self.behind: WeakSet[LanePace] = WeakSet()  # a lane that is dropped is behind no longer
        self._costs_s: dict[str, deque[float]] = {}  # of an entry, by view

    def share(self) -> int:
        """Bytes for each."""
        return self._bytes_max // max(1, len(self.behind))

    def costs_s(self, view: str) -> deque[float]:
        """Seconds an entry took in the view's last commits."""
        return self._costs_s.setdefault(view, deque(maxlen=COSTS))


ROOM = Room()  # the process's


class LanePace:
    """One lane's. commit_s: how long a commit may hold the server. view: whose commits cost alike."""

    def __init__(self, entries_max: int, commit_s: float, view: str, room: Room = ROOM) -> None:
        self.entries_max, self._commit_s, self._room = entries_max, commit_s, room
        self._grown = min(ENTRIES_FIRST, entries_max)
        self._asked = 0
        self._mean_bytes = 0.0
        self._costs_s = room.costs_s(view)

    def ask(self) -> int:
        """How many entries to read now."""
        most = float(self._grown)
        if self._mean_bytes:
            most = min(most, min(LANE_BYTES, self._room.share()) / self._mean_bytes)
        if cost_s := min(self._costs_s, default=0.0):
            most = min(most, self._commit_s / cost_s)
        self._asked = max(1, int(most + ROUNDING))
        return self._asked

    def has_read(self, entries: int, size: int) -> bool:
        """So many entries came, of so many bytes. Whether the lane is behind: its commit is worth timing."""
        mean = size / max(1, entries)
        self._mean_bytes = max(mean, (self._mean_bytes + mean) / 2)  # larger at once, smaller by and by
        if entries < self._asked:
            self.rest()
            return False
        self._room.behind.add(self)
        self._grown = min(self.entries_max, max(self._grown, entries * GROWTH))
        return True

    def has_committed(self, entries: int, seconds: float) -> None:
        """A commit of so many entries held the server for so long."""
        self._costs_s.append(seconds / max(1, entries))

    def rest(self) -> None:
        """The lane is not behind."""
        self._room.behind.discard(self)
