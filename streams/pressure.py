"""
Back-pressure: how far a partition's log may be ahead of the slowest group.

    a group joins a partition with its first step (join.lua)          -> groups: group -> the log's counts
    then
    append.lua, in its plan:  log - max(read, joined) + new > budget  -> FULL, nothing written
    the producer waits and asks again, at most pressure_wait_s        -> BacklogFull, which names group and
    remedy

Always true: nothing is dropped; a group that stopped still counts, until a person forgets it. What was in the
log before a group joined holds nobody back, so that a new projection on an old log does not stop the
producers. Exact: the script verifies that the producer knows all groups, and counts by the log itself, raw
XADDs included (their bytes are not).

Decision (2026-11): bytes are JSON plus OVERHEAD_BYTES for the entry and its ids row, measured as 62 to 91 on
Valkey 9.1 and as 100 to 154 on Redis 7.0. Refused: used_memory, which the views share; a registry read every
second, which is late by up to a second. Who has room asks nobody: meta.clear says how far the log may grow,
so that a budget costs less than can be measured. Derived events and the audit trail are not held back
(``Stream.appending``): a processor must not wait for a place that only it can free.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from aurastream.streams.connection import Server
from aurastream.streams.drive import Command, sound
from aurastream.streams.errors import BacklogFull
from aurastream.streams.faults import Backoff
from aurastream.streams.groups import cursor_of
from aurastream.streams.instant import at_once
from aurastream.streams.keys import Keys
from aurastream.streams.settings import Pressure, Settings
from aurastream.streams.wire import Script

OVERHEAD_BYTES = 128  # append/budget.lua holds the same number
PAUSE_FIRST_S, PAUSE_MAX_S = 0.005, 0.25  # between two looks of a producer that waits

_JOIN = Script(__file__, "join.lua")


class Backlog(msgspec.Struct, frozen=True):
    """How far a group is behind in a partition, as append.lua counts it. joined_ms: server time."""

    group: str
    events: int
    bytes: int
    joined_ms: int


def join(keys: Keys, group: str) -> Command:
    """The command by which a group joins a partition; repeating it changes nothing."""
    return _JOIN.call((keys.groups, keys.log, keys.meta), (group,))


def backlogs(server: Server, keys: Keys) -> list[Backlog]:
    """Every joined group, the slowest first."""
    joined: dict[bytes, bytes] = server.client.hgetall(keys.groups)  # type: ignore[assignment]
    names = sorted(name.decode() for name in joined)
    cursors = [keys.cursor(name) for name in names]
    looks = (("XLEN", keys.log), ("HMGET", keys.meta, "trimmed", "bytes"))
    length, (trimmed, written), *read = sound(  # one snapshot, or the counts would not agree
        at_once(server, (keys.log, keys.meta, *cursors), (*looks, *[("HGETALL", key) for key in cursors]))
    )
    behind = []
    for name, reply in zip(names, read, strict=True):
        at = cursor_of(reply)
        events, size, since = (int(part) for part in joined[name.encode()].split())
        ahead = max(0, length + int(trimmed or 0) - max(at.read, events))
        behind.append(
            Backlog(
                name,
                ahead,
                max(0, int(written or 0) - max(at.read_bytes, size)) + ahead * OVERHEAD_BYTES,
                since,
            )
        )
    return sorted(behind, key=lambda item: (-item.events, item.group))


def forget(server: Server, partitions: Iterable[Keys], group: str) -> int:
    """Producers wait for the group no longer. Returns in how many partitions it had joined; one that starts
    again joins again.
    """
    return sum(int(server.client.hdel(keys.groups, group)) for keys in partitions)


class Budget(msgspec.Struct, frozen=True):
    """How far a partition's log may be ahead of its slowest group; 0: no bound."""

    events: int
    bytes: int


class Gate:
    """A producer's side of one stream: the budget, and the groups of the partitions where the script asked
    for them.
    """

    def __init__(self, events: int, size: int) -> None:
        """The budget; 0: no bound."""
        self.limits = (events, size)
        self._budget = Budget(events, size) if events or size else None
        self._known: dict[int, list[str]] = {}

    def question(self, partition: int) -> tuple[Budget | None, list[str]]:
        """What append.lua is told besides: the budget, None where nobody is asked, and the groups we know."""
        return self._budget, self._known.get(partition, []) if self._budget is not None else []

    def learn(self, partition: int, groups: list[bytes]) -> None:
        """The script named all groups: ask again with their cursors."""
        self._known[partition] = [group.decode() for group in groups]

    def passed(self, partition: int) -> None:
        """It fitted. The script remembers how far it may go without asking anyone, and says so when it must
        ask again.
        """
        self._known.pop(partition, None)


class Patience:
    """How long one append has been waiting. Made anew for every call."""

    def __init__(self, settings: Settings) -> None:
        wait_s = settings.pressure_wait_s if settings.pressure is Pressure.WAIT else 0.0
        self._ends = time.monotonic() + wait_s
        self._backoff = Backoff(PAUSE_FIRST_S, PAUSE_MAX_S)

    def wait(self, why: BacklogFull) -> None:
        """Pause before asking again; raises `why` when it has waited long enough."""
        left_s = self._ends - time.monotonic()
        if left_s <= 0:
            raise why
        time.sleep(min(left_s, self._backoff.next_s()))
