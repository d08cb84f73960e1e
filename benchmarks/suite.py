"""
All workloads, one after the other.

Peers that need FastStream are left out, with a note, where the dependency group `bench` is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmarks import (
    append,
    apply,
    audit,
    delivery,
    hosts,
    latency,
    leases,
    lifecycle,
    memory,
    past,
    rebuild,
    scale,
    takeover,
    top,
)
from benchmarks.measure import Plan, Report, Work, apart, has_faststream

WORKLOADS = (
    "append",
    "apply",
    "delivery",
    "latency",
    "memory",
    "top",
    "hosts",
    "lifecycle",
    "leases",
    "takeover",
    "audit",
    "past",
    "rebuild",
    "scale",
)


def work_of(workload: str, plan: Plan) -> tuple[Work, ...]:
    """The functions of a workload, each of which gets a process and a server of its own."""
    fixed = {
        "append": append.WORK,
        "apply": apply.WORK,
        "delivery": delivery.WORK,
        "latency": latency.WORK,
        "memory": memory.WORK,
        "top": top.WORK,
        "hosts": hosts.WORK,
        "lifecycle": lifecycle.WORK,
        "leases": leases.WORK,
        "takeover": takeover.WORK,
        "audit": audit.WORK,
        "past": past.WORK,
    }
    sized = {"scale": scale.work, "rebuild": rebuild.work}
    return sized[workload](plan) if workload in sized else fixed[workload]


def run(
    plan: Plan,
    workloads: Iterable[str],
    tell: Callable[[str], None],
    measured: Callable[[Work, Plan], Report] = apart,
) -> Report:
    """Everything measured. tell: what is being measured now. measured: runs one function; a test need not
    isolate them.
    """
    whole = Report([], [], [])
    for workload in workloads:
        for work in work_of(workload, plan):
            name = _name(work)
            if "faststream" in name and not has_faststream():
                whole.notes.append(
                    f"{workload}, {name}: not run, as FastStream is not installed (pip install -e '.[bench]')"
                )
                continue
            tell(f"{workload}: {name}")
            found = measured(work, plan)
            whole.rows += found.rows
            whole.targets += found.targets
            whole.notes += found.notes
    whole.targets += scale.flatness(whole.rows)
    return whole


def _name(work: Work) -> str:
    size = getattr(work, "keywords", {}).get("events")
    return str(getattr(work, "__name__", "")) if size is None else f"{size:,} events"
