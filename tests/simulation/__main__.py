"""python -m tests.simulation SEED | --minutes N [--first-seed M]"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

import structlog

from tests.simulation.mixed import FIRST_MIXED, play
from tests.simulation.schedule import Schedule


def main() -> int:
    """1 when something was found, with the seeds that replay it."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description="Replay a seed, or look for one that fails."
    )
    parser.add_argument("seed", type=int, nargs="?", help="replay this schedule and tell its story")
    parser.add_argument("--minutes", type=float, help="run schedules for so long")
    parser.add_argument("--first-seed", type=int, default=FIRST_MIXED)
    options = parser.parse_args()
    silence()
    if options.seed is not None:
        done = play(options.seed)
        print("\n".join(done.story))
        return report([done])
    end = time.monotonic() + 60 * (options.minutes or 1)
    began, failed, events, count = time.monotonic(), [], 0, 0
    faults: Counter[str] = Counter()
    still_ms = 0.0
    seed = options.first_seed
    while time.monotonic() < end:
        done = play(seed)
        seed, count, events = seed + 1, count + 1, events + done.events
        faults.update(done.faults)
        still_ms = max(still_ms, done.longest_still_ms)
        if done.findings:
            failed.append(done)
    rate = count / (time.monotonic() - began) * 60
    print(f"{count:,} schedules ({rate:,.0f} a minute), {events:,} events; provoked:")
    print("\n".join(f"    {times:9,}  {fault}" for fault, times in sorted(faults.items())))
    print(f"longest standstill of a lane without a fault: {still_ms:.0f} ms of simulated time")
    return report(failed)


def silence() -> None:
    """The product's log lines are part of the story only in a real run."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))


def report(played: list[Schedule]) -> int:
    failed = [done for done in played if done.findings]
    for done in failed[:20]:
        print(f"seed {done.seed}: python -m tests.simulation {done.seed}")
        for finding in done.findings:
            print(f"    {finding}")
    print(f"{len(failed)} of {len(played)} told schedules failed" if failed else "nothing found")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
