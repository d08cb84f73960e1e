"""What a server refuses for a while: waited for, said, and told from what will never be."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from aurastream.streams import (
    Ask,
    AsyncWires,
    Server,
    ServerAway,
    ServerRefuses,
    ServerUnfit,
    ServerUnreachable,
    Settings,
    Stream,
    UnknownOutcome,
    Wires,
    adrive,
    is_passing,
    open_stream,
    passing_of,
)
from aurastream.streams.aside import aside
from aurastream.streams.drive import Questions, Round
from aurastream.streams.faults import Passing, word_of
from tests.facts import observation
from tests.refusing import EVERY_REFUSAL, REFUSALS, refusing
from tests.servers import ServerProcess, until

HASTY = Settings(attempts_max=1, server_wait_s=0)
OF_6_2 = (
    "Error running script (call to f_0f1e): @user_script:41: @user_script: 41: "
    "-READONLY You can't write against a read only replica."
)


@pytest.fixture
def other(valkey: str) -> Iterator[ServerProcess]:
    """A server of the test's own, which it may freeze or kill."""
    process = ServerProcess(valkey)
    yield process
    process.process.send_signal(signal.SIGCONT)  # nothing, where the test killed it
    process.stop()


@pytest.fixture
def mute() -> Iterator[str]:
    """The URL of a port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("word", EVERY_REFUSAL)
def test_an_append_that_is_refused_was_not_written_and_says_so(
    server: Server, stream: Stream, word: str
) -> None:
    """An answer is definite, a lost connection is not: whoever appends must be able to tell."""
    hasty = open_stream(server, stream.name, settings=HASTY)

    with refusing(server.url, word), pytest.raises(ServerRefuses, match=word) as refused:
        hasty.append([observation()])

    assert (refused.value.word, refused.value.is_written, refused.value.appended) == (word, False, {})
    assert server.client.xlen(stream.keys[0].log) == 0
    stream.append([observation()])


@pytest.mark.parametrize("word", EVERY_REFUSAL)
def test_an_append_waits_for_a_server_that_refuses_for_less_than_its_patience(
    server: Server, stream: Stream, word: str
) -> None:
    """A disk that is full for seconds must not be every producer's failure."""
    with refusing(server.url, word) as mend:
        threading.Timer(0.3, mend).start()
        placed = stream.append([observation()])

    assert server.client.xlen(stream.keys[0].log) == len(placed) == 1


