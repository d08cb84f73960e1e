"""
All lanes of a host on Redis: what it may run by its leases, it runs.

    roster (what we can run) -> the keeper's thread: leases -> held, surplus -> a lane for every claim held
    lost        the lane is ended at once; it could only be fenced
    surplus     the lane ends when its work under way is done, then the lease is given back, for others to
                claim
    stop        the same for all of them, within the patience; then the host is a member no longer

A host that serves (app.py, in Faust) and one that runs until there is nothing left (until_idle.py) are the
same here: members like any other. Always true: a lane runs only while its claim is held or its lease is being
given back; what the lanes do is right whoever else runs them, as the cursor and the epoch decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Protocol

import msgspec

from aurastream.processors.effects import EffectLane, Isolation, LaneOptions, LaneRunner, Watchdog
from aurastream.processors.host.lane import HostedLane
from aurastream.processors.host.roster import LEADER, EffectJob, Roster, ViewJob
from aurastream.processors.host.wakes import Wakes
from aurastream.projections.engine import GroupLane
from aurastream.streams import (
    LEASE_MS,
    TROUBLES_MAX,
    AsyncWires,
    Claim,
    HostCard,
    LeaseKeeper,
    Leases,
    Logger,
    Trouble,
    aside,
    text_of,
)

LOOP_PATIENCE_S = 30.0  # how long a loop may show no life before its leases are given up
CHECK_S = 0.2  # between two looks at the lanes: fenced ones are given up, troubles go on the card
LOST_S = 1.0  # for the commit under way: one that is cut off is known by the cursor
LEAVE_S = 5.0  # for giving the leases back, whatever the server does
PATIENCE_S = 30.0
POLLS_S = (0.5, 1.0)  # between a processor's looks at a log without news, should nobody wake it
BATCH_MAX = 16_000

log = Logger("aurastream.host")


class Running(Protocol):
    """What a host drives: HostedLane, LaneRunner."""

    is_fenced: bool

    @property
    def error(self) -> Exception | None:
        """What a person must mend, or None."""
        ...

    def start(self, epoch: int | None) -> None:
        """Begin, or go on under another epoch."""
        ...

    async def stop(self, patience_s: float) -> None:
        """End when the work under way is done, or after so long."""
        ...


class HostOptions(msgspec.Struct, frozen=True):
    """kind: run or until-idle, for the card. patience_s: for the work under way when a lane must go.
    lease_ms: 0 for the usual.
    """

    kind: str = "run"
    lease_ms: int = 0
    patience_s: float = PATIENCE_S
    batch_max: int = BATCH_MAX


class LaneHost:
    """See the module. For one event loop. lanes: by claim. on_lane: called with every view's lane."""

    def __init__(self, wires: AsyncWires, roster: Roster, options: HostOptions) -> None:
        self.roster, self.options, self.wires = roster, options, wires
        self.leases = Leases(lease_ms=options.lease_ms or LEASE_MS, kind=options.kind)
        self.roster.cards = lambda: {
            host: card for host, card in self.leases.cards.items() if host != self.leases.host
        }
        self.keeper = LeaseKeeper(wires.server, self.leases, self)
        self.effect_options = LaneOptions(host=self.leases.host)
        self.lanes: dict[Claim, Running] = {}
        self.unmade: dict[Claim, Exception] = {}  # held, and a plug-in's code raised before it was a lane
        self.held: dict[Claim, int] = {}
        self.on_lane: Callable[[HostedLane], None] = lambda lane: None
        self.watchdog = Watchdog()
        self._wakes, self._isolation = Wakes(wires), Isolation(self.watchdog)
        self._giving: set[Claim] = set()
        self._ending: dict[Claim, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed = asyncio.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_leaving = False
        self._troubles: tuple[Trouble, ...] = ()
        self._build = _build()

    # What the keeper asks and says, from its thread.

    def claims(self) -> list[Claim]:
        """The lanes this host can run now."""
        return [] if self._is_leaving else self.roster.claims()

    def card(self, card: HostCard) -> HostCard:
        """What this host says of itself; also, for a minute, which handler blocked its loop."""
        blocking = self.watchdog.trouble
        notes = (*self.roster.notes, blocking) if blocking else self.roster.notes
        return msgspec.structs.replace(card, build=self._build, troubles=self._troubles, notes=notes)

    def blocked(self) -> str:
        """Why its leases may not be renewed: the loop shows no life."""
        blocked = self.watchdog.blocked()  # which says so in the log
        return str(blocked) if blocked is not None and blocked.for_s > LOOP_PATIENCE_S else ""

    def changed(self, held: dict[Claim, int], surplus: set[Claim]) -> None:
        """These are ours now."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._follow, held, surplus)

    # The loop.

    def start(self) -> None:
        """Begin: the lanes come with the first tick of the leases."""
        self._loop = asyncio.get_running_loop()
        self._spawn(self.watchdog.live(), "aurastream-watchdog")
        self._spawn(self._check(), "aurastream-lanes")
        self.keeper.start()

    async def stop(self) -> None:
        """End all lanes when their work under way is done, give everything back; within the patience."""
        self._is_leaving = self.roster.is_over = True
        self.keeper.hurry()  # the others learn that their shares grow
        self.wires.hurry(LOST_S)
        for lane in self.effect_lanes:  # those too that end already, with the patience of a lane given away
            asyncio.get_running_loop().call_later(self.options.patience_s, lane.cut)
        await asyncio.gather(*[self._end(claim, self.options.patience_s) for claim in list(self.lanes)])
        await aside(lambda: self.keeper.stop(LEAVE_S))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._wakes.close()
        await self.wires.close()

    async def failed(self) -> None:
        """Wait until one of its own tasks failed, which ends the process. Raises that."""
        await self._failed.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def is_member(self) -> bool:
        """Whether the others know of it, so that it gets its share."""
        return self.leases.host in self.leases.cards

    @property
    def owned(self) -> int:
        """How many lanes it holds."""
        return len([claim for claim in self.held if claim != LEADER])

    @property
    def takeovers(self) -> int:
        """Of them, from hosts that did not give them back."""
        return self.leases.takeovers

    @property
    def waits_for(self) -> str:
        """Why its leases are not kept, or what the server refuses its lanes; "" while all is well."""
        return self.keeper.trouble or self.wires.trouble

    @property
    def waits_since_ms(self) -> int | None:
        """Since when the server refuses or does not answer its lanes; None while it does."""
        return self.wires.trouble_since_ms

    @property
    def is_leader(self) -> bool:
        """Whether Faust's timers of the leader run here."""
        return LEADER in self.held

    @property
    def view_lanes(self) -> list[HostedLane]:
        """Those of views."""
        return [lane for lane in self.lanes.values() if isinstance(lane, HostedLane)]

    @property
    def effect_lanes(self) -> list[LaneRunner]:
        """Those of processors."""
        return [lane for lane in self.lanes.values() if isinstance(lane, LaneRunner)]

    def _follow(self, held: dict[Claim, int], surplus: set[Claim]) -> None:
        """Have a lane for what is held, and none for what is not."""
        self.held = held
        for claim in [claim for claim in self.lanes if claim not in held]:
            self._spawn(self._end(claim, LOST_S), f"end {claim.group} {claim.keys.where}")
        for claim in surplus - self._giving:
            self._giving.add(claim)
            self._spawn(self._give(claim), f"give {claim.group} {claim.keys.where}")
        for claim, epoch in held.items():
            if claim not in self._giving and claim != LEADER and not self._is_leaving:
                self._begin(claim, epoch)

    def _begin(self, claim: Claim, epoch: int) -> None:
        if claim in self._ending:  # it is begun again when that is over
            return
        lane = self.lanes.get(claim)
        if lane is None:
            made = self._made_or_said(claim)
            if made is None:
                return
            lane = self.lanes[claim] = made
        lane.start(epoch)

    def _made_or_said(self, claim: Claim) -> Running | None:
        """None where what it was of is gone, so that the next tick finds it to be surplus; and where a
        plug-in's own code raises: that is on the card, and the lanes behind it are begun all the same.
        """
        try:
            made = self._made(claim)
        except Exception as error:
            if claim not in self.unmade:
                log.exception("lane_not_made", group=claim.group, where=claim.keys.where)
            self.unmade[claim] = error
            return None
        self.unmade.pop(claim, None)
        return made

    def _made(self, claim: Claim) -> Running | None:
        match self.roster.job(claim):
            case ViewJob(projection, generation, stream):
                lane = GroupLane(
                    projection,
                    stream,
                    claim.partition,
                    generation=generation,
                    batch_max=self.options.batch_max,
                )
                hosted = HostedLane(lane, self.wires, self._wakes)
                self.on_lane(hosted)
                return hosted
            case EffectJob(processor, streams):
                effect = EffectLane(processor, streams, claim.partition, self.effect_options)
                runner = LaneRunner(effect, self.wires, self._isolation, POLLS_S)
                runner.waker = self._wakes
                return runner
            case _:
                return None

    async def _end(self, claim: Claim, patience_s: float) -> None:
        """End the lane after its work under way: of a view, the commit; of a processor, the handlers. Who
        comes while it ends waits for the same end.
        """
        ending, lane = self._ending.get(claim), self.lanes.get(claim)
        if ending is None and lane is not None:
            patience_s = LOST_S if isinstance(lane, HostedLane) else patience_s
            ending = asyncio.create_task(self._ended(claim, lane, patience_s), name=f"end {claim.keys.where}")
            self._ending[claim] = ending
        if ending is not None:
            await asyncio.shield(ending)

    async def _ended(self, claim: Claim, lane: Running, patience_s: float) -> None:
        try:
            await lane.stop(patience_s)
        finally:
            del self.lanes[claim], self._ending[claim]
            self._resume(claim)

    def _resume(self, claim: Claim) -> None:
        """Begin a lane that is ours again by now: it was lost and claimed while its lane ended."""
        epoch = self.leases.held.get(claim)
        if epoch is not None and claim not in self._giving and claim != LEADER and not self._is_leaving:
            self._begin(claim, epoch)

    async def _give(self, claim: Claim) -> None:
        """Let go of surplus once its work under way is done; others' events are handled meanwhile."""
        try:
            lane = self.lanes.get(claim)
            if isinstance(lane, LaneRunner):
                await lane.ripen()
            await self._end(claim, lane.longest_s if isinstance(lane, LaneRunner) else LOST_S)
            if not self._is_leaving:  # then all is given back at once
                await asyncio.wrap_future(self.keeper.release([claim]))
        finally:
            self._giving.discard(claim)
            self._resume(claim)

    async def _check(self) -> None:
        """For ever: lanes that were fenced are given up, troubles go on the card."""
        while True:
            fenced = [claim for claim, lane in self.lanes.items() if lane.is_fenced]
            if fenced:
                await asyncio.wrap_future(self.keeper.lost(fenced))
            self.unmade = {claim: error for claim, error in self.unmade.items() if claim in self.held}
            stuck = [*map(_unmade, self.unmade.items()), *map(_stuck, self.lanes.values())]
            self._troubles = tuple(islice(filter(None, stuck), TROUBLES_MAX))
            await asyncio.sleep(CHECK_S)
            for claim in list(self.unmade):
                self._resume(claim)

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("host_task_failed", task=task.get_name(), exc_info=task.exception())
            self._failure = self._failure or task.exception()
            self._failed.set()


def _stuck(lane: Running) -> Trouble | None:
    """Why it does not advance, for the card."""
    return lane.stuck if isinstance(lane, HostedLane) else getattr(lane, "trouble_facts", None)


def _unmade(lane: tuple[Claim, Exception]) -> Trouble:
    """A lane that could not be made, for the card."""
    claim, error = lane
    reason = f"the lane cannot be made: {type(error).__name__}: {text_of(error)}"
    return Trouble(claim.group, claim.stream, claim.partition, reason)


def _build() -> str:
    """The version of this build, for the card."""
    from aurastream import __version__

    return __version__
