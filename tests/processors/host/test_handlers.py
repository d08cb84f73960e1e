"""Handlers in hosts that stop, join, hang and block: each event once, and every process ends in time."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aurastream.processors.effects import Acceptance, Accepted, Attempt, Since, list_letters
from aurastream.processors.host import LaneHost
from aurastream.streams import Server, Settings, Stream, open_stream
from tests.facts import observation
from tests.processors.effects.outside import CODEC, ClipNoted, Noting, assert_balanced, host_of
from tests.processors.host.test_host import Host, Start, start  # noqa: F401 - fixtures
from tests.servers import until

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.any_server]

PLUGIN = """
import asyncio, threading, time
from pathlib import Path
from aurastream.processors.effects import Processor
from aurastream.streams import ClipViewsObserved

HERE = Path(__file__).parent

def say(what, event):
    with (HERE / "outside").open("a") as outside:
        outside.write(f"{what} {event.event_id}\\n")

class Slow(Processor):
    name, events, streams, start, parallel = "slow", (ClipViewsObserved,), ("long",), "beginning", 64
    async def handle(self, event, attempt):
        say("begin", event)
        await asyncio.sleep(2)
        say("end", event)

class Threaded(Slow):
    name = "threaded"
    def handle(self, event, attempt):
        say("tbegin", event)
        time.sleep(2)
        say("tend", event)

class Hanging(Slow):
    name, streams = "hanging", ("hung",)
    timeout_s = 0.2
    def handle(self, event, attempt):
        say("begin", event)
        threading.Event().wait()

class Blocking(Slow):
    name, streams, attempts_max = "blocking", ("blocked",), 2
    async def handle(self, event, attempt):
        say("begin", event)
        if event.event_id == "e0":
            time.sleep(3)  # three leases
        else:
            await asyncio.sleep(0.1)
        say("end", event)
"""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "handlers.py").write_text(PLUGIN)
    return tmp_path / "outside"


def said(outside: Path) -> Counter[str]:
    return Counter(outside.read_text().splitlines()) if outside.exists() else Counter()


def filled(server: Server, name: str, events: int = 8) -> Stream:
    stream = open_stream(server, name, create=True, settings=Settings(partitions=4))
    stream.append([observation(event_id=f"e{n}", clip=f"clip-{n}", minute=n) for n in range(events)])
    return stream


def run(start: Start) -> Host:  # noqa: F811
    return start("aurastream", "--app", "handlers", "run", "--web-port", "PORT", lease_ms=1_000)


def test_a_host_that_stops_lets_its_handlers_end_and_nobody_repeats_them(
    start: Start,  # noqa: F811
    server: Server,
    outside: Path,
) -> None:
    """A deployment began each upload again elsewhere, threads went on beside it, and each counted."""
    first = run(start)
    stream = filled(server, "long")
    until(lambda: sum(said(outside).values()) == 16, "all handlers to be under way")
    second = run(start)
    until(lambda: second.page("/ready")[0] == 200, "the other host")

    assert first.stop() == 0
    until(lambda: sum(said(outside).values()) == 32, "all of them to end")
    stream.append([observation(event_id="last", clip="clip-0", minute=59)])
    until(lambda: said(outside)["end last"] == 1, "the other host to go on")

    assert set(said(outside).values()) == {1}
    for group in ("slow", "threaded"):
        assert list(list_letters(stream, group)) == []
    assert second.stop() == 0


def test_a_host_whose_threads_hang_ends_within_its_patience(
    start: Start,  # noqa: F811
    server: Server,
    outside: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SIGTERM never ended it; and an operator sees which events hang."""
    monkeypatch.setenv("AURASTREAM_PATIENCE_S", "1")
    filled(server, "hung", 3)
    host = run(start)
    until(lambda: 'hung_calls{processor="hanging"} 3.0' in host.page("/metrics")[1], "three to hang")
    lines = [json.loads(line) for line in host.log().splitlines() if "handler_hangs" in line]
    assert {line["event_id"] for line in lines} == {"e0", "e1", "e2"}
    begun = time.monotonic()

    assert host.stop() == 0
    assert time.monotonic() - begun < 8


def test_a_handler_that_blocks_its_loop_is_named_and_nothing_is_repeated(
    start: Start,  # noqa: F811
    server: Server,
    outside: Path,
) -> None:
    """The leases lapsed meanwhile: four calls that all ended, then it was parked; bystanders ran twice."""
    hosts = [run(start), run(start)]
    until(lambda: all(host.page("/ready")[0] == 200 for host in hosts), "both hosts")
    stream = filled(server, "blocked")
    until(lambda: sum(said(outside).values()) == 16, "all of them to end")

    lines = [json.loads(line) for host in hosts for line in host.log().splitlines() if "loop_blocked" in line]
    assert [(line["processor"], line["event_id"]) for line in lines] == [("blocking", "e0")]
    assert "handlers.py" in lines[0]["stack"]
    assert lines[0]["place"].startswith("blocked/")
    for host in hosts:
        assert host.stop() == 0
    assert set(said(outside).values()) == {1}
    assert list(list_letters(stream, "blocking")) == []


PATIENT = Settings(partitions=1, lease_ms=2_000)  # a busy machine keeps no lease of 200 ms


class Held(Noting):
    """Holds its calls until the gate opens."""

    parallel = 64

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def handle(self, event: Any, attempt: Attempt) -> Any:
        self.calls.append((event.event_id, attempt.number))
        if not event.event_id.startswith("quick"):
            await self.gate.wait()
        return []


def seen(name: str, count: int) -> list[Any]:
    return [observation(event_id=f"{name}{n}", clip=f"{name}-{n}", minute=n) for n in range(count)]


async def eventually(condition: Any, what: str) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        await asyncio.sleep(0.01)