@pytest.mark.parametrize("word", REFUSALS)
def test_a_loop_waits_says_what_the_server_says_once_and_when_it_is_back(
    server: Server, stream: Stream, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A host outlives it, and whoever looks at it sees why nothing moves; reads that go on hide nothing."""

    async def waited(mend: object) -> str:
        wires = AsyncWires(server)
        waiting = asyncio.create_task(adrive(stream.appending([observation()]), wires.ask))
        while not wires.trouble:  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.01)
        await wires.ask([Ask("a", ("ECHO", "read"))])
        said, since_ms = wires.trouble, wires.trouble_since_ms
        assert since_ms is not None
        assert abs(since_ms / 1000 - time.time()) < 10
        await aside(mend)
        await asyncio.wait_for(waiting, 10)
        assert wires.trouble == ""
        assert wires.trouble_since_ms is None
        await wires.close()
        return said

    with refusing(server.url, word) as mend:
        assert word in asyncio.run(waited(mend))
    said = capsys.readouterr()
    assert (said.out + said.err).count("server_refuses") == (said.out + said.err).count("server_back") == 1


def test_of_a_batch_for_several_nodes_it_is_known_which_events_are_in(
    running: ServerProcess, other: ServerProcess
) -> None:
    """Half of a call is in the log when one of two nodes is full: repeating it is safe, guessing is not."""
    first, second = Server(running.url), Server(other.url)
    first.client.flushall()
    first.client.config_set("maxmemory", 0)

    class Two(Server):
        """As a cluster of two: partition 0 here, all others there."""

        def node_of(self, key: str) -> str:
            return "first" if ".0}" in key else "second"

        def wire(self, key: str) -> object:
            return (first if self.node_of(key) == "first" else second).wire(key)

    open_stream(first, "two", create=True, settings=Settings(partitions=4))
    both = open_stream(Two(running.url), "two", settings=HASTY)
    events = [observation(clip=f"c{number}", event_id=f"e{number}") for number in range(20)]
    ours = {event.event_id for event in events if both.partition_of(event.subject) == 0}
    assert 0 < len(ours) < len(events)

    with refusing(other.url, "OOM"), pytest.raises(ServerRefuses) as refused:
        both.append(events)

    assert set(refused.value.appended) == ours
    assert all(where.startswith("two/0/") for where in refused.value.appended.values())
    other.kill()
    with pytest.raises((UnknownOutcome, ServerRefuses)) as lost:
        both.append(events)
    assert set(lost.value.appended) == ours
    assert set(getattr(lost.value, "unknown", ())) <= {event.event_id for event in events} - ours


@pytest.mark.parametrize(
    ("text", "how"),
    [
        (OF_6_2, Passing.ELSEWHERE),
        (OF_6_2.replace("READONLY", "OOM"), Passing.REFUSED),
        (OF_6_2.replace("READONLY", "WRONGTYPE"), None),
        ("NOREPLICAS Not enough good replicas to write.", Passing.REFUSED),
        ("BUSY Redis is busy running a script.", Passing.REFUSED),
        ("BUSYGROUP Consumer Group name already exists", None),
        ("MASTERDOWN Link with MASTER is down", Passing.ELSEWHERE),
        ("NOAUTH Authentication required.", None),
        ("WRONGPASS invalid username-password pair", None),
        ("NOPERM this user has no permissions", None),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", None),
    ],
)
def test_what_passes_is_known_by_the_servers_own_words(text: str, how: Passing | None) -> None:
    """redis-py has no class for half of them, counts a wrong password among lost connections, and Redis 6.2
    hides the word of what a script met in a sentence about the script.
    """
    from redis._parsers.base import BaseParser

    assert passing_of(BaseParser.parse_error(text)) is how


def test_a_subject_that_looks_like_a_refusal_is_none() -> None:
    """What a user wrote may be in the text of a script's own error."""
    error = ResponseError("Error running script: @user_script:3: -no such thing as OOM in 'a: -OOM'")

    assert word_of(error) != "OOM"


def test_a_question_that_was_refused_is_put_again_with_the_wait_behind_it_and_no_other() -> None:
    """WAIT vouches for what was written before it on its connection: alone it vouches for nothing."""
    asks = [Ask("{a}:log", ("EVALSHA", "s")), Ask("{a}:log", ("WAIT", 1, 100))] * 2
    asks += [Ask("{b}:log", ("EVALSHA", "s")), Ask("{b}:log", ("WAIT", 1, 100))]
    questions = Questions(asks)
    moved = ResponseError("MOVED 1 127.0.0.1:2")

    fault = questions.take(Round.of(range(6), [b"1", 1, moved, 0, b"5", 1]))

    assert fault is moved
    assert questions.left == [2, 3]
    questions.take(Round({2, 3}, {2: b"3"}, ConnectionError("cut")))
    assert (questions.left, questions.unsure) == ([2, 3], {3})
    assert questions.take(Round.of([2, 3], [b"3", 1])) is None
    assert questions.answers == [b"1", 1, b"3", 1, b"5", 1]


def test_silence_is_met_once_by_all_connections_of_a_process(other: ServerProcess) -> None:
    """A time-out met by one connection after another took 21 to 41 s until a host folded again."""
    server = Server(other.url, answer_timeout_s=1.0)
    blocking = Wires(server, attempts_max=1)
    blocking.ask([Ask("a", ("ECHO", "warm"))])
    lost_after: list[float] = []

    def in_a_thread() -> None:
        began = time.monotonic()
        with pytest.raises(UnknownOutcome):
            blocking.ask([Ask("a", ("ECHO", "1"))])
        lost_after.append(time.monotonic() - began)

    async def asked() -> float:
        loops = [AsyncWires(server) for _ in range(3)]
        for wires in loops:
            await wires.ask([Ask("a", ("ECHO", "warm"))])
        os.kill(other.process.pid, signal.SIGSTOP)
        first = asyncio.create_task(loops[0].ask([Ask("a", ("ECHO", "0"))]))
        await asyncio.sleep(0.7)
        thread = threading.Thread(target=in_a_thread)
        thread.start()
        late = [asyncio.create_task(wires.ask([Ask("a", ("ECHO", "1"))])) for wires in loops[1:]]
        while not all(wires.trouble for wires in loops):  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.01)
        await aside(thread.join)
        os.kill(other.process.pid, signal.SIGCONT)
        began = time.monotonic()
        await asyncio.wait_for(asyncio.gather(first, *late), 10)
        for wires in loops:
            await wires.close()
        return time.monotonic() - began

    back_s = asyncio.run(asked())

    assert lost_after[0] < 0.9, "it began 0.7 s after the first question, and was lost with it"
    assert back_s < 2.5, "a new connection is tried for a second at most, after a pause of one"


