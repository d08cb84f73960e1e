"""
One rebuild at a time: a lease on every partition of the generation being built, renewed while the process
lives.

Two processes that both believe to build are kept apart by the epoch in every commit (commit.lua), not by
their clocks: who was stopped past its lease is refused when it wakes. What a rebuild commits, and where it
goes on, is the cursor's to say.
"""

from __future__ import annotations

import threading
import time

from aurastream.projections.engine import Fenced
from aurastream.streams import LEASE_MS, Stream, ask_lease, generation_group, is_passing, retried

STOP_S = 5.0


class Held(Exception):
    """Another process holds the lease of a partition. left_ms: until it lapses, unless it is renewed."""

    def __init__(self, owner: str, left_ms: int) -> None:
        super().__init__(owner)
        self.owner, self.left_ms = owner, left_ms


class RebuildLease:
    """The leases of one generation, all partitions. ``claim``, then ``release``; in between a thread renews
    them.

    epochs: partition -> epoch to commit under. is_lost: somebody else claimed one, so that nothing we commit
        is accepted any more.
    """

    def __init__(
        self, stream: Stream, projection: str, generation: int, worker: str, lease_ms: int = LEASE_MS
    ) -> None:
        self.worker, self.lease_ms = worker, lease_ms
        self.epochs: dict[int, int] = {}
        self.is_lost = False
        self._stream, self._group = stream, generation_group(projection, generation)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease of {self._group}", daemon=True)

    def claim(self) -> None:
        """Own every partition. Raises Held where somebody does, and gives back what was claimed by then."""
        for keys in self._stream.keys:
            epoch, left_ms, owner = self._ask(keys.partition, "claim")
            if not epoch:
                self._give_back()
                raise Held(owner, left_ms)
            self.epochs[keys.partition] = epoch
        self._thread.start()

    def check(self) -> None:
        """Raise Fenced when somebody else owns a partition."""
        if self.is_lost:
            raise Fenced(f"{self._group} of {self._stream.name}: another process took the rebuild over")

    def release(self) -> None:
        """Give everything back."""
        self._ends.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)
        self._give_back()

    def _give_back(self) -> None:
        for partition in list(self.epochs):
            self._ask(partition, "release")
        self.epochs = {}

    def _renew(self) -> None:
        while not self._ends.wait(self.lease_ms / 5_000):
            try:
                for partition, epoch in list(self.epochs.items()):
                    if self._ask(partition, "keep")[0] != epoch:
                        self.is_lost = True
                        return
            except (
                Exception
            ) as error:  # a server that is away: it keeps the lease as it was, and the epoch decides
                if not is_passing(error):
                    self.is_lost = True
                    raise

    def _ask(self, partition: int, verb: str) -> tuple[int, int, str]:
        """Over the client, which may be used by several threads."""
        server, keys = self._stream.server, self._stream.keys[partition]

        def ask() -> tuple[int, int, str]:
            return ask_lease(server, keys, self._group, self.worker, self.lease_ms, verb)

        return retried(f"lease of {self._group}", 3, ask, server.refresh)


def lapsed(lease: RebuildLease, held: Held) -> bool:
    """Wait for the lease of a process that is dead to lapse, which it does in left_ms, and claim. Returns
    whether we own it now.

    A lease that somebody renews meanwhile is never ours: then the process lives.
    """
    time.sleep(held.left_ms / 1000 + 0.05)
    try:
        lease.claim()
    except Held:
        return False
    return True
