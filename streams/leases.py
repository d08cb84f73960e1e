"""
Ownership: which partitions of a group this host has, by leases with a fencing epoch.

    every tick:  say that I live, learn who does -> keep my leases, look at the others -> claim up to my share
    join         the living are more, so everybody's share is smaller: surplus is given back when its batch is
    done
    leave        leases given back, and gone from the members: the others claim within their next tick
    death        nothing is renewed: after lease_ms the leases are free and the host is no member
    SIGSTOP      as death; when it wakes, the epoch of its commit is old and commit.lua refuses it

Always true: a lease saves work and nothing more. Two hosts that both believe to own a partition make STALE
and FENCED, never a wrong view. The lease is stored in the partition's slot, so a commit can compare its
epoch; time is the server's alone.

Decision (2026-11): shares are counted per stream (a host's rank among the living decides who has one more),
and which partitions fill a share is left to who claims first. Refused: a computed assignment (hash of host
and partition), which moves partitions that need not move whenever somebody joins; one lease for all
partitions of a group, which would need a second protocol to spread them.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from aurastream.streams.connection import Server
from aurastream.streams.drive import Ask, Asking, Reply, sound
from aurastream.streams.errors import StreamError
from aurastream.streams.keys import Keys, members_key
from aurastream.streams.wire import Script

LEASE_MS = 3_000
LEASE_MS_MIN = 200

_LEASE = Script(__file__, "lease.lua")
_MEMBERS = Script(__file__, "members.lua")


class Claim(msgspec.Struct, frozen=True, order=True):
    """A partition of a group: what is leased."""

    group: str
    stream: str
    partition: int

    @property
    def keys(self) -> Keys:
        """The partition's keys."""
        return Keys(self.stream, self.partition)


def host_name() -> str:
    """A name no other process has had: host, pid, and 32 random bits."""
    host = "".join(
        char for char in socket.gethostname() if char.isascii() and (char.isalnum() or char in "-.")
    )[:40]
    return f"{host or 'host'}-{os.getpid()}-{secrets.token_hex(4)}"


def share(total: int, members: list[str], host: str, offset: int = 0) -> int:
    """How many of `total` partitions the host may own: all members' shares add up to total and differ by at
    most one.

    offset: turns the ranks, so that of several streams' remainders not all go to the same host.
    """
    if host not in members:
        return 0
    rank = (sorted(members).index(host) + offset) % len(members)
    return total // len(members) + (rank < total % len(members))


class LeaseState(NamedTuple):
    """What the server says of a lease after a verb. epoch: 0 unless the host that asked holds it."""

    epoch: int
    left_ms: int
    owner: str


