"""An ordinary Faust app runs over Redis Streams, unchanged: all that changes is broker=."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from aurastream.processors.transport.consumer import STOP_PATIENCE_S
from aurastream.streams import Server, list_streams, open_stream
from tests.processors.transport.workers import LEASE_MS, SCRIPTS, Workers, assert_order_per_key, workers
from tests.servers import until

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture
def server(valkey_url: str) -> Iterator[Server]:
    server = Server(valkey_url)
    yield server
    server.close()


@pytest.fixture
def stranger(server: Server, tmp_path: Path) -> Iterator[Workers]:
    with workers(server.url, tmp_path) as found:
        yield found


def test_it_is_a_plain_faust_app() -> None:
    """What runs here would run on Kafka."""
    assert "aurastream" not in (SCRIPTS / "stranger.py").read_text().lower().split('"""', 2)[2]


def port_of() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_agents_topics_timers_crontabs_pages_and_commands_work(server: Server, stranger: Workers) -> None:
    """Everything that the app of a stranger is made of."""
    port = port_of()
    worker = stranger.start("a", "--web-port", str(port))
    stranger.command("order", "20")

    until(lambda: len(stranger.reports("total")) == 20, "20 totals")
    until(
        lambda: stranger.reports("crontab") and stranger.reports("timer") and stranger.reports("leader"),
        "timers",
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/balances/") as answer:
        balances = json.load(answer)
    took_s = worker.stop()

    assert balances == {f"account-{n}": n + n + 10 for n in range(10)}
    assert_order_per_key(stranger.reports("order"))
    assert list(list_streams(server)) == ["quoted._4frders", "totals"], "the leader topic has no log"
    assert took_s < STOP_PATIENCE_S, (
        "2 s on a quiet machine, of which mode sleeps one: nothing was waited for"
    )


def test_a_worker_that_stops_finishes_what_it_handles_and_the_next_goes_on_from_there(
    stranger: Workers,
) -> None:
    """SIGTERM is not a crash: nothing is handled twice."""
    worker = stranger.start("a", HANDLING_S="0.05")
    stranger.command("order", "60")
    until(lambda: len(stranger.amounts()) > 3, "some orders")

    worker.stop()
    stranger.start("b")

    until(lambda: len(stranger.amounts()) >= 60, "all orders")
    assert sorted(stranger.amounts()) == list(range(60))


def test_two_workers_share_the_partitions_and_one_takes_over_from_one_that_was_killed(
    server: Server, stranger: Workers
) -> None:
    """kill -9: the events of the dead are handled by the living within lease + 1 s, in order per key, and
    none is lost.
    """
    first, _ = stranger.start("a"), stranger.start("b")
    logs = [keys.log for keys in open_stream(server, "quoted._4frders").keys]
    sent: dict[int, float] = {}

    def send() -> None:
        """One order into each partition, as topic.send writes it."""
        for log in logs:
            value = json.dumps({"account": log, "amount": len(sent)})
            sent[len(sent)] = time.time()
            server.client.xadd(log, {"key": log, "value": value})

    until(lambda: send() or len({line["worker"] for line in stranger.reports("order")}) == 2, "both to work")
    first.kill()
    killed_at = time.time()
    until(lambda: send() or time.time() > killed_at + LEASE_MS / 1000 + 1, "the lease to end")
    until(lambda: set(stranger.amounts()) >= set(sent), "all orders")

    waits = {
        line["amount"]: line["at"] - sent[line["amount"]] for line in reversed(stranger.reports("order"))
    }
    assert max(waits.values()) < LEASE_MS / 1000 + 1
    assert_order_per_key(stranger.reports("order"))


def test_a_leader_that_was_killed_is_followed_by_another(stranger: Workers) -> None:
    """on_leader runs on one worker, and goes on on the next."""
    running = {"a": stranger.start("a"), "b": stranger.start("b")}
    until(lambda: stranger.reports("leader"), "a leader")
    leader = stranger.reports("leader")[-1]["worker"]

    running[leader].kill()

    other = "b" if leader == "a" else "a"
    until(lambda: stranger.reports("leader", worker=other), "the other to lead", LEASE_MS / 1000 + 2)
