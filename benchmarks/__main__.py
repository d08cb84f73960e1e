"""
`make bench`: measure, print the tables, write the file.

    python -m benchmarks                   everything, up to 10^7 events: about half an hour and 4.5 GB of
                                           memory
    python -m benchmarks --quick           the same up to 10^5 events: four to five minutes (also
                                           BENCH_FAST=1)
    python -m benchmarks --only apply      one workload, as often as it takes to improve it
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console

from benchmarks.measure import FULL, QUICK
from benchmarks.report import WIDTH, facts_of, show, write
from benchmarks.server import KINDS, running
from benchmarks.suite import WORKLOADS, run


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--quick", is_flag=True, envvar="BENCH_FAST", help="Logs of up to 100,000 events instead of 10,000,000."
)
@click.option(
    "--only", type=click.Choice(WORKLOADS), multiple=True, help="Measure only this; may be repeated."
)
@click.option("--seed", type=int, default=FULL.seed, show_default=True, help="Of the events.")
@click.option(
    "--server",
    type=click.Choice(KINDS),
    default="valkey",
    show_default=True,
    help="The embedded one, or redis-server.",
)
@click.option(
    "--json",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("bench-results.json"),
    show_default=True,
)
def main(quick: bool, only: tuple[str, ...], seed: int, server: str, path: Path) -> None:
    """Measure the targets of DESIGN.md section 13 on servers of its own."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    plan = msgspec.structs.replace(QUICK if quick else FULL, seed=seed, server=server)
    progress = Console(stderr=True, highlight=False)
    load = os.getloadavg()[0]
    report = run(plan, only or WORKLOADS, progress.print)
    with running(server) as url:
        facts = facts_of(url, plan, round(load, 2))
    write(path, facts, report)
    show(Console(width=WIDTH), facts, report)
    progress.print(f"written: {path}")


if __name__ == "__main__":
    main()
