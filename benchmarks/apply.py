"""
Apply: a backlog in four partitions into a view, one consumer process, from an empty view each round.

    ours          Consumer, exactly once: Pulse (the work the target names) and Clips (the product's whole
                  view)
    bare limit    the same bytes, prepared: reads, loads of states, commit scripts
    peers         Pulse's fold and writes by a plain redis-py loop and by FastStream, in batches and message
                  by message
"""

from __future__ import annotations

import asyncio
from typing import Any

from aurastream.projections import Consumer, Projection
from aurastream.projections.built_in.clips import Clips
from aurastream.streams import InvariantBroken, Server, Stream
from aurastream.streams.groups import cursor_of
from benchmarks import peers
from benchmarks.feed import CLIPS, batches, fill, observations, opened
from benchmarks.measure import (
    AT_LEAST_ONCE,
    EXACT,
    NONE,
    Meter,
    Plan,
    Report,
    Row,
    Target,
    client_of,
    median_row,
)
from benchmarks.plain import make_groups
from benchmarks.reference import Pulse
from benchmarks.replay import Bare, recorded

NAME = "apply"
EVENTS_PER_S, SERVER_US, PYTHON_US = 100_000.0, 4.0, 6.0


def ours(url: str, plan: Plan) -> Report:
    """The product's consumer on the reference projection."""
    row = _applied(url, plan, Pulse())
    targets = [
        Target("apply, exactly once, one process", EVENTS_PER_S, "events/s", row.events_per_s, at_least=True),
        Target("apply, server CPU per event", SERVER_US, "us", row.server_us),
        Target("apply, Python CPU per event", PYTHON_US, "us", row.client_us),
    ]
    return Report([row], targets)


def clips(url: str, plan: Plan) -> Report:
    """The product's consumer on the product's view: four rankings, three tables of totals, the recap, the
    late list.
    """
    return Report([_applied(url, plan, Clips())])


def bare(url: str, plan: Plan) -> Report:
    """The server's limit for Pulse."""
    return Report([_replayed(url, plan, Pulse())])


def bare_clips(url: str, plan: Plan) -> Report:
    """The server's limit for Clips."""
    return Report([_replayed(url, plan, Clips())])


def plain(url: str, plan: Plan) -> Report:
    """A redis-py loop."""
    server, stream = opened(url)
    fill(stream, plan.seed, plan.apply)
    client, projection = client_of(url), Pulse()
    rows = []
    for _ in range(plan.rounds):
        forget_views(server, stream)
        make_groups(server, stream, projection.name)
        meter = Meter(server.client)
        with meter:
            peers.plain_apply(client, stream, projection)
        expect_states(server, stream, projection, plan.apply)
        rows.append(meter.row(NAME, "redis-py loop: pulse", AT_LEAST_ONCE, plan.apply))
    return Report([median_row(rows)])


def faststream_batch(url: str, plan: Plan) -> Report:
    """FastStream, batch subscribers."""
    return asyncio.run(_subscribed(url, plan, plan.apply // 2, batched=True))


def faststream_single(url: str, plan: Plan) -> Report:
    """FastStream, a message at a time."""
    return asyncio.run(_subscribed(url, plan, plan.one_by_one, batched=False))


WORK = (ours, bare, clips, bare_clips, plain, faststream_batch, faststream_single)


def consume(server: Server, stream: Stream, projection: Projection[Any]) -> None:
    """All there is, as the product does it."""
    Consumer(server, [projection], lambda: [stream]).run(until_idle=True)


def forget_views(server: Server, stream: Stream) -> None:
    """Back to a log that nobody has read: groups, cursors, leases and views go, the log stays."""
    for keys in stream.keys:
        for group in server.client.xinfo_groups(keys.log):
            server.client.xgroup_destroy(keys.log, group["name"])
    kept = {key.encode() for keys in stream.keys for key in (keys.log, keys.ids, keys.meta)}
    others = [key for key in server.client.scan_iter("aura:{*", count=1_000) if key not in kept]
    if others:
        server.client.delete(*others)


def expect_read(server: Server, stream: Stream, projection: Projection[Any], events: int) -> None:
    """Raise InvariantBroken unless the cursors have counted every event: a benchmark of refused commits would
    look fast.
    """
    read = 0
    for keys in stream.keys:
        pairs = server.client.hgetall(keys.cursor(projection.name))
        read += cursor_of([part for pair in pairs.items() for part in pair]).applied
    if read != events:
        raise InvariantBroken(f"{projection.name} has applied {read} of {events} events")


def expect_states(server: Server, stream: Stream, projection: Projection[Any], events: int) -> None:
    """The same for a view without cursors: every subject has a state and nothing is pending."""
    states = sum(
        int(server.client.hlen(keys.view(projection.name, 1, projection.table))) for keys in stream.keys
    )
    pending = sum(int(server.client.xpending(keys.log, projection.name)["pending"]) for keys in stream.keys)
    wanted = min(events, CLIPS)  # the first poll sees every clip once
    if states != wanted or pending:
        raise InvariantBroken(f"{projection.name} has {states} of {wanted} states, {pending} events pending")


def _applied(url: str, plan: Plan, projection: Projection[Any]) -> Row:
    server, stream = opened(url)
    fill(stream, plan.seed, plan.apply)
    rows = []
    for _ in range(plan.rounds):
        forget_views(server, stream)
        meter = Meter(server.client)
        with meter:
            consume(server, stream, projection)
        expect_read(server, stream, projection, plan.apply)
        rows.append(meter.row(NAME, f"aurastream: {projection.name}", EXACT, plan.apply))
    return median_row(rows)


def _replayed(url: str, plan: Plan, projection: Projection[Any]) -> Row:
    server, stream = opened(url)
    fill(stream, plan.seed, plan.apply)
    with recorded() as sent:
        consume(server, stream, projection)
    rows = []
    for _ in range(plan.rounds):
        forget_views(server, stream)
        connection = Bare(url)
        meter = Meter(server.client)
        with meter:
            connection.replay(sent)
        connection.close()
        expect_read(server, stream, projection, plan.apply)
        rows.append(meter.row(NAME, f"bare server: {projection.name}", NONE, plan.apply))
    return median_row(rows)


async def _subscribed(url: str, plan: Plan, events: int, *, batched: bool) -> Report:
    server, stream = opened(url)
    projection = Pulse()
    broker = peers.broker_of(url)
    client = await broker.connect()
    for batch in batches(observations(plan.seed), events):
        await peers.publish(client, broker, stream, batch, pipelined=True)
    await broker.stop()
    make_groups(server, stream, projection.name)
    meter = Meter(server.client)
    await peers.subscribe(url, stream, projection, events, meter, batched=batched)
    expect_states(server, stream, projection, events)
    variant = f"FastStream {'batch' if batched else 'single'}: pulse"
    return Report([meter.row(NAME, variant, AT_LEAST_ONCE, events)])