def test_a_blocking_read_may_be_longer_than_the_answer_time_out(server: Server) -> None:
    """BLOCK is the server's own waiting, and no silence."""
    quick = Server(server.url, answer_timeout_s=0.2)
    read = ("XREAD", "COUNT", 1, "BLOCK", 600, "STREAMS", "nothing", "$")

    async def in_a_loop() -> list[object]:
        wire = await quick.async_wire("nothing")
        answers = await wire.ask(read)
        await wire.close()
        return answers

    assert asyncio.run(in_a_loop()) == [None]
    assert quick.wire("nothing").ask(read, ("ECHO", "1")) == [None, b"1"]


def test_every_step_of_a_new_connection_is_bounded(mute: str) -> None:
    """A handshake without a bound held a host until somebody restarted it."""
    began = time.monotonic()

    with pytest.raises(ServerUnreachable):
        Server(mute, answer_timeout_s=0.3)

    assert time.monotonic() - began < 2


def test_a_process_that_stops_ends_its_questions_in_time_whatever_the_server_does(
    other: ServerProcess,
) -> None:
    """A frozen server kept a host alive for 280 s after SIGTERM."""

    async def asked() -> float:
        wires = AsyncWires(Server(other.url, answer_timeout_s=30))
        await wires.ask([Ask("a", ("ECHO", "warm"))])
        os.kill(other.process.pid, signal.SIGSTOP)
        asking = asyncio.create_task(wires.ask([Ask("a", ("ECHO", "1"))]))
        await asyncio.sleep(0)
        began = time.monotonic()
        wires.hurry(0.3)
        with pytest.raises(ServerAway):
            await asking
        with pytest.raises(ServerAway):
            await wires.ask([Ask("a", ("ECHO", "2"))])
        await wires.close()
        return time.monotonic() - began

    assert asyncio.run(asked()) < 2


def test_a_connection_that_answers_out_of_step_is_closed(other: ServerProcess) -> None:
    """A reply that came twice was taken for the answer to the next question, and all after it were wrong."""
    from tests.faults.proxy import DOUBLED, PASS, Interceptor

    proxy = Interceptor(other.url, lambda command: DOUBLED if b"twice" in command else PASS)
    try:
        server = Server(proxy.url)
        blocking, asks = Wires(server), [Ask("a", ("ECHO", "twice"))]
        assert blocking.ask(asks) == [b"twice"]
        until(lambda: blocking.of("a")._connection.can_read(0), "the second answer")
        assert blocking.ask([Ask("a", ("ECHO", "next"))]) == [b"next"]

        async def in_a_loop() -> None:
            wires = AsyncWires(server)
            wire = await wires.of("a")
            assert await wires.ask(asks) == [b"twice"]
            while not wire.is_lost:  # noqa: ASYNC110 - it has no event to wait for
                await asyncio.sleep(0.005)
            assert await wires.ask([Ask("a", ("ECHO", "next"))]) == [b"next"]
            await wires.close()

        asyncio.run(asyncio.wait_for(in_a_loop(), 10))
    finally:
        proxy.close()


def test_what_will_never_be_is_not_waited_for(other: ServerProcess) -> None:
    """A password that is wrong is a person's to mend: at once, in one sentence, without the password."""
    client = Server(other.url).client
    client.config_set("requirepass", "right")
    try:
        began = time.monotonic()
        with pytest.raises(ServerUnfit, match="does not let us in") as refused:
            Server(other.url.replace("unix://", "unix://:wrong-one@"))
        assert not isinstance(refused.value, ServerUnreachable)
        assert not is_passing(refused.value)
        assert "wrong-one" not in str(refused.value)
        assert time.monotonic() - began < 5
    finally:
        client.config_set("requirepass", "")


def test_blocking_work_beside_a_loop_holds_up_no_exit(tmp_path: Path) -> None:
    """A thread that waits for a frozen server kept a process that had stopped otherwise."""
    import subprocess
    import sys

    program = (
        "import asyncio, threading\n"
        "from aurastream.streams.aside import aside\n"
        "async def main():\n"
        "    asyncio.create_task(aside(threading.Event().wait))\n"
        "    await asyncio.sleep(0.05)\n"
        "asyncio.run(main())\n"
    )

    subprocess.run([sys.executable, "-c", program], timeout=20, check=True)
