"""
A stock Faust app on Pulse's work: no plugin, no batch, an agent that gets event after event, as Faust's
documentation has it.

    BENCH_EVENTS, BENCH_REPORT -> faust -A benchmarks.stock worker -> clock and CPU from the first event
        handled to the last

It reads our log over our transport, the only one for Redis there is, and writes with plain.py's fold and
redis.asyncio what the peers
of apply.py write: at least once, one pipeline of reads and one of writes an event. Imported by a host
process alone.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import faust
import msgspec
import redis.asyncio

from aurastream.streams import ClipViewsObserved, Server, open_stream
from benchmarks.feed import NAME
from benchmarks.measure import own_cpu_s
from benchmarks.peers import sent
from benchmarks.plain import PlainView
from benchmarks.reference import Pulse

URL, EVENTS, REPORT = (
    os.environ["AURASTREAM_REDIS_URL"],
    int(os.environ["BENCH_EVENTS"]),
    Path(os.environ["BENCH_REPORT"]),
)

_decode = msgspec.json.Decoder(ClipViewsObserved).decode
_log = open_stream(Server(URL), NAME)
_views = [PlainView(Pulse(), keys) for keys in _log.keys]
app = faust.App("stock", broker=URL, topic_partitions=_log.partitions, datadir=str(REPORT.parent / "faust"))
topic = app.topic(NAME, value_serializer="raw")


@app.agent(topic)
async def fold(stream: Any) -> None:
    """Every event by itself."""
    client = redis.asyncio.Redis.from_url(URL, protocol=2)
    handled, began, cpu = 0, 0.0, 0.0
    async for event in stream.events():
        steps = _views[event.message.partition].folded([("", _decode(event.value))])
        answers: Any = None
        try:
            while True:
                answers = await sent(client, steps.send(answers))
        except StopIteration as finished:
            await sent(client, finished.value)
        handled += 1
        if handled == 1:
            began, cpu = time.perf_counter(), own_cpu_s()
        if handled == EVENTS:
            partial = REPORT.with_suffix(".partial")
            partial.write_bytes(msgspec.json.encode([time.perf_counter() - began, own_cpu_s() - cpu]))
            partial.rename(REPORT)
