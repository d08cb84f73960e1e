"""Row 32: a range replayed twice, killed in between, and beside producers that go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from aurastream.projections import Consumer
from aurastream.streams import Server, open_stream
from tests.faults.harness import Run, applied, consume_all
from tests.faults.operators import fill
from tests.faults.producers import NOON, STREAM
from tests.faults.rows import row
from tests.invariants import Held, check, check_acks, every_partition
from tests.projections.counting import Counting
from tests.servers import until

TARGET = "replay.clips"
SINCE, UNTIL = NOON + timedelta(minutes=20), NOON + timedelta(hours=20)


class Replaying:
    """The command in a process of its own; ended with the run."""

    def __init__(self, run: Run, url: str, *more: str) -> None:
        name = run.directory / f"replay-{run.counts['replays']}"
        self._out, self._error = name.with_suffix(".json"), name.with_suffix(".err")
        run.count(replays=1)
        program = str(Path(sys.executable).with_name("aurastream"))
        command = [
            program,
            "replay",
            "--stream",
            STREAM,
            "--from",
            SINCE.isoformat(),
            "--to",
            UNTIL.isoformat(),
            *more,
        ]
        with self._out.open("w") as out, self._error.open("w") as error:
            self.process = subprocess.Popen(
                [*command, "--into", "stream", TARGET, "--json"],
                env={**os.environ, "AURASTREAM_REDIS_URL": url},
                stdout=out,
                stderr=error,
            )
        run.on_end(self.kill)

    def kill(self) -> None:
        """kill -9, where it still runs."""
        self.process.kill()
        self.process.wait()

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def summary(self) -> dict[str, Any]:
        """Its report at its end, which must be a good one."""
        code = self.process.wait(timeout=60)
        assert code == 0, self._error.read_text()
        report: dict[str, Any] = json.loads(self._out.read_text())
        return report


def _has_replayed(client: Any, least: int, replaying: Replaying) -> bool:
    """Whether so many events were replayed, or the replay has ended."""
    return replayed(client) >= least or not replaying.is_alive()


def replayed(client: Any) -> int:
    """Entries of the target so far."""
    return sum(client.xlen(f"aura:{{{TARGET}.{partition}}}:log") for partition in range(2))


@row(32, "a range replayed twice; a replay beside live appends", bound_s=90.0)
def a_replay_counts_each_event_once_whatever_interrupts_it(run: Run) -> None:
    url = run.server().url
    stream, client = run.stream(url, 2), run.client(url)
    count = 60_000 if run.is_long else 12_000
    for first in range(0, count, 2_000):
        fill(stream, first, 2_000)
    run.worker(url)
    run.producer(url)
    for round_ in range(6 if run.is_long else 2):
        replaying = Replaying(run, url)
        rival = Replaying(run, url) if round_ == 1 else None  # two of the same replay race harmlessly
        least = run.dice.randrange(1, count // 2)
        is_on_its_way = partial(_has_replayed, client, least, replaying)
        until(is_on_its_way, "some of the range to be replayed")
        if replaying.is_alive():
            run.count(killed=1)
        replaying.kill()
        if rival is not None:
            rival.summary()
    live = open_stream(
        Server(url), TARGET
    )  # somebody appends to a replay: events of its own, and some that it has
    fill(live, count, 300)
    fill(live, 2_000, 300)
    until(lambda: applied(client) > count, "the live view to go on beside it")
    run.stop_producers()
    first_time, second_time = Replaying(run, url).summary(), Replaying(run, url, "--restart").summary()
    if second_time["already_there"] != second_time["events"][STREAM]:
        run.complain(
            f"replayed again, {second_time['events'][STREAM] - second_time['already_there']} events were new"
        )
    run.count(replayed=second_time["events"][STREAM], known=first_time["already_there"])
    _judge(run, url, client, {f"f{n}" for n in range(count, count + 300)})


def _judge(run: Run, url: str, client: Any, live: set[str]) -> None:
    """I1 of source and target, I2 of the source, and: the target is the range and what was appended live,
    each once, in order.
    """
    run.drain(url)
    run.end_workers()
    consume_all(url)
    server = Server(url)
    run.on_end(server.close)
    target = open_stream(server, TARGET)
    Consumer(server, [Counting()], lambda: [target]).run(until_idle=True)
    helds = [held for held in every_partition(client) if held.stream in {STREAM, TARGET}]
    for held in helds:
        run.complain(*check(held))
    run.complain(*check_acks([held for held in helds if held.stream == STREAM], run.acks(), strangers=True))
    for partition in range(2):
        source, copy = (
            next(h for h in helds if (h.stream, h.partition) == (name, partition))
            for name in (STREAM, TARGET)
        )
        wanted = [event_id for event_id, at in _events(source) if SINCE <= at <= UNTIL]
        got = [event_id for event_id, _ in _events(copy)]
        if len(set(got)) != len(got):
            run.complain(f"{TARGET}/{partition} has {len(got) - len(set(got))} events twice")
        if set(got) - live != set(wanted):
            missing, more = set(wanted) - set(got), set(got) - live - set(wanted)
            run.complain(
                f"{TARGET}/{partition} lacks {len(missing)} events of the range and has {len(more)} that "
                "are none of it"
            )
        early = {
            f"f{n}" for n in range(2_000, 2_300)
        }  # appended by hand, maybe before the replay came to them
        if [name for name in got if name not in live | early] != [
            name for name in wanted if name not in early
        ]:
            run.complain(f"{TARGET}/{partition} is not in the order of {STREAM}/{partition}")
    if unfinished := client.hkeys("aura:replays"):
        run.complain(f"replays that are whole are still written down: {unfinished}")


def _events(held: Held) -> list[tuple[str, datetime]]:
    decoded = [json.loads(fields[b"event"]) for _, fields in held.log]
    return [(event["event_id"], datetime.fromisoformat(event["occurred_at"])) for event in decoded]
