"""aurastream view: a leaderboard, a state, or any table of a view, of now or as of a past time."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line, table
from aurastream.processors.commands.common import json_option, session, stream_option
from aurastream.processors.history import as_of, at_options, positions_told, reader, title_of, told_of
from aurastream.projections import Projection, ProjectionError, Ranked, View
from aurastream.projections.built_in import Clip, Clips, ClipSettings, merged
from aurastream.projections.engine import Positions
from aurastream.projections.past import AsOf, PastView


@click.command()
@click.argument("name")
@click.argument("key", required=False)
@click.option(
    "--top",
    default=20,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="How many of a ranking or table.",
)
@click.option("--ranking", metavar="R", help="Which ranking; default: viral for clips, else the first.")
@click.option("--part", metavar="P", help="Only this part of a split ranking (a category).")
@click.option(
    "--table", "table_name", metavar="T", help="A table of totals, roll-ups, states or lists instead."
)
@at_options
@stream_option
@json_option
@click.pass_context
def view(
    context: click.Context,
    name: str,
    key: str | None,
    top: int,
    ranking: str | None,
    part: str | None,
    table_name: str | None,
    at: str | None,
    by: str,
    stream_name: str | None,
    as_json: bool,
) -> int:
    """Read a view: a key's state, a ranking, a table; with --at as of a past time.

    Every partition is read at one instant; --json says which position that was. As of a time it is the fold
    of the log cut there: of what had occurred by then, or with --by appended of what had been appended.
    """
    when = as_of(at, by)
    with session(context) as found:
        projection = found.installed.projection(name)
        view = reader(found.holding(projection, stream_name), projection, when, tuple(context.obj or ()))
        if key is not None:
            return _state(view, key, when, as_json)
        if table_name is not None or not projection.rankings:
            _table(view, projection, table_name, top, when, as_json)
            return 0
        chosen = ranking or ("viral" if isinstance(projection, Clips) else projection.rankings[0].name)
        known = {spec.name: spec for spec in projection.rankings}
        if chosen not in known:
            raise click.UsageError(f"{name!r} has no ranking {chosen!r} (rankings: {', '.join(known)})")
        if part is not None and known[chosen].by is None:
            split = ", ".join(spec.name for spec in projection.rankings if spec.by is not None) or "none"
            raise click.UsageError(
                f"the ranking {chosen!r} of {name!r} has no parts (those that have: {split})"
            )
        answer = view.ranking(chosen, top, part)
        if as_json:
            print_json(
                {
                    "ranking": chosen,
                    "part": part,
                    **told_of(when),
                    "rows": answer.rows,
                    "positions": answer.positions,
                }
            )
        else:
            title = f"{name}: {chosen}" + (f" in {part}" if part else "")
            show_ranking(title_of(title, when), answer.rows, projection)
            _foot(answer.positions, when)
        return 0


def _foot(positions: Positions, when: AsOf | None) -> None:
    """A past answer says what it reflects; one of now would name positions that are old when they are read."""
    if when is not None:
        line(positions_told(positions), "dim")


def _state(reader: View[Any], key: str, when: AsOf | None, as_json: bool) -> int:
    state = reader.state(key)
    if state is None:
        what = f"the view {reader.projection.name!r} of {reader.stream.name!r}"
        if when is not None:
            raise ProjectionError(
                f"{what} had no {key!r} as of {when}. Nothing of it had happened by then, or it is spelt "
                "otherwise."
            )
        raise ProjectionError(f"{what} has no {key!r}. Is it consumed (status)?")
    positions = (
        {number: past.position for number, past in reader.pasts.items()}
        if isinstance(reader, PastView)
        else {}
    )
    if as_json:
        print_json(
            {"key": key, **told_of(when), "state": state, **({"positions": positions} if positions else {})}
        )
    else:
        line(title_of(harmless(key), when), "bold")
        for field, value in msgspec.to_builtins(state).items():
            line(f"  {field:<20} {harmless(str(value))}")
        _foot(positions, when)
    return 0


def _table(
    reader: View[Any],
    projection: Projection[Any],
    name: str | None,
    top: int,
    when: AsOf | None,
    as_json: bool,
) -> None:
    chosen = name or projection.table
    rows, positions = _rows(reader, projection, chosen)
    if as_json:
        print_json({"table": chosen, **told_of(when), "rows": rows, "positions": positions})
        return
    listed = list(rows.items())[:top]
    first = msgspec.to_builtins(listed[0][1]) if listed else {}
    columns = list(first) if isinstance(first, dict) else ["value~"]
    shown = []
    for key, row in listed:
        plain = msgspec.to_builtins(row)
        shown.append(
            [key, *(plain.get(column) for column in columns)]
            if isinstance(plain, dict)
            else [key, str(plain)]
        )
    table(title_of(f"{projection.name}: {chosen} ({len(rows):,} rows)", when), ["key", *columns], shown)
    _foot(positions, when)


def _rows(reader: View[Any], projection: Projection[Any], name: str) -> tuple[dict[str, Any], Positions]:
    if name == projection.table:
        answer = reader.states()
    elif any(name == spec.name for spec in projection.totals):
        answer = reader.totals(name)
    elif any(name == spec.name for spec in projection.rollups):
        answer = reader.rollup(name)
        if isinstance(projection, Clips):
            return {row: merged(parts) for row, parts in sorted(answer.rows.items())}, answer.positions
    elif any(name == spec.name for spec in projection.listings):
        found = reader.tables(name)
        rows = {
            row: msgspec.json.decode(raw)
            for _, (held,) in found.values()
            for row, raw in sorted(held.items())
            if "|" not in row
        }
        return rows, {number: cursor.position for number, (cursor, _) in found.items()}
    else:
        declared: list[Any] = [*projection.totals, *projection.rollups, *projection.listings]
        known = [projection.table, *(spec.name for spec in declared)]
        raise click.UsageError(f"{projection.name!r} has no table {name!r} (tables: {', '.join(known)})")
    return dict(sorted(answer.rows.items())), answer.positions


def show_ranking(title: str, rows: list[Ranked], projection: Projection[Any]) -> None:
    """A ranking for people; clips with what one wants to know of a clip."""
    if isinstance(projection, Clips):
        shown = [
            [
                place,
                row.key,
                row.state.title or "-",
                row.state.category,
                row.state.views,
                row.score,
                label(row.state, projection.settings),
            ]
            for place, row in enumerate(rows, start=1)
        ]
        unit = "views/min" if title.startswith(("clips: viral", "Viral")) else "score"
        table(title, ["#", "clip", "title~", "category~", "views", unit, ""], shown)
    else:
        table(
            title,
            ["#", "key", "score", "state~"],
            [[n, row.key, row.score, str(row.state)] for n, row in enumerate(rows, start=1)],
        )


def label(clip: Clip, settings: ClipSettings) -> str:
    """The platform's words for a viral clip."""
    if clip.viral_velocity is None:
        return ""
    return "exploding" if clip.viral_velocity >= settings.exploding_per_minute else "trending"