class Leases:
    """This host's leases. Drive ``tick`` with a period of ``period_s``; read ``held`` and ``surplus`` between
    ticks.

    held: claim -> epoch. surplus: held claims above this host's share: finish their batch, then ``release``
    them.
    takeovers: leases claimed whose last owner had not given them back (it died, or was stopped).
    """

    def __init__(self, host: str | None = None, lease_ms: int = LEASE_MS) -> None:
        if lease_ms < LEASE_MS_MIN:
            raise StreamError(
                f"a lease of {lease_ms} ms is too short to be kept. Set lease_ms to {LEASE_MS_MIN} or more."
            )
        self.host, self.lease_ms = host or host_name(), lease_ms
        self.held: dict[Claim, int] = {}
        self.surplus: set[Claim] = set()
        self.takeovers = 0
        self.is_short = False  # below its share: partitions may be on their way

    @property
    def period_s(self) -> float:
        """How long to wait for the next tick: a lease is renewed five times in its life, more often while
        partitions move.
        """
        return self.lease_ms / 1000 / (25 if self.is_short else 5)

    def tick(self, claims: Iterable[Claim]) -> Asking[None]:
        """Keep what is held, claim up to the share, name the surplus. claims: everything there is to own, by
        all hosts.
        """
        every = sorted(set(claims))
        groups = sorted({claim.group for claim in every})
        answers = sound((yield [self._member(group, self.lease_ms) for group in groups]))
        members = {
            group: [name.decode() for name in answer] for group, answer in zip(groups, answers, strict=True)
        }
        free = yield from self._look(every)
        room = self._shares(every, members)
        yield from self._claim(free, room)
        self.is_short = any(count > 0 for count in room.values())

    def release(self, claims: Iterable[Claim]) -> Asking[None]:
        """Give leases back, for others to claim at once."""
        given = [claim for claim in claims if self.held.pop(claim, None) is not None]
        self.surplus.difference_update(given)
        yield from self._put(dict.fromkeys(given, "release"))

    def leave(self, groups: Iterable[str]) -> Asking[None]:
        """Give everything back and be a member no longer: the graceful end."""
        yield from self.release(list(self.held))
        yield [self._member(group, 0) for group in sorted(set(groups))]

    def lost(self, claim: Claim) -> None:
        """A commit was refused as FENCED: somebody else owns it."""
        self.held.pop(claim, None)
        self.surplus.discard(claim)

    def _member(self, group: str, alive_ms: int) -> Ask:
        """That this host counts as alive for so long; 0: that it leaves."""
        key = members_key(group)
        return Ask(key, _MEMBERS.call((key,), (self.host, alive_ms)))

    def _look(self, every: list[Claim]) -> Asking[list[tuple[Claim, str]]]:
        """Renew what is held, forget what was lost. Returns the free claims, each with the owner that let it
        lapse, or "".
        """
        states = yield from self._put({claim: "keep" if claim in self.held else "look" for claim in every})
        free = []
        for claim, (epoch, left_ms, owner) in states.items():
            if claim in self.held and epoch != self.held[claim]:
                self.lost(claim)
            # Ours by the server's word alone: the answer to our claim was lost. Nobody else may have room for
            # it, so claim it again.
            if claim not in self.held and (epoch or left_ms <= 0):
                free.append((claim, owner))
        for claim in [claim for claim in self.held if claim not in states]:
            self.lost(claim)  # its stream is gone
        return free

    def _shares(self, every: list[Claim], members: dict[str, list[str]]) -> dict[tuple[str, str], int]:
        """Per group and stream how many more this host may claim; names the surplus where it is negative."""
        self.surplus = set()
        totals = Counter((claim.group, claim.stream) for claim in every)
        held: dict[tuple[str, str], list[Claim]] = {}
        for claim in sorted(self.held):
            held.setdefault((claim.group, claim.stream), []).append(claim)
        room = {}
        for number, (place, total) in enumerate(totals.items()):
            own = held.get(place, [])
            room[place] = share(total, members[place[0]], self.host, number) - len(own)
            if room[place] < 0:
                self.surplus.update(own[room[place] :])
        return room

    def _claim(self, free: list[tuple[Claim, str]], room: dict[tuple[str, str], int]) -> Asking[None]:
        wanted: dict[Claim, str] = {}
        for claim, owner in free:
            if room[claim.group, claim.stream] > 0:
                room[claim.group, claim.stream] -= 1
                wanted[claim] = owner
        states = yield from self._put(dict.fromkeys(wanted, "claim"))
        for claim, (epoch, _, _) in states.items():
            if epoch:
                self.held[claim] = epoch
                self.takeovers += wanted[claim] not in ("", self.host)
            else:  # somebody was faster
                room[claim.group, claim.stream] += 1

    def _put(self, verbs: dict[Claim, str]) -> Asking[dict[Claim, LeaseState]]:
        """One script call per partition, for all its groups at once."""
        calls: dict[Keys, list[tuple[Claim, str]]] = {}
        for claim, verb in verbs.items():
            calls.setdefault(claim.keys, []).append((claim, verb))
        asks = []
        for keys, pairs in calls.items():
            leases = [keys.lease(claim.group) for claim, _ in pairs]
            args = (self.host, self.lease_ms, *[verb for _, verb in pairs])
            asks.append(Ask(leases[0], _LEASE.call(leases, args)))
        answers = sound((yield asks)) if asks else []
        states: dict[Claim, LeaseState] = {}
        for pairs, answer in zip(calls.values(), answers, strict=True):
            states |= {claim: _state(raw) for (claim, _), raw in zip(pairs, answer, strict=True)}
        return states


def ask_lease(server: Server, lease: str, host: str, lease_ms: int, verb: str) -> LeaseState:
    """One lease outside of a group that shares: look, claim, keep or release. lease: its key."""
    return _state(server.run(_LEASE, (lease,), (host, lease_ms, verb))[0])


def _state(raw: Reply) -> LeaseState:
    epoch, left_ms, owner = raw
    return LeaseState(epoch, left_ms, owner.decode())
