"""Row 31: rebuilds that are killed at every step while producers append and a worker folds; swaps that race
with both.
"""

from __future__ import annotations

import subprocess
import sys

from aurastream.projections import check as check_views
from aurastream.projections.engine.generations import read_record
from aurastream.projections.rebuild import Decision, Rebuild, rollback
from aurastream.streams import Stream
from aurastream.streams.history import History
from aurastream.streams.keys import generation_group
from tests.faults.harness import Run, consume_all
from tests.faults.processes import ROOT
from tests.faults.rows import row
from tests.invariants import check, check_acks, every_partition
from tests.projections.counting import Counting
from tests.projections.rebuild.rebuild_child import BEFORE_SWAP, STEPS
from tests.servers import until

PARTITIONS = 3
LEASE_MS = 400
DAY_MS = 86_400_000


@row(31, "a rebuild killed at every step; swaps race with appends", bound_s=150)
def a_rebuild_that_is_killed_leaves_the_live_view_alone_and_a_swap_is_whole(run: Run) -> None:
    url = run.server().url
    stream = run.stream(url, PARTITIONS)
    run.worker(url, "--kind", "owner", "--batch-max", "50")
    run.producer(url)
    until(lambda: _entries(stream) > 300, "events")
    steps = list(STEPS) * int(run.lasts(1, 4))
    run.dice.shuffle(steps)
    for step in steps:
        before = read_record(stream.server, stream.name, "counting").live
        child = [
            sys.executable,
            "-m",
            "tests.projections.rebuild.rebuild_child",
            url,
            stream.name,
            step,
            str(LEASE_MS),
        ]
        done = subprocess.run(child, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        after = read_record(stream.server, stream.name, "counting").live
        run.count(killed=1)
        # -9 is what was asked for; 0 is a step that this rebuild had no need of, as somebody before it had
        # done it.
        if done.returncode not in (-9, 0):
            run.findings.append(f"{step}: exit {done.returncode}: {done.stderr[-500:]}")
        if step in BEFORE_SWAP and done.returncode == -9 and after != before:
            run.findings.append(
                f"{step}: generation {after} is live after a rebuild that was killed before its swap, not "
                f"{before}"
            )
        run.findings += [f"{step}: {finding}" for finding in _findings(stream)]
    with Rebuild(History(stream), Counting(), Decision("chaos"), lease_ms=LEASE_MS) as work:
        work.begin()
        work.build()
        differing = [one.differing for one in work.compare() or []]
        if any(differing):
            run.findings.append(f"the last rebuild differs: {differing}")
        work.swap(DAY_MS)
        work.follow()
    rollback(History(stream), Counting(), Decision("chaos"), keep_ms=DAY_MS)
    run.stop_producers()
    run.end_workers()
    consume_all(url)
    run.findings += _findings(stream)
    _judge(run, url, stream)


def _judge(run: Run, url: str, stream: Stream) -> None:
    """The live generation by tests/invariants.py, which knows nothing of generations: its keys under the
    names of the first.
    """
    client, live = run.client(url), read_record(stream.server, stream.name, "counting").live
    for keys in stream.keys if live != 1 else []:
        for key in client.keys(f"aura:{{{stream.name}.{keys.partition}}}:view:counting:1:*"):
            client.delete(key)
        for key in client.keys(f"aura:{{{stream.name}.{keys.partition}}}:view:counting:{live}:*"):
            client.copy(key, key.replace(b":counting:%d:" % live, b":counting:1:"), replace=True)
        for name in (keys.cursor, keys.dead):
            client.delete(name("counting"))
            client.copy(name(generation_group("counting", live)), name("counting"))
    helds = [
        held for held in every_partition(client) if held.stream == stream.name
    ]  # the audit trail is nobody's to fold here
    for held in helds:
        run.complain(*check(held, group=None))
    acks = run.acks()
    run.complain(*check_acks(helds, acks))
    run.count(
        events=sum(len(held.log) for held in helds),
        acked=len({ack.event_id for ack in acks if ack.outcome == "acked"}),
    )


def _entries(stream: Stream) -> int:
    return sum(int(stream.server.client.xlen(keys.log)) for keys in stream.keys)


def _findings(stream: Stream) -> list[str]:
    """What `aurastream check` says of the live and the kept generations."""
    return [
        f"generation {result.generation} at {result.stream}/{result.partition}: {result.complaints} "
        f"{result.differences[:3]}"
        for result in check_views(stream, [Counting()])
        if not result.is_equal
    ]
