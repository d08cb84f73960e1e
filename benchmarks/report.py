"""
The table and the file: what was measured, on what, and which targets were missed by how much.

The file names the commit, whether the tree had changes, server, Python, redis-py, CPUs and seed; no path and
no host name.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import redis
from rich.console import Console
from rich.table import Table

from aurastream.streams import Server
from benchmarks.measure import Plan, Report, Row, Target

ROOT = Path(__file__).parent.parent
WIDTH = 100


class Facts(msgspec.Struct, frozen=True):
    """What the figures hold for. dirty: the tree differs from the commit; None outside git. load: of the
    machine, the average of the last minute before the run; from about 1 up somebody else was at work, and
    only figures in CPU and
    memory mean much."""

    at: str
    commit: str
    dirty: bool | None
    server: str
    python: str
    redis_py: str
    cpus: int
    load: float
    plan: Plan


class Result(msgspec.Struct, frozen=True):
    """A target as it is written to the file."""

    what: str
    target: str
    measured: float | None
    unit: str
    met: bool
    missed_by: str
    note: str


def facts_of(url: str, plan: Plan, load: float) -> Facts:
    """What there is to know about this run."""
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    server = Server(url)
    name = server.facts.name
    server.close()
    return Facts(
        datetime.now(UTC).isoformat(timespec="seconds"),
        commit or "unknown",
        None if changes is None else bool(changes),
        name,
        platform.python_version(),
        redis.__version__,
        os.cpu_count() or 0,
        load,
        plan,
    )


def write(path: Path, facts: Facts, report: Report) -> None:
    """The JSON file."""
    targets = [
        Result(item.what, _bound(item), item.measured, item.unit, item.is_met, item.missed_by, item.note)
        for item in report.targets
    ]
    content = {
        "facts": facts,
        "seed": facts.plan.seed,
        "targets": targets,
        "rows": report.rows,
        "notes": report.notes,
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def show(console: Console, facts: Facts, report: Report) -> None:
    """Both tables, what they hold for, and the headline."""
    changed = " with changes" if facts.dirty else ""
    console.print(
        f"commit {facts.commit[:12]}{changed}, {facts.server}, Python {facts.python}, redis-py "
        f"{facts.redis_py}, "
        f"{facts.cpus} CPUs, load {facts.load:.1f}, seed {facts.plan.seed}",
        highlight=False,
    )
    console.print(_rows_table(report.rows))
    console.print(_targets_table(report.targets))
    for note in report.notes:
        console.print(note, highlight=False, markup=False)
    console.print(headline(report.targets), highlight=False)


def headline(targets: Sequence[Target]) -> str:
    """The two numbers, and how many targets hold."""
    rate = next((item.measured for item in targets if item.unit == "events/s"), None)
    p99 = next(
        (
            item.measured
            for item in targets
            if item.what.startswith("append to visible") and item.what.endswith("p99")
        ),
        None,
    )
    parts = [] if rate is None else [f"{rate:,.0f} events/s applied exactly once"]
    parts += [] if p99 is None else [f"{p99:.2f} ms p99 from append to view"]
    met = sum(item.is_met for item in targets)
    return "; ".join([*parts, f"{met} of {len(targets)} targets met"])


def _rows_table(rows: Sequence[Row]) -> Table:
    table = Table(
        title="Work: CPU per event is the whole process's, in microseconds", title_justify="left", width=WIDTH
    )
    for heading in ("workload", "variant", "delivery"):
        table.add_column(heading, overflow="fold")
    for heading in ("events", "events/s", "client", "server"):
        table.add_column(heading, justify="right", no_wrap=True)
    last = ""
    for row in rows:
        if last and row.workload != last:
            table.add_section()
        server = "" if row.server_us is None else f"{row.server_us:.2f}"
        figures = (f"{row.events:,}", f"{row.events_per_s:,.0f}", f"{row.client_us:.2f}", server)
        table.add_row("" if row.workload == last else row.workload, row.variant, row.guarantee, *figures)
        last = row.workload
    return table


def _targets_table(targets: Sequence[Target]) -> Table:
    table = Table(title="Targets of DESIGN.md section 13", title_justify="left", width=WIDTH)
    table.add_column("what", overflow="fold", ratio=1)
    for heading in ("target", "measured", "verdict"):
        table.add_column(heading, justify="right", no_wrap=True)
    for item in targets:
        what = f"{item.what}\n[dim]{item.note}[/dim]" if item.note else item.what
        table.add_row(what, _bound(item), _measured(item), _verdict(item))
    return table


def _bound(item: Target) -> str:
    return f"{'>=' if item.at_least else '<='} {item.bound:,g} {item.unit}".rstrip()


def _measured(item: Target) -> str:
    if item.measured is None:
        return "-"
    figure = f"{item.measured:,.0f}" if item.unit == "events/s" else f"{item.measured:.2f}"
    return f"{figure} {item.unit}".rstrip()


def _verdict(item: Target) -> str:
    if item.measured is None:
        return "not measured"
    return "[green]met[/green]" if item.is_met else f"[red]missed by {item.missed_by}[/red]"


def _git(*arguments: str) -> str | None:
    """What git says about this tree; None where there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
