"""
Row 33: a rolling upgrade of workers and producers, one at a time, on one stream.

    old producer, old worker -> a new worker joins -> a new producer joins: the old worker stops where version
        2 begins, with a
    sentence -> it is ended (TERM, or kill -9) -> the new one has it all -> the old producer goes on meanwhile

By lease and by group alike. The judge folds the log's JSON itself, both versions of it, without the upcaster.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from typing import Any
from zlib import crc32

import msgspec
import pytest

from aurastream.projections import Consumer, check
from aurastream.projections.engine.memory import MemoryView
from aurastream.streams import Server, UnknownEventVersion, open_stream
from tests.faults import build_new, build_old
from tests.faults.harness import Run
from tests.faults.processes import Worker
from tests.faults.producers import STREAM
from tests.faults.rows import row
from tests.invariants import (
    Held,
    canonical_entries,
    check_acks,
    compare,
    every_partition,
    fold,
    place_of,
    read_entry,
)
from tests.invariants import Reading as Read
from tests.servers import until

OLD, NEW = "tests.faults.build_old:Counting", "tests.faults.build_new:Counting"
PARTITIONS = 4


@row(33, "rolling upgrade: old and new workers and producers, old and new events")
def an_upgrade_one_by_one_loses_and_doubles_nothing(run: Run) -> None:
    for kind in ("owner", "reader") * (3 if run.is_long else 1):
        with Run(run.dice.randrange(10**6), is_long=run.is_long) as lane:
            _upgrade(lane, kind)
        run.counts.update(lane.counts)
        run.complain(*[f"{kind}: {sentence}" for sentence in lane.findings])


def _upgrade(run: Run, kind: str) -> None:
    url = run.server().url
    run.stream(url, PARTITIONS)
    client = run.client(url)
    lease = ("--kind", kind, "--lease-ms", "400")
    old = run.worker(url, "--projection", OLD, *lease)
    before = run.producer(url)
    until(lambda: _events(client) > 200 and _read(client) > 100, "the old worker to be under way")
    new = run.worker(url, "--projection", NEW, *lease)
    if kind == "owner":
        until(lambda: len(_owners(client)) == 2, "the new worker to own partitions")
    _glimpse(run, client)

    after = run.producer(url, made=build_new.made, codec=build_new.CODEC)
    until(lambda: _has_met(old), "the old worker to meet version 2")
    _glimpse(run, client)
    if not old.is_alive():
        run.complain(
            "the old worker ended by itself: it must wait for the new one, and be of use to its other "
            "partitions"
        )
    if run.dice.random() < 0.5:
        old.kill()
        run.count(killed=1)
    else:
        report = old.end()
        run.count(ended=1, refused_by_the_old=report["troubles"].get("UnknownEventVersion", 0))
        run.complain(
            *[
                f"the old worker ran into {name}"
                for name in report["troubles"]
                if name != "UnknownEventVersion"
            ]
        )
    at = _read(client)
    until(lambda: _read(client) > at + 200, "the new worker to take over")
    for producer in (before, after):
        producer.stop()
    until(lambda: _read(client) == _events(client), "everything to be applied")
    run.complain(*[f"the new worker ran into {name}" for name in new.end()["troubles"]])
    _judge(run, url, client)


def _has_met(worker: Worker) -> bool:
    return worker.troubles.exists() and "UnknownEventVersion" in worker.troubles.read_text()


def _owners(client: Any) -> set[bytes]:
    return {client.hget(f"aura:{{{STREAM}.{n}}}:lease:counting", "owner") for n in range(PARTITIONS)} - {
        None,
        b"",
    }


def _events(client: Any) -> int:
    return sum(client.xlen(f"aura:{{{STREAM}.{n}}}:log") for n in range(PARTITIONS))


def _read(client: Any) -> int:
    return sum(
        int(client.hget(f"aura:{{{STREAM}.{n}}}:cursor:counting", "read") or 0) for n in range(PARTITIONS)
    )


def readings(held: Held) -> list[Read]:
    """The entries with what they say in the terms of version 1."""
    decoded = []
    for position, fields in held.log:
        reading = read_entry(position, _as_first(fields))
        assert reading.kind == "counted", reading
        decoded.append(reading)
    return decoded


def _as_first(fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
    event = json.loads(fields[b"event"])
    assert fields[b"crc32"] == b"%d" % crc32(fields[b"event"])
    if event.pop("version", 1) == 2:
        event["views"], event["category"] = event.pop("total"), event.pop("place")["category"]
    raw = json.dumps(event).encode()
    return {b"event": raw, b"crc32": b"%d" % crc32(raw)}


def difference(held: Held) -> list[str]:
    """I1 up to the cursor, counts included."""
    cursor = held.cursor
    every = readings(held)
    canonical, findings = canonical_entries(held, every)
    passed = [
        reading for reading in every if place_of(reading.position) <= place_of(cursor.get("position", ""))
    ]
    wanted = fold(passed, canonical, dict(held.log))
    counts = [
        f"{held.where}: the cursor says {name} {cursor.get(name, 0)}, the log says {count}"
        for name, count in wanted.counts.items()
        if int(cursor.get(name, 0)) != count
    ]
    return [*findings, *counts, *compare(held, wanted.tables)]


def _glimpse(run: Run, client: Any) -> None:
    for held in every_partition(client):
        run.complain(*difference(held)[:5])
    run.count(glimpses=1)


def _judge(run: Run, url: str, client: Any) -> None:
    helds = every_partition(client)
    versions: Counter[int] = Counter()
    for held in helds:
        run.complain(*difference(held)[:5])
        versions.update(2 if b'"version":2' in fields[b"event"] else 1 for _, fields in held.log)
    if not (versions[1] and versions[2]):
        run.complain(f"the log has versions {dict(versions)}, not both")
    plain = [
        Held(held.stream, held.partition, [(position, _as_first(fields)) for position, fields in held.log])
        for held in helds
    ]
    run.complain(*check_acks(plain, run.acks()))
    run.count(first=versions[1], second=versions[2])
    server = Server(url)
    try:
        stream = open_stream(server, STREAM, codec=build_new.CODEC)
        run.complain(
            *[
                f"check: {complaint}"
                for result in check(stream, [build_new.Counting()])
                for complaint in (*result.complaints, *result.differences)
            ]
        )
        _is_pure(run, stream)
        with pytest.raises(UnknownEventVersion, match="Deploy the build that wrote it"):
            list(check(stream, [build_old.Counting()]))
        for key in (*client.scan_iter("aura:*:cursor:*"), *client.scan_iter("aura:*:view:*")):
            client.delete(key)
        with pytest.raises(UnknownEventVersion, match="the events stay in the log until then"):
            Consumer(server, [build_old.Counting()], lambda: [stream]).run(until_idle=True)
        for held in every_partition(client):
            run.complain(
                *[f"folded by the old one as far as it goes: {sentence}" for sentence in difference(held)[:5]]
            )
        Consumer(server, [build_new.Counting()], lambda: [stream]).run(until_idle=True)
        for held in every_partition(client):
            run.complain(*[f"gone on with by the new one: {sentence}" for sentence in difference(held)[:5]])
    finally:
        server.close()


def _is_pure(run: Run, stream: Any) -> None:
    """The upcaster changes nothing it is given, and a second fold gives the same bytes as the first."""
    raw = stream.read_raw(0)
    first, second = MemoryView(build_new.Counting()), MemoryView(build_new.Counting())
    for view in (first, second):
        view.fold(view.decode(raw))
    if first.tables != second.tables:
        run.complain("two folds of the same entries differ")
    for _, fields in raw:
        content = msgspec.json.decode(fields[1])
        if content.get("version", 1) == 1:
            kept = copy.deepcopy(content)
            build_new.second(content)
            if content != kept:
                run.complain("the upcaster changes what it is given")
                return
