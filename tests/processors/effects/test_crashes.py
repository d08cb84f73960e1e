"""Workers that die, are stopped past their lease, or lose replies: real processes, real kills."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from aurastream.processors.effects import EffectLane, Isolation, LaneOptions, LaneStreams, list_letters
from aurastream.processors.effects.lines import Lines
from aurastream.processors.host import LaneHost, run_until_idle
from aurastream.projections.engine.apply import Fenced
from aurastream.streams import AsyncWires, Server, ServerRefuses, Stream, UnknownOutcome, open_stream
from tests.facts import observation
from tests.processors.effects.outside import (
    CODEC,
    SETTINGS,
    STREAM,
    Noting,
    assert_balanced,
    failing,
    host_of,
    notes,
    operations,
    process,
    state,
    work,
)
from tests.servers import CuttingProxy, ServerProcess

KILLED = -9


def calls(file: Path) -> list[tuple[str, str]]:
    """(subject, event ID) of every handler call, in order."""
    return (
        [(line.split()[0], line.split()[1]) for line in file.read_text().splitlines()]
        if file.exists()
        else []
    )


def fill(stream: Stream, events: int = 6) -> list[str]:
    stream.append(
        [observation(event_id=f"{clip}{n}", clip=clip, minute=n) for n in range(events // 2) for clip in "ab"]
    )
    return sorted(f"{clip}{n}" for n in range(events // 2) for clip in "ab")


@pytest.mark.parametrize("crash", ["taken 3", "begun 3", "handled 3", "appended 3", "done 3"])
def test_killed_at_any_step_each_derived_event_is_in_the_log_once(
    url: str, server: Server, stream: Stream, tmp_path: Path, crash: str
) -> None:
    """This is the promise of the package, at every place where a process may end."""
    events, file = fill(stream), tmp_path / "outside"

    assert process(url, file, crash) == KILLED
    assert process(url, file) == 0

    assert sorted(note.causation_id for note in notes(server)) == events
    counted = Counter(calls(file))
    assert sorted(event_id for _, event_id in counted) == events
    again = sum(count - 1 for count in counted.values())
    assert again <= 2, "only what was under way when it was killed: one of each subject"
    assert crash not in {"taken 3", "begun 3"} or again <= 1
    for clip in "ab":
        firsts = list(dict.fromkeys(event_id for subject, event_id in calls(file) if subject == clip))
        assert firsts == sorted(firsts)
    assert state(server, stream)["cursor"]["applied"] == "6"
    assert state(server, stream)["attempts"] == []
    assert_balanced(server, stream)


def test_an_event_that_kills_its_process_every_time_is_parked_and_the_rest_flows(
    url: str, server: Server, stream: Stream, tmp_path: Path
) -> None:
    """Attempts are counted before the handler runs, or it would kill one process after the other for ever."""
    fill(stream)
    file = tmp_path / "outside"

    codes = [process(url, file, deadly="a0") for _ in range(4)]

    assert codes == [KILLED, KILLED, KILLED, 0]
    assert calls(file).count(("a", "a0")) == Noting.attempts_max
    assert [(letter.event_id, letter.state) for letter in list_letters(stream, "noting")] == [
        ("a0", "parked"),
        ("a1", "waiting"),
        ("a2", "waiting"),
    ]
    assert "the last did not end: the process did" in operations(server)[0].reason
    assert sorted(note.subject for note in notes(server)) == ["b", "b", "b"]
    assert_balanced(server, stream)


def test_a_killed_workers_partitions_are_taken_over_by_the_next(
    url: str, server: Server, stream: Stream, tmp_path: Path
) -> None:
    """A dead owner's events may not wait longer than its lease."""
    fill(stream)
    assert process(url, tmp_path / "outside", "begun 1") == KILLED
    noting = Noting()

    work(server, noting)

    assert sorted({note.causation_id for note in notes(server)}) == sorted(
        ["a0", "a1", "a2", "b0", "b1", "b2"]
    )
    assert max(number for _, number in noting.calls) == 2, "the attempt of the dead one counts"


