"""aurastream rollback: the generation of a view before the live one, live again."""

from __future__ import annotations

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import line
from aurastream.processors.commands.common import json_option, session, stream_option
from aurastream.processors.commands.rebuild import duration_ms, folded_stream
from aurastream.streams import operator


@click.command()
@click.argument("projection")
@stream_option
@click.option(
    "--keep",
    "keep_ms",
    default="24h",
    show_default=True,
    callback=duration_ms,
    help="How long the other one is kept.",
)
@click.option(
    "--accept-lag",
    is_flag=True,
    help="Go back although it lacks events, and this process cannot catch it up.",
)
@click.option("--why", default="", metavar="TEXT", help="For the audit trail.")
@json_option
@click.pass_context
def rollback(
    context: click.Context,
    projection: str,
    stream_name: str | None,
    keep_ms: int,
    accept_lag: bool,
    why: str,
    as_json: bool,
) -> int:
    """Make the kept generation of a view the live one again.

    It was kept up to date, so readers miss nothing; where it lags it is caught up first. A second rollback
    goes forward again.
    """
    from aurastream.projections.rebuild import Decision
    from aurastream.projections.rebuild import rollback as roll_back

    with session(context) as found:
        chosen = found.installed.projection(projection)
        stream = folded_stream(found, chosen, stream_name)
        done = roll_back(
            found.history(stream), chosen, Decision(operator(), why), keep_ms=keep_ms, accept_lag=accept_lag
        )
    if as_json:
        print_json({"projection": projection, "stream": stream.name, **msgspec.to_builtins(done)})
    else:
        lag = f", {done.lag_events:,} events behind it" if done.lag_events else ""
        line(
            f"generation {done.generation} of {projection} is live again, in the place of "
            f"{done.previous}{lag}",
            "bold green",
        )
    return 0
