"""aurastream checkpoint: make a view's checkpoints ahead, so that no question of a past time has to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import remark, table
from aurastream.processors.commands.common import Session, opened
from aurastream.processors.commands.options import json_option, stream_option_all
from aurastream.processors.commands.when import watch
from aurastream.processors.history import PastFolder, kept_for
from aurastream.projections import Projection, ProjectionError
from aurastream.projections.past import AsOf
from aurastream.streams import Stream

EVER = AsOf(datetime(9999, 1, 1, tzinfo=UTC), "appended")  # all of the log, whatever its event times


class CheckpointRow(msgspec.Struct, frozen=True):
    """What a partition has now. new: of its checkpoints; last: the newest one's position."""

    stream: str
    partition: int
    checkpoints: int
    new: int
    last: str


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
    with opened(context) as session:
        rows = list(_all_made(session, session.installed.projection(name), stream_names))
    if as_json:
        print_json({"projection": name, "partitions": rows})
    else:
        columns = ["stream~", "partition", "checkpoints", "new", "last"]
        table(f"Checkpoints of {name}", columns, [msgspec.structs.astuple(row) for row in rows])


def _all_made(
    session: Session, projection: Projection[Any], stream_names: tuple[str, ...]
) -> Iterator[CheckpointRow]:
    for stream in session.streams(stream_names):
        if projection.takes(stream) and stream.is_log_here:
            yield from _made(session, stream, session.recorded(stream, projection))


def _made(session: Session, stream: Stream, projection: Projection[Any]) -> Iterator[CheckpointRow]:
    """Make those of one stream."""
    history = session.history(stream)
    checkpoints = kept_for(history, projection, remark)
    if checkpoints is None or history.archive is None:
        raise ProjectionError(
            "checkpoints are kept beside an archive, and none is set. Set AURASTREAM_ARCHIVE."
        )
    partitions = [number for number in range(stream.partitions) if history.archive.until(number)]
    before = {number: len(checkpoints.of(number)) for number in partitions}
    PastFolder(stream, projection, EVER, session.apps, watch())(partitions)
    for number in partitions:
        places = checkpoints.of(number)
        last = places[0].position if places else ""
        yield CheckpointRow(stream.name, number, len(places), len(places) - before[number], last)
