"""
Ownership: which partitions of a group this worker has, by leases with a fencing epoch.

    every tick:  say that I live, learn who does -> keep my leases, look at the others -> claim free ones up
                 to my share
    join         the living are more, so everybody's share is smaller: the surplus is given back when its
                 batch is done
    leave        leases given back, and gone from the members: the others claim within their next tick
    death        nothing is renewed: after lease_ms the leases are free and the worker is no member
    SIGSTOP      as death; when it wakes, the epoch of its commit is old and commit.lua refuses it

Always true: a lease saves work and nothing more. Two workers that both believe to own a partition make STALE
and FENCED, never a wrong view. The lease is stored in the partition's slot, so a commit can compare its
epoch; time is the server's alone.

``Leases.tick`` is a generator that yields (routing key, command) pairs and is sent the answers: no socket, no
clock, no thread.

Decision (2026-11): shares are counted per stream (a worker's rank among the living decides who has one more),
and which partitions fill a share is left to who claims first. Refused: a computed assignment (hash of worker
and partition), which moves partitions that need not move whenever somebody joins; one lease for all
partitions of a group, which would need a second protocol to spread them.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from aurastream.streams.connection import Server
from aurastream.streams.drive import Ask, Asking
from aurastream.streams.errors import StreamError
from aurastream.streams.keys import Keys, members_key
from aurastream.streams.script import Script

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


def worker_name() -> str:
    """A name no other process has had: host, pid, and 32 random bits."""
    host = "".join(
        char for char in socket.gethostname() if char.isascii() and (char.isalnum() or char in "-.")
    )[:40]
    return f"{host or 'host'}-{os.getpid()}-{secrets.token_hex(4)}"


def share(total: int, members: list[str], worker: str, offset: int = 0) -> int:
    """How many of `total` partitions the worker may own: the shares of all members add up to total and differ
    by at most one.

    offset: turns the ranks, so that of several streams' remainders not all go to the same worker.
    """
    if worker not in members:
        return 0
    rank = (sorted(members).index(worker) + offset) % len(members)
    return total // len(members) + (rank < total % len(members))


class Leases:
    """This worker's leases. Drive ``tick`` with a period of ``period_s``; read ``held`` and ``surplus``
    between ticks.

    held: claim -> epoch. surplus: held claims above this worker's share: finish their batch, then ``release``
        them.
    takeovers: leases claimed whose last owner had not given them back (it died, or was stopped).
    """

    def __init__(self, worker: str | None = None, lease_ms: int = LEASE_MS) -> None:
        if lease_ms < LEASE_MS_MIN:
            raise StreamError(
                f"a lease of {lease_ms} ms is too short to be kept. Set lease_ms to {LEASE_MS_MIN} or more."
            )
        self.worker, self.lease_ms = worker or worker_name(), lease_ms
        self.held: dict[Claim, int] = {}
        self.surplus: set[Claim] = set()
        self.takeovers = 0
        self.is_short = False  # below its share: partitions may be on their way

    @property
    def period_s(self) -> float:
        """How long to wait for the next tick: a lease is renewed five times in its life, and more often while
        partitions move.
        """
        return self.lease_ms / 1000 / (25 if self.is_short else 5)

    def tick(self, claims: Iterable[Claim]) -> Asking[None]:
        """Keep what is held, claim up to the share, name the surplus. claims: everything there is to own, by
        all workers.
        """
        every = sorted(set(claims))
        groups = sorted({claim.group for claim in every})
        answers = yield [Ask(members_key(group), self._alive(group)) for group in groups]
        members = {
            group: [name.decode() for name in _sound(answer)]
            for group, answer in zip(groups, answers, strict=True)
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
        yield [
            Ask(members_key(group), _MEMBERS.call((members_key(group),), (self.worker, 0)))
            for group in sorted(set(groups))
        ]

    def lost(self, claim: Claim) -> None:
        """A commit was refused as FENCED: somebody else owns it."""
        self.held.pop(claim, None)
        self.surplus.discard(claim)

    def _alive(self, group: str) -> tuple[Any, ...]:
        return _MEMBERS.call((members_key(group),), (self.worker, self.lease_ms))

    def _look(self, every: list[Claim]) -> Asking[list[tuple[Claim, str]]]:
        """Renew what is held, forget what was lost. Returns the free claims with the owner that let each
        lapse ("" for none).
        """
        states = yield from self._put({claim: "keep" if claim in self.held else "look" for claim in every})
        free = []
        for claim, (epoch, left_ms, owner) in states.items():
            if claim in self.held and epoch != self.held[claim]:
                self.lost(claim)
            # Ours by the server's word alone: the answer to our claim was lost. Nobody else may have room for
            # it, so claim it again.
            if claim not in self.held and (epoch or left_ms <= 0):
                free.append((claim, owner.decode()))
        for claim in [claim for claim in self.held if claim not in states]:
            self.lost(claim)  # its stream is gone
        return free

    def _shares(self, every: list[Claim], members: dict[str, list[str]]) -> dict[tuple[str, str], int]:
        """Per group and stream how many more this worker may claim; names the surplus where it is negative."""
        self.surplus = set()
        totals = Counter((claim.group, claim.stream) for claim in every)
        held: dict[tuple[str, str], list[Claim]] = {}
        for claim in sorted(self.held):
            held.setdefault((claim.group, claim.stream), []).append(claim)
        room = {}
        for number, (place, total) in enumerate(totals.items()):
            own = held.get(place, [])
            room[place] = share(total, members[place[0]], self.worker, number) - len(own)
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
                self.takeovers += wanted[claim] not in ("", self.worker)
            else:  # somebody was faster
                room[claim.group, claim.stream] += 1

    def _put(self, verbs: dict[Claim, str]) -> Asking[dict[Claim, tuple[int, int, bytes]]]:
        """One script call per partition, for all its groups at once."""
        calls: dict[Keys, list[tuple[Claim, str]]] = {}
        for claim, verb in verbs.items():
            calls.setdefault(claim.keys, []).append((claim, verb))
        commands = []
        for keys, pairs in calls.items():
            leases = [keys.lease(claim.group) for claim, _ in pairs]
            commands.append(
                Ask(
                    leases[0], _LEASE.call(leases, (self.worker, self.lease_ms, *[verb for _, verb in pairs]))
                )
            )
        answers = (yield commands) if commands else []
        found: dict[Claim, tuple[int, int, bytes]] = {}
        for pairs, answer in zip(calls.values(), answers, strict=True):
            found |= {claim: tuple(state) for (claim, _), state in zip(pairs, _sound(answer), strict=True)}
        return found


def ask_lease(
    server: Server, keys: Keys, group: str, worker: str, lease_ms: int, verb: str
) -> tuple[int, int, str]:
    """One lease outside of a group that shares: look, claim, keep or release. Returns epoch (0: not ours), ms
    left, and its owner.
    """
    epoch, left_ms, owner = server.run(_LEASE, (keys.lease(group),), (worker, lease_ms, verb))[0]
    return int(epoch), int(left_ms), owner.decode()


def _sound(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer
