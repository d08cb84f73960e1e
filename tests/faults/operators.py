"""Rows 4, 5, 6, 24, 26: what an operator's hand can do to groups, log, scripts and settings."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis

from aurastream.projections import LogRewound
from aurastream.projections import check as check_views
from aurastream.streams import ClipViewsObserved, Server, ServerUnfit, Stream, open_stream
from tests.faults.harness import Run, applied, consume_all, where_cursors_are
from tests.faults.producers import NOON, STREAM
from tests.faults.rows import row
from tests.invariants import check, check_log, every_partition, held_by
from tests.projections.counting import Counting
from tests.servers import until

GROUP = "counting"


def fill(stream: Stream, first: int, count: int) -> None:
    """Events first .. first + count - 1, over 7 clips."""
    stream.append(
        [
            ClipViewsObserved(
                event_id=f"f{n}",
                subject=f"clip-{n % 7}",
                occurred_at=NOON + timedelta(seconds=n),
                views=n % 10,
            )
            for n in range(first, first + count)
        ]
    )


def product_says(stream: Stream) -> list[str]:
    """What `aurastream check` says."""
    complaints = []
    for result in check_views(stream, [Counting()]):
        complaints += result.complaints + [f"{item.table} {item.key}" for item in result.differences]
    return complaints


def group_hazards(client: Any, dice: Any, log: str) -> Callable[[], Any]:
    """One of the things that lose or double events where XACK is the gate."""

    def claim() -> None:
        entries = client.xrange(log, count=1000)
        if entries:
            client.execute_command("XCLAIM", log, GROUP, "thief", 0, dice.choice(entries)[0], "FORCE")

    hazards: list[Callable[[], Any]] = [
        lambda: client.xgroup_destroy(log, GROUP),
        lambda: client.xgroup_setid(log, GROUP, "0"),
        lambda: client.xgroup_setid(log, GROUP, "$"),
        lambda: client.xgroup_delconsumer(log, GROUP, "owner"),
        lambda: client.xreadgroup(GROUP, "thief", {log: ">"}, count=50),
        lambda: client.xreadgroup(GROUP, "thief", {log: ">"}, count=50, noack=True),
        claim,
    ]
    return dice.choice(hazards)


@row(4, "XGROUP DELCONSUMER, DESTROY, SETID 0 and $, XCLAIM FORCE, a thief")
def whatever_is_done_to_the_group_the_cursor_decides(run: Run) -> None:
    url = run.server().url
    stream = run.stream(url, 1)
    client, log = run.client(url), stream.keys[0].log
    reader = run.worker(url, "--kind", "reader", "--batch-max", "20")
    run.producer(url)
    end = time.monotonic() + run.lasts(1.5, 15)
    pause = threading.Event()
    while time.monotonic() < end:
        try:
            group_hazards(client, run.dice, log)()
            run.count(hazards=1)
        except redis.ResponseError:
            run.count(hazards_refused=1)
        pause.wait(run.dice.uniform(0, 0.02))
    run.stop_producers()
    # And where nothing comes after it: a group that is set ahead of the last entries.
    for number, hazard in enumerate(
        (lambda: client.xgroup_setid(log, GROUP, "$"), lambda: client.xgroup_destroy(log, GROUP))
    ):
        until(lambda: _is_level(client), "the reader to be idle")
        reader.signal(signal.SIGSTOP)
        until(reader.is_stopped, "the reader to stop")
        stream.append(
            [ClipViewsObserved(event_id=f"last{number}", subject="clip-1", occurred_at=NOON, views=1)]
        )
        hazard()
        reader.signal(signal.SIGCONT)
        try:
            until(lambda: _is_level(client), "the last entry", 8)
        except AssertionError:
            run.complain(
                f"the last entry was never applied: hazard {number} was done to the group before it was read"
            )
    run.judge(url, strangers=True)


def _is_level(client: Any) -> bool:
    return all(end == at for end, at in where_cursors_are(client))


@row(5, "XTRIM, XDEL, XADD MAXLEN 0 of entries not yet applied")
def entries_that_vanish_are_counted_exactly(run: Run) -> None:
    kinds: dict[str, Callable[[Any, str], int]] = {
        "xdel": lambda client, log: client.xdel(
            log, *[place for place, _ in client.xrevrange(log, count=7)[2:]]
        ),
        "xtrim": lambda client, log: client.xtrim(log, maxlen=10, approximate=False),
        "maxlen 0": lambda client, log: (
            client.xlen(log) + int(bool(client.xadd(log, {"a": "b"}, maxlen=0, approximate=False)))
        ),
    }
    for name, remove in kinds.items():
        url = run.server().url
        stream, client = run.stream(url, 1), run.client(url)
        fill(stream, 0, 60)
        consume_all(url)
        fill(stream, 60, 40)

        gone = remove(client, stream.keys[0].log)

        for moment in ("before", "after"):
            sentences = [sentence for sentence in product_says(stream) if f"{gone} entries" in sentence]
            run.count(looked=1, gone=gone if moment == "before" else 0)
            if not sentences:
                run.complain(
                    f"{name}: `check` does not say that {gone} entries are gone {moment} the rest is "
                    f"applied: {product_says(stream)}"
                )
            if f"{STREAM}/0: {gone} entries are gone from the log without the trimmer" not in check_log(
                held_by(client, STREAM, 0)
            ):
                run.complain(f"{name}: the invariant checker does not count {gone} entries")
            consume_all(url)


@row(6, "DEL or RENAME of the log")
def a_log_that_is_gone_is_reported_and_not_forgotten(run: Run) -> None:
    for name in ("DEL", "RENAME"):
        url = run.server().url
        stream, client = run.stream(url, 1), run.client(url)
        fill(stream, 0, 60)
        consume_all(url)
        log = stream.keys[0].log
        if name == "DEL":
            client.delete(log)
        else:
            client.rename(log, "elsewhere")
        sentences = product_says(stream)
        run.count(looked=1)
        if not any("ends before the cursor" in sentence for sentence in sentences):
            run.complain(f"{name}: `check` does not say that the log is rewound: {sentences}")
        before = applied(client)
        consume_all(url)
        if applied(client) != before:
            run.complain(f"{name}: something was applied from a log that is gone")
        fill(stream, 100, 5)  # a log of its own grows where the old one was
        try:
            consume_all(url)
            run.complain(f"{name}: a log that began anew was applied to a view of the old one")
        except LogRewound as error:
            run.count(refused=error.read)
        if applied(client) != before:
            run.complain(f"{name}: something of the new log was applied")
        if not any("60 entries" in sentence for sentence in product_says(stream)):
            run.complain(
                f"{name}: `check` forgets that 60 entries are gone once new ones are there: "
                f"{product_says(stream)}"
            )
        if not check(held_by(client, STREAM, 0)):
            run.complain(f"{name}: the invariant checker is green without a log")


@row(24, "SCRIPT FLUSH, NOSCRIPT, BUSY, SCRIPT KILL")
def forgotten_and_busy_scripts_are_retried(run: Run) -> None:
    process = run.server()
    url = process.url
    run.stream(url, 2)
    client = run.client(url)
    client.config_set("lua-time-limit", 20)
    run.worker(url)
    run.worker(url, "--kind", "reader")
    run.producer(url, attempts_max=20)
    end = time.monotonic() + run.lasts(1.5, 15)
    pause = threading.Event()
    while time.monotonic() < end:
        client.script_flush()
        run.count(flushes=1)
        if run.dice.random() < 0.1:
            busy = threading.Thread(target=_be_busy, args=(url,), daemon=True)
            busy.start()
            pause.wait(0.15)
            _kill_script(client)
            busy.join(10)
            run.count(busy=1)
        pause.wait(run.dice.uniform(0, 0.03))
    run.judge(url)


def _be_busy(url: str) -> None:
    with redis.Redis.from_url(url, socket_timeout=10) as client:
        try:
            client.eval("while true do end", 0)
        except redis.RedisError:
            return  # killed, as it should be


def _kill_script(client: Any) -> None:
    try:
        client.script_kill()
    except redis.ResponseError:
        return  # NOTBUSY: it had not begun, or was over


@row(26, "an eviction policy; a time to live on what we own")
def a_server_that_would_forget_is_refused_and_a_time_to_live_is_seen(run: Run) -> None:
    url = run.server().url
    stream, client = run.stream(url, 1), run.client(url)
    for policy in ("allkeys-lru", "allkeys-random", "volatile-ttl", "volatile-lru"):
        client.config_set("maxmemory-policy", policy)
        with pytest.raises(ServerUnfit, match="noeviction"):
            open_stream(Server(url), STREAM)
        run.count(refused=1)
    client.config_set("maxmemory-policy", "noeviction")
    fill(stream, 0, 20)
    consume_all(url)
    for key in sorted(key for key in client.keys("aura:{*") if b":members:" not in key):
        client.expire(key, 1_000)
        sentences = [
            sentence
            for held in every_partition(client)
            for sentence in check(held)
            if "time to live" in sentence
        ]
        run.count(looked=1)
        if len(sentences) != 1:
            run.complain(f"a time to live on {key.decode()}: {sentences}")
        client.persist(key)
    run.judge(url, strangers=True)
