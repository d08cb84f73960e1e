"""
Time, the network and what goes wrong in them, all from one random source.

    an actor is a generator: it yields Ask(commands) and is sent the answers, or Sleep(ms); a lost connection
    is raised in it

A request is executed when it arrives, which by seed is: as it should be; never; without its answer coming
back; in part; again after the answer (doubled); or after the asker has given it up and asked again (a late
duplicate). Nothing here runs in two threads, and
nothing asks the clock: the same seed gives the same run, event for event.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ConnectionError as LostConnection

from tests.simulation.memory import Memory

ANSWER_TIMEOUT_MS = 150.0  # after which whoever is not answered gives the connection up
EVENTS_MAX = 60_000  # of one schedule; beyond it something goes round in circles


@dataclass(frozen=True)
class Ask:
    """Send the commands together."""

    commands: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Sleep:
    """Do nothing for a while."""

    ms: float


Life = Generator[Ask | Sleep, Any, None]


class Actor:
    """Somebody who lives in the world. trouble: the error that ended it."""

    def __init__(self, name: str, life: Life) -> None:
        self.name, self.life = name, life
        self.is_over = False
        self.trouble: Exception | None = None
        self.paused_until = 0.0
        self.is_asking = self.is_cut_off = (
            False  # waits for an answer; its connection is dead and it does not know yet
        )
        self.turn = 0  # counts what it was given: an answer for an earlier turn comes too late


class World:
    """One schedule's world."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.server = Memory()
        self.now_ms = 0.0
        self.skew_ms = self.server.now_ms  # the server's clock minus ours
        self.is_faulty = True
        self.silent_until = 0.0  # what is asked before then is never answered
        self.actors: list[Actor] = []
        self.story: list[str] = []
        self.faults: dict[str, int] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self.under_way = 0  # requests that have not arrived yet

    def after(self, ms: float, what: Callable[[], None]) -> None:
        """Do it then."""
        self._number += 1
        heapq.heappush(self._due, (self.now_ms + ms, self._number, what))

    def note(self, fault: str, *more: Any) -> None:
        """Remember what went wrong, for whoever replays."""
        self.faults[fault] = self.faults.get(fault, 0) + 1
        self.story.append(f"{self.now_ms:9.1f} ms  {fault} {' '.join(map(str, more))}")

    def start(self, name: str, life: Life) -> Actor:
        actor = Actor(name, life)
        self.actors.append(actor)
        self._later(actor, self.dice.random() * 5, None)
        return actor

    def run(self, is_done: Callable[[], bool], limit_ms: float) -> bool:
        """Let things happen until it is done; False when it is not after limit_ms."""
        end = self.now_ms + limit_ms
        for _ in range(EVENTS_MAX):
            if is_done():
                return True
            if not self._due or self._due[0][0] > end:
                self.now_ms = end
                return is_done()
            self.now_ms, _, what = heapq.heappop(self._due)
            self.server.now_ms = max(self.server.now_ms, self.now_ms + self.skew_ms)
            what()
        return False

    def kill(self, actor: Actor) -> None:
        """It loses its memory; what it has sent may still arrive."""
        actor.is_over = True
        actor.life.close()

    def fail_over(self, to: Memory, skew_ms: float) -> None:
        """Another server is the primary from now on, with a clock of its own: every connection is lost."""
        self.server = to
        self.skew_ms += skew_ms
        to.now_ms = self.now_ms + self.skew_ms
        for actor in self.actors:
            actor.is_cut_off = True
            if actor.is_asking and not actor.is_over:
                actor.turn += 1
                self._lose(actor, actor.turn, self.dice.random() * 5)

    def step_clock(self, ms: float) -> None:
        """The server's clock is set: forward, or back."""
        self.skew_ms += ms
        self.server.now_ms += ms

    def _later(self, actor: Actor, ms: float, given: Any) -> None:
        """Give it an answer after a while, unless something else comes first."""
        actor.turn += 1
        turn = actor.turn
        self.after(ms, lambda: self._give(actor, turn, given))

    def _give(self, actor: Actor, turn: int, given: Any) -> None:
        if actor.is_over or turn != actor.turn:
            return
        if actor.paused_until > self.now_ms:  # stopped: the answer waits in its socket
            self.after(actor.paused_until - self.now_ms, lambda: self._give(actor, turn, given))
            return
        actor.turn += 1
        actor.is_asking = False
        try:
            wish = actor.life.throw(given) if isinstance(given, Exception) else actor.life.send(given)
        except StopIteration:
            actor.is_over = True
        except Exception as error:
            actor.is_over, actor.trouble = True, error
        else:
            if isinstance(wish, Sleep):
                self._later(actor, wish.ms, None)
            else:
                self._send(actor, wish.commands)

    def _send(self, actor: Actor, commands: list[tuple[Any, ...]]) -> None:
        """The request is on its way; what becomes of it is decided here."""
        dice = self.dice
        there, back = dice.random() * 3, dice.random() * 3
        turn = actor.turn
        actor.is_asking = True
        if actor.is_cut_off:
            actor.is_cut_off = False
            self._lose(actor, turn, there)
            return
        if self.now_ms < self.silent_until:
            self._lose(actor, turn, ANSWER_TIMEOUT_MS)
            return
        fate = dice.random() if self.is_faulty else 1.0
        if fate > 0.12:
            self._arrive(there, commands, lambda answers: self._answer(actor, turn, back, answers))
        elif fate > 0.10:
            self.note("slow", actor.name, _names(commands))
            self._arrive(
                there + dice.random() * 300,
                commands,
                lambda answers: self._answer(actor, turn, back, answers),
            )
        else:
            if fate <= 0.02:
                self.note("request lost", actor.name, _names(commands))
            elif fate <= 0.05:
                self.note("answer lost", actor.name, _names(commands))
                self._arrive(there, commands)
            elif fate <= 0.06:
                self.note("request cut", actor.name, _names(commands))
                self._arrive(there, commands[: dice.randrange(len(commands) + 1)])
            elif fate <= 0.08:
                self.note("late duplicate", actor.name, _names(commands))
                self._arrive(20 + dice.random() * 600, commands)
            else:
                self.note("doubled", actor.name, _names(commands))
                self._arrive(there + dice.random() * 300, commands)
                self._arrive(there, commands, lambda answers: self._answer(actor, turn, back, answers))
                return
            self._lose(actor, turn, there + back)

    def _arrive(
        self,
        ms: float,
        commands: list[tuple[Any, ...]],
        then: Callable[[list[Any]], None] = lambda answers: None,
    ) -> None:
        self.under_way += 1

        def arrive() -> (
            None
        ):  # at whatever server is the primary then: a virtual address delivers to whoever is there
            self.under_way -= 1
            then(self.server.run(commands))

        self.after(ms, arrive)

    def _answer(self, actor: Actor, turn: int, ms: float, answers: list[Any]) -> None:
        self.after(ms, lambda: self._give(actor, turn, answers))

    def _lose(self, actor: Actor, turn: int, ms: float) -> None:
        self.after(ms, lambda: self._give(actor, turn, LostConnection("the connection was lost")))


def _names(commands: list[tuple[Any, ...]]) -> str:
    return "+".join(str(command[0]) for command in commands)
