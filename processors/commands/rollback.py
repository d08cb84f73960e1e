"""aurastream rollback: the generation of a view before the live one, live again."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import line
from aurastream.processors.commands.common import opened
from aurastream.processors.commands.options import (
    MILLISECOND,
    into,
    json_option,
    keep_option,
    stream_option,
    why_option,
)
from aurastream.projections import Projection
from aurastream.streams import History, operator

if TYPE_CHECKING:
    from aurastream.projections.rebuild import RolledBack


class RollbackOptions(msgspec.Struct, frozen=True):
    """The command line."""

    projection: str
    stream_name: str | None
    keep: timedelta
    accept_lag: bool
    why: str
    as_json: bool


@click.command()
@click.argument("projection")
@stream_option
@keep_option
@click.option(
    "--accept-lag",
    is_flag=True,
    help="Go back although it lacks events, and this process cannot catch it up.",
)
@why_option
@json_option
@into(RollbackOptions)
def rollback(context: click.Context, options: RollbackOptions) -> None:
    """Make the kept generation of a view the live one again.

    It was kept up to date, so readers miss nothing; where it lags it is caught up first. A second rollback
    goes forward again.
    """
    with opened(context) as session:
        projection = session.installed.projection(options.projection)
        stream = session.folded_stream(projection, options.stream_name)
        done = _rolled_back(session.history(stream), projection, options)
    if options.as_json:
        print_json({"projection": projection.name, "stream": stream.name, **msgspec.to_builtins(done)})
        return
    lag = f", {done.lag_events:,} events behind it" if done.lag_events else ""
    place = f"in the place of {done.previous}{lag}"
    line(f"generation {done.generation} of {projection.name} is live again, {place}", "bold green")


def _rolled_back(history: History, projection: Projection[Any], options: RollbackOptions) -> RolledBack:
    from aurastream.projections.rebuild import Decision
    from aurastream.projections.rebuild import rollback as roll_back

    decision, keep_ms = Decision(operator(), options.why), options.keep // MILLISECOND
    return roll_back(history, projection, decision, keep_ms=keep_ms, accept_lag=options.accept_lag)
