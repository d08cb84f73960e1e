"""Questions to the server: put again, grouped anew, answered by their own answers, and bounded."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.crc import key_slot
from redis.exceptions import ResponseError

from aurastream.streams import (
    LOST,
    Ask,
    Asking,
    AsyncWire,
    AsyncWires,
    Backoff,
    Claim,
    Leases,
    Server,
    UnknownOutcome,
    Wire,
    Wires,
    adrive,
    drive,
    relay,
)
from aurastream.streams.errors import ServerAway
from tests.cluster import Cluster
from tests.servers import CuttingProxy, ServerProcess, binaries, until


def echo(key: str, text: str) -> Ask:
    return Ask(key, ("ECHO", text))


class TwoServers:
    """Two servers as if they were the nodes of one: keys that begin with b are the second's."""

    def __init__(self, first: str, second: str) -> None:
        self._servers = Server(first), Server(second)

    def node_of(self, key: str) -> str:
        return key[0]

    def wire(self, key: str) -> Wire:
        return self._servers[key.startswith("b")].wire(key)

    async def async_wire(self, key: str) -> AsyncWire:
        return await self._servers[key.startswith("b")].async_wire(key)

    def refresh(self) -> None:
        return


@pytest.fixture
def other(valkey: str) -> Iterator[ServerProcess]:
    process = ServerProcess(valkey)
    yield process
    process.stop()


@pytest.fixture
def proxy(running: ServerProcess) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(running.url)
    yield proxy
    proxy.close()


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[str]:
    """The URL of somebody who accepts connections and never says a word."""
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        yield str(path)


def two_rounds() -> Asking[list[bytes]]:
    first = yield [echo("a", "1")]
    second = yield [echo("a", "2"), echo("a", "3")]
    return [*first, *second]


def test_both_drivers_give_every_answer_to_the_step_that_asked(server: Server) -> None:
    """A lane's code is written once and runs over both kinds of connections."""

    async def in_a_loop() -> list[bytes]:
        wires = AsyncWires(server)
        try:
            return await adrive(two_rounds(), wires.ask)
        finally:
            await wires.close()

    assert drive(two_rounds(), Wires(server).ask) == [b"1", b"2", b"3"] == asyncio.run(in_a_loop())


def test_steps_within_steps_are_answered_by_what_those_ask(server: Server) -> None:
    """A fold says what it needs and knows no command; the lane around it turns each need into questions."""

    def doubled(asks: list[Ask]) -> Asking[list[bytes]]:
        first = yield asks
        second = yield asks
        return [one + two for one, two in zip(first, second, strict=True)]

    assert drive(relay(two_rounds(), doubled), Wires(server).ask) == [b"11", b"22", b"33"]


def test_steps_whose_question_fails_are_ended(server: Server) -> None:
    """What they hold (a lease, a place in a queue) is let go at once, not when the collector comes by."""
    ended: list[str] = []

    def steps() -> Asking[None]:
        try:
            yield [Ask("a", ("NO-SUCH-COMMAND",))]
        finally:
            ended.append("now")

    asking = steps()
    with pytest.raises(ResponseError):
        drive(asking, Wires(server).ask)
    assert ended == ["now"]


def test_pauses_double_up_to_their_bound_and_are_never_in_step() -> None:
    """A thousand clients of one server that restarts must not come back in one instant, nor after minutes."""
    backoff = Backoff(0.1, 1.0)

    pauses = [backoff.next_s() for _ in range(50)]

    for number, pause_s in enumerate(pauses):
        whole_s = min(1.0, 0.1 * 2**number)
        assert whole_s / 2 <= pause_s <= whole_s
    assert len(set(pauses)) == len(pauses)
    backoff.reset()
    assert backoff.next_s() <= 0.1


@pytest.mark.parametrize("cuts", [1, 3])
def test_a_question_whose_answer_was_lost_is_put_again(proxy: CuttingProxy, cuts: int) -> None:
    """All questions are idempotent, so a lost answer costs time and nothing else."""
    wires = Wires(Server(proxy.url))
    wires.ask([echo("a", "warm")])
    proxy.cuts = cuts

    assert wires.ask([echo("a", "1"), echo("a", "2")]) == [b"1", b"2"]


def test_a_question_is_given_up_after_so_many_attempts(proxy: CuttingProxy) -> None:
    """A verb must end; the sentence says that the outcome is unknown."""
    wires = Wires(Server(proxy.url), attempts_max=3)
    wires.ask([echo("a", "warm")])
    proxy.cuts = 10_000

    with pytest.raises(UnknownOutcome, match="reading it: no answer in 3 attempts"):
        wires.ask([echo("a", "1")], "reading it")


def test_an_error_that_does_not_pass_is_raised_at_once(server: Server) -> None:
    """Only what may succeed later is put again."""
    wires = Wires(server)

    with pytest.raises(ResponseError, match="unknown command"):
        wires.ask([echo("a", "1"), Ask("a", ("NO-SUCH-COMMAND",)), echo("a", "3")])

    assert wires.ask([echo("a", "4")]) == [b"4"], "and the connection is still in step"


