"""How a call of a handler may end: by its own cancellation, at a stop, with a lease that was lost, never."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from aurastream.processors.effects import (
    Attempt,
    EffectLane,
    Isolation,
    LaneOptions,
    LaneRunner,
    LaneStreams,
    Processor,
    list_letters,
)
from aurastream.processors.effects.watchdog import Watchdog
from aurastream.streams import AsyncWires, ClipViewsObserved, Server, Stream, adrive, open_stream
from tests.facts import observation
from tests.processors.effects.outside import (
    CODEC,
    SETTINGS,
    STREAM,
    Noting,
    assert_balanced,
    notes,
    state,
    work,
)
from tests.processors.effects.test_answers import begin, drive, lane_of
from tests.servers import until

PATIENCE_S = 30.0


class Host:
    """A process with one lane: what a host does with a partition that is its own."""

    def __init__(self, server: Server, stream: Stream, processor: Processor, name: str = "w1") -> None:
        into, trail = (
            open_stream(server, each, codec=CODEC, settings=SETTINGS, create=True)
            for each in ("notes", "operations")
        )
        self.wires, self.watchdog = AsyncWires(server, 3), Watchdog(0.2)
        self.lane = EffectLane(processor, LaneStreams(stream, into, trail), 0, LaneOptions(host=name))
        self.runner = LaneRunner(self.lane, self.wires, Isolation(self.watchdog), (0.005, 0.02))
        self._beats = asyncio.create_task(self.watchdog.live())

    async def close(self, patience_s: float = 0.0) -> None:
        await self.runner.stop(patience_s)
        self._beats.cancel()
        await self.wires.close()


async def eventually(condition: Any, what: str) -> None:
    """Until it holds, in the loop."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        await asyncio.sleep(0.005)


def bounded(scenario: Any) -> Any:
    return asyncio.run(asyncio.wait_for(scenario, PATIENCE_S))


def fill(stream: Stream, *clips: str) -> None:
    stream.append([observation(event_id=f"{clip}0", clip=clip, minute=n) for n, clip in enumerate(clips)])


