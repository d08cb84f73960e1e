"""Hosts as their leases make them: they live while they tick."""

from __future__ import annotations

from aurastream.streams import Claim, Leases, Server, Stream, Wires, drive
from tests.facts import observation

LEASE_MS = 1_500


class Crew:
    """Hosts of one stream of two partitions."""

    def __init__(self, server: Server, stream: str) -> None:
        self._wires, self._stream = Wires(server), stream

    def host(self, name: str, *groups: str, lease_ms: int = LEASE_MS) -> Leases:
        """One that can run these groups."""
        leases = Leases(f"{name}-1-00000000", lease_ms)
        self.tick(leases, *groups)
        return leases

    def tick(self, leases: Leases, *groups: str) -> None:
        """It lives, and takes its share."""
        claims = [Claim(group, self._stream, number) for group in groups for number in range(2)]
        drive(leases.tick(claims), self._wires.ask)

    def leave(self, leases: Leases) -> None:
        """It ends well."""
        drive(leases.leave(), self._wires.ask)

    def close(self) -> None:
        self._wires.close()


def append(stream: Stream, first: int, count: int) -> None:
    stream.append([observation(views=n, minute=n, clip=f"clip-{n}") for n in range(first, first + count)])