def test_surplus_is_given_back_when_the_work_under_way_is_done(server: Server, url: str) -> None:
    """A host joined, the leases moved, and all handlers under way were begun again, one by one, alone."""

    async def scenario() -> None:
        hosts: list[LaneHost] = []
        held, other = Held(), Noting()
        for processor in (held, other):
            own = Server(url)
            listed = open_stream(own, "shared", codec=CODEC)
            hosts.append(host_of(own, [processor], lambda listed=listed: [listed], settings=PATIENT))
        hosts[0].start()
        await eventually(lambda: len(held.calls) == 8, "all handlers to be under way")
        hosts[1].start()
        await eventually(lambda: hosts[0]._giving, "surplus")
        await eventually(lambda: len(hosts[1].leases.cards) == 2, "the other to be a member")
        assert [lane for lane in hosts[1].effect_lanes if lane.is_settled] == []
        await asyncio.to_thread(shared.append, seen("quick", 20))
        await eventually(lambda: len(held.calls) == 28, "others not to wait for them")
        held.gate.set()
        await eventually(lambda: len(hosts[1].lanes) == 2, "the other's share")
        await eventually(lambda: all(lane.is_settled for lane in hosts[1].effect_lanes), "its lanes")
        assert all(not lane.lane.suspects for lane in hosts[1].effect_lanes)
        for host in hosts:
            await host.stop()
            host.wires.server.close()
        assert (Counter(held.calls).most_common(1)[0][1], other.calls) == (1, [])

    shared = open_stream(server, "shared", codec=CODEC, create=True, settings=Settings(partitions=4))
    shared.append(seen("e", 8))
    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_host_that_stops_while_it_gives_a_lane_away_ends_within_its_patience(
    server: Server, url: str
) -> None:
    """A lane is given away with the patience of its handlers' time-out, which may be an hour."""

    class Patient(Held):
        timeout_s = 3_600.0

    async def scenario() -> None:
        hosts: list[LaneHost] = []
        held = Patient()
        for processor in (held, other):
            own = Server(url)
            listed = open_stream(own, "shared", codec=CODEC)
            hosts.append(host_of(own, [processor], lambda listed=listed: [listed], settings=PATIENT))
            hosts[-1].options = msgspec.structs.replace(hosts[-1].options, patience_s=0.3)
        hosts[0].start()
        await eventually(lambda: len(held.calls) == 8, "all handlers to be under way")
        hosts[1].start()
        await eventually(lambda: hosts[0]._giving, "surplus")
        begun = time.monotonic()
        await hosts[0].stop()
        assert time.monotonic() - begun < 8
        await eventually(lambda: len(other.calls) == 8, "the other to handle all")
        await hosts[1].stop()
        for host in hosts:
            host.wires.server.close()

    other = Noting()
    shared = open_stream(server, "shared", codec=CODEC, create=True, settings=Settings(partitions=4))
    shared.append(seen("e", 8))
    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert {number for _, number in other.calls} == {1}, "what was cut off was no attempt"


class Both(Noting):
    """A later build of it: it handles notes too."""

    events = (*Noting.events, ClipNoted)

    async def handle(self, event: Any, attempt: Attempt) -> Any:
        self.calls.append((event.event_id, attempt.number))
        return []


class Alone(Noting):
    """The build before, which appends nothing."""

    handle = Both.handle


def test_a_decision_under_load_misses_nothing_and_repeats_nothing(server: Server, url: str) -> None:
    """The build before runs while a person decides, and skips events of the new type until it hears of it."""

    async def scenario() -> None:
        old, new = Alone(), Both()
        hosts: list[LaneHost] = []
        for processor in (old, new):
            own = Server(url)
            listed = open_stream(own, "shared", codec=CODEC)
            hosts.append(host_of(own, [processor], lambda listed=listed: [listed], settings=PATIENT))
        expected: list[str] = []

        def append(round_: int) -> None:
            events: list[Any] = []
            for n in range(40):
                subject, at = f"clip-{n % 10}", observation(minute=n).occurred_at
                events.append(observation(event_id=f"c{round_}-{n}", clip=subject, minute=n))
                events.append(ClipNoted(event_id=f"n{round_}-{n}", subject=subject, occurred_at=at))
            shared.append(events)
            expected.extend(event.event_id for event in events)

        hosts[0].start()
        await eventually(lambda: len(hosts[0].effect_lanes) == 4, "the lanes of the build before")
        hosts[1].start()
        await eventually(lambda: hosts[1].roster.refused, "the new build to be refused")
        for number in range(20):
            await asyncio.to_thread(append, number)
            if number == 10:
                deciding = asyncio.create_task(asyncio.to_thread(decide, new))
        accepted = await deciding
        await eventually(
            lambda: len(old.calls) + len(new.calls) >= len(expected) and not left(),
            "all of them to be handled",
        )
        for host in hosts:
            await host.stop()
            host.wires.server.close()
        counted = Counter(old.handled + new.handled)
        assert sorted(counted) == sorted(expected)
        assert set(counted.values()) == {1}
        assert accepted.recalled > 0
        assert "accept noting" in " ".join(hosts[0].roster.refused)

    def decide(new: Both) -> Accepted:
        own = Server(url)
        listed, operations = (
            open_stream(own, name, codec=CODEC, create=True) for name in ("shared", "operations")
        )
        try:
            return Acceptance(new, listed, operations).decide(Since(None, "skipped"), "a test")
        finally:
            own.close()

    def left() -> int:
        return sum(1 for _ in list_letters(shared, "noting"))

    shared = open_stream(server, "shared", codec=CODEC, create=True, settings=Settings(partitions=4))
    asyncio.run(asyncio.wait_for(scenario(), 90))
    assert_balanced(server, shared)
