"""
Append: events into four partitions, 500 a call.

    ours          Stream.append: every check, the index of event IDs, one script per partition and call (of
                  about 125 events)
    ours, filled  the same with 2,000 a call, so that a script has about 500; for comparison, the target is
                  held to the former
    bare limit    the same EVALSHA bytes, prepared
    peers         XADD by redis-py pipelines of 500; FastStream publish, in pipelines of 500 and one by one
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice

from aurastream.streams import Event, InvariantBroken, Stream
from benchmarks import peers
from benchmarks.feed import BATCH, PARTITIONS, batches, observations, opened
from benchmarks.measure import AT_LEAST_ONCE, IDEMPOTENT, NONE, Client, Meter, Plan, Report, Target, client_of
from benchmarks.replay import Bare, recorded

NAME = "append"
BLOCK = 20  # calls between two looks at the clock: making the events stays outside
SERVER_US, CLIENT_US = 4.0, 1.5


def ours(url: str, plan: Plan) -> Report:
    """The product's append."""
    server, stream = opened(url)
    meter = Meter(server.client)
    for block in _blocks(plan.seed, plan.append):
        with meter:
            for batch in block:
                stream.append(batch)
    row = meter.row(NAME, "aurastream", IDEMPOTENT, plan.append)
    targets = [
        Target("append, server CPU per event", SERVER_US, "us", row.server_us),
        Target("append, client CPU per event", CLIENT_US, "us", row.client_us),
    ]
    return Report([row], targets)


def ours_filled(url: str, plan: Plan) -> Report:
    """The product's append with a full script for every partition."""
    server, stream = opened(url)
    meter = Meter(server.client)
    for block in _blocks(plan.seed, plan.append):
        with meter:
            for start in range(0, len(block), PARTITIONS):
                stream.append([event for batch in block[start : start + PARTITIONS] for event in batch])
    return Report([meter.row(NAME, "aurastream, 2,000/call", IDEMPOTENT, plan.append)])


def bare(url: str, plan: Plan) -> Report:
    """What the server can do at most with the same scripts."""
    server, stream = opened(url)
    with recorded() as sent:
        for batch in batches(observations(plan.seed), plan.append):
            stream.append(batch)
    held = _length(server.client, stream)
    server.client.flushall()
    connection = Bare(url)
    meter = Meter(server.client)
    with meter:
        connection.replay(sent)
    if not held == _length(server.client, stream) == plan.append:
        raise InvariantBroken(f"the replay appended {_length(server.client, stream)} of {held} events")
    return Report([meter.row(NAME, "bare server", NONE, plan.append)])


def plain(url: str, plan: Plan) -> Report:
    """redis-py, XADD in pipelines."""
    _, stream = opened(url)
    client = client_of(url)
    meter = Meter(client)
    for block in _blocks(plan.seed, plan.append):
        with meter:
            for batch in block:
                peers.plain_append(client, stream, batch)
    return Report(
        [meter.row(NAME, "redis-py, pipelined", AT_LEAST_ONCE, plan.append, "a repeat is a second entry")]
    )


def faststream_batch(url: str, plan: Plan) -> Report:
    """FastStream, publishing in pipelines."""
    return asyncio.run(_published(url, plan, plan.append // 2, pipelined=True))


def faststream_single(url: str, plan: Plan) -> Report:
    """FastStream, publishing one by one."""
    return asyncio.run(_published(url, plan, plan.one_by_one, pipelined=False))


WORK = (ours, ours_filled, bare, plain, faststream_batch, faststream_single)


async def _published(url: str, plan: Plan, events: int, *, pipelined: bool) -> Report:
    _, stream = opened(url)
    broker = peers.broker_of(url)
    client = await broker.connect()
    meter = Meter(client_of(url))
    for block in _blocks(plan.seed, events):
        with meter:
            for batch in block:
                await peers.publish(client, broker, stream, batch, pipelined=pipelined)
    await broker.stop()
    variant = "FastStream, pipelined" if pipelined else "FastStream, single"
    return Report([meter.row(NAME, variant, AT_LEAST_ONCE, events, "a repeat is a second entry")])


def _blocks(seed: int, count: int) -> Iterator[list[list[Event]]]:
    source = batches(observations(seed), count, BATCH)
    while block := list(islice(source, BLOCK)):
        yield block


def _length(client: Client, stream: Stream) -> int:
    return sum(int(client.xlen(keys.log)) for keys in stream.keys)