async def idle(lines: Lines) -> None:
    while not await lines.is_idle():  # noqa: ASYNC110 - only the server knows
        await asyncio.sleep(0.005)


async def eventually(step: Callable[[], Awaitable[Any]]) -> None:
    """Until it raises."""
    while True:
        await step()
        await asyncio.sleep(0.005)


async def lines_of(
    server: Server, stream: Stream, processor: Noting, asks_max: int = 12
) -> tuple[Lines, AsyncWires]:
    into, trail = (
        open_stream(server, name, codec=CODEC, settings=SETTINGS, create=True)
        for name in ("notes", "operations")
    )
    wires = AsyncWires(server, asks_max)
    lane = EffectLane(processor, LaneStreams(stream, into, trail), 0, LaneOptions(host="w", lease="app"))
    return Lines(lane, wires, Isolation()), wires


def test_a_lane_is_fenced_by_the_epoch_of_its_transports_lease(server: Server, stream: Stream) -> None:
    """Two owners: the old one was stopped past its lease, in the middle of a handler, and may finish
    nothing.
    """

    async def scenario() -> None:
        gate, entered = asyncio.Event(), asyncio.Event()

        class Held(Noting):
            async def handle(self, event: Any, attempt: Any) -> Any:
                entered.set()
                await gate.wait()
                return await super().handle(event, attempt)

        fill(stream)
        old, old_wires = await lines_of(server, stream, Held())
        lease = stream.keys[0].lease("app")
        server.client.hset(lease, mapping={"owner": "old", "epoch": 1})
        assert await old.take(1)
        await entered.wait()
        server.client.hset(lease, mapping={"owner": "new", "epoch": 2})

        noting = Noting()
        new, new_wires = await lines_of(server, stream, noting)
        await new.take(2)
        await idle(new)
        before = state(server, stream)
        gate.set()
        with pytest.raises(Fenced, match="epoch 1 is older than 2"):
            await eventually(lambda: old.take(1))

        assert state(server, stream) == before
        assert [number for _, number in noting.calls] == [2, 2, 1, 1, 1, 1]
        for lines, wires in ((old, old_wires), (new, new_wires)):
            await lines.stop()
            await wires.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))
    assert len(notes(server)) == 6


def test_two_consumers_share_the_partitions_and_handle_each_event_once(server: Server, url: str) -> None:
    """Leases are what keeps two processes from calling a handler twice."""
    shared = open_stream(server, "shared", codec=CODEC, settings=SETTINGS, create=True, partitions=4)
    shared.append([observation(event_id=f"e{n}", clip=f"clip-{n % 17}", minute=n) for n in range(200)])
    first, second = Noting(), Noting()
    patient = SETTINGS.model_copy(update={"lease_ms": 2_000})  # a busy machine keeps no lease of 200 ms

    async def run() -> None:
        def sharing(processor: Noting) -> LaneHost:
            own = Server(url)
            stream = open_stream(own, "shared", codec=CODEC)
            return host_of(own, [processor], lambda: [stream], settings=patient)

        hosts = [sharing(processor) for processor in (first, second)]
        await asyncio.wait_for(asyncio.gather(*[run_until_idle(host, lambda: False) for host in hosts]), 30)

    asyncio.run(run())

    assert sorted(first.handled + second.handled) == sorted(f"e{n}" for n in range(200))
    assert_balanced(server, shared)