def test_no_question_is_given_the_answers_of_one_that_was_interrupted(
    running: ServerProcess, other: ServerProcess
) -> None:
    """One node had been asked when the other one was found dead: its answer is on the way, and nobody's."""
    wires = Wires(TwoServers(running.url, other.url), attempts_max=1)
    wires.ask([echo("a", "warm"), echo("b", "warm")])
    other.kill()

    with pytest.raises(UnknownOutcome):
        wires.ask([echo("a", "stale"), echo("b", "1")])

    assert wires.ask([echo("a", "fresh")]) == [b"fresh"]


def test_a_loop_waits_for_a_server_that_is_away_and_learns_anew_once_for_all(other: ServerProcess) -> None:
    """A host has hundreds of questions under way; each restarting the server for itself would be a storm."""
    restarts: list[int] = []

    def recover() -> None:
        restarts.append(1)
        if other.process.poll() is not None:
            other.start()

    async def asked() -> list[list[bytes]]:
        wires = AsyncWires(Server(other.url), recover=recover)
        await wires.ask([echo("a", "warm")])
        other.kill()
        try:
            return await asyncio.gather(*[wires.ask([echo("a", str(number))]) for number in range(100)])
        finally:
            await wires.close()

    assert asyncio.run(asked()) == [[b"%d" % number] for number in range(100)]
    assert len(restarts) <= 3


def test_a_server_that_forgot_its_scripts_is_given_them_again(server: Server) -> None:
    """Its connections load them once, so one that hears NOSCRIPT would hear it for ever: a host would stand
    still.
    """

    claim = Claim("app", "clips", 0)

    async def scenario() -> list[Claim]:
        wires, leases = AsyncWires(server, attempts_max=3), Leases("a", 5_000)
        await adrive(leases.tick([claim]), wires.ask)
        server.client.script_flush()
        await adrive(leases.tick([claim]), wires.ask)
        await wires.close()
        return list(leases.held)

    assert asyncio.run(scenario()) == [claim]


def test_a_process_that_stops_waits_no_longer_than_its_patience(other: ServerProcess) -> None:
    """SIGTERM while the server is away must end the process, and say that nothing is lost."""

    async def asked() -> None:
        wires = AsyncWires(Server(other.url))
        await wires.ask([echo("a", "warm")])
        other.kill()
        waiting = asyncio.create_task(wires.ask([echo("a", "1")]))
        while not wires.trouble:  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0)
        wires.hurry(0.1)
        await waiting

    with pytest.raises(ServerAway, match="Nothing is lost"):
        asyncio.run(asyncio.wait_for(asked(), 10))


def test_a_loops_question_may_be_bounded_too(other: ServerProcess) -> None:
    """Who asks on behalf of a person cannot wait for ever."""

    async def asked() -> None:
        wires = AsyncWires(Server(other.url), attempts_max=2)
        await wires.ask([echo("a", "warm")])
        other.kill()
        await wires.ask([echo("a", "1")], "asking")

    with pytest.raises(UnknownOutcome, match="asking: no answer in 2"):
        asyncio.run(asked())


def test_a_server_that_accepts_and_never_answers_is_lost_in_time(server: Server, silent: str) -> None:
    """A handshake without a bound held a host until it was restarted, though a replica could be reached."""

    async def opened() -> None:
        from redis.asyncio.connection import UnixDomainSocketConnection

        await AsyncWire(UnixDomainSocketConnection(path=silent), 20.0).open(("PING",), timeout_s=0.1)

    with pytest.raises(LOST):
        asyncio.run(asyncio.wait_for(opened(), 10))


def test_a_node_that_does_not_let_us_in_holds_up_no_other(running: ServerProcess, silent: str) -> None:
    """A cluster with one frozen node goes on with all others."""

    class HalfSilent(TwoServers):
        async def async_wire(self, key: str) -> AsyncWire:
            if key == "b":
                await asyncio.Event().wait()
            return await super().async_wire(key)

    async def asked() -> list[bytes]:
        wires = AsyncWires(HalfSilent(running.url, running.url))
        stuck = asyncio.create_task(wires.ask([echo("b", "1")]))
        await asyncio.sleep(0)
        answers = await asyncio.wait_for(wires.ask([echo("a", "2")]), 10)
        stuck.cancel()
        await wires.close()
        return answers

    assert asyncio.run(asked()) == [b"2"]


@pytest.fixture(scope="module", params=sorted(binaries()))
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    cluster = Cluster(binaries()[request.param])
    yield cluster
    cluster.stop()