class Held(Noting):
    """Holds every call until its gate opens; says who entered."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.entered = asyncio.Event(), asyncio.Event()

    async def handle(self, event: Any, attempt: Attempt) -> Any:
        self.entered.set()
        await self.gate.wait()
        return await super().handle(event, attempt)


@pytest.mark.parametrize("kind", [asyncio.CancelledError, SystemExit])
def test_a_cancellation_out_of_a_handler_is_a_failed_attempt(
    server: Server, stream: Stream, kind: type[BaseException]
) -> None:
    """An inner task of a handler that is cancelled says so by this error: it was never attempted again,
    parked or logged, and a run until idle did not end.
    """

    class Cancelled(Noting):
        async def handle(self, event: Any, attempt: Attempt) -> Any:
            self.calls.append((event.event_id, attempt.number))
            if event.event_id == "a0":
                raise kind("an inner task")
            return []

    fill(stream, "a", "b")
    noting = Cancelled()

    work(server, noting)

    (letter,) = list_letters(stream, "noting")
    assert (letter.state, letter.attempts, letter.reason) == ("parked", 3, f"{kind.__name__}: an inner task")
    assert noting.calls.count(("b0", 1)) == 1
    assert_balanced(server, stream)


def test_a_task_cancelled_inside_a_handler_does_not_end_its_line(server: Server, stream: Stream) -> None:
    """The same, as it happens: a task group, a client with a time-out of its own."""

    class Inner(Noting):
        async def handle(self, event: Any, attempt: Attempt) -> Any:
            if attempt.number == 1:
                inner = asyncio.create_task(asyncio.sleep(60))
                asyncio.get_running_loop().call_soon(inner.cancel)
                await inner
            return await super().handle(event, attempt)

    fill(stream, "a")
    noting = Inner()

    work(server, noting)

    assert noting.calls == [("a0", 2)]


def test_a_stop_waits_as_long_as_its_patience_and_loses_no_work(server: Server, stream: Stream) -> None:
    """A deployment in the middle of an upload lets it end; there were five seconds for whatever it was."""

    async def scenario() -> None:
        held = Held()
        host = Host(server, stream, held)
        host.runner.start(None)
        await held.entered.wait()
        stopping = asyncio.create_task(host.close(20))
        await asyncio.sleep(0)
        assert not stopping.done()
        held.gate.set()
        await stopping
        assert held.calls == [("a0", 1)]

    fill(stream, "a")
    bounded(scenario())
    assert [note.number for note in notes(server)] == [1]
    assert state(server, stream)["begun"] == []


def test_what_is_cut_off_by_a_stop_was_no_attempt_and_is_no_suspect(server: Server, stream: Stream) -> None:
    """Deployments used attempts up, and the new owner ran what it took over one by one, alone."""

    async def scenario() -> None:
        for _ in range(4):  # more than attempts_max
            held = Held()
            host = Host(server, stream, held)
            host.runner.start(None)
            await held.entered.wait()
            await host.close(0.0)
            assert state(server, stream)["attempts"] == []
            assert state(server, stream)["begun"] == []
        noting = Noting()
        after = Host(server, stream, noting, "w2")
        after.runner.start(None)
        await eventually(lambda: len(noting.calls) == 2, "both events")
        assert after.lane.suspects == set()
        await after.close(5)
        assert sorted(noting.calls) == [("a0", 1), ("b0", 1)]

    fill(stream, "a", "b")
    bounded(scenario())
    assert_balanced(server, stream)


def test_what_is_cut_off_as_the_lease_was_lost_was_no_attempt(server: Server, stream: Stream) -> None:
    """The old owner lives: it takes back what it began, though a newer epoch has the lane by then."""

    async def scenario() -> None:
        held, noting = Held(), Noting()
        old = Host(server, stream, held, "w1")
        lease = stream.keys[0].lease("noting")
        server.client.hset(lease, mapping={"owner": "w1", "epoch": 1})
        old.runner.start(1)
        await held.entered.wait()
        server.client.hset(lease, mapping={"owner": "w2", "epoch": 2})
        stream.append([observation(event_id="b0", clip="b")])  # the old one begins it, and is refused
        await eventually(lambda: old.runner.is_fenced, "the old owner to be fenced")
        new = Host(server, stream, noting, "w2")
        new.runner.start(2)
        await eventually(lambda: len(noting.calls) == 2, "both events")
        await old.close()
        await new.close(5)
        assert sorted(noting.calls) == [("a0", 1), ("b0", 1)]

    fill(stream, "a")
    bounded(scenario())
    assert_balanced(server, stream)


def test_a_suspect_whose_host_takes_it_back_is_none_any_more(server: Server, stream: Stream) -> None:
    """Its process did not die, so it need not be alone, and bystanders need not wait for it."""

    async def scenario() -> None:
        held = Held()
        old = Host(server, stream, held, "w1")
        old.runner.start(None)
        await held.entered.wait()
        new = Host(server, stream, Noting(), "w2")
        for steps in (new.lane.settle(), new.lane.read()):
            items = await adrive(steps, new.wires.answers)
        (item,) = items
        assert await adrive(new.lane.is_suspect(item), new.wires.answers)
        await old.close(0.0)
        assert not await adrive(new.lane.is_suspect(item), new.wires.answers)
        await new.close()

    fill(stream, "a")
    bounded(scenario())


def test_a_cut_that_cannot_be_written_is_taken_back_when_the_lane_goes_on(
    server: Server, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is away at the wrong moment: the attempt is still ours to take back."""

    async def scenario() -> None:
        held = Held()
        host = Host(server, stream, held)
        host.runner.start(None)
        await held.entered.wait()
        answers = host.wires.answers

        async def away(*arguments: Any) -> Any:
            raise ConnectionError("away")

        monkeypatch.setattr(host.wires, "answers", away)
        await host.runner.stop(0.0)
        assert state(server, stream)["attempts"] != []
        monkeypatch.setattr(host.wires, "answers", answers)
        held.gate.set()
        host.runner.start(None)
        await eventually(lambda: held.calls, "the event")
        await host.close(5)
        assert held.calls == [("a0", 1)]

    fill(stream, "a")
    bounded(scenario())


def test_a_repeat_of_a_lost_begin_counts_one_attempt(server: Server, stream: Stream) -> None:
    """Its reply was lost: the same attempt is asked for again, not another one."""
    fill(stream, "a")
    lane = lane_of(server, stream)
    drive(stream, lane.settle())
    (item,) = drive(stream, lane.read())
    assert [begin(stream, lane, item, token="w:1:7")[1] for _ in range(3)] == [1, 1, 1]
    assert begin(stream, lane, item, kills_max=1)[0].name == "EXHAUSTED", "one is open: it may have killed"


