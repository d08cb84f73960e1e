"""
make chaos SEED=n MINUTES=m: every row of the fault matrix at full length, what each did and found; then
storms by further seeds until so many minutes have passed; at the end what was provoked how often, and the
longest standstill of any lane.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
import traceback
from collections import Counter

import structlog

from tests.faults import ROWS, Row
from tests.faults.harness import Run, Skipped

LONG_BOUND = 10  # times a row's bound
STORMS = (46, 36, 46, 37, 46, 43)  # what the rest of the time is filled with
# Of the table: what came of it, not what was provoked.
OUTCOMES = re.compile(
    r"found|worker met|acked|events|lost|handled|orders|bytes|looked|glimpses|\Aended|healed|\A[A-Z]+\Z"
    r"|\w+Error|ServerRefuses|batches|entries|whole|known|replayed|there|named|touched|takeovers|first|second"
    r"|duplicates|answers|changed|fixed"
)


def main() -> int:
    """1 when something was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description="Play the rows of the fault matrix with real servers."
    )
    parser.add_argument(
        "--seed", type=int, default=None, help="replays a run as far as processes and servers can be replayed"
    )
    parser.add_argument("--rows", default="", help="numbers, as in 1,2,36; default: all")
    parser.add_argument("--seconds", type=float, help="how long the rows with a length of their own last")
    parser.add_argument("--short", action="store_true", help="as in make test")
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="go on with storms until so many have passed"
    )
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    seed = random.randrange(10**6) if options.seed is None else options.seed
    numbers = [int(number) for number in options.rows.split(",")] if options.rows else sorted(ROWS)
    print(f"chaos: seed {seed}, rows {','.join(map(str, numbers))}", flush=True)
    findings, table, began = 0, Table(), time.monotonic()
    try:
        for number in numbers:
            findings += play(ROWS[number], seed * 100 + number, options, table)
        again = 0
        while time.monotonic() - began < 60 * options.minutes:
            number, again = STORMS[again % len(STORMS)], again + 1
            findings += play(ROWS[number], (seed + again) * 100 + number, options, table)
    finally:
        Run.close_nursery()
    table.show(time.monotonic() - began)
    print(
        f"chaos: {findings} findings; replay: make chaos SEED={seed}"
        if findings
        else f"chaos: nothing found (seed {seed})"
    )
    return 1 if findings else 0


class Table:
    """What all rows did together."""

    def __init__(self) -> None:
        self.times: Counter[str] = Counter()
        self.longest: dict[str, tuple[int, str]] = {}

    def take(self, row: Row, seed: int, counts: Counter[str]) -> None:
        for name, count in counts.items():
            if name.endswith("_ms"):
                self.longest[name] = max(
                    self.longest.get(name, (0, "")), (count, f"row {row.number}, seed {seed}")
                )
            elif count and not OUTCOMES.search(name.replace("_", " ")):
                self.times[name.replace("_", " ")] += count

    def show(self, seconds: float) -> None:
        print(f"\nin {seconds / 60:.1f} minutes:")
        for name, count in sorted(self.times.items()):
            print(f"    {count:11,}  {name}")
        for name, (count, where) in sorted(self.longest.items()):
            print(f"    {count:8,} ms  {name.removesuffix('_ms').replace('_', ' ')}  ({where})")


def play(row: Row, seed: int, options: argparse.Namespace, table: Table) -> int:
    """Play one row and print it. Returns the number of findings."""
    is_long, seconds = not options.short, options.seconds
    print(f"\nrow {row.number:2}  {row.fault}  (seed {seed})", flush=True)
    began = time.monotonic()
    with Run(seed, is_long=is_long, seconds=seconds) as run:
        try:
            row.play(run)
        except Skipped as reason:
            print(f"    skipped: {reason}", flush=True)
            return 0
        except Exception as error:
            run.complain(f"the row ended with {type(error).__name__}: {error}")
            traceback.print_exc()
    took_s = time.monotonic() - began
    table.take(row, seed, run.counts)
    if took_s > row.bound_s * (LONG_BOUND if is_long else 1):
        run.complain(f"the row took {took_s:.0f} s")
    counts = ", ".join(
        f"{name.replace('_', ' ')} {count:,}" for name, count in sorted(run.counts.items()) if count
    )
    print(f"    {took_s:5.1f} s  {counts}")
    for sentence in run.findings:
        print(f"    FOUND: {sentence}")
    print(f"    {len(run.findings)} found" if run.findings else "    nothing found", flush=True)
    return len(run.findings)


if __name__ == "__main__":
    sys.exit(main())
