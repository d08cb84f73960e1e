"""
A host that ends once there is nothing left: `aurastream run --until-idle`, without Faust.

It is a member like any other: what hosts that serve hold is theirs, and it waits until they have done it.
Idle means that every lane it can run has read its log to the end, and that two looks in a row saw the same:
what a lane appends while others are looked at is seen by the second. Processors that hosts of the older
scheme may run are among the lanes: those hosts do the work, or this one once they are gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aurastream.processors import ProcessorError
from aurastream.processors.host.lane_host import LaneHost
from aurastream.processors.host.roster import LEADER, EffectJob, Job
from aurastream.streams import Ask, Backoff, Claim, Command, ServerRefuses, Trouble, aside, word_in

LOOKS_S = (0.02, 0.5)  # between two looks
SERVER_WAIT_S = 10.0


class StuckElsewhere(ProcessorError):
    """A lane that another host holds does not advance."""

    def __init__(self, host: str, trouble: Trouble) -> None:
        where = f"{trouble.group} at {trouble.stream}/{trouble.partition}"
        super().__init__(
            f"{where} is stuck on the host {host}, which runs it: {trouble.reason} "
            "See `aurastream status`; what this process could do is done."
        )
        self.host, self.trouble = host, trouble


class LanesRefused(ProcessorError):
    """All that could be done is done; some lanes this process must not run before a person decides."""

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__(" ".join(reasons))
        self.reasons = reasons


class ServerPatience:
    """How long a server may refuse, without a break, before a process with an end of its own gives up."""

    def __init__(self, most_s: float) -> None:
        self._most_s, self._since = most_s, 0.0

    def check(self, trouble: str) -> None:
        """Raise ServerRefuses where it lasts too long. trouble: what is refused now, or ""."""
        now = time.monotonic()
        if not trouble:
            self._since = now
        self._since = self._since or now
        if now - self._since > self._most_s:
            raise ServerRefuses("running until idle", word_in(trouble), trouble)


async def run_until_idle(
    host: LaneHost, stopping: Callable[[], bool], server_wait_s: float = SERVER_WAIT_S
) -> None:
    """Run the host until nothing is left for any of its lanes, or until told to stop.

    Raises what stopped a lane, where a person must mend it, StuckElsewhere, ServerRefuses once the server has
    refused for server_wait_s, and LanesRefused at the end.
    """
    pauses, before, patience = Backoff(*LOOKS_S), None, ServerPatience(server_wait_s)
    host.start()
    try:
        while not stopping():
            raise_trouble(host)
            patience.check(host.waits_for)
            now = await _places(host)
            if now is not None and now == before and await _is_all(host, now):
                if host.roster.refused:
                    raise LanesRefused(host.roster.refused)
                return
            before = now
            await asyncio.sleep(pauses.next_s())
    finally:
        await host.stop()


def raise_trouble(host: LaneHost) -> None:
    """Raise what a person must mend before the host's lanes can end."""
    for error in host.unmade.values():
        raise error
    for lane in host.lanes.values():
        if lane.error is not None:
            raise lane.error
    can = set(host.roster.jobs)
    for name, card in host.leases.cards.items():
        for trouble in card.troubles:
            if name != host.leases.host and (trouble.group, trouble.stream) in can:
                raise StuckElsewhere(name, trouble)


async def _is_all(host: LaneHost, places: dict[Claim, str]) -> bool:
    """Whether these are all lanes there are by now: what was done may have made streams and generations."""
    await aside(host.roster.look)
    return set(places) == _lanes(host)


def _lanes(host: LaneHost) -> set[Claim]:
    """All that must be at its end, whoever runs it."""
    return {claim for claim in (*host.claims(), *host.roster.waiting) if claim != LEADER}


async def _places(host: LaneHost) -> dict[Claim, str] | None:
    """Where every lane is, whoever runs it; None while one is not at the end."""
    if not (host.is_member and all(lane.is_settled for lane in host.effect_lanes)):
        return None
    claims = sorted(_lanes(host))
    questions = [_questions(claim, host.roster.job(claim)) for claim in claims]
    answers = iter(await host.wires.ask([ask for asks in questions for ask in asks], "whether all is read"))
    places = {}
    for claim, asks in zip(claims, questions, strict=True):
        cursor, last, *waiting = [next(answers) for _ in asks]
        if any(waiting) or (last and last[0][0] != cursor):
            return None
        places[claim] = (cursor or b"").decode()
    return places


def _questions(claim: Claim, job: Job | None) -> list[Ask]:
    """Where its cursor is, what the log ends with; of a processor, how much waits beside the log."""
    keys = claim.keys
    commands: list[Command] = [
        ("HGET", keys.cursor(claim.group), "position"),
        ("XREVRANGE", keys.log, "+", "-", "COUNT", 1),
    ]
    if isinstance(job, EffectJob):
        commands += [("HLEN", keys.effects(claim.group, part)) for part in ("due", "outbox")]
    return [Ask(keys.log, command) for command in commands]
