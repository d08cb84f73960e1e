"""
The end of a generation: refused writers first, then everything it had, in bounded pieces.

    record says retired -> tombstone in every cursor (retire.lua) -> producers wait for it no longer, its
        groups go
                        -> its tables go, some rows at a time -> the record forgets it

Every step may run twice, and whoever looks next (a worker's look, `run`, `rebuild`, `rollback`) goes on where
one was killed. The
tombstone stays for ever: 60 bytes a partition, so that a writer that slept through it all is refused when it
wakes.

Decision (2026-11): tables go by UNLINK, which frees their rows in a thread of the server, one key a command.
Refused: HSCAN and HDEL in pieces, which is needed where DEL frees in the server's only thread, and costs it
0.5 us a row.
"""

from __future__ import annotations

from datetime import UTC, datetime

from redis.exceptions import ResponseError

from aurastream.projections.engine.generations import (
    Generation,
    Record,
    State,
    announce,
    announcing,
    change,
    cleared,
    now_ms,
    read_record,
    retired,
)
from aurastream.streams import (
    LEASE_MS,
    GenerationRetired,
    Keys,
    Script,
    Stream,
    ask_lease,
    forget,
    generation_group,
    named_id,
)

SCAN_COUNT = 1_000
WHY_KEPT = "the time it was kept for is over"

_RETIRE = Script(__file__, "retire.lua")


def retire(stream: Stream, projection: str, number: int, by: str, why: str = "") -> None:
    """Give a generation up and take away what it had; goes on where somebody was killed at it.

    Raises ProjectionError for the live one.
    """
    server, at_ms = stream.server, now_ms(stream.server)
    event = GenerationRetired(
        event_id=named_id("rebuild", stream.name, projection, number, "retired"),
        subject=projection,
        source=by,
        occurred_at=datetime.fromtimestamp(at_ms / 1000, UTC),
        stream=stream.name,
        generation=number,
        why=why,
    )

    def given_up(record: Record) -> Record:
        item = record.find(number)
        after = retired(record, number)
        return record if item is None else announcing(after, event)

    change(server, stream.name, projection, given_up)
    for keys in stream.keys:
        _clear(stream, keys, projection, number, at_ms)
    announce(
        stream, projection
    )  # before the record forgets it: a repeat would have nothing to name the event by
    change(server, stream.name, projection, lambda record: cleared(record, number))


def retire_due(stream: Stream, projection: str, by: str) -> list[int]:
    """Retire what is to go by now, append the events that were left waiting, let go of a dead rebuild.
    Returns the numbers retired.
    """
    record = read_record(stream.server, stream.name, projection)
    due: list[Generation] = record.due(now_ms(stream.server))
    for item in due:
        retire(stream, projection, item.number, by, WHY_KEPT if item.state is State.KEPT else "")
    if record.outbox:
        announce(stream, projection)
    if record.building is not None:
        _let_go_of_dead(stream, generation_group(projection, record.building.number))
    return [item.number for item in due]


def _let_go_of_dead(stream: Stream, group: str) -> None:
    """A rebuild that was killed moves no more: producers and the trimmer wait for it no longer, or it would
    stop a platform days later.
    When it goes on it joins again, and reads from the archive what was trimmed meanwhile."""
    client = stream.server.client
    joined = [keys for keys in stream.keys if client.hexists(keys.groups, group)]
    if joined and all(
        ask_lease(stream.server, keys.lease(group), "", LEASE_MS, "look").left_ms <= 0 for keys in stream.keys
    ):
        forget(stream.server, joined, group)


def _clear(stream: Stream, keys: Keys, projection: str, number: int, at_ms: int) -> None:
    """One partition. The tombstone comes first: what is written after it was taken away would stay."""
    server, group = stream.server, generation_group(projection, number)
    server.run(_RETIRE, (keys.cursor(group),), (at_ms,))
    forget(server, [keys], group)
    try:
        server.client.xgroup_destroy(keys.log, group)
    except ResponseError as error:
        if "requires the key to exist" not in str(error):
            raise
    prefix = keys.view(projection, number, "")
    pattern = "".join(f"\\{char}" if char in "*?[]\\" else char for char in prefix) + "*"
    for key in list(server.client.scan_iter(match=pattern, count=SCAN_COUNT)):
        server.client.unlink(key)
    for key in (keys.dead(group), keys.lease(group)):
        server.client.unlink(key)
