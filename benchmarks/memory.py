"""
Memory: what Redis needs for a live event beyond the event itself.

    (used_memory after - before - payload) / events       payload: the event's JSON and its CRC-32 as text, as
                                                          stored

So it counts what we and the server add: the index of IDs, entry positions, the stream's tree and headers, the
meta hash, and the allocator's rounding. Connections are closed before both looks.
"""

from __future__ import annotations

from zlib import crc32

import redis

from aurastream.streams import Stream
from benchmarks.feed import batches, observations, opened
from benchmarks.measure import Plan, Report, Target, client_of

BYTES = 60.0


def overhead(url: str, plan: Plan) -> Report:
    """Bytes per event, and which key has them."""
    client = client_of(url)
    before = int(client.info("memory")["used_memory"])
    payload = _fill(url, plan)
    added = int(client.info("memory")["used_memory"]) - before
    server, stream = opened(url)
    logs, ids = _sizes(client, stream, "log"), _sizes(client, stream, "ids")
    server.close()
    each = plan.memory
    note = (
        f"at {each:,} events of {payload / each:.0f} bytes: log {(logs - payload) / each:.1f}, "
        f"ids {ids / each:.1f}"
    )
    return Report(
        targets=[
            Target(
                "memory per event beyond JSON and crc32", BYTES, "bytes", (added - payload) / each, note=note
            )
        ]
    )


WORK = (overhead,)


def _fill(url: str, plan: Plan) -> int:
    """Append, close, and return the payload's bytes."""
    server, stream = opened(url)
    payload = 0
    for batch in batches(observations(plan.seed), plan.memory):
        stream.append(batch)
        for event in batch:
            raw = stream.codec.encode(event)
            payload += len(raw) + len(b"%d" % crc32(raw))
    stream.close()
    server.close()
    return payload


def _sizes(client: redis.Redis, stream: Stream, key: str) -> int:
    return sum(int(client.memory_usage(getattr(keys, key), samples=0) or 0) for keys in stream.keys)
