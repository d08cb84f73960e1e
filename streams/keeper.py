"""
Keep a host's leases from a thread of its own: whatever its event loop is busy with, they are renewed.

    every tick: has the loop shown life within its patience? -> Leases.tick over the thread's own connections
        -> what is held, or must go, changed -> duty.changed
    release, lost, leave: from any thread -> done in this one, in order
    the server is away, or refuses -> said once, tried again at the next tick; nothing ends

Always true: a lease is renewed only while the loop it stands for lives. One that is blocked for longer than
its patience is given up like a dead one, and the others take its lanes over.

Decision (2026-11): a thread with blocking connections. Refused: a task of the loop, which a handler that
blocks it holds up: measured on what was here before, a handler of 6 s at a lease of 3 s was run four times,
and bystanders twice; a process of its own, which can outlive the loop it vouches for.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Protocol

from redis.exceptions import RedisError

from aurastream.streams.connection import Server
from aurastream.streams.drive import Asking, drive
from aurastream.streams.errors import StreamError
from aurastream.streams.faults import is_passing
from aurastream.streams.late import Logger
from aurastream.streams.leases import Claim, Leases
from aurastream.streams.members import HostCard
from aurastream.streams.wires import Wires

LANES_SHOWN = 20  # in a line of the log

log = Logger("aurastream.leases")


class Duty(Protocol):
    """What the keeper asks its host, and says to it. All from the keeper's thread."""

    def claims(self) -> list[Claim]:
        """The lanes the host can run now; none while it stops."""
        ...

    def card(self, card: HostCard) -> HostCard:
        """The host's card, with what it says of itself now."""
        ...

    def blocked(self) -> str:
        """Why the loop has shown no life for longer than its patience; "" while it has."""
        ...

    def changed(self, held: dict[Claim, int], surplus: set[Claim]) -> None:
        """These are the host's now, each under its epoch; of these, the surplus is to be released. Also after
        the first tick that succeeded, whatever it brought.
        """
        ...


class _LoopBlocked(Exception):
    """The loop has shown no life within its patience."""


class _Command(NamedTuple):
    """What the host bids its keeper do: forget leases that are lost, give some back, give all back."""

    lost: tuple[Claim, ...] = ()
    released: tuple[Claim, ...] = ()
    leaves: bool = False


class LeaseKeeper:
    """The thread. trouble: why the last tick did not succeed, or "". ticked: called after each that did."""

    def __init__(self, server: Server, leases: Leases, duty: Duty) -> None:
        self.leases, self.trouble = leases, ""
        self.ticked: Callable[[], None] = lambda: None
        self._server, self._duty = server, duty
        self._wires = Wires(server, attempts_max=1)
        self._ask = partial(self._wires.ask, what="keeping the leases")
        self._commands: queue.SimpleQueue[tuple[_Command, Future[None]]] = queue.SimpleQueue()
        self._said: tuple[dict[Claim, int], set[Claim]] | None = None  # None before the first tick
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name="aurastream-leases", daemon=True)

    def start(self) -> None:
        """Begin; the first tick at once."""
        self._thread.start()

    def hurry(self) -> None:
        """Tick now: what the host can run has changed."""
        self._do(_Command())

    def release(self, claims: Iterable[Claim]) -> Future[None]:
        """Give leases back, for others to claim at once."""
        return self._do(_Command(released=tuple(claims)))

    def lost(self, claims: Iterable[Claim]) -> Future[None]:
        """The server refused these epochs: somebody else owns the lanes."""
        return self._do(_Command(lost=tuple(claims)))

    def stop(self, patience_s: float) -> None:
        """Give everything back and end; at most so much later, whatever the server does."""
        self._is_ending = True
        self._do(_Command(leaves=True))
        if self._thread.is_alive():
            self._thread.join(patience_s)

    def _do(self, command: _Command) -> Future[None]:
        done: Future[None] = Future()
        self._commands.put((command, done))
        return done

    def _run(self) -> None:
        try:
            while not self._is_ending:
                self._attempt(self._tick)
                self._obey(self.leases.period_s)
            self._obey(0.0)
        finally:
            self._wires.close()

    def _tick(self) -> None:
        if blocked := self._duty.blocked():
            raise _LoopBlocked(blocked)
        claims = [] if self._is_ending else self._duty.claims()
        self.leases.card = self._duty.card(self.leases.card)
        drive(self.leases.tick(claims), self._ask)
        for owner in sorted(set(self.leases.taken.values())):
            lanes = sorted(claim for claim, last in self.leases.taken.items() if last == owner)
            names = [f"{claim.group} {claim.keys.where}" for claim in lanes[:LANES_SHOWN]]
            log.warning("lanes_taken_over", of=owner, count=len(lanes), lanes=names)
        self.ticked()

    def _obey(self, wait_s: float) -> None:
        """The commands that there are, or the first within wait_s, all at once: a host that gives many lanes
        away, each as its work ends, must not be kept from renewing the others.
        """
        waiting: list[tuple[_Command, Future[None]]] = []
        with suppress(queue.Empty):
            waiting.append(self._commands.get(timeout=wait_s) if wait_s else self._commands.get_nowait())
            while True:
                waiting.append(self._commands.get_nowait())
        if waiting:
            commands = [command for command, _ in waiting]
            self._attempt(lambda: drive(self._obeyed(commands), self._ask))
        for _, done in waiting:
            done.set_result(None)

    def _obeyed(self, commands: list[_Command]) -> Asking[None]:
        for claim in [claim for command in commands for claim in command.lost]:
            self.leases.lost(claim)
        yield from self.leases.release([claim for command in commands for claim in command.released])
        if any(command.leaves for command in commands):
            yield from self.leases.leave()

    def _attempt(self, work: Callable[[], None]) -> bool:
        """Do it, and say what changed by it. A fault is noted, and False: the next tick tries again."""
        is_done = False
        try:
            work()
        except (RedisError, StreamError, OSError) as error:
            self._note(f"{type(error).__name__}: {error}"[:300])
            if is_passing(error):
                self._renew()
        except _LoopBlocked as error:
            self._note(f"leases are not renewed: {error}")
        except Exception as error:  # of the host's, too: without this thread it would own nothing, in silence
            self._note(f"{type(error).__name__}: {error}"[:300])
            log.exception("leases_stuck")
        else:
            if self.trouble:
                log.info("leases_kept_again", host=self.leases.host)
            self.trouble, is_done = "", True
        now = (dict(self.leases.held), set(self.leases.surplus))
        if now != self._said and (is_done or self._said is not None):
            self._said = now
            self._duty.changed(*now)
        return is_done

    def _renew(self) -> None:
        try:
            self._wires.renew()
        except (RedisError, StreamError, OSError):
            self._wires.close()  # still away: the next tick connects

    def _note(self, reason: str) -> None:
        if not self.trouble:
            log.warning("leases_not_kept", host=self.leases.host, reason=reason)
        self.trouble = reason
