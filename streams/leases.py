"""
Ownership: which lanes this host has, by leases with a fencing epoch.

    every tick:  say that I live and what I can run, learn who else -> keep my leases -> claim up to my share
    join         those who can run the lanes are more, so everybody's share is smaller: surplus is given back
                 when its work under way is done
    leave        leases given back, and no member any more: the others claim within their next tick
    death        nothing is renewed: after lease_ms the leases are free and the host is no member
    SIGSTOP      as death; when it wakes, the epoch of its commit is old and commit.lua refuses it
    clock back   marks and leases that would end more than a lease from now are shortened by whoever looks
    clock ahead  who sees it claims nothing for one lease, so that the living renew first

The unit is the lane, one group's way through one partition. A share is worked out for each (group, stream),
among the hosts that say they can run it (members.py): hosts of other plug-ins, versions and choices share
what they have in common, and keep from each other nothing that they cannot run.

Always true: a lease saves work and nothing more. Two hosts that both believe to own a lane make STALE and
FENCED, never a wrong view. The lease is stored in the partition's slot, so a commit can compare its epoch;
what time it is only the server says; the host's own clock only tells that the server's was moved.

Decision (2026-11): shares are counts (who has one more decides a hash of the lane's name and the host's), and
which partitions fill a share is left to who claims first, each beginning with those it likes best (a hash of
host and partition, the same for all groups: so the lanes of one partition tend to be on one host, and one
call renews them all). Refused: a computed assignment, which moves lanes that need not move whenever somebody
joins; one lease for all groups of a partition, which starves hosts that run unlike groups (measured on what
was here before: two apps on one server stood still for ever).
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec
from xxhash import xxh3_64_intdigest

from aurastream.streams.connection import Server
from aurastream.streams.drive import Ask, Asking, Reply, sound
from aurastream.streams.errors import StreamError
from aurastream.streams.keys import Keys
from aurastream.streams.members import HostCard, heard, saying
from aurastream.streams.wire import Script

LEASE_MS = 3_000
LEASE_MS_MIN = 200
TICKS = 5  # of a lease's life: how often it is renewed
TICKS_SHORT = 10  # the same while lanes may be on their way to us
TICK_S = 0.6  # at least so often, however long the lease is: lanes that were given back must not wait

_LEASE = Script(__file__, "lease.lua")


class Claim(msgspec.Struct, frozen=True, order=True):
    """A lane by name: what is leased. group: a view's generation, a processor, or a stranger's app."""

    group: str
    stream: str
    partition: int

    @property
    def keys(self) -> Keys:
        """The partition's keys."""
        return Keys(self.stream, self.partition)

    @property
    def lanes(self) -> Lanes:
        """All lanes of its group in its stream, which are shared together."""
        return self.group, self.stream


Lanes = tuple[str, str]  # group, stream


def host_name() -> str:
    """A name no other process has had: host, pid, and 32 random bits."""
    host = "".join(
        char for char in socket.gethostname() if char.isascii() and (char.isalnum() or char in "-.")
    )[:40]
    return f"{host or 'host'}-{os.getpid()}-{secrets.token_hex(4)}"


def share(total: int, members: Iterable[str], host: str, lanes: Lanes = ("", "")) -> int:
    """How many of `total` lanes the host may own: all members' shares add up to total and differ by at most
    one. Who has one more decides a hash of both, so that it is not the same host for every group.
    """
    ranked = sorted(set(members), key=lambda member: (_hash(*lanes, member), member))
    if host not in ranked:
        return 0
    return total // len(ranked) + (ranked.index(host) < total % len(ranked))


def _hash(*parts: object) -> int:
    return xxh3_64_intdigest("\n".join(map(str, parts)).encode())


class LeaseState(NamedTuple):
    """What the server says of a lease after a verb. epoch: 0 unless the host that asked holds it."""

    epoch: int
    left_ms: int
    owner: str


