"""aurastream run: consume, for ever or until there is nothing left."""

from __future__ import annotations

import signal
import time
from collections import Counter
from types import FrameType

import click
import structlog

from aurastream.processors.commands.common import (
    cached_streams,
    json_option,
    projection_option,
    session,
    stream_option_all,
    tune_collector,
)
from aurastream.processors.show import as_json as print_json
from aurastream.processors.show import line
from aurastream.projections import Consumer, Progress

log = structlog.get_logger("aurastream.run")


@click.command()
@click.option("--until-idle", is_flag=True, help="End once everything is read (lag 0).")
@projection_option
@stream_option_all
@json_option
@click.pass_context
def run(context: click.Context, until_idle: bool, names: tuple[str, ...], stream_names: tuple[str, ...], as_json: bool) -> None:
    """Fold the streams' events into the views, each event once.

    All installed projections and all streams, unless some are named; streams created later are taken up. SIGTERM and Ctrl-C stop it
    between two batches. Any number of processes may run: a batch counts once.
    """
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    read: Counter[str] = Counter()

    def count(progress: Progress) -> None:
        read[progress.projection] += progress.events

    tune_collector()
    started = time.perf_counter()
    with session(context) as found:
        projections = found.installed.chosen(names)
        log.info("consumer_started", projections=[p.name for p in projections], server=found.server.facts.name)
        consumer = Consumer(
            found.server,
            projections,
            cached_streams(found, stream_names),
            batch_max=found.settings.batch_max,
            attempts_max=found.settings.attempts_max,
            on_commit=count,
            recover=found.connection.recover,
        )
        consumer.run(lambda: bool(stopped), until_idle=until_idle)
    seconds = time.perf_counter() - started
    summary = {"projections": dict(sorted(read.items())), "seconds": round(seconds, 3), "stopped_by_signal": bool(stopped)}
    log.info("consumer_stopped", **summary)
    if as_json:
        print_json(summary)
    else:
        told = ", ".join(f"{name} {events:,}" for name, events in sorted(read.items())) or "nothing new"
        line(f"read {told} in {seconds:.1f} s")