def move(cluster: Cluster, key: str) -> None:
    """The key's slot, with all that is in it, to another node; the one it leaves forgets nothing else."""
    source, slot = cluster.owner_of(key), key_slot(key.encode())
    target = next(node for node in cluster.nodes if node is not source)
    target.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
    for name in source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1_000):
        source.client.execute_command("MIGRATE", "127.0.0.1", target.port, name, 0, 5_000)
    for node in (target, source):
        node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target.id)
    until(lambda: cluster.owner_of(key) is target and cluster.is_whole(), "the slot to have moved")


@pytest.mark.slow
def test_what_moved_is_asked_where_it_is_by_then(cluster: Cluster) -> None:
    """Commands grouped by node once asked a moved key at its old node for ever: no lease was renewed there
    any more.
    """
    server = Server(cluster.url)
    keys = [f"{{{number}}}:moved" for number in range(12)]
    assert len({server.node_of(key) for key in keys}) > 1, "they lie on several nodes"
    blocking = Wires(server)
    blocking.ask([Ask(key, ("SET", key, number)) for number, key in enumerate(keys)])
    reads, values = [Ask(key, ("GET", key)) for key in keys], [b"%d" % number for number in range(len(keys))]

    async def moved_under_a_loop() -> None:
        wires = AsyncWires(server)
        assert await wires.ask(reads) == values
        for key in keys[:6]:
            await asyncio.to_thread(move, cluster, key)
            assert await asyncio.wait_for(wires.ask(reads), 30) == values
        await wires.close()

    asyncio.run(moved_under_a_loop())
    for key in keys[6:]:
        move(cluster, key)
        assert blocking.ask(reads) == values


@pytest.mark.slow
def test_leases_are_kept_while_slots_move_one_by_one(cluster: Cluster) -> None:
    """A dead owner's partitions stood for good once a slot had moved away."""
    server = Server(cluster.url)
    claims = [Claim("app", "clips", partition) for partition in range(6)]

    async def kept() -> None:
        wires, leases = AsyncWires(server), Leases("a", 60_000)
        await adrive(leases.tick(claims), wires.ask)
        epochs = dict(leases.held)
        for claim in claims:
            await asyncio.to_thread(move, cluster, claim.keys.log)
            await asyncio.wait_for(adrive(leases.tick(claims), wires.ask), 30)
            assert leases.held == epochs, "renewed, and never fenced"
        await wires.close()

    asyncio.run(kept())


@pytest.mark.slow
def test_a_cluster_that_is_away_is_a_lost_server_and_no_other_error(valkey: str) -> None:
    """redis-py says so with an exception that is none of its errors: it went through every handler and
    ended the host.
    """
    cluster = Cluster(valkey)
    try:
        server = Server(cluster.url)
        wires = Wires(server, attempts_max=2)
        wires.ask([echo("a", "warm")])
        for node in cluster.nodes:
            node.kill()

        with pytest.raises(UnknownOutcome):
            wires.ask([echo("a", "1")])
        with pytest.raises(LOST):
            server.refresh()
    finally:
        cluster.stop()


def test_each_thread_has_wires_of_its_own(server: Server) -> None:
    """A wire is one connection whose answers come in order: two threads on one would read each other's."""
    wrong: list[str] = []

    def work(name: str) -> Callable[[], None]:
        def run() -> None:
            wires = Wires(server)
            for number in range(200):
                text = f"{name}{number}"
                if wires.ask([echo("a", text)]) != [text.encode()]:
                    wrong.append(text)
            wires.close()

        return run

    threads = [threading.Thread(target=work(name)) for name in ("x", "y", "z")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_loop_that_stood_does_not_take_its_server_for_silent(running: ServerProcess) -> None:
    """A handler that blocked the loop for longer than the answer time-out, a process that was suspended: the
    answer has been there all the while, and the connections of all lanes were dropped.
    """

    async def asked() -> list[bytes]:
        server = Server(running.url, answer_timeout_s=0.3)
        wire = await server.async_wire("a")
        answers = asyncio.create_task(wire.ask(("ECHO", "1")))
        await asyncio.sleep(0)  # it is sent
        time.sleep(0.5)  # noqa: ASYNC251 - the loop stands
        try:
            return await asyncio.wait_for(answers, 10)
        finally:
            await wire.close()
            server.close()

    assert asyncio.run(asked()) == [b"1"]


def test_a_server_that_is_silent_is_lost_though_the_loop_stood(running: ServerProcess) -> None:
    """It is given a moment more, once."""

    async def asked() -> None:
        server = Server(running.url, answer_timeout_s=0.3)
        wire = await server.async_wire("a")
        server.client.client_pause(3_000)
        try:
            answers = asyncio.create_task(wire.ask(("ECHO", "1")))
            await asyncio.sleep(0)
            time.sleep(0.5)  # noqa: ASYNC251 - the loop stands
            with pytest.raises(LOST):
                await asyncio.wait_for(answers, 2)
        finally:
            await wire.close()
            with redis.Redis.from_url(running.url) as client:
                client.client_unpause()
            server.close()

    asyncio.run(asked())
