"""
Ownership for a Faust consumer: drives streams/leases.py and tells the consumer what came and what must go.

    tick -> lost    gone at once: somebody else owns it, or may
         -> surplus given back when its work under way is done, while everything else goes on
         -> new     taken over from the group's cursor

Always true: ticks never wait for the work of a partition, so a slow handler costs no lease; a claim is
released only after the consumer has let it go; when the worker stops, nothing new is claimed and what is held
stays renewed until its work is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from aurastream.streams import AsyncWires, Claim, Leases, Logger, adrive

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
    """One worker's part in a group. claims: everything there is to own, asked at every tick."""

    def __init__(
        self,
        wires: AsyncWires,
        owner: Owner,
        claims: Callable[[], list[Claim]],
        lease_ms: int,
        spawn: Callable[[Any], Any],
    ) -> None:
        """spawn: runs a coroutine beside, and stops the worker should it fail."""
        self.leases = Leases(lease_ms=lease_ms, kind="app")
        self._wires, self._owner, self._claims, self._spawn = wires, owner, claims, spawn
        self._owned: dict[Claim, int] = {}
        self._leaving: set[Claim] = set()
        self._arriving: set[Claim] = set()
        self._changing = asyncio.Lock()
        self._is_first, self._is_stopping = True, False
        self._hurry = asyncio.Event()
        self._groups: set[str] = set()
        self._ticking = asyncio.Lock()

    async def run(self) -> None:
        """For ever, until ``leave``."""
        while not self._is_left():
            await self.tick()
            self._hurry.clear()
            try:
                await asyncio.wait_for(self._hurry.wait(), self.leases.period_s)
            except TimeoutError:
                continue

    async def tick(self) -> None:
        """One round of the leases, and its consequences."""
        async with self._ticking:
            claims = self._claims()
            self._groups.update(claim.group for claim in claims)
            # A stopping worker renews what it holds, and says that it can run nothing.
            await adrive(self.leases.tick([] if self._is_stopping else claims), self._wires.ask)
            held = dict(self.leases.held)
        lost = {claim for claim, epoch in self._owned.items() if held.get(claim) != epoch}
        new = {claim: epoch for claim, epoch in held.items() if self._owned.get(claim) != epoch}
        for claim in lost:
            del self._owned[claim]
        if self._is_stopping:
            return
        self._owned |= new
        self._arriving |= new.keys()
        surplus = self.leases.surplus & self._owned.keys() - self._leaving - self._arriving
        if lost or new or self._is_first:
            self._is_first = False
            self._spawn(self._change(lost, new))
        if surplus:
            self._leaving |= surplus
            self._spawn(self._give(surplus))

    def poke(self) -> None:
        """Tick now: the subscription changed."""
        self._hurry.set()

    def stop_claiming(self) -> None:
        """The worker is stopping."""
        self._is_stopping = True

    def lost(self, claims: set[Claim]) -> None:
        """The server refused an epoch: a newer owner exists. The next tick tells the consumer."""
        for claim in claims:
            self.leases.lost(claim)
        self.poke()

    async def leave(self) -> None:
        """Give everything back and be a member no longer. The consumer has let everything go."""
        self.stop_claiming()
        groups, self._groups = self._groups, set()
        async with self._ticking:
            if groups:
                self._owned.clear()
                await adrive(self.leases.leave(), self._wires.ask)
        self.poke()

    def _is_left(self) -> bool:
        return self._is_stopping and not self._groups

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

    async def _give(self, claims: set[Claim]) -> None:
        epochs = {claim: self._owned[claim] for claim in claims}
        await self._owner.give(claims)
        async with self._ticking:
            # One that was lost and claimed again meanwhile is not the one that was given.
            given = [
                claim
                for claim in claims
                if self._owned.get(claim) == self.leases.held.get(claim) == epochs[claim]
            ]
            await adrive(self.leases.release(given), self._wires.ask)
        for claim in given:
            del self._owned[claim]
        self._leaving -= claims