@pytest.mark.parametrize("cuts", [1, 3, 5])
def test_lost_replies_cost_attempts_and_never_an_effect_or_an_order(
    running: ServerProcess, server: Server, stream: Stream, cuts: int
) -> None:
    """A lost reply leaves an outcome unknown, so every step is asked again and may have happened."""
    events = fill(stream, 20)
    proxy = CuttingProxy(running.url)
    through = Server(proxy.url)
    own = open_stream(through, STREAM, codec=CODEC, settings=SETTINGS)

    class Patient(Noting):
        attempts_max = 20

    noting = Patient()
    steps: list[str] = []

    def on_step(step: str, item: Any) -> None:
        steps.append(step)
        if len(steps) in {5, 20, 33}:
            proxy.cuts = cuts

    work(through, noting, on_step=on_step, streams=lambda: [own])

    assert sorted(note.causation_id for note in notes(server)) == events
    for clip in "ab":
        handled = list(dict.fromkeys(event_id for event_id in noting.handled if event_id[0] == clip))
        assert handled == [f"{clip}{n}" for n in range(10)]
    assert_balanced(server, stream)
    through.close()
    proxy.close()


def test_a_server_that_stays_away_is_an_unknown_outcome_in_bounded_time(
    server: Server, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lane must come back to its host, which may be told to stop."""

    async def scenario() -> None:
        away = Server(server.url)
        lines, wires = await lines_of(away, stream, Noting(), asks_max=3)

        async def refuse(key: str) -> Any:
            raise ConnectionError("away")

        monkeypatch.setattr(wires, "of", refuse)
        with pytest.raises((UnknownOutcome, ServerRefuses)):
            await lines.take()

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_stop_waits_for_the_handlers_under_way_and_begins_no_other(server: Server, stream: Stream) -> None:
    """What is cut off is begun again elsewhere, at the price of an attempt."""

    async def scenario() -> tuple[list[str], int]:
        entered = asyncio.Event()

        class Slow(Noting):
            async def handle(self, event: Any, attempt: Any) -> Any:
                entered.set()
                await asyncio.sleep(0.05)
                return await super().handle(event, attempt)

        fill(stream)
        slow = Slow()
        lines, wires = await lines_of(server, stream, slow)
        await lines.take()
        await entered.wait()
        await lines.stop(patience_s=5)
        await wires.close()
        return slow.handled, int(state(server, stream)["cursor"]["applied"])

    handled, applied = asyncio.run(asyncio.wait_for(scenario(), 30))
    assert (sorted(handled), applied) == (["a0", "b0"], 2)


def test_a_stop_does_not_wait_for_a_pause(server: Server, stream: Stream) -> None:
    """Pauses are up to an hour, deployments a second."""

    async def scenario() -> float:
        class Pausing(Noting):
            first_s = max_s = 60.0

        fill(stream)
        pausing = Pausing(failing("a0"))
        lines, wires = await lines_of(server, stream, pausing)
        await lines.take()
        while "a0" not in pausing.handled or len(pausing.handled) < 4:  # noqa: ASYNC110 - handled is a plain list
            await asyncio.sleep(0.005)
        started = asyncio.get_running_loop().time()
        await lines.stop(patience_s=30)
        await wires.close()
        return asyncio.get_running_loop().time() - started

    assert asyncio.run(asyncio.wait_for(scenario(), 30)) < 2


def test_a_window_that_is_full_lets_others_flow_up_to_its_bound(
    server: Server, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entries between the cursor and the last one read are bounded, or a subject that waits would fill
    the memory.
    """
    from aurastream.processors.effects import window as module

    monkeypatch.setattr(module, "AHEAD_MAX", 10)

    class Pausing(Noting):
        first_s = max_s = 0.3
        jitter = 0.0

    stream.append(
        [
            observation(event_id="a", clip="a"),
            *(observation(event_id=f"b{n:02}", clip="b", minute=n) for n in range(30)),
        ]
    )
    pausing = Pausing(failing("a", times=1))

    work(server, pausing)

    assert pausing.handled[:11] == ["a", *[f"b{n:02}" for n in range(9)], "a"]
    assert len(pausing.handled) == 32
    assert state(server, stream)["done"] == []
