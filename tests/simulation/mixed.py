"""
A schedule of a mixed fleet: two or three groups, hosts that can run some of them, some of a newer build, a
server that refuses, is silent, or has its clock moved; judged as any schedule, and by fleet.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from aurastream.streams.members import HostCard
from tests.invariants import Held
from tests.simulation.actors import GROUPS, Owner, stream_of
from tests.simulation.fleet import LOOK_MS, STILL_MS, Standstill, as_counting, unbalanced
from tests.simulation.memory import REFUSALS
from tests.simulation.schedule import FAULTY_MS, Play, Schedule, held_in
from tests.simulation.world import Actor

SETTLE_MS = 1_000.0  # after which the shares are as they stay
MINUTES_MS = 300_000.0


class NewerCard(HostCard, frozen=True):
    """What a later build might say of itself; this one passes over it."""

    mood: str = "calm"


class MixedPlay(Play):
    """Several groups, and hosts of unlike capabilities."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.partitions = self.dice.choice((1, 2, 3, 4))
        self.stream = stream_of(self.partitions)
        self.groups = tuple(GROUPS)[: self.dice.choice((2, 2, 3))]
        self.owners: dict[str, Owner] = {}
        self.standstill = Standstill(
            (group, partition) for group in self.groups for partition in range(self.partitions)
        )
        self._calm_from = FAULTY_MS
        self.world.server.is_old = self.dice.random() < 0.3

    def run(self) -> Schedule:
        self.world.after(LOOK_MS, self._look)
        done = super().run()
        done.longest_still_ms = self.standstill.longest_ms
        return done

    def _bear_owner(self, name: str, batch_max: int) -> None:
        some = self.dice.sample(self.groups, self.dice.randint(1, len(self.groups)))
        self._bear_host(name, batch_max, tuple(sorted(some)))

    def _bear_host(self, name: str, batch_max: int, groups: tuple[str, ...]) -> None:
        owner = self.owners[name] = Owner(self.stream, name, batch_max, self.dice, groups)
        if self.dice.random() < 0.3:
            owner.leases.card = NewerCard(name, build="newer", lease_ms=owner.leases.lease_ms)
        self.world.story.append(f"{self.world.now_ms:9.1f} ms  {name} can run {', '.join(groups)}")
        self.workers.append(self.world.start(name, owner.life(lambda: self.world.now_ms)))

    def _populate(self) -> None:
        """For every group somebody that can run it; those that are stopped go on by themselves."""
        for group in self.groups:
            if not self._hosts(group):
                self._born += 1
                self._bear_host(f"owner {self._born}", 100, (group,))
        self._calm_from = max([self.world.now_ms, *(each.paused_until for each in self._living())])

    def _hosts(self, group: str) -> list[Actor]:
        """The living owners that can run it."""
        return [
            each
            for each in self._living()
            if each.name in self.owners
            and group in self.owners[each.name].groups
            and not self.owners[each.name].is_leaving
        ]

    def _misfortunes(self) -> tuple[Callable[[], None], ...]:
        more = (self._refuse, self._refuse, self._silence, self._step_clock, self._leave, self._bear_one)
        return (*super()._misfortunes(), *more, *more)

    def _refuse(self) -> None:
        """Every write, or every one that may need memory, for a while."""
        kind, ms = self.dice.choice(sorted(REFUSALS)), self.dice.uniform(10, 600)
        self.world.note(f"refused {kind}", f"for {ms:.0f} ms")
        self.world.server.refusal = kind

        def heal() -> None:
            self.world.server.refusal = ""

        self.world.after(min(ms, max(0.0, FAULTY_MS - self.world.now_ms)), heal)

    def _silence(self) -> None:
        ms = self.dice.uniform(50, 500)
        self.world.silent_until = min(FAULTY_MS, self.world.now_ms + ms)
        self.world.note("silent", f"for {ms:.0f} ms")

    def _step_clock(self) -> None:
        ms = self.dice.choice(
            (-MINUTES_MS, MINUTES_MS, -self.dice.uniform(0, 2_000), self.dice.uniform(0, 2_000))
        )
        self.world.note("clock moved", f"{ms:+.0f} ms")
        self.world.step_clock(ms)

    def _leave(self) -> None:
        """SIGTERM."""
        living = [each for each in self._living() if each.name in self.owners]
        if living:
            leaver = self.dice.choice(living)
            self.world.note("left", leaver.name)
            self.owners[leaver.name].is_leaving = True

    def _bear_one(self) -> None:
        self.world.note("joined")
        self._bear("owner")

    def _look(self) -> None:
        world = self.world
        if not world.is_faulty and world.now_ms >= self._calm_from:
            runnable = {group for group in self.groups if self._hosts(group)}
            self.standstill.look(world.server, world.now_ms, runnable=runnable)
        else:
            self.standstill.look(world.server, world.now_ms, runnable=set())
        world.after(LOOK_MS, self._look)

    def _helds(self) -> list[Held]:
        partitions = [held_in(self.world.server, partition) for partition in range(self.partitions)]
        return [as_counting(held, group) for group in self.groups for held in partitions]

    def _is_applied(self) -> bool:
        return all(
            self._is_group_applied(group, partition)
            for group in self.groups
            for partition in range(self.partitions)
        )

    def _drain(self, producers: list[Actor]) -> None:
        super()._drain(producers)
        self.world.run(lambda: False, SETTLE_MS)
        still = self.standstill
        if still.longest_ms > STILL_MS:
            group, partition = still.longest_of
            self._find(
                [f"the lane {group}/{partition} stood still for {still.longest_ms:.0f} ms without a fault"]
            )
        for group in self.groups:
            hosts = [each.name for each in self._hosts(group)]
            self._find(unbalanced(self.world.server, group, self.partitions, hosts))


FIRST_MIXED = 1_000  # seeds below play as they always did: some of them have found bugs


def play(seed: int) -> Schedule:
    """Run the schedule of the seed: of one group, or of a mixed fleet."""
    is_mixed = seed >= FIRST_MIXED and random.Random(f"mixed {seed}").random() < 0.6
    return (MixedPlay if is_mixed else Play)(seed).run()
