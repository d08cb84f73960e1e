"""
One lane's verdict: its state, its colour and why. Pure; what is red and what is amber stands in judging.py.
"""

from __future__ import annotations

from typing import NamedTuple

from aurastream.processors.fleet.facts import GroupFacts, PartitionFacts
from aurastream.processors.fleet.fleet import Colour, GroupKind, LaneState
from aurastream.projections.engine import Generation, State
from aurastream.streams import HostCard, Lag, Position, Trouble

TAKE_S = 5.0  # in which a free lane is taken by a living host
RESTART_S = 2.0  # in which a host that gave its lanes back may be there again
SLOW_S, STALL_S = 4.0, 15.0  # for which a cursor stands still while events wait
ASIDE_NEW_S = 24 * 3600.0
OLD_GROUP = "aurastream"  # of hosts before lanes had leases of their own: an app's marks of it are leftovers


class LaneVerdict(NamedTuple):
    """Of a lane. since_ms: 0 where it is not known."""

    state: LaneState
    colour: Colour = Colour.GREEN
    why: str = ""
    since_ms: int = 0


class Around(NamedTuple):
    """What others say of a lane. cards: of all living hosts; offering: of those that can run it. is_known:
    somebody runs it, has run it, or can. is_here: its log is on this server. old_hosts: of the old scheme.
    """

    cards: list[HostCard]
    offering: list[HostCard]
    trouble: Trouble | None
    generation: Generation | None
    is_known: bool
    is_here: bool
    old_hosts: int


def verdict(at: PartitionFacts, group: GroupFacts, lag: Lag, around: Around) -> LaneVerdict:
    """Of a lane that is not retired."""
    generation = around.generation
    if refusal := _unreadable(group, lag):
        return refusal
    if not around.is_here:
        return LaneVerdict(LaneState.ELSEWHERE)
    if generation is not None and generation.state is State.BUILDING:
        return _building(group)
    is_alive = around.old_hosts or any(card.host == group.owner for card in around.cards)
    if group.left_ms > 0 and is_alive:
        return _owned(at, group, lag, around.trouble)
    if around.offering:
        return _free(at, group, lag, around.offering)
    return _unowned(at, group, lag, around)


def _unreadable(group: GroupFacts, lag: Lag) -> LaneVerdict | None:
    if group.problem:
        return LaneVerdict(LaneState.STUCK, Colour.RED, group.problem)
    if lag.rewound:
        return LaneVerdict(
            LaneState.STUCK, Colour.RED, "the log ends before its cursor: run `aurastream check`"
        )
    return None


def _building(group: GroupFacts) -> LaneVerdict:
    if group.left_ms > 0:
        return LaneVerdict(LaneState.BUILDING)
    return LaneVerdict(
        LaneState.BUILDING, Colour.AMBER, "its rebuild was cut off: run it again", group.free_ms
    )


def _owned(at: PartitionFacts, group: GroupFacts, lag: Lag, trouble: Trouble | None) -> LaneVerdict:
    if trouble is not None:
        return LaneVerdict(LaneState.STUCK, Colour.RED, trouble.reason, trouble.since_ms)
    still_s = still_of(at, group, lag)
    if still_s <= SLOW_S:
        why = f"the log lost {lag.missing:,} entries without the trimmer: run `aurastream check`"
        colour = Colour.AMBER if lag.missing else Colour.GREEN
        return LaneVerdict(LaneState.RUNS, colour, why if lag.missing else "", group.owned_ms)
    since_ms = at.now_ms - round(still_s * 1000)
    if kind_of(group) is GroupKind.PROCESSOR:
        why = "handlers take long, or are tried again: its cursor stands still"
        return LaneVerdict(LaneState.RUNS, Colour.AMBER if still_s > STALL_S else Colour.GREEN, why, since_ms)
    if still_s <= STALL_S:
        return LaneVerdict(LaneState.RUNS, Colour.AMBER, "its cursor stands still", since_ms)
    return LaneVerdict(
        LaneState.STUCK, Colour.RED, "its cursor stands still, and its host does not say why", since_ms
    )


