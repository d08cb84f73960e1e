"""
One rebuild at a time: a lease on every partition of the generation being built, renewed while the process
lives.

    claim every partition -> a thread renews them -> release      who died on this machine is waited out

Two processes that both believe to build are kept apart by the epoch in every commit (commit.lua), not by
their clocks: who was stopped past its lease is refused when it wakes. What a rebuild commits, and where it
goes on, is the cursor's to say.
"""

from __future__ import annotations

import os
import threading
import time

from aurastream.projections.engine import Fenced
from aurastream.streams import LEASE_MS, Stream, ask_lease, generation_group, host_name, is_passing, retried

STOP_S = 5.0
ATTEMPTS_MAX = 3  # times a lease is asked for; the thread then asks again with the next period


class Held(Exception):
    """Another process holds the lease of a partition. left_ms: until it lapses, unless it is renewed."""

    def __init__(self, owner: str, left_ms: int) -> None:
        super().__init__(owner)
        self.owner, self.left_ms = owner, left_ms


class RebuildLease:
    """The leases of one generation, all partitions. ``own``, then ``release``; in between a thread renews
    them.

    epochs: partition -> epoch to commit under. is_lost: somebody else claimed one, so that nothing we commit
    is accepted any more.
    """

    def __init__(
        self, stream: Stream, projection: str, generation: int, host: str, lease_ms: int = LEASE_MS
    ) -> None:
        self.host, self.lease_ms = host, lease_ms
        self.epochs: dict[int, int] = {}
        self.is_lost = False
        self._stream, self._group = stream, generation_group(projection, generation)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease of {self._group}", daemon=True)

    def own(self) -> None:
        """Claim, and wait for the lease of a process of this machine that is dead to lapse. Raises Held."""
        try:
            self.claim()
        except Held as held:
            if not is_dead(held.owner):
                raise
            time.sleep(held.left_ms / 1000 + 0.05)
            self.claim()  # one that somebody renewed meanwhile is held still: then the process lives

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
            except Exception as error:
                if not is_passing(error):
                    self.is_lost = True
                    raise
                # a server that is away keeps the lease as it was, and the epoch decides

    def _ask(self, partition: int, verb: str) -> tuple[int, int, str]:
        """Over the client, which may be used by several threads, as the stream's own connections may not."""
        server, what = self._stream.server, f"lease of {self._group}"
        lease = (self._stream.keys[partition].lease(self._group), self.host, self.lease_ms, verb)
        return retried(what, ATTEMPTS_MAX, lambda: ask_lease(server, *lease), server.refresh)


def is_dead(name: str) -> bool:
    """Whether the process a host is named for (machine-pid-random) was one of ours, and is no more."""
    machine, _, pid = name.rpartition("-")[0].rpartition("-")
    if machine != host_name().rpartition("-")[0].rpartition("-")[0] or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # somebody else's, and alive
    return False
