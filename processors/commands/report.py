"""aurastream report: the numbers of a stream's clips, from the views alone, of now or as of a past time."""

from __future__ import annotations

from datetime import datetime

import click

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line, table
from aurastream.processors.commands.common import Session, opened
from aurastream.processors.commands.options import json_option, stream_option
from aurastream.processors.commands.when import as_of, at_options, positions_told, title_of, told_of
from aurastream.processors.history import Report, report_of
from aurastream.projections import ProjectionError
from aurastream.projections.built_in import Clips, Imports
from aurastream.projections.past import AsOf
from aurastream.streams import IMPORTS, list_streams

RISE = ("id", "delta", "seconds", "velocity_per_hour", "to")
SUMS = ("subjects", "latest_views_sum")


@click.command()
@at_options
@stream_option
@json_option
@click.pass_context
def report(
    context: click.Context, at: datetime | None, by: str, stream_name: str | None, as_json: bool
) -> None:
    """Sums, top lists, categories and days of a stream's clips; with --at as of a past time."""
    when = as_of(at, by)
    with opened(context) as session:
        clips = _clips(session)
        stream = session.holding(clips, stream_name)
        imports = session.open(IMPORTS) if IMPORTS in list_streams(session.server) else None
        of_imports = None if imports is None else session.reader(imports, Imports(), when)
        made = report_of(session.reader(stream, session.recorded(stream, clips), when), of_imports)
    if as_json:
        print_json({**made.content, **told_of(when)})
    else:
        _show(made, when)


def _clips(session: Session) -> Clips:
    clips = session.installed.projection("clips")
    if not isinstance(clips, Clips):
        raise ProjectionError("the projection 'clips' was replaced by another; the report is of ours.")
    return clips


def _show(made: Report, when: AsOf | None) -> None:
    content = made.content
    plain = {name: value for name, value in content.items() if not isinstance(value, list | dict)}
    line(f"\n{title_of('Report', when)}", "bold")
    for name, value in plain.items():
        line(f"{name:<31} {f'{value:,}' if isinstance(value, int) else harmless(str(value or '-'))}")
    for name in ("top20_max_velocity", "top20_last_velocity"):
        rows = [[row[field] for field in RISE] for row in content[name]]
        table(name, ["id", "delta", "seconds", "views/hour", "until"], rows)
    rows = [[row["category"] or "(none)", *(row[field] for field in SUMS)] for row in content["categories"]]
    table("Categories", ["category~", "clips", "latest views"], rows)
    line(positions_told(made.positions), "dim")
