"""
Audit: what the trail costs an event, and how long a question takes by it in a short log and in a long one.

The question is the same in both logs: a subject of 40 events, and a story of 40 events over as many subjects
and all partitions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from aurastream.processors.history.selection import Selection
from aurastream.processors.history.trails import TrailRow, Trails
from aurastream.projections.built_in.trail import Trail
from aurastream.streams import ClipViewsObserved, History, InvariantBroken, Stream
from benchmarks.apply import consume
from benchmarks.feed import FIRST_POLL, batches, fill, observations, opened
from benchmarks.measure import EXACT, Meter, Plan, Report, Target, percentile

ASKED = 40  # events of the subject, and of the story
READS, WARM_UP = 200, 20
FLAT = 1.2  # of two medians on a machine with neighbours
SHORT = 10_000  # events, or a tenth of the long log


def trail(url: str, plan: Plan) -> Report:
    """CPU and bytes of the index per event, where none has a story: most are observations."""
    return _indexed(url, plan, "trail, no stories", lambda number: "")


def trail_of_stories(url: str, plan: Plan) -> Report:
    """The same where every event has one: stories of ten."""
    return _indexed(url, plan, "trail, every event in a story", lambda number: f"story-{number // 10}")


def questions(url: str, plan: Plan) -> Report:
    """The same questions in a short log, and in a long one."""
    server, stream = opened(url)
    stream.append(_rare())
    short_log = min(SHORT, plan.history // 10)
    fill(stream, plan.seed, short_log)
    consume(server, stream, Trail())
    short = _asked(stream)
    fill(stream, plan.seed + 1, plan.history)
    consume(server, stream, Trail())
    long = _asked(stream)
    targets = []
    for what, before, after in zip(("subject", "story"), short, long, strict=True):
        note = f"p50 {before:.2f} ms in {short_log:,} events, {after:.2f} ms in {short_log + plan.history:,}"
        targets.append(Target(f"audit by {what}, long log / short log", FLAT, "", after / before, note=note))
    return Report(targets=targets)


def _rare() -> list[ClipViewsObserved]:
    subject = [
        ClipViewsObserved(event_id=f"rare-{n}", subject="rare", occurred_at=FIRST_POLL, views=n)
        for n in range(ASKED)
    ]
    story = [
        ClipViewsObserved(
            event_id=f"told-{n}",
            subject=f"told-{n}",
            occurred_at=FIRST_POLL,
            views=n,
            correlation_id="a-story",
        )
        for n in range(ASKED)
    ]
    return [*subject, *story]


def _indexed(url: str, plan: Plan, variant: str, story_of: Callable[[int], str]) -> Report:
    server, stream = opened(url)
    told = (
        replace(event, correlation_id=story_of(number))
        for number, event in enumerate(observations(plan.seed))
    )
    for batch in batches(told, plan.apply):
        stream.append(batch)
    before = int(server.client.info("memory")["used_memory"])
    meter = Meter(server.client)
    with meter:
        consume(server, stream, Trail())
    each = (int(server.client.info("memory")["used_memory"]) - before) / plan.apply
    return Report(rows=[meter.row("audit", variant, EXACT, plan.apply, f"{each:.0f} bytes an event")])


def _asked(stream: Stream) -> list[float]:
    """Median milliseconds of both questions."""
    trails = Trails([History(stream)])
    medians = []
    questions: tuple[Callable[[], Iterator[TrailRow]], ...] = (
        lambda: trails.of_subject("rare", Selection()),
        lambda: trails.of_stories(["a-story"]),
    )
    for ask in questions:
        took_ms = []
        for _ in range(WARM_UP + READS):
            begin = time.perf_counter()
            found = len(list(ask()))
            took_ms.append((time.perf_counter() - begin) * 1e3)
            if found != ASKED:
                raise InvariantBroken(f"{found} events of {ASKED} were found")
        medians.append(percentile(took_ms[WARM_UP:], 0.5))
    return medians


WORK = (trail, trail_of_stories, questions)
