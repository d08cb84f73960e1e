"""Rows 22, 23: a cluster's owner killed, and slots moved key by key, under load."""

from __future__ import annotations

import threading
from typing import Any

from redis.crc import key_slot

from tests.cluster import NODE_TIMEOUT_MS, Cluster, Node
from tests.faults.harness import Run
from tests.faults.rows import row
from tests.servers import until

LOADED_S = 5.0
PARTITIONS = 4


@row(22, "the owner of a slot is killed in a cluster")
def a_killed_owner_costs_an_outage_and_no_view(run: Run) -> None:
    for _ in range(3 if run.is_long else 1):
        with Run(run.dice.randrange(10**6), is_long=run.is_long) as lane:
            cluster = Cluster(lane.binary, replicas=True)
            lane.on_end(cluster.stop)
            stream = lane.stream(cluster.url, PARTITIONS)
            lane.worker(cluster.url)
            producer = lane.producer(cluster.url, attempts_max=30)
            first = cluster.nodes[0]
            victims = {
                node.port: node for keys in stream.keys if (node := cluster.owner_of(keys.log)) is not first
            }
            until(lambda producer=producer: producer.acked > 200, "load")
            victim = victims[lane.dice.choice(sorted(victims))]
            victim.kill()
            until(
                lambda cluster=cluster, victim=victim: _is_replaced(cluster, victim),
                "the replica to take over",
                30,
            )
            acked = producer.acked
            until(lambda producer=producer, acked=acked: producer.acked > acked + 100, "appends to go on", 30)
            outage_s = producer.gap_s()
            if outage_s > 2 * NODE_TIMEOUT_MS / 1_000 + 1 + LOADED_S:
                lane.complain(f"the outage lasted {outage_s:.1f} s")
            lane.judge(cluster.url, may_lose=["memory"])
        run.counts.update(lane.counts)
        run.count(kills=1, outage_ms=round(outage_s * 1_000))
        run.complain(*lane.findings)


def _is_replaced(cluster: Cluster, victim: Node) -> bool:
    rows = cluster.nodes[0].client.execute_command("CLUSTER", "SLOTS")
    served = sum(int(end) - int(start) + 1 for start, end, *_ in rows)
    return served == 16_384 and all(int(row[2][1]) != victim.port for row in rows) and cluster.is_whole()


@row(23, "slots moved under load")
def slots_that_move_cost_retries_only(run: Run) -> None:
    cluster = Cluster(run.binary)
    run.on_end(cluster.stop)
    stream = run.stream(cluster.url, PARTITIONS)
    run.worker(cluster.url)
    run.worker(cluster.url, "--kind", "reader")
    producer = run.producer(cluster.url, attempts_max=30)
    until(lambda: producer.acked > 100, "load")
    for number in range(40 if run.is_long else 4):
        key = stream.keys[number % PARTITIONS].log
        source = cluster.owner_of(key)
        target = run.dice.choice([node for node in cluster.nodes if node is not source])
        run.count(slots=1, keys=move(cluster, key_slot(key.encode()), source, target, run))
        acked = producer.acked
        until(lambda acked=acked: producer.acked > acked + 20, "appends to go on", 30)
    run.judge(cluster.url)


def move(cluster: Cluster, slot: int, source: Node, target: Node, run: Run) -> int:
    """One slot, key by key, slowly enough that requests fall in between. Returns the number of keys."""

    def say(node: Node, *words: Any) -> Any:
        return node.client.execute_command("CLUSTER", "SETSLOT", slot, *words)

    say(target, "IMPORTING", source.id)
    say(source, "MIGRATING", target.id)
    moved = 0
    while keys := source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1):
        source.client.execute_command("MIGRATE", "127.0.0.1", target.port, keys[0], 0, 5_000)
        moved += 1
        threading.Event().wait(run.dice.uniform(0, 0.02))
    for node in (target, source, *cluster.nodes):
        say(node, "NODE", target.id)
    return moved
