"""
Leases: what ownership costs the server, and how fast and how evenly lanes are shared.

    64 partitions x 10 groups x 8 hosts, each host a process with the thread that keeps its leases and nothing
    else; all join one after the other, then the fleet is still, then one is killed and the others take over

Balance is counted for every group: the most and the least a host holds. Costs are the server's, of the still
fleet: CPU seconds and commands a second, where one command renews all of a host's lanes in a partition. A
look is what status and /fleet are judged from.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable

from aurastream.processors.fleet import FleetReader
from aurastream.streams import (
    Claim,
    HostCard,
    InvariantBroken,
    LeaseKeeper,
    Leases,
    Server,
    Settings,
    open_stream,
)
from benchmarks.measure import Plan, Report, Target, client_of, server_cpu_s

PARTITIONS, GROUPS = 64, 10
STREAM = "leased"
PATIENCE_S = 120.0
LOOKS = 50
LOOK_MS, PYTHON_MS = 20.0, 40.0
CPU_SHARE = 0.05  # of one core of the server
BEYOND_LEASE_MS, IDLE_MS = 1_000.0, 1_000.0
LOOK_S = 0.02

LANES = [Claim(f"group-{group}", STREAM, number) for group in range(GROUPS) for number in range(PARTITIONS)]


class _Holding:
    """A host that only holds leases: what it has too many of it gives back at once."""

    def __init__(self, url: str) -> None:
        self.keeper = LeaseKeeper(Server(url), Leases(), self)

    def claims(self) -> list[Claim]:
        """All lanes."""
        return LANES

    def card(self, card: HostCard) -> HostCard:
        """As it is."""
        return card

    def blocked(self) -> str:
        """Never: there is no loop."""
        return ""

    def changed(self, held: dict[Claim, int], surplus: set[Claim]) -> None:
        """Give it back."""
        if surplus:
            self.keeper.release(surplus)


def share(url: str, plan: Plan) -> Report:
    """Join, hold, lose one."""
    server = Server(url)
    open_stream(server, STREAM, settings=Settings(partitions=PARTITIONS), create=True).close()
    context = multiprocessing.get_context("spawn")
    hosts = [context.Process(target=_hold, args=(url,), daemon=True) for _ in range(plan.lease_hosts)]
    try:
        for host in hosts[:-1]:
            host.start()
        _until(lambda: _is_balanced(owners(server), plan.lease_hosts - 1), "the lanes to be shared")
        idle_ms = _joined(server, hosts[-1], plan.lease_hosts)
        cpu, commands = _still(url, plan)
        look_ms, python_ms = _looked(server, url, cpu)
        took_ms = _killed(server, hosts[0].pid or 0)
    finally:
        for host in hosts:
            host.kill()
            host.join()
    size = f"{PARTITIONS} partitions x {GROUPS} groups x {plan.lease_hosts} hosts"
    note = f"{commands:,.0f} commands a second; lease {plan_lease_ms():,} ms"
    return Report(
        targets=[
            Target(f"leases of {size}: CPU of the server", CPU_SHARE, "s/s", cpu, note=note),
            Target("a look at the fleet: CPU of the server", LOOK_MS, "ms", look_ms),
            Target("a look at the fleet: CPU of who looks", PYTHON_MS, "ms", python_ms),
            Target("a lane that moves to a host that joins, idle at most", IDLE_MS, "ms", idle_ms),
            Target("all lanes of a killed host taken over", plan_lease_ms() + BEYOND_LEASE_MS, "ms", took_ms),
        ]
    )


WORK = (share,)


def plan_lease_ms() -> int:
    """The usual lease."""
    return Leases().lease_ms


def _hold(url: str) -> None:
    holding = _Holding(url)
    holding.keeper.start()
    signal.pause()


def owners(server: Server) -> dict[Claim, int]:
    """Lane -> pid of the host that has it."""
    with server.client.pipeline(transaction=False) as pipeline:
        for claim in LANES:
            pipeline.hget(claim.keys.lease(claim.group), "owner")
        names = pipeline.execute()
    return {
        claim: int(name.decode().rsplit("-", 2)[1]) for claim, name in zip(LANES, names, strict=True) if name
    }


def _is_balanced(held: dict[Claim, int], hosts: int) -> bool:
    """Whether of every group each host holds its share, within one."""
    least, most = PARTITIONS // hosts, -(-PARTITIONS // hosts)
    if len(held) < len(LANES) or len(set(held.values())) != hosts:
        return False
    counts = Counter((claim.group, pid) for claim, pid in held.items())
    return len(counts) == GROUPS * hosts and all(least <= count <= most for count in counts.values())


def _joined(server: Server, host: multiprocessing.process.BaseProcess, hosts: int) -> float:
    """The longest that a lane was seen to be nobody's, in milliseconds, until the host has its share."""
    free: dict[Claim, float] = {}
    longest_s = 0.0
    host.start()
    end = time.monotonic() + PATIENCE_S
    while not _is_balanced(held := owners(server), hosts):
        now = time.monotonic()
        if now > end:
            raise InvariantBroken(f"waited {PATIENCE_S:.0f} s for a host that joins to get its share")
        free = {claim: free.get(claim, now) for claim in LANES if claim not in held}
        longest_s = max([longest_s, *[now - since for since in free.values()]])
    return longest_s * 1e3


def _still(url: str, plan: Plan) -> tuple[float, float]:
    """CPU and commands of the server a second, while nothing moves."""
    client = client_of(url)
    seconds = plan.latency_s
    cpu, count, began = server_cpu_s(client), _commands(client), time.perf_counter()
    time.sleep(seconds)
    took_s = time.perf_counter() - began
    return (server_cpu_s(client) - cpu) / took_s, (_commands(client) - count) / took_s


def _looked(server: Server, url: str, still_cpu: float) -> tuple[float, float]:
    """Milliseconds of CPU that one look takes, the server's beyond still_cpu a second, and ours."""
    reader, client = FleetReader(server), client_of(url)
    reader.look()
    cpu, own, began = server_cpu_s(client), time.process_time(), time.perf_counter()
    for _ in range(LOOKS):
        reader.look()
    took_s, own = time.perf_counter() - began, time.process_time() - own
    reader.close()
    return (server_cpu_s(client) - cpu - still_cpu * took_s) / LOOKS * 1e3, own / LOOKS * 1e3


def _commands(client: object) -> int:
    stats: dict[str, dict[str, int]] = client.info("commandstats")  # type: ignore[attr-defined]
    return sum(row["calls"] for name, row in stats.items() if name == "cmdstat_evalsha")


def _killed(server: Server, pid: int) -> float:
    """Milliseconds from kill -9 until none of its lanes is its any more and all are shared."""
    began = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    _until(lambda: pid not in owners(server).values(), "the others to take over")
    return (time.perf_counter() - began) * 1e3


def _until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise InvariantBroken(f"waited {PATIENCE_S:.0f} s for {what}")
        time.sleep(LOOK_S)
