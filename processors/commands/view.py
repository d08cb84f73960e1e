"""aurastream view: a leaderboard, a state, or any table of a view, of now or as of a past time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line, table
from aurastream.processors.commands.common import opened
from aurastream.processors.commands.options import Keyed, into, json_option, stream_option
from aurastream.processors.commands.when import as_of, at_options, positions_told, title_of, told_of
from aurastream.projections import Projection, ProjectionError, Ranked, View
from aurastream.projections.engine import Positions
from aurastream.projections.past import AsOf, PastView


class ViewOptions(msgspec.Struct, frozen=True):
    """The command line."""

    name: str
    key: str | None
    top: int
    ranking: str | None
    part: str | None
    table_name: str | None
    at: datetime | None
    by: str
    stream_name: str | None
    as_json: bool


class Viewing(msgspec.Struct, frozen=True):
    """Who reads, and how the answer is shown."""

    view: View[Any]
    when: AsOf | None
    as_json: bool

    @property
    def projection(self) -> Projection[Any]:
        """The view's."""
        return self.view.projection

    def answer(self, content: Mapping[str, object]) -> None:
        """For programs."""
        first, *rest = content.items()
        print_json({**dict([first]), **told_of(self.when), **dict(rest)})

    def foot(self, positions: Positions) -> None:
        """A past answer says what it reflects; one of now would name positions that are old when read."""
        if self.when is not None:
            line(positions_told(positions), "dim")


@click.command(cls=Keyed)
@click.argument("name")
@click.argument("key", required=False)
@click.option(
    "--top",
    default=20,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="How many of a ranking or table.",
)
@click.option("--ranking", metavar="R", help="Which ranking; default: the view's headline.")
@click.option("--part", metavar="P", help="Only this part of a split ranking (a category).")
@click.option(
    "--table", "table_name", metavar="T", help="A table of totals, roll-ups, states or lists instead."
)
@at_options
@stream_option
@json_option
@into(ViewOptions)
def view(context: click.Context, options: ViewOptions) -> None:
    """Read a view: a key's state, a ranking, a table; with --at as of a past time.

    Every partition is read at one instant; --json says which position that was. As of a time it is the fold
    of the log cut there: of what had occurred by then, or with --by appended of what had been appended.
    """
    when = as_of(options.at, options.by)
    with opened(context) as session:
        projection = session.installed.projection(options.name)
        stream = session.holding(projection, options.stream_name)
        projection = session.recorded(stream, projection)
        viewing = Viewing(session.reader(stream, projection, when), when, options.as_json)
        _show(viewing, options)


def _show(viewing: Viewing, options: ViewOptions) -> None:
    projection = viewing.projection
    if options.key is not None:
        _show_state(viewing, options.key)
    elif options.table_name is not None or not projection.rankings:
        _show_table(viewing, options.table_name or projection.table, options.top)
    else:
        _show_ranking(viewing, _ranking_name(projection, options), options)


def _ranking_name(projection: Projection[Any], options: ViewOptions) -> str:
    """The ranking meant. Raises UsageError where there is none of that name, or it has no parts."""
    known = {spec.name: spec for spec in projection.rankings}
    default = projection.headline if projection.headline in known else projection.rankings[0].name
    name = options.ranking or default
    if name not in known:
        raise click.UsageError(f"{projection.name!r} has no ranking {name!r} (rankings: {', '.join(known)})")
    if options.part is not None and known[name].by is None:
        split = ", ".join(spec.name for spec in projection.rankings if spec.by is not None) or "none"
        raise click.UsageError(
            f"the ranking {name!r} of {projection.name!r} has no parts (those that have: {split})"
        )
    return name


def _show_ranking(viewing: Viewing, name: str, options: ViewOptions) -> None:
    projection, part = viewing.projection, options.part
    answer = viewing.view.ranking(name, options.top, part)
    if viewing.as_json:
        viewing.answer({"ranking": name, "part": part, "rows": answer.rows, "positions": answer.positions})
        return
    title = f"{projection.name}: {name}" + (f" in {part}" if part else "")
    show_ranking(projection, name, answer.rows, title_of(title, viewing.when))
    viewing.foot(answer.positions)


def show_ranking(projection: Projection[Any], name: str, rows: Sequence[Ranked], title: str) -> None:
    """A ranking for people: place, key, score, and what the projection shows of a state."""
    states = [projection.shown(row.state) for row in rows]
    columns = list(states[0]) if states else []
    shown = [
        [place, row.key, row.score, *(_plain(state.get(column)) for column in columns)]
        for place, (row, state) in enumerate(zip(rows, states, strict=True), start=1)
    ]
    table(title, ["#", "key", name, *(f"{column}~" for column in columns)], shown)


def _show_state(viewing: Viewing, key: str) -> None:
    state = viewing.view.state(key)
    if state is None:
        raise ProjectionError(_nothing(viewing, key))
    pasts = viewing.view.pasts if isinstance(viewing.view, PastView) else {}
    positions = {number: past.position for number, past in pasts.items()}
    if viewing.as_json:
        reflected = {"positions": positions} if positions else {}
        viewing.answer({"key": key, "state": state, **reflected})
        return
    line(title_of(harmless(key), viewing.when), "bold")
    for field, value in msgspec.to_builtins(state).items():
        line(f"  {field:<20} {harmless(str(value))}")
    viewing.foot(positions)


def _nothing(viewing: Viewing, key: str) -> str:
    what = f"the view {viewing.projection.name!r} of {viewing.view.stream.name!r}"
    if viewing.when is None:
        return f"{what} has no {key!r}. Is it consumed (status)?"
    why = "Nothing of it had happened by then, or it is spelt otherwise."
    return f"{what} had no {key!r} as of {viewing.when}. {why}"


def _show_table(viewing: Viewing, name: str, top: int) -> None:
    rows, positions = _rows(viewing.view, name)
    if viewing.as_json:
        viewing.answer({"table": name, "rows": rows, "positions": positions})
        return
    plain = {key: msgspec.to_builtins(row) for key, row in list(rows.items())[:top]}
    first = next(iter(plain.values()), None)
    columns = ["value"] if not isinstance(first, dict) else list(first)
    shown = [
        [key, *([row.get(column) for column in columns] if isinstance(row, dict) else [str(row)])]
        for key, row in plain.items()
    ]
    title = f"{viewing.projection.name}: {name} ({len(rows):,} rows)"
    table(title_of(title, viewing.when), ["key~", *(f"{column}~" for column in columns)], shown)
    viewing.foot(positions)


def _rows(view: View[Any], name: str) -> tuple[dict[str, Any], Positions]:
    """A table's rows, merged over the partitions, and what they reflect."""
    projection = view.projection
    names = [projection.table, *(declared.name for declared in projection.declared())]
    if name not in names:
        raise click.UsageError(f"{projection.name!r} has no table {name!r} (tables: {', '.join(names)})")
    answer = view.listed(name)
    return dict(sorted(answer.rows.items())), answer.positions


def _plain(value: object) -> object:
    """A number as it is, anything else as it is written."""
    if value is None or isinstance(value, int | float | str):
        return value
    return msgspec.to_builtins(value)
