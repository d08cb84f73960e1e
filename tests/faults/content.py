"""Rows 25, 27 to 30: no memory, bad values, poison, clocks, event time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

import pytest
import redis

from aurastream.projections import Consumer, FoldFailed, ViewBroken
from aurastream.streams import ClipViewsObserved, Codec, Server, ServerRefuses, Stream, open_stream
from tests.faults.harness import Run, consume_all
from tests.faults.operators import fill
from tests.faults.producers import NOON, STREAM
from tests.faults.rows import row
from tests.invariants import check, check_prefix, held_by
from tests.projections.counting import Count, Counting

YEAR = timedelta(days=365)


def raw_add(client: Any, stream: Stream, raw: bytes, *, position: str = "*", crc: int | None = None) -> str:
    """A plain XADD, as a producer does that knows nothing of the index."""
    fields = {"event": raw, "crc32": crc32(raw) if crc is None else crc}
    return client.xadd(stream.keys[0].log, fields, id=position).decode()


def observed(name: str, **more: Any) -> ClipViewsObserved:
    facts: dict[str, Any] = {"subject": "clip-1", "occurred_at": NOON, "views": 1, **more}
    return ClipViewsObserved(event_id=name, **facts)


@row(25, "out of memory at every step")
def no_memory_is_refused_or_whole_and_resumes(run: Run) -> None:
    url = run.server().url
    stream, client = run.stream(url, 1, server_wait_s=0), run.client(url)
    fill(stream, 0, 50)
    consume_all(url)
    steps = 200 if run.is_long else 25
    for step in range(steps):
        # From "nothing is allowed" to "just about enough", around what one append and one commit need.
        client.config_set(
            "maxmemory", max(1, client.info("memory")["used_memory"] + (step - steps // 3) * 2_048)
        )
        for act in (
            lambda step=step: fill(stream, 1_000 + 20 * step, 20),
            lambda: consume_all(url, attempts_max=1),
        ):
            try:
                act()
                run.count(whole=1)
            except (ServerRefuses, redis.exceptions.OutOfMemoryError):
                run.count(refused=1)
            run.complain(*check_prefix(held_by(client, STREAM, 0)))
        client.config_set("maxmemory", 0)
        if run.dice.random() < 0.3:
            consume_all(url)
    if not (run.counts["whole"] and run.counts["refused"]):
        run.complain(f"no step was near the limit: {dict(run.counts)}")
    run.judge(url, strangers=True)


def bad_events() -> dict[str, bytes]:
    """What a producer without our checks may have written."""
    plain = Codec().encode(observed("bad")).decode()
    deep = "[" * 20_000 + "]" * 20_000
    return {
        "text for a number": plain.replace('"views":1', '"views":"abc"').encode(),
        "a fraction": plain.replace('"views":1', '"views":1.5').encode(),
        "2^53": plain.replace('"views":1', f'"views":{2**53}').encode(),
        "2^63": plain.replace('"views":1', f'"views":{2**63}').encode(),
        "negative": plain.replace('"views":1', '"views":-1').encode(),
        "NaN": plain.replace('"views":1', '"views":NaN').encode(),
        "1e400": plain.replace('"views":1', '"views":1e400').encode(),
        "no subject": plain.replace('"subject":"clip-1",', "").encode(),
        "half of it": plain[:40].encode(),
        "empty": b"",
        "not UTF-8": plain.encode().replace(b"clip-1", b"clip\xff\xfe"),
        "nested": plain.replace('"views":1', f'"views":{deep}').encode(),
        "local time": plain.replace("00Z", "00").encode(),
    }


@row(27, "WRONGTYPE, a bad number, an overflow at every place of a batch")
def a_bad_value_anywhere_changes_nothing_and_the_rest_goes_on(run: Run) -> None:
    url = run.server().url
    stream, client = run.stream(url, 1), run.client(url)
    bad = bad_events()
    width = 8
    for kind in sorted(bad) if run.is_long else sorted(bad)[:: run.dice.choice((2, 3))]:
        for place in range(width) if run.is_long else (0, run.dice.randrange(width), width - 1):
            for n in range(width):
                if n == place:
                    raw_add(client, stream, bad[kind])
                else:
                    stream.append(
                        [observed(f"{kind.replace(' ', '-').replace('^', '')}-{place}-{n}", views=n)]
                    )
            consume_all(url)
            findings = check(held_by(client, STREAM, 0))
            run.count(batches=1)
            run.complain(*[f"{kind} at place {place}: {sentence}" for sentence in findings])
    # The largest counts there are, and their sum beyond what a double holds.
    stream.append([observed(f"large-{n}", subject="large", views=2**53 - 1) for n in range(20)])
    consume_all(url)
    dead = len(held_by(client, STREAM, 0).hashes.get("dead:counting", {}))
    if dead != run.counts["batches"]:
        run.complain(f"{run.counts['batches']} bad entries, {dead} in the list of the dead")
    _wrong_types(run, url, stream, client)
    run.judge(url, strangers=True)


def _wrong_types(run: Run, url: str, stream: Stream, client: Any) -> None:
    """Each key in turn is of another type: nothing changes, the key is named, and it goes on once it is put
    back.
    """
    tag = f"aura:{{{STREAM}.0}}:"
    keys = [key.decode() for key in client.keys(f"{tag}view:*")] + [
        f"{tag}cursor:counting",
        f"{tag}ids",
        f"{tag}dead:counting",
    ]
    for number, key in enumerate(sorted(keys)):
        stream.append(
            [observed(f"typed-{number}-{part}", category=part, subject=part) for part in ("a", "b")]
        )
        raw_add(client, stream, b"bad")
        kept = client.dump(key)
        before = {
            name: client.dump(name)
            for name in client.keys(f"{tag}*")
            if name.decode() != key and not name.endswith(b"log")
        }
        client.delete(key)
        client.set(key, "mine")
        try:
            consume_all(url)
        except (ViewBroken, redis.ResponseError) as error:
            run.count(named=1)
            if key not in str(error) and "WRONGTYPE" not in str(error):
                run.complain(f"{key} has another type and the error does not say so: {error}")
        else:
            run.count(not_touched=1)  # a part of a ranking that this batch did not change
        after = {name: client.dump(name) for name in before}
        client.delete(key)
        if kept is not None:
            client.restore(key, 0, kept)
        if after != before and run.counts["not_touched"] == 0:
            run.complain(f"{key} has another type and something else was changed")
        consume_all(url)
        run.complain(*check_prefix(held_by(client, STREAM, 0)))


@row(28, "poison: a decoder or a handler that raises")
def poison_is_set_aside_once_and_order_is_kept(run: Run) -> None:
    url = run.server().url
    stream, client = run.stream(url, 1), run.client(url)
    kinds = list(bad_events().values())
    poisoned = 0
    for n in range(400 if run.is_long else 80):
        if run.dice.random() < 0.2:
            raw = run.dice.choice(kinds)
            raw_add(client, stream, raw, crc=run.dice.choice((None, 7)))
            poisoned += 1
        stream.append([observed(f"e{n}", subject=f"clip-{n % 3}", views=n, category=f"c{n % 5}")])
        if run.dice.random() < 0.1:  # no poison: a newer producer's, which the judge counts
            raw_add(client, stream, Codec().encode(observed(f"newer-{n}"))[:-1] + b',"more":{"a":1}}')
            run.count(newer=1)
        if run.dice.random() < 0.1:
            consume_all(url)
    consume_all(url)
    consume_all(url)
    dead = held_by(client, STREAM, 0).hashes.get("dead:counting", {})
    run.count(poison=poisoned)
    if len(dead) != poisoned:
        run.complain(f"{poisoned} poisoned entries, {len(dead)} in the list of the dead")

    # A handler that raises stops its view before the event, whatever the batch, and goes on when it is
    # mended.
    stream.append([observed(f"h{n}", subject="handled", views=n) for n in range(20)])
    place = run.dice.randrange(20)
    sound = Counting.apply

    def raises(self: Counting, state: Count | None, event: Any) -> Count:
        if event.event_id == f"h{place}":
            raise ZeroDivisionError("poison")
        return sound(self, state, event)

    server = Server(url)
    consumer = Consumer(server, [Counting()], lambda: [open_stream(server, STREAM)], batch_max=3)
    Counting.apply = raises  # type: ignore[method-assign]
    try:
        with pytest.raises(FoldFailed, match=f"h{place}"):
            consumer.run(until_idle=True)
    finally:
        server.close()
        Counting.apply = sound  # type: ignore[method-assign]
    run.complain(*check_prefix(held_by(client, STREAM, 0)))
    run.judge(url, strangers=True, rebuild=True)


@row(29, "the clock back an hour, forward a year")
def positions_grow_whatever_the_clock_says(run: Run) -> None:
    url = run.server().url
    stream, client = run.stream(url, 1), run.client(url)
    run.worker(url)
    fill(stream, 0, 30)
    # A server whose clock was a year ahead for one append has the log's end there: from then on it is as if
    # it went back.
    ahead_ms = int((datetime.now(UTC) + YEAR).timestamp() * 1_000)
    raw_add(client, stream, Codec().encode(observed("ahead")), position=f"{ahead_ms}-5")
    placed = stream.append([observed(f"back-{n}", views=n) for n in range(20)])
    if not all(item.position.startswith(f"{ahead_ms}-") for item in placed):
        run.complain(f"positions after a clock that went back: {[item.position for item in placed[:3]]}")
    with pytest.raises(redis.ResponseError, match="equal or smaller"):
        raw_add(client, stream, Codec().encode(observed("behind")), position=f"{ahead_ms - 3_600_000}-0")
    again = stream.append([observed(f"back-{n}", views=n) for n in range(20)])
    if [item.position for item in again] != [item.position for item in placed]:
        run.complain("a repeated append has other positions after the clock went back")
    run.count(entries=client.xlen(stream.keys[0].log))
    run.judge(url, strangers=True, rebuild=True)


@row(30, "event time far past, far future, in disorder")
def event_time_in_any_order_gives_the_view_of_the_log(run: Run) -> None:
    url = run.server().url
    stream, client = run.stream(url, 1), run.client(url)
    today = datetime.now(UTC)
    moments = (
        datetime(1, 1, 2, tzinfo=UTC),
        datetime(1969, 7, 20, tzinfo=UTC),
        NOON - YEAR,
        NOON,
        today + timedelta(hours=23),
        today + timedelta(hours=25),
        today + YEAR,
        datetime(9999, 12, 30, tzinfo=UTC),
    )
    count = 600 if run.is_long else 120
    late = 0
    for n in range(count):
        moment = run.dice.choice(moments) + timedelta(seconds=run.dice.randrange(60))
        event = observed(
            f"t{n}",
            subject=f"clip-{run.dice.randrange(5)}",
            occurred_at=moment,
            views=n,
            category=f"c{n % 3}",
        )
        if moment > today + timedelta(hours=24):
            raw_add(client, stream, Codec().encode(event))
            late += 1
        else:
            stream.append([event])
        if run.dice.random() < 0.1:
            consume_all(url)
    run.count(quarantined=late)
    held = run.judge(url, strangers=True, rebuild=True)[0]
    if int(held.cursor["quarantined"]) != late:
        run.complain(f"{late} events from the future, {held.cursor['quarantined']} quarantined")
