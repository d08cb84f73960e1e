"""
Ownership for a Faust consumer: streams/keeper.py keeps the leases, the consumer hears what came and what must
go.

    tick -> lost    gone at once: somebody else owns it, or may
         -> surplus given back when its work under way is done, while everything else goes on
         -> new     taken over from the group's cursor

Always true: leases are renewed from a thread of their own, so neither the work of a partition nor an agent
that blocks the loop costs one, unless the loop shows no life for LOOP_PATIENCE_S; a claim is
released only after the consumer has let it go; when the worker stops, nothing new is claimed and what is held
stays renewed until its work is done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from aurastream.streams import Claim, HostCard, LeaseKeeper, Leases, Logger, Server, aside

LOOP_PATIENCE_S = 30.0  # how long the app's loop may show no life before its leases are given up
BEAT_S = 0.2
LEAVE_S = 5.0  # for giving the leases back, whatever the server does

log = Logger(__name__)


class Owner(Protocol):
    """What the consumer does for the coordinator."""

    async def take(self, claims: dict[Claim, int]) -> None:
        """These are ours under these epochs: begin. The first call may be of none."""
        ...

    async def give(self, claims: set[Claim]) -> None:
        """Finish what is under way of these and let them go."""
        ...

    async def lose(self, claims: set[Claim]) -> None:
        """These belong to others: drop them."""
        ...


class Coordinator:
    """One worker's part in a group. claims: everything there is to own, asked from the keeper's thread."""

    def __init__(
        self,
        server: Server,
        owner: Owner,
        claims: Callable[[], list[Claim]],
        lease_ms: int,
        spawn: Callable[[Any], Any],
    ) -> None:
        """spawn: runs a coroutine beside, and stops the worker should it fail."""
        self.leases = Leases(lease_ms=lease_ms, kind="app")
        self._keeper = LeaseKeeper(server, self.leases, self)
        self._owner, self._claims, self._spawn = owner, claims, spawn
        self._owned: dict[Claim, int] = {}
        self._leaving: set[Claim] = set()
        self._arriving: set[Claim] = set()
        self._changing = asyncio.Lock()
        self._is_first, self._is_stopping, self._has_left = True, False, False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beat_at = 0.0
        self._latest: tuple[dict[Claim, int], set[Claim]] = ({}, set())

    # What the keeper asks and says, from its thread.

    def claims(self) -> list[Claim]:
        """What this worker can have."""
        return [] if self._is_stopping else self._claims()

    def card(self, card: HostCard) -> HostCard:
        """As it is."""
        return card

    def blocked(self) -> str:
        """Why the leases may not be renewed: the app's loop shows no life."""
        silent_s = time.monotonic() - self._beat_at
        return f"the event loop has shown no life for {silent_s:.0f} s" if silent_s > LOOP_PATIENCE_S else ""

    def changed(self, held: dict[Claim, int], surplus: set[Claim]) -> None:
        """These are ours now."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._follow, held, surplus)

    # The loop.

    async def run(self) -> None:
        """For ever, until ``leave``."""
        self._loop, self._beat_at = asyncio.get_running_loop(), time.monotonic()
        self._keeper.start()
        while not self._has_left:
            self._beat_at = time.monotonic()
            await asyncio.sleep(BEAT_S)

    def poke(self) -> None:
        """Tick now: the subscription changed."""
        self._keeper.hurry()

    def stop_claiming(self) -> None:
        """The worker is stopping."""
        self._is_stopping = True

    def lost(self, claims: set[Claim]) -> None:
        """The server refused an epoch: a newer owner exists."""
        self._keeper.lost(claims)

    async def leave(self) -> None:
        """Give everything back and be a member no longer. The consumer has let everything go."""
        self.stop_claiming()
        if not self._has_left:
            self._has_left = True
            self._owned.clear()
            await aside(lambda: self._keeper.stop(LEAVE_S))

    def _follow(self, held: dict[Claim, int], surplus: set[Claim]) -> None:
        """Say to the owner what is new, what is lost, and what must go."""
        self._latest = (held, surplus)
        lost = {claim for claim, epoch in self._owned.items() if held.get(claim) != epoch}
        new = {claim: epoch for claim, epoch in held.items() if self._owned.get(claim) != epoch}
        for claim in lost:
            del self._owned[claim]
        if self._is_stopping:
            return
        self._owned |= new
        self._arriving |= new.keys()
        if lost or new or self._is_first:
            self._is_first = False
            self._spawn(self._change(lost, new))
        going = surplus & self._owned.keys() - self._leaving - self._arriving
        if going:
            self._leaving |= going
            self._spawn(self._give(going))

    async def _change(self, lost: set[Claim], new: dict[Claim, int]) -> None:
        async with (
            self._changing
        ):  # in the order of the ticks: what comes and goes at once must not go and then come
            if lost:
                log.warning("partitions_lost", partitions=[claim.keys.where for claim in sorted(lost)])
                await self._owner.lose(lost)
            if new or not lost:
                await self._owner.take(new)
            self._arriving -= new.keys()
        self._follow(*self._latest)  # what is surplus could not go before it had come

    async def _give(self, claims: set[Claim]) -> None:
        epochs = {claim: self._owned[claim] for claim in claims}
        await self._owner.give(claims)
        # One that was lost and claimed again meanwhile is not the one that was given.
        given = [claim for claim in claims if self._owned.get(claim) == epochs[claim]]
        for claim in given:
            del self._owned[claim]
        await asyncio.wrap_future(self._keeper.release(given))
        self._leaving -= claims