class _Clock:
    """Whether the server's clock was moved since the last tick: by comparing it with our own, which only
    runs.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._seen: tuple[float, int] | None = None

    def moved_ms(self, now_ms: int) -> float:
        """How far it was moved, in milliseconds; about 0 when it was not."""
        own, seen = self.clock(), self._seen
        self._seen = own, now_ms
        return 0.0 if seen is None else (now_ms - seen[1]) - (own - seen[0]) * 1000


class Leases:
    """This host's leases. Drive ``tick`` with a period of ``period_s``; read ``held`` and ``surplus`` between
    ticks. Not for several threads at once.

    held: claim -> epoch. surplus: held claims above this host's share: finish their work under way, then
    ``release`` them. cards: of the hosts that live. card: ours; set it to say something else.
    takeovers: leases claimed whose last owner had not given them back (it died, or was stopped); taken: those
    of the last tick, with that owner.
    """

    def __init__(
        self,
        host: str | None = None,
        lease_ms: int = LEASE_MS,
        *,
        kind: str = "run",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """clock: seconds, which never go back."""
        if lease_ms < LEASE_MS_MIN:
            raise StreamError(
                f"a lease of {lease_ms} ms is too short to be kept. Set lease_ms to {LEASE_MS_MIN} or more."
            )
        self.host, self.lease_ms = host or host_name(), lease_ms
        self.card = HostCard(
            self.host, kind, pid=os.getpid(), started_ms=int(time.time() * 1000), lease_ms=lease_ms
        )
        self.held: dict[Claim, int] = {}
        self.surplus: set[Claim] = set()
        self.takeovers = 0
        self.taken: dict[Claim, str] = {}
        self.cards: dict[str, HostCard] = {}
        self._said: HostCard | None = None
        self._changes = -1
        self._is_short = False  # below a share: lanes may be on their way
        self._time = _Clock(clock)
        self._claims_from = 0.0  # by the clock

    @property
    def period_s(self) -> float:
        """How long to wait for the next tick."""
        lease_s = min(self.lease_ms / 1000, TICK_S * TICKS)
        return lease_s / (TICKS_SHORT if self._is_short else TICKS)

    def tick(self, claims: Iterable[Claim]) -> Asking[None]:
        """Keep what is held, claim up to the share, name the surplus. claims: the lanes this host can run."""
        every = sorted(set(claims))
        self.taken = {}
        moved_ms = yield from self._say(every)
        if moved_ms > self.lease_ms / 2:
            self._claims_from = self._time.clock() + self.lease_ms / 1000
        room = self._room(every)
        free = yield from self._look(every, room, is_moved=moved_ms < -self.lease_ms / 2)
        room = self._shares(every)
        if self._time.clock() >= self._claims_from:
            yield from self._claim(free, room)
        self._is_short = any(count > 0 for count in room.values())

    def release(self, claims: Iterable[Claim]) -> Asking[None]:
        """Give leases back, for others to claim at once."""
        given = [claim for claim in claims if self.held.pop(claim, None) is not None]
        self.surplus.difference_update(given)
        yield from self._put(dict.fromkeys(given, "release"))

    def leave(self) -> Asking[None]:
        """Give everything back and be a member no longer: the graceful end."""
        yield from self.release(list(self.held))
        self._said = None
        sound((yield [saying(self.host, 0)]))

    def lost(self, claim: Claim) -> None:
        """A commit was refused as FENCED: somebody else owns it."""
        self.held.pop(claim, None)
        self.surplus.discard(claim)

    def _say(self, every: list[Claim]) -> Asking[float]:
        """That this host lives and what it can run; learn of the others. Returns how far the server's clock
        was moved.
        """
        offers: dict[str, dict[str, int]] = {}
        for claim in every:
            groups = offers.setdefault(claim.stream, {})
            groups[claim.group] = groups.get(claim.group, 0) + 1
        card = msgspec.structs.replace(self.card, offers=offers)
        news = None if card == self._said else card
        (reply,) = sound((yield [saying(self.host, self.lease_ms, news, self._changes)]))
        answer = heard(reply, self._changes)
        self._said = None if answer.is_missing else card  # forgotten meanwhile: said again at the next tick
        self._changes = answer.changes
        if answer.cards is not None:
            self.cards = answer.cards
        return self._time.moved_ms(answer.now_ms)

    def _room(self, every: list[Claim]) -> dict[Lanes, int]:
        """How many more of each (group, stream) this host may hold; below 0: it holds too many."""
        held = Counter(claim.lanes for claim in self.held)
        room = {}
        for lanes, total in Counter(claim.lanes for claim in every).items():
            group, stream = lanes
            others = [host for host, card in self.cards.items() if card.offers_lane(group, stream)]
            room[lanes] = share(total, [*others, self.host], self.host, lanes) - held[lanes]
        return room

    def _look(
        self, every: list[Claim], room: dict[Lanes, int], *, is_moved: bool
    ) -> Asking[list[tuple[Claim, str]]]:
        """Renew what is held, forget what was lost. Returns the free claims where there is room, each with
        the owner that let it lapse, or "". is_moved: look at all, as leases may be longer than they should.
        """
        kept = dict.fromkeys(self.held, "keep")
        looked = {
            claim: "look" for claim in every if claim not in kept and (is_moved or room[claim.lanes] > 0)
        }
        states = yield from self._put(kept | looked)
        can = set(every)
        free = []
        for claim, (epoch, left_ms, owner) in states.items():
            if claim in self.held and epoch != self.held[claim]:
                self.lost(claim)
            # Ours by the server's word alone: the answer to our claim was lost. Nobody else may have room for
            # it, so claim it again.
            if claim in can and claim not in self.held and (epoch or left_ms <= 0):
                free.append((claim, owner))
        return free

    def _shares(self, every: list[Claim]) -> dict[Lanes, int]:
        """The room as it is now; names the surplus: what is above the share, and what we can run no more."""
        room = self._room(every)
        held: dict[Lanes, list[Claim]] = {}
        for claim in self._liked(self.held):
            held.setdefault(claim.lanes, []).append(claim)
        self.surplus = {claim for lanes, own in held.items() if lanes not in room for claim in own}
        for lanes, count in room.items():
            if count < 0:
                self.surplus.update(held[lanes][count:])
        return room

    def _liked(self, claims: Iterable[Claim]) -> list[Claim]:
        """Best first: a hash of host and partition, so that of one partition all groups come together."""
        return sorted(claims, key=lambda claim: (_hash(self.host, claim.stream, claim.partition), claim))

    def _claim(self, free: list[tuple[Claim, str]], room: dict[Lanes, int]) -> Asking[None]:
        owners = dict(free)
        wanted: dict[Claim, str] = {}
        for claim in self._liked(owners):
            if room[claim.lanes] > 0:
                room[claim.lanes] -= 1
                wanted[claim] = owners[claim]
        states = yield from self._put(dict.fromkeys(wanted, "claim"))
        for claim, (epoch, _, _) in states.items():
            if epoch:
                self.held[claim] = epoch
                if wanted[claim] not in ("", self.host):
                    self.takeovers += 1
                    self.taken[claim] = wanted[claim]
            else:  # somebody was faster
                room[claim.lanes] += 1

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
