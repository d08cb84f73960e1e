"""The process around the app: mode's worker, quiet, and gone as soon as everything has stopped."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any

import faust
import msgspec

from aurastream.processors import ProcessorError
from aurastream.processors.host.app import App
from aurastream.processors.host.summary import Summary, tune_collector
from aurastream.streams import Logger

log = Logger("aurastream.run")


class HostProcess(faust.Worker):
    """The process of our app, a worker in Faust's words; also of Faust's own command line."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.early_signals: list[signal.Signals] = []  # came before mode listens
        self.spinner = None  # it draws on stdout, which belongs to the result

    async def on_first_start(self) -> None:
        """Before anything starts."""
        tune_collector()
        await super().on_first_start()
        if self.early_signals:
            self._schedule_shutdown(self.early_signals[0])

    async def _sentinel_task(self) -> None:
        # mode waits a fixed second here before it closes the loop; by now every service has stopped and
        # nothing is under way.
        await asyncio.sleep(0)


class HostStopped(ProcessorError):
    """The host ended without a signal and without saying why."""

    def __init__(self, code: object) -> None:
        super().__init__(
            f"the host stopped with code {code}. Its last log lines say more; views and log are whole, so "
            "start it again."
        )


def run_host(app: App, was_asked: Callable[[], bool] = lambda: False) -> Summary:
    """Run the app until SIGTERM or SIGINT, or not at all where one came before. Raises what made it stop
    otherwise.
    """
    started = time.perf_counter()
    early: list[signal.Signals] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: early.append(signal.Signals(number)))
    if was_asked():  # now that the next one is ours
        early.append(signal.SIGTERM)
    names = [projection.name for projection in app.chosen]
    log.info("consumer_started", projections=names, web_port=app.web_port)
    process: Any = app.Worker(loglevel="WARNING", quiet=True)
    process.early_signals = early
    _execute(process)
    seconds = round(time.perf_counter() - started, 3)
    summary = Summary(app.read_counts(), seconds, bool(process._signal_stop_time))
    log.info("consumer_stopped", **msgspec.structs.asdict(summary))
    return summary


def _execute(process: Any) -> None:
    """Until a signal. process: Faust's worker. Raises what made it stop otherwise."""
    try:
        process.execute_from_commandline()
    except SystemExit as finished:
        if finished.code:
            raise process.crash_reason or finished.__context__ or HostStopped(finished.code) from None
