"""Rows 18 to 21: a primary lost, a ghost, a split brain, and what WAIT vouches for. Plain servers, REPLICAOF
on loopback ports.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Any

import pytest

from aurastream.projections.engine import CommitAnswer, is_commit
from aurastream.projections.engine.consumer import GroupLane
from aurastream.streams import Ack, NotReplicated, Outcome, Stream
from tests.cluster import free_ports
from tests.faults.harness import Run, applied, consume_all, is_applied
from tests.faults.network import interceptor
from tests.faults.operators import fill
from tests.faults.processes import Port
from tests.faults.proxy import PASS, Interceptor, Link
from tests.faults.rows import row
from tests.projections.counting import Counting
from tests.servers import until

LOADED_S = 4.0
FAST = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


class Pair:
    """A primary and its replica, with a link between them, and an address that points at whoever is the
    primary.
    """

    def __init__(self, run: Run, *arguments: str) -> None:
        ports = free_ports(2)
        self.primary: Port = run.port(ports[0], *FAST, *arguments)
        self.link = Link(ports[0])
        run.on_end(self.link.close)
        self.replica: Port = run.port(
            ports[1], *FAST, *arguments, "--replicaof", f"127.0.0.1 {self.link.port}"
        )
        self.address: Interceptor = interceptor(run, self.primary.url, lambda command: PASS)
        self.client = run.client(self.replica.url)
        until(
            lambda: self.client.info("replication").get("master_link_status") == "up",
            "the replica to be linked",
        )

    def lose_primary(self) -> None:
        """kill -9; what the link still held is lost; the replica takes over."""
        self.primary.kill()
        self.link.cut()
        self.promote()
        self.address.redirect(self.replica.url)

    def promote(self) -> None:
        self.client.replicaof("NO", "ONE")


@row(18, "the primary is lost, the link alive or lagging")
def a_lost_primary_takes_no_event_that_a_replica_vouched_for(run: Run) -> None:
    for number in range(16 if run.is_long else 2):
        is_lagging = bool(number % 2)
        with Run(run.dice.randrange(10**6), is_long=run.is_long) as lane:
            pair = Pair(lane)
            url = pair.address.url
            lane.stream(url, 2)
            until(partial(pair.client.exists, "aura:streams"), "the replica to follow")
            lane.worker(url)
            lane.worker(url, "--kind", "reader")
            lane.producer(url, level="memory")
            lane.producer(url, level="replica", wait_ms=500, attempts_max=3)
            threading.Event().wait(lane.dice.uniform(0.3, 0.6))
            if is_lagging:
                pair.link.freeze()
                threading.Event().wait(0.3)
            pair.lose_primary()
            threading.Event().wait(0.3)
            lane.judge(url, may_lose=["memory"])
        kind = "lagging" if is_lagging else "live"
        run.count(
            fail_overs=1,
            **{
                f"{kind} lost {level}": lane.counts[f"lost {level}"]
                for level in ("memory", "replica", "unknown")
            },
        )
        run.complain(*[f"{kind} link: {sentence}" for sentence in lane.findings])


@row(19, "a batch read from the old primary that the new one does not have")
def a_ghost_is_refused(run: Run) -> None:
    for _ in range(10 if run.is_long else 1):
        pair = Pair(run)
        stream = run.stream(pair.address.url, 1)
        fill(stream, 0, 30)
        consume_all(pair.address.url)
        until(
            lambda pair=pair: is_applied(pair.client) and applied(pair.client) == 30,
            "the replica to have log and view",
        )
        pair.link.freeze()
        fill(stream, 30, 10)
        ghost = _next_commit(stream)
        pair.lose_primary()
        stream.reconnect()
        if run.dice.random() < 0.5:
            fill(stream, 100, 3)  # others have been appended in the meantime

        answer = CommitAnswer(stream.wire(0).ask(ghost)[0][0])

        run.count(**{answer.name: 1})
        if answer not in (CommitAnswer.GAP, CommitAnswer.STALE):
            run.complain(f"the ghost's commit was answered {answer.name}")
        fill(stream, 30, 10)  # the producer repeats what it does not know of
        run.judge(pair.address.url, strangers=True)


def _next_commit(stream: Stream) -> tuple[Any, ...]:
    steps = GroupLane(Counting(), stream, 0).steps()
    answers: Any = None
    while True:
        asks = steps.send(answers) or []
        if asks and is_commit(asks[0].command):
            return asks[0].command
        answers = stream.wires.exchange(asks)


@row(20, "split brain: both sides are written")
def a_split_brain_is_bounded_and_the_survivor_is_whole(run: Run) -> None:
    pair = Pair(run, "--min-replicas-to-write", "0", "--min-replicas-max-lag", "1")
    old, new = pair.primary.url, pair.replica.url
    run.stream(old, 2)
    until(partial(pair.client.exists, "aura:streams"), "the replica to follow")
    run.client(old).config_set("min-replicas-to-write", 1)
    run.worker(new)
    here = run.producer(old, attempts_max=1)
    vouched = run.producer(old, level="replica", wait_ms=300, attempts_max=1)
    threading.Event().wait(0.4)
    pair.link.freeze()
    cut_at = time.monotonic()
    threading.Event().wait(0.2)
    pair.link.cut()
    pair.promote()
    there = run.producer(new)
    until(lambda: here.refused.total() > 3 and vouched.refused.total() > 3, "the old primary to refuse", 20)
    bound_s = here.acked_at[-1] - cut_at
    here.stop(), vouched.stop()
    run.count(accepted_alone_for_ms=round(1_000 * bound_s), there=there.acked)
    if bound_s > 1 + 1 + LOADED_S:
        run.complain(f"the old primary accepted appends for {bound_s:.1f} s after it was cut off")
    port = pair.replica.port
    run.client(old).replicaof("127.0.0.1", port)  # and it discards what nobody else has
    run.judge(new, may_lose=["memory"])
    run.count(**{f"refused {name}": count for name, count in (here.refused + vouched.refused).items()})


@row(21, "WAIT on another connection, in MULTI, after a duplicate")
def an_acknowledgement_by_replicas_is_never_false(run: Run) -> None:
    pair = Pair(run)
    url = pair.address.url
    first = run.stream(url, 1, ack=Ack.REPLICA, wait_ms=5_000)
    other = run.stream(url, 1, ack=Ack.REPLICA, wait_ms=200)
    fill(first, 0, 5)  # both connections have written, and seen their writes confirmed
    fill(other, 5, 5)
    pair.link.freeze()
    plain = run.stream(url, 1)
    fill(plain, 10, 5)  # written by a third connection, vouched for by nobody
    for _ in range(20 if run.is_long else 3):
        with pytest.raises(NotReplicated):
            fill(other, 10, 5)
        with pytest.raises(NotReplicated):
            fill(other, 0, 5)  # even of what the replica has: this connection's last write has not arrived
        run.count(refused=2)
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(_append_again(first)), daemon=True)
    waiting.start()
    pair.link.thaw()
    waiting.join(10)
    if answers != [[Outcome.DUPLICATE] * 5]:
        run.complain(f"once the link is back, a repeated append is answered {answers}")
    if pair.client.xlen(first.keys[0].log) != 15:
        run.complain("it was acknowledged and the replica does not have it")
    run.judge(url, strangers=True)


def _append_again(stream: Stream) -> list[Outcome]:
    events = [entry.event for entry in stream.read(0)][10:15]
    return [item.outcome for item in stream.append(events)]