class Hanging(Processor):
    """A socket without a time-out, in a plain function."""

    name = "noting"
    events = (ClipViewsObserved,)
    into = "notes"
    start = "beginning"
    attempts_max = 1
    parallel = 2
    timeout_s = 0.05
    first_s = max_s = 0.001

    def __init__(self, *hanging: str) -> None:
        self.hanging, self.calls = hanging, list[str]()
        self.gate = threading.Event()

    def handle(self, event: Any, attempt: Attempt) -> Any:
        self.calls.append(event.event_id)
        if event.event_id in self.hanging:
            self.gate.wait()
        return []


def test_a_thread_that_hangs_is_replaced_and_counted(server: Server, stream: Stream) -> None:
    """One hung socket took a thread of the pool for good."""

    async def scenario() -> None:
        hanging = Hanging("a0")
        host = Host(server, stream, hanging)
        host.runner.start(None)
        await eventually(lambda: len(hanging.calls) == 6 and host.runner.hung, "all calls")
        (hung,) = host.runner.hung
        assert (hung.processor, hung.event_id, hung.stream) == ("noting", "a0", STREAM)
        assert host.runner.trouble == "", "there is room for others"
        hanging.gate.set()
        await eventually(lambda: not host.runner.hung, "the call to return after all")
        await host.close(5)

    fill(stream, *"abcdef")
    bounded(scenario())
    (letter,) = list_letters(stream, "noting")
    assert letter.reason == "it did not return within timeout_s = 0.05 s"


def test_waiting_for_a_thread_is_no_attempt(server: Server, stream: Stream) -> None:
    """Later events were parked as timed out though they were never called; now their lane says what hangs."""

    async def scenario() -> None:
        hanging = Hanging("a0", "b0")
        host = Host(server, stream, hanging)
        host.runner.start(None)
        await eventually(lambda: host.runner.trouble, "the lane's trouble")
        fill(stream, *"cdef")
        assert "2 calls of noting hang" in host.runner.trouble
        facts = host.runner.trouble_facts
        assert facts is not None
        assert (facts.event_id in {"a0", "b0"}, bool(facts.position)) == (True, True)
        await eventually(lambda: len(host.runner.lines._lines) == 4, "the others to be read")
        assert sorted(hanging.calls) == ["a0", "b0"]
        assert [letter.event_id for letter in list_letters(stream, "noting")] == ["a0", "b0"]
        assert state(server, stream)["attempts"] == []
        hanging.gate.set()
        await eventually(lambda: len(hanging.calls) == 6, "the others, once a thread is there")
        assert host.runner.trouble == ""
        await host.close(5)

    fill(stream, *"ab")
    bounded(scenario())
    assert state(server, stream)["cursor"]["applied"] == "4"


def test_an_async_handler_that_refuses_to_be_cancelled_is_left_behind(server: Server, stream: Stream) -> None:
    """It would hold its line, and the end of the process, for as long as it likes."""

    class Stubborn(Noting):
        timeout_s = 0.02
        attempts_max = 1

        async def handle(self, event: Any, attempt: Attempt) -> Any:
            while not free.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await free.wait()

    async def scenario() -> None:
        host = Host(server, stream, Stubborn())
        host.runner.start(None)
        await eventually(lambda: list(list_letters(stream, "noting")), "it to be parked")
        assert [call.event_id for call in host.runner.hung] == ["a0"]
        await host.close(0.0)
        free.set()
        await eventually(lambda: not host.runner.hung, "it to end after all")

    free = asyncio.Event()
    fill(stream, "a")
    bounded(scenario())


PROGRAM = """
import sys, threading
from aurastream.processors.effects import Processor
from aurastream.streams import ClipViewsObserved, Server
from tests.processors.effects.outside import work

class Hanging(Processor):
    name = "noting"
    events = (ClipViewsObserved,)
    into = "notes"
    start = "beginning"
    attempts_max = 1
    timeout_s = 0.05

    def handle(self, event, attempt):
        threading.Event().wait()

work(Server(sys.argv[1]), Hanging())
"""


@pytest.mark.any_server
def test_a_process_ends_though_its_threads_hang(url: str, server: Server, stream: Stream) -> None:
    """Python joins the threads of an executor when it ends: SIGTERM never ended such a process."""
    fill(stream, "a", "b")

    done = subprocess.run([sys.executable, "-c", PROGRAM, url], timeout=PATIENCE_S, check=False)

    assert done.returncode == 0
    assert len(list(list_letters(stream, "noting"))) == 2


