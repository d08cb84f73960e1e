"""aurastream run: consume, for ever or until there is nothing left."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from aurastream.processors import Stop, line, stopping_by_signal
from aurastream.processors import as_json as print_json
from aurastream.processors.commands.common import Session, opened
from aurastream.processors.commands.options import into, json_option, projection_option, stream_option_all
from aurastream.processors.host import Summary, tune_collector
from aurastream.projections import Progress
from aurastream.projections.engine import now_ms
from aurastream.streams import AsyncWires, Logger, NotAnswered, ServerUnreachable, operator

if TYPE_CHECKING:  # asyncio and all that is beneath it take their time
    from aurastream.processors.host import HostedLane

PORT = 6066
log = Logger("aurastream.run")


class RunOptions(msgspec.Struct, frozen=True):
    """The command line."""

    until_idle: bool
    web_port: str
    names: tuple[str, ...]
    stream_names: tuple[str, ...]
    as_json: bool


@click.command()
@click.option("--until-idle", is_flag=True, help="End once everything is read (lag 0).")
@click.option(
    "--web-port",
    default="auto",
    metavar="PORT",
    help="Of /health, /ready and /metrics: a port, auto (6066, or any that is free) or off.",
)
@projection_option
@stream_option_all
@json_option
@into(RunOptions)
def run(context: click.Context, options: RunOptions) -> None:
    """Fold the events into the views, each event once.

    All installed projections and all streams, unless some are named; streams created later are taken up.
    SIGTERM and Ctrl-C stop it between two batches. Hosts share the lanes that they can run by leases, one
    that runs until idle like any other: it ends once nothing is left in any lane it can run, whoever runs it.
    """
    with stopping_by_signal() as stop:  # from here on a signal is an end in good order
        if options.until_idle:
            with opened(context) as session:
                session.installed.chosen(options.names)
                session.streams(
                    options.stream_names
                )  # a name that does not exist is said before anything starts
                summary = _catch_up(session, options, stop)
        else:
            with _looked_at(context, options):
                summary = _serve(tuple(context.obj or ()), options, stop)
    if options.as_json:
        print_json(msgspec.structs.asdict(summary))
        return
    read = ", ".join(f"{name} {events:,}" for name, events in sorted(summary.projections.items()))
    line(f"read {read or 'nothing new'} in {summary.seconds:.1f} s")


@contextmanager
def _looked_at(context: click.Context, options: RunOptions) -> Iterator[None]:
    """What a person must mend is said before anything starts, where the server answers at once; where it does
    not, the host waits for it. An embedded server is held meanwhile.
    """
    with ExitStack() as held:
        try:
            session = held.enter_context(opened(context, patience_s=0))
            session.installed.chosen(options.names)
            session.streams(options.stream_names)
        except (ServerUnreachable, NotAnswered) as error:
            log.warning("server_away", reason=str(error)[:300])
        yield


def _serve(apps: tuple[str, ...], options: RunOptions, stop: Stop) -> Summary:
    """The host, until a signal; it reaches the server itself, while its pages are served. Imported here, as
    Faust takes a third of a second that no other verb pays.
    """
    from aurastream.processors.host import Options, make_app, run_host

    chosen = Options(options.names, options.stream_names, apps, _port(options.web_port))
    return run_host(make_app(chosen), was_asked=lambda: stop.was_asked)


def _port(text: str) -> int | None:
    """The port for the pages; None for no pages. Raises BadParameter for what is none, and for one that is
    taken.
    """
    if text == "off":
        return None
    if text == "auto":
        return PORT if _is_first() and _is_free(PORT) else 0
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise click.BadParameter(
            f"{text!r} is no port: give 1 to 65535, auto or off", param_hint="--web-port"
        )
    if not _is_free(int(text)):
        raise click.BadParameter(f"port {text} is taken: give another, or auto", param_hint="--web-port")
    return int(text)


def _is_first() -> bool:
    """Whether no other process of this user has the usual port; it stays ours until we end. Of two that start
    at once, one is.
    """
    lock = os.open(
        Path(tempfile.gettempdir()) / f"aurastream-{os.getuid()}-{PORT}.lock",
        os.O_RDWR | os.O_CREAT | os.O_CLOEXEC,
        0o600,
    )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _catch_up(session: Session, options: RunOptions, stop: Stop) -> Summary:
    """Consume without a host around it until lag 0 or a signal."""
    tune_collector()
    read: Counter[str] = Counter()
    projections = session.installed.chosen(options.names)
    started = time.perf_counter()
    log.info("consumer_started", projections=[projection.name for projection in projections], until_idle=True)
    _run_lanes(session, options, read, stop)
    seconds = round(time.perf_counter() - started, 3)
    summary = Summary(dict(sorted(read.items())), seconds, stop.was_asked)
    log.info("consumer_stopped", **msgspec.structs.asdict(summary))
    return summary


def _run_lanes(session: Session, options: RunOptions, read: Counter[str], stop: Stop) -> None:
    """A host until nothing is left for it: views, and processors where all is run."""
    from aurastream.processors.effects import ASKS_MAX, processors_of
    from aurastream.processors.host import HostOptions, HostWork, LaneHost, Roster, Sources, run_until_idle

    projections, settings = session.installed.chosen(options.names), session.settings
    processors = [] if options.names else list(processors_of(session.installed).values())
    sources = Sources(session.server, session.installed.codec(), settings, projections)
    roster = Roster(session.server, sources, HostWork(projections, processors, options.stream_names))

    def count(progress: Progress) -> None:
        read[progress.projection] += progress.events

    def watch(lane: HostedLane) -> None:
        lane.lane.on_commit = count

    async def work() -> None:
        wires = AsyncWires(session.server, ASKS_MAX, session.connection.recover)
        host = LaneHost(
            wires,
            roster,
            HostOptions("until-idle", settings.lease_ms or 0, settings.patience_s, settings.batch_max),
        )
        host.on_lane = watch
        await run_until_idle(host, lambda: stop.was_asked, settings.server_wait_s)

    try:
        asyncio.run(work())
        sources.retire(roster.records, now_ms(session.server), operator())
    finally:
        sources.close()
