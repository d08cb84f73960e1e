"""
The events: polls of a fixed set of clips, one poll a minute, as a clip radar delivers them.

Deterministic: the same seed gives the same events, IDs included, however many are taken. Streamed: 10^7 of
them need no more memory than the clips. Popularity is skewed (log-normal), so that a few clips are viral and
most hardly move.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random

from aurastream.streams import ClipViewsObserved, Event, Server, Settings, Stream, observed_id, open_stream

CLIPS = 10_000
CATEGORIES, CHANNELS = 40, 500
PARTITIONS = 4
BATCH = 500  # events an append
FIRST_POLL = datetime(2024, 1, 1, tzinfo=UTC)
NAME = "clips-bench"


def observations(seed: int, clips: int = CLIPS) -> Iterator[ClipViewsObserved]:
    """For ever: poll after poll, every clip once a poll, in an order of its own each time."""
    random = Random(seed)
    names = [f"clip-{number:07d}" for number in range(clips)]
    per_minute = [random.lognormvariate(-1.0, 1.8) for _ in names]
    created = [FIRST_POLL - timedelta(minutes=random.uniform(1, 720)) for _ in names]
    views = [
        int(rate * (FIRST_POLL - born) / timedelta(minutes=1))
        for rate, born in zip(per_minute, created, strict=True)
    ]
    categories = [f"category {min(int(random.expovariate(0.15)), CATEGORIES - 1)}" for _ in names]
    channels = [f"channel-{random.randrange(CHANNELS)}" for _ in names]
    order = list(range(clips))
    at = FIRST_POLL
    while True:
        random.shuffle(order)
        for clip in order:
            views[clip] += int(per_minute[clip] * (0.5 + random.random()) + random.random())
            yield ClipViewsObserved(
                event_id=observed_id("bench", names[clip], at),
                subject=names[clip],
                occurred_at=at,
                source="radar-1",
                views=views[clip],
                category=categories[clip],
                channel=channels[clip],
                created_at=created[clip],
            )
        at += timedelta(minutes=1)


def batches(events: Iterable[Event], count: int, size: int = BATCH) -> Iterator[list[Event]]:
    """The first `count` events in lists of `size`."""
    source = islice(events, count)
    while batch := list(islice(source, size)):
        yield batch


def opened(url: str, partitions: int = PARTITIONS) -> tuple[Server, Stream]:
    """The benchmark's stream on the server, created where it is new."""
    server = Server(url)
    return server, open_stream(server, NAME, settings=Settings(partitions=partitions), create=True)


def fill(stream: Stream, seed: int, count: int, clips: int = CLIPS) -> None:
    """Append the feed's first `count` events."""
    for batch in batches(observations(seed, clips), count):
        stream.append(batch)
