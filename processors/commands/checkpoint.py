"""aurastream checkpoint: make a view's checkpoints ahead, so that no question of a past time has to."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from aurastream.processors import as_json as print_json
from aurastream.processors import table
from aurastream.processors.commands.common import json_option, session, stream_option_all
from aurastream.processors.history import folded, kept_for
from aurastream.projections import ProjectionError
from aurastream.projections.past import AsOf

EVER = AsOf(datetime(9999, 1, 1, tzinfo=UTC), "appended")  # all of the log, whatever its event times


@click.command()
@click.argument("name", metavar="PROJECTION")
@stream_option_all
@json_option
@click.pass_context
def checkpoint(context: click.Context, name: str, stream_names: tuple[str, ...], as_json: bool) -> None:
    """Fold the archive into checkpoints of a view.

    `view --at` and `report --at` begin at the nearest one. They are a cache beside the archive's segments:
    each question leaves those it came past, a changed projection makes its own, and deleting all of them
    costs time alone.
    """
    rows = []
    with session(context) as found:
        projection = found.installed.projection(name)
        streams = [
            stream
            for stream in found.streams(stream_names)
            if projection.folds(stream.name) and stream.is_log_here
        ]
        for stream in streams:
            history = found.history(stream)
            checkpoints = kept_for(history, projection)
            if checkpoints is None:
                raise ProjectionError(
                    "checkpoints are kept beside an archive, and none is set. Set AURASTREAM_ARCHIVE."
                )
            partitions = [
                number
                for number in range(stream.partitions)
                if history.archive and history.archive.until(number)
            ]
            before = {number: len(checkpoints.of(number)) for number in partitions}
            folded(stream, projection, EVER, partitions, tuple(context.obj or ()))
            for number in partitions:
                places = checkpoints.of(number)
                last = places[0].position if places else ""
                rows.append(
                    {
                        "stream": stream.name,
                        "partition": number,
                        "checkpoints": len(places),
                        "new": len(places) - before[number],
                        "last": last,
                    }
                )
    if as_json:
        print_json({"projection": name, "partitions": rows})
    else:
        table(
            f"Checkpoints of {name}",
            ["stream~", "partition", "checkpoints", "new", "last"],
            [list(row.values()) for row in rows],
        )
