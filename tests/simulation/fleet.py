"""
Mixed fleets: what is judged of ownership, and the misfortunes that are a fleet's.

    hosts of unlike capabilities (two or three groups, each host some of them), hosts that end in good order,
    a server that refuses writes, is silent, or has its clock moved

Always true, once faults have ceased (and everybody they stopped goes on):
    no lane that some living host can run stands still for longer than STILL_MS while it has a lag
    at the end every lane has an owner that can run it, and of each (group, stream) all owners that can run it
    hold as many lanes, or one more than the others
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from aurastream.streams import Keys
from aurastream.streams.leases import LEASE_MS_MIN
from tests.invariants import Held
from tests.simulation.actors import STREAM
from tests.simulation.memory import Log, Memory

STILL_MS = LEASE_MS_MIN + 1_000.0
LOOK_MS = 20.0
Lane = tuple[str, int]  # group, partition


class Standstill:
    """How long each lane has stood still with a lag, looked at every LOOK_MS."""

    def __init__(self, lanes: Iterable[Lane]) -> None:
        self._since: dict[Lane, tuple[bytes, float]] = dict.fromkeys(lanes, (b"", 0.0))
        self.longest_ms = 0.0
        self.longest_of: Lane = ("", 0)

    def look(self, server: Memory, now_ms: float, *, runnable: set[str]) -> None:
        """runnable: the groups that some living host can run."""
        for lane, (position, since) in self._since.items():
            group, partition = lane
            keys = Keys(STREAM, partition)
            log, at = server.data.get(keys.log.encode()), position_of(server, group, partition)
            has_lag = isinstance(log, Log) and bool(log.entries) and log.entries[-1][0] != at
            if not has_lag or at != position or group not in runnable:
                self._since[lane] = at, now_ms
            elif now_ms - since > self.longest_ms:
                self.longest_ms, self.longest_of = now_ms - since, lane


def position_of(server: Memory, group: str, partition: int) -> bytes:
    """Of the group's cursor; b"" where there is none."""
    cursor = server.data.get(Keys(STREAM, partition).cursor(group).encode()) or {}
    position: bytes = cursor.get(b"position", b"")
    return position


def owners_of(server: Memory, group: str, partitions: int) -> list[str]:
    """By the leases, as of now; "" for none."""
    owners = []
    for partition in range(partitions):
        lease = server.data.get(Keys(STREAM, partition).lease(group).encode()) or {}
        is_valid = float(lease.get(b"until", b"0")) > server.now_ms
        owners.append(lease.get(b"owner", b"").decode() if is_valid else "")
    return owners


def unbalanced(server: Memory, group: str, partitions: int, hosts: list[str]) -> list[str]:
    """What is wrong with who owns the group's lanes. hosts: the living ones that can run them."""
    owners = owners_of(server, group, partitions)
    if not hosts:
        return []
    if strangers := [owner or "nobody" for owner in owners if owner not in hosts]:
        return [
            f"lanes of {group} are owned by {sorted(set(strangers))}, of the hosts {hosts} that can run them"
        ]
    held = Counter(dict.fromkeys(hosts, 0)) + Counter(owners)
    counts = [held[host] for host in hosts]
    if max(counts) - min(counts) > 1:
        return [f"lanes of {group} are shared as {dict(zip(hosts, counts, strict=True))}"]
    return []


def as_counting(held: Held, group: str) -> Held:
    """The partition as if the group were the one that the checker knows: their folds are the same."""
    if group == "counting":
        return held
    renamed = {f"cursor:{group}": "cursor:counting", f"dead:{group}": "dead:counting"}
    projection, _, generation = group.partition("@")
    view = f"view:{projection}:{generation or 1}:"

    def tail(name: str) -> str | None:
        if name.startswith(view):
            return name.replace(view, "view:counting:1:", 1)
        return renamed.get(name, None if "counting" in name else name)

    made = Held(held.stream, held.partition, held.log, added=held.added, with_ttl=held.with_ttl)
    made.hashes = {name: rows for old, rows in held.hashes.items() if (name := tail(old)) is not None}
    made.rankings = {name: rows for old, rows in held.rankings.items() if (name := tail(old)) is not None}
    made.kinds = {name: kind for old, kind in held.kinds.items() if (name := tail(old)) is not None}
    made.pending = {"counting": held.pending.get(group, 0)}
    return made