def test_a_handler_that_blocks_the_loop_is_named_from_another_thread(server: Server, stream: Stream) -> None:
    """The loop cannot say so itself: it is blocked. Bystanders are neither late nor parked by it."""
    seen: list[Any] = []

    class Blocking(Noting):
        timeout_s = 0.6
        attempts_max = 1

        async def handle(self, event: Any, attempt: Attempt) -> Any:
            if event.event_id == "a0":
                until(lambda: seen, "the watchdog to notice")  # blocks: it does not await
                time.sleep(0.7)  # noqa: ASYNC251 - that is the fault: beyond the time-out of all
            else:
                await asyncio.sleep(0.3)
            return await super().handle(event, attempt)

    async def scenario() -> None:
        blocking = Blocking()
        host = Host(server, stream, blocking)
        ended = threading.Event()

        def look() -> None:
            while not ended.is_set():
                found = host.watchdog.blocked()
                if found is not None and found.call is not None:
                    seen.append(found)
                ended.wait(0.02)

        asking = threading.Thread(target=look, daemon=True)
        asking.start()
        host.runner.start(None)
        await eventually(lambda: len(blocking.calls) == 3, "all events")
        ended.set()
        await host.close(5)
        assert sorted(blocking.calls) == [("a0", 1), ("b0", 1), ("c0", 1)]
        assert "noting at clips-test/0/" in host.watchdog.trouble

    fill(stream, "b", "a", "c")
    bounded(scenario())
    assert (seen[0].call.processor, seen[0].call.event_id) == ("noting", "a0")
    assert "test_ending.py" in seen[0].stack
    assert list(list_letters(stream, "noting")) == []


def test_a_killed_process_leaves_its_event_as_a_suspect(url: str, server: Server, stream: Stream) -> None:
    """What may have killed runs alone, so that no bystander is counted with it."""
    fill(stream, "a")
    pid = os.fork()
    if pid == 0:

        def deadly(event: Any, attempt: Attempt) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        try:
            work(Server(url), Noting(deadly))
        finally:
            os._exit(1)
    os.waitpid(pid, 0)

    async def scenario() -> None:
        noting = Noting()
        host = Host(server, stream, noting)
        host.runner.start(None)
        await eventually(lambda: noting.calls, "the event")
        await host.close(5)
        assert noting.calls == [("a0", 2)]

    assert state(server, stream)["begun"] != []
    bounded(scenario())
    assert state(server, stream)["begun"] == []


def test_the_log_names_what_hangs(server: Server, stream: Stream) -> None:
    """Which processor, event and place, and for how long: an operator restarts nothing blindly."""

    async def scenario() -> None:
        hanging = Hanging("a0")
        host = Host(server, stream, hanging)
        host.runner.start(None)
        await eventually(lambda: host.runner.hung, "the call to hang")
        await host.close(0.0)
        hanging.gate.set()

    fill(stream, "a")
    with capture_logs() as said:
        bounded(scenario())
    (line,) = [line for line in said if line["event"] == "handler_hangs"]
    assert (line["processor"], line["event_id"]) == ("noting", "a0")
    assert line["place"].startswith("clips-test/0/")


def test_an_event_that_comes_as_its_line_ends_is_begun(server: Server, stream: Stream) -> None:
    """A task that has ended is known by its callback one turn of the loop later: an event read in that turn
    was left lying until the lane began anew, with a lease that was kept and nothing to see.
    """

    async def scenario() -> None:
        host = Host(server, stream, Noting())
        done: list[int] = []

        async def line(number: int) -> None:
            done.append(number)

        host.runner.lines._start("live", "clip-1", line(1))
        await asyncio.sleep(0)
        assert done == [1]
        host.runner.lines._start("live", "clip-1", line(2))
        await eventually(lambda: done == [1, 2], "the second to be begun")
        await host.close()

    bounded(scenario())


def test_a_lane_that_a_person_must_mend_names_event_position_and_traceback(
    server: Server, stream: Stream
) -> None:
    """Somebody wrote into a key of ours: which event was it, and where did it fail?"""

    async def scenario() -> None:
        host = Host(server, stream, Noting())
        host.runner.start(None)
        await eventually(lambda: host.runner.trouble, "the lane's trouble")
        facts = host.runner.trouble_facts
        assert facts is not None
        assert (facts.event_id, facts.position) == ("a0", stream.read_raw(0)[0][0].decode())
        assert "WRONGTYPE" in facts.reason
        assert "lane.py" in facts.traceback
        assert facts.since_ms > 0
        server.client.delete(host.lane.at.outbox)
        await eventually(lambda: not host.runner.trouble, "it to go on by itself")
        await host.close(5)

    fill(stream, "a")
    server.client.set(stream.keys[0].effects("noting", "outbox"), "mine")
    bounded(scenario())
    assert len(notes(server)) == 1