def _free(at: PartitionFacts, group: GroupFacts, lag: Lag, offering: list[HostCard]) -> LaneVerdict:
    """A lane that a living host can run and nobody owns."""
    free_s = (at.now_ms - group.free_ms) / 1000 if group.free_ms else lag.seconds
    if lag.events and min(free_s, lag.seconds) > TAKE_S:
        hosts = ", ".join(card.host for card in offering[:3])
        why = f"no host has taken it, though one could: {hosts}"
        return LaneVerdict(LaneState.FREE, Colour.RED, why, group.free_ms)
    return LaneVerdict(
        LaneState.FREE, Colour.AMBER if lag.events else Colour.GREEN, "it is about to be taken"
    )


def _unowned(at: PartitionFacts, group: GroupFacts, lag: Lag, around: Around) -> LaneVerdict:
    """A lane that no living host can run."""
    if not around.is_known:
        return LaneVerdict(LaneState.NEW)
    if around.generation is not None and around.generation.state is State.KEPT:
        return LaneVerdict(LaneState.KEPT)
    is_forgotten = group.is_let_go or (group.cursor.read > 0 and group.name not in at.joined)
    if is_forgotten or (group.name == OLD_GROUP and group.acked is not None):
        return LaneVerdict(LaneState.FORGOTTEN)
    if around.old_hosts and still_of(at, group, lag) < STALL_S:
        return LaneVerdict(LaneState.UNOWNED, Colour.AMBER, "a host of an older build may run it")
    since_ms = group.free_ms or (
        at.now_ms if group.left_ms else 0
    )  # its owner is forgotten, and now it lapses
    why = _why_unowned(at.keys.stream, group.name, around.cards)
    is_restart = not since_ms and lag.seconds < RESTART_S
    is_red = lag.events and not is_restart
    return LaneVerdict(LaneState.UNOWNED, Colour.RED if is_red else Colour.AMBER, why, since_ms)


def _why_unowned(stream: str, group: str, cards: list[HostCard]) -> str:
    base = group.partition("@")[0]
    if not cards:
        return "no host lives"
    notes = [note for card in cards for note in card.notes if _is_about(note, base)]
    if notes:
        return notes[0].rstrip(".")
    every = {name for card in cards for name in card.offers.get(stream, ())}
    others = sorted(name for name in every if name.partition("@")[0] == base)
    if others:
        return f"the hosts that live have another definition of it (they run {', '.join(others)})"
    return "no host that lives has its code, or was started to run it"


def _is_about(note: str, name: str) -> bool:
    return any(word.strip("'\"`,.:;()").partition("@")[0] == name for word in note.split())


def still_of(at: PartitionFacts, group: GroupFacts, lag: Lag) -> float:
    """Seconds: events have waited, the cursor not moved, and the owner been the owner; the least of them."""
    if not lag.events:
        return 0.0
    since_ms = max(group.moved_ms, group.owned_ms)
    return min(lag.seconds, (at.now_ms - since_ms) / 1000) if since_ms else lag.seconds


def aside_colour(group: GroupFacts, now_ms: int) -> Colour:
    """Of what it could not use."""
    if not group.set_aside:
        return Colour.GREEN
    if group.are_letters:
        return Colour.AMBER if group.due else Colour.RED
    newest_ms = max((Position.parse(each.position).ms for each in group.shown), default=0)
    return Colour.AMBER if now_ms - newest_ms < ASIDE_NEW_S * 1000 else Colour.GREEN


def kind_of(group: GroupFacts) -> GroupKind:
    """By what it has left."""
    if group.cursor.fingerprint:
        return GroupKind.VIEW
    if group.cursor.read or group.are_letters or group.begun:
        return GroupKind.PROCESSOR
    return GroupKind.APP if group.acked is not None else GroupKind.UNKNOWN
