"""
The lease of the one who archives a partition. It saves work and nothing more: archive.lua lets only one of
two move the slot.
"""

from __future__ import annotations

import time

from aurastream.streams import ArchiveRefused, Script, Stream, leases

GROUP = "archive"
LEASE_MS = 10_000  # longer than a segment takes
WAIT_MAX_S = LEASE_MS / 1000 + 2  # for the lease of an archiver that was killed

_LEASE = Script(leases.__file__, "lease.lua")


class ArchiveLease:
    """One partition's. worker: a name no other process has."""

    def __init__(self, stream: Stream, partition: int, worker: str) -> None:
        self._stream, self._partition, self._worker = stream, partition, worker

    def claim(self) -> None:
        """Take it; waits until that of one that was killed has ended.

        Raises ArchiveRefused where somebody keeps it.
        """
        end = time.monotonic() + WAIT_MAX_S
        while True:
            epoch, left_ms = self._ask("claim")
            if epoch:
                return
            if time.monotonic() > end:
                raise ArchiveRefused(
                    f"another process is archiving {self._stream.name}/{self._partition} at this moment. "
                    "Wait for it, or repeat the command."
                )
            time.sleep(min(0.2, max(0.01, left_ms / 1000)))

    def keep(self) -> None:
        """Renew it."""
        self._ask("keep")

    def release(self) -> None:
        """Give it back."""
        self._ask("release")

    def _ask(self, verb: str) -> tuple[int, int]:
        """Epoch, 0 where it is not ours, and the milliseconds left."""
        keys = self._stream.keys[self._partition]
        call = _LEASE.call((keys.lease(GROUP),), (self._worker, LEASE_MS, verb))
        what = f"the archive's lease of {self._stream.name}/{self._partition}"
        epoch, left_ms, _ = self._stream.ask(self._partition, call, what=what)[0][0]
        return int(epoch), int(left_ms)
