"""aurastream view: a leaderboard, a state, or any table of a view."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from aurastream.processors.commands.common import json_option, session, stream_option
from aurastream.processors.show import as_json as print_json
from aurastream.processors.show import harmless, line, table
from aurastream.projections import Projection, ProjectionError, Ranked, View
from aurastream.projections.clips import Clip, Clips, ClipSettings, merged
from aurastream.projections.reads import Positions


@click.command()
@click.argument("name")
@click.argument("key", required=False)
@click.option("--top", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many of a ranking or table.")
@click.option("--ranking", metavar="R", help="Which ranking; default: viral for clips, else the first.")
@click.option("--part", metavar="P", help="Only this part of a split ranking (a category).")
@click.option("--table", "table_name", metavar="T", help="A table of totals, roll-ups, states or lists instead.")
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
    stream_name: str | None,
    as_json: bool,
) -> int:
    """Read a view: a key's state, a ranking, a table.

    Every partition is read at one instant; --json says which position that was.
    """
    with session(context) as found:
        projection = found.installed.projection(name)
        stream = found.holding(projection, stream_name)
        reader = View(stream, projection)
        if key is not None:
            return _state(reader, key, as_json)
        if table_name is not None or not projection.rankings:
            _table(reader, projection, table_name, top, as_json)
            return 0
        chosen = ranking or ("viral" if isinstance(projection, Clips) else projection.rankings[0].name)
        known = {spec.name: spec for spec in projection.rankings}
        if chosen not in known:
            raise click.UsageError(f"{name!r} has no ranking {chosen!r} (rankings: {', '.join(known)})")
        if part is not None and known[chosen].by is None:
            split = ", ".join(spec.name for spec in projection.rankings if spec.by is not None) or "none"
            raise click.UsageError(f"the ranking {chosen!r} of {name!r} has no parts (those that have: {split})")
        answer = reader.ranking(chosen, top, part)
        if as_json:
            print_json({"ranking": chosen, "part": part, "rows": answer.rows, "positions": answer.positions})
        else:
            title = f"{name}: {chosen}" + (f" in {part}" if part else "")
            show_ranking(title, answer.rows, projection)
        return 0


def _state(reader: View[Any], key: str, as_json: bool) -> int:
    state = reader.state(key)
    if state is None:
        raise ProjectionError(f"the view {reader.projection.name!r} of {reader.stream.name!r} has no {key!r}. Is it consumed (status)?")
    if as_json:
        print_json({"key": key, "state": state})
    else:
        line(harmless(key), "bold")
        for field, value in msgspec.to_builtins(state).items():
            line(f"  {field:<20} {harmless(str(value))}")
    return 0


def _table(reader: View[Any], projection: Projection[Any], name: str | None, top: int, as_json: bool) -> None:
    chosen = name or projection.table
    rows, positions = _rows(reader, projection, chosen)
    if as_json:
        print_json({"table": chosen, "rows": rows, "positions": positions})
        return
    listed = list(rows.items())[:top]
    first = msgspec.to_builtins(listed[0][1]) if listed else {}
    columns = list(first) if isinstance(first, dict) else ["value~"]
    shown = []
    for key, row in listed:
        plain = msgspec.to_builtins(row)
        shown.append([key, *(plain.get(column) for column in columns)] if isinstance(plain, dict) else [key, str(plain)])
    table(f"{projection.name}: {chosen} ({len(rows):,} rows)", ["key", *columns], shown)


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
        rows = {row: msgspec.json.decode(raw) for _, (held,) in found.values() for row, raw in sorted(held.items()) if "|" not in row}
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
        table(title, ["#", "key", "score", "state~"], [[n, row.key, row.score, str(row.state)] for n, row in enumerate(rows, start=1)])


def label(clip: Clip, settings: ClipSettings) -> str:
    """The platform's words for a viral clip."""
    if clip.viral_velocity is None:
        return ""
    return "exploding" if clip.viral_velocity >= settings.exploding_per_minute else "trending"
