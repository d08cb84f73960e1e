"""
Scale: CPU per event, append and apply, client and server, for logs of 10^4 to 10^7 events.

The clips are few and the same at every size, so that only the log's length differs; the view has as many keys
at the end of the shortest run as at the end of the longest. The events are streamed. Short runs are repeated
and the median taken. The apply is that of the whole backlog, from an empty view, by Pulse.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from benchmarks.apply import consume, expect_read
from benchmarks.feed import batches, observations, opened
from benchmarks.measure import EXACT, IDEMPOTENT, Meter, Plan, Report, Row, Target, Work, median_row
from benchmarks.reference import Pulse

CLIPS = 1_000
SPREAD = 0.10
BLOCK = 20
WARM_UP = 5_000
BYTES_PER_EVENT = 450  # of memory that a run must find free
NAME = "scale"


def sized(url: str, plan: Plan, events: int) -> Report:
    """One size, or a note when the machine is too small for it."""
    free = _free_bytes()
    if free < events * BYTES_PER_EVENT:
        wanted = events * BYTES_PER_EVENT / 1e9
        return Report(
            notes=[
                f"scale at {events:,} events not run: it needs {wanted:.1f} GB of memory, {free / 1e9:.1f} "
                "GB are free"
            ]
        )
    _run(url, plan.seed, WARM_UP)
    pairs = [_run(url, plan.seed, events) for _ in range(max(1, plan.scale_least // events))]
    return Report([median_row([append for append, _ in pairs]), median_row([apply for _, apply in pairs])])


def work(plan: Plan) -> tuple[Work, ...]:
    """A function per size."""
    return tuple(partial(sized, events=events) for events in plan.scale)


def flatness(rows: Sequence[Row]) -> list[Target]:
    """How far the dearest size is above the cheapest, in CPU of append and apply together. Pure."""
    cost: dict[int, float] = {}
    for row in rows:
        if row.workload == NAME:
            cost[row.events] = cost.get(row.events, 0.0) + row.client_us + (row.server_us or 0.0)
    if len(cost) < 2:
        return []
    note = ", ".join(f"{events:,}: {cost_us:.2f} us" for events, cost_us in sorted(cost.items()))
    what = f"cost per event from {min(cost):,} to {max(cost):,}, spread"
    return [Target(what, SPREAD * 100, "%", (max(cost.values()) / min(cost.values()) - 1) * 100, note=note)]


def _run(url: str, seed: int, events: int) -> tuple[Row, Row]:
    server, stream = opened(url)
    server.client.flushall()
    server.close()
    server, stream = opened(url)
    appending, applying = Meter(server.client), Meter(server.client)
    source = batches(observations(seed, CLIPS), events)
    while block := list(islice(source, BLOCK)):
        with appending:
            for batch in block:
                stream.append(batch)
    with applying:
        consume(server, stream, Pulse())
    expect_read(server, stream, Pulse(), events)
    stream.close()
    server.close()
    return appending.row(NAME, "append", IDEMPOTENT, events), applying.row(
        NAME, "apply: pulse", EXACT, events
    )


def _free_bytes() -> int:
    """Memory the kernel can give without swapping; as good as endless where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 1 << 62
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return kilobytes["MemAvailable"] * 1024
