"""The world outside, as the tests' handlers find it: a file that outlives the process, and processors that do
things to it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from aurastream.processors.effects import ASKS_MAX, Attempt, LaneOptions, Processor
from aurastream.processors.effects.items import Item
from aurastream.processors.host import HostOptions, HostWork, LaneHost, Roster, Sources, run_until_idle
from aurastream.streams import (
    BUILT_IN,
    LEASE_MS,
    AsyncWires,
    ClipViewsObserved,
    Codec,
    Event,
    Server,
    Settings,
    Stream,
    open_stream,
)
from tests.servers import forked

STREAM = "clips-test"
PATIENCE_S = 30.0
SETTINGS = Settings(partitions=1, lease_ms=200)


class ClipNoted(Event, frozen=True, kw_only=True, tag="test.clip_noted"):
    """A handler saw the clip."""

    views: int = 0
    number: int = 0


CODEC = Codec((*BUILT_IN, ClipNoted))
Behave = Callable[[Any, Attempt], None]


class Noting(Processor):
    """Writes down every call, behaves as it is told, and returns one derived event."""

    name = "noting"
    events = (ClipViewsObserved,)
    into = "notes"
    start = "beginning"
    attempts_max = 3
    first_s, max_s = 0.001, 0.01

    def __init__(self, behave: Behave = lambda event, attempt: None, file: Path | None = None) -> None:
        self.behave, self.file = behave, file
        self.calls: list[tuple[str, int]] = []
        self.keys: set[str] = set()

    async def handle(self, event: Any, attempt: Attempt) -> list[Event]:
        self.calls.append((event.event_id, attempt.number))
        self.keys.add(attempt.idempotency_key)
        if self.file is not None:
            with self.file.open("a") as outside:
                outside.write(f"{event.subject} {event.event_id} {attempt.number}\n")
        self.behave(event, attempt)
        return [attempt.derive(ClipNoted, views=event.views, number=attempt.number)]

    @property
    def handled(self) -> list[str]:
        """Event IDs in the order of their calls."""
        return [event_id for event_id, _ in self.calls]


def failing(*event_ids: str, times: int = 10**6) -> Behave:
    """Raises at these events' first attempts."""

    def behave(event: Any, attempt: Attempt) -> None:
        if event.event_id in event_ids and attempt.number <= times:
            raise RuntimeError("no answer")

    return behave


def host_of(
    server: Server,
    processors: Iterable[Processor],
    streams: Callable[[], list[Stream]],
    options: LaneOptions | None = None,
    settings: Settings = SETTINGS,
) -> LaneHost:
    """What `aurastream run --until-idle` runs, of processors alone. To be made in an event loop."""
    names = tuple(stream.name for stream in streams())
    roster = Roster(server, Sources(server, CODEC, settings, []), HostWork([], list(processors), names))
    chosen = HostOptions("until-idle", settings.lease_ms or LEASE_MS)
    host = LaneHost(AsyncWires(server, ASKS_MAX), roster, chosen)
    if options is not None:
        host.effect_options = msgspec.structs.replace(options, host=host.leases.host)
    return host


def work(
    server: Server,
    *processors: Processor,
    on_step: Any = lambda step, item: None,
    streams: Callable[[], list[Stream]] | None = None,
    **settings: Any,
) -> None:
    """Run processors until nothing is left."""

    async def run() -> None:
        chosen, options = SETTINGS.model_copy(update=settings), LaneOptions(on_step=on_step)
        listed = streams or (lambda: [opened(server)])
        async with asyncio.timeout(PATIENCE_S):
            await run_until_idle(host_of(server, processors, listed, options, chosen), lambda: False)

    asyncio.run(run())


_opened: dict[str, Stream] = {}


def opened(server: Server) -> Stream:
    """The stream under test; registered anew where the server was emptied."""
    open_stream(server, STREAM, settings=SETTINGS, create=True)
    if server.url not in _opened:
        _opened[server.url] = open_stream(server, STREAM, codec=CODEC, settings=SETTINGS)
    return _opened[server.url]


def notes(server: Server) -> list[ClipNoted]:
    """The derived events, in the order of the log."""
    found: list[Any] = [
        entry.event
        for entry in open_stream(server, "notes", codec=CODEC, settings=SETTINGS, create=True).read(0)
    ]
    return found


def operations(server: Server) -> list[Any]:
    """The audit trail, in the order of the log."""
    stream = open_stream(server, "operations", codec=CODEC, settings=SETTINGS, create=True)
    return [entry.event for partition in range(stream.partitions) for entry in stream.read(partition)]


def state(server: Server, stream: Stream, group: str = "noting", partition: int = 0) -> dict[str, Any]:
    """All that is kept for a processor in a partition."""
    keys = stream.keys[partition]
    client = server.client
    return {
        "cursor": {k.decode(): v.decode() for k, v in client.hgetall(keys.cursor(group)).items()},
        "dead": sorted(k.decode() for k in client.hkeys(keys.dead(group))),
        "line": [m.decode() for m in client.zrange(keys.effects(group, "line"), 0, -1)],
        **{
            part: sorted(k.decode() for k in client.hkeys(keys.effects(group, part)))
            for part in ("attempts", "begun", "done", "due", "outbox")
        },
    }


def assert_balanced(server: Server, stream: Stream, group: str = "noting") -> None:
    """step.lua's equation: every entry is in exactly one place."""
    for partition in range(stream.partitions):
        held = state(server, stream, group, partition)
        count = {
            name: int(held["cursor"].get(name, 0))
            for name in ("read", "applied", "skipped", "duplicates", "dead", "discarded")
        }
        finished = sum(count[name] for name in ("applied", "skipped", "duplicates", "dead", "discarded"))
        assert count["read"] + len(held["done"]) == finished, held
        assert count["dead"] == len(held["dead"]) == len(held["line"]), held
        assert held["outbox"] == [], held


def process(url: str, file: Path, crash: str = "", deadly: str = "") -> int:
    """A consumer in a process of its own, to its end; its exit code."""

    def live() -> None:
        _opened.clear()  # its connections are the parent's
        _live(url, file, crash, deadly)

    return forked(live, "the consumer")


def _live(url: str, file: Path, crash: str, deadly: str) -> None:
    """The consumer's life. crash: "step count", where it kills itself. deadly: the event that kills it."""
    step, count = crash.split() if crash else ("", "0")
    left = [int(count)]

    def behave(event: Any, attempt: Attempt) -> None:
        if event.event_id == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_step(at: str, item: Item) -> None:
        if at == step:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    work(Server(url), Noting(behave, file), on_step=on_step)
