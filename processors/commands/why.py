"""aurastream why: the events behind a value, and what each of them changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line, progress_bar
from aurastream.processors.commands.common import json_option, session, stream_option
from aurastream.processors.history import Tell, as_of, at_options, positions_told, title_of, told_of, warn
from aurastream.projections import Projection, ProjectionError
from aurastream.projections.past import AsOf, Inquiry, Step, Why, has_index
from aurastream.projections.past import why as explain
from aurastream.streams import Stream

DISAGREES = "the view and the log disagree"


@click.command()
@click.argument("view")
@click.argument("key")
@click.option(
    "--table",
    "table_name",
    metavar="T",
    help="A row of this table instead of the state; of a ranking the key's score.",
)
@click.option("--last", metavar="N", type=click.IntRange(1), help="Show only the last N events.")
@at_options
@stream_option
@json_option
@click.pass_context
def why(
    context: click.Context,
    view: str,
    key: str,
    table_name: str | None,
    last: int | None,
    at: str | None,
    by: str,
    stream_name: str | None,
    as_json: bool,
) -> int:
    """The events behind the value of KEY, and what each one changed.

    In the order of the log. States and rankings of subjects take no longer in a longer log, by the view
    `trail`; any other row folds all of it. The events are folded anew and compared with the view: exit code 1
    where the two disagree.
    """
    when = as_of(at, by)
    with session(context) as found:
        projection = found.installed.projection(view)
        stream = found.holding(projection, stream_name)
        with _reading() as tell:
            inquiry = Inquiry(found.history(stream), projection, key, table_name, when)
            inquiry.on_read = lambda entries: tell(0, entries)
            answer = explain(inquiry)
    if not answer.steps and answer.stored is None:
        raise ProjectionError(_nothing(stream, projection, key, table_name, when))
    shown = answer.steps[-last:] if last else answer.steps
    if as_json:
        print_json(_document(projection, stream, key, table_name, when, answer, shown))
    else:
        _show(projection, key, table_name, when, answer, shown)
    if answer.scanned and has_index(projection, table_name or projection.table):
        warn(
            f"{answer.scanned:,} entries were read one by one: `trail` has not come so far. Is it consumed "
            "(`aurastream status`)?"
        )
    return 1 if answer.agrees is False else 0


@contextmanager
def _reading() -> Iterator[Tell]:
    """How many entries were read so far, on stderr."""
    with progress_bar("entries read") as bar:
        yield lambda partition, entries: bar.by(entries)


def _nothing(
    stream: Stream, projection: Projection[Any], key: str, table_name: str | None, when: AsOf | None
) -> str:
    row = f"{key!r}" + (f" in {table_name}" if table_name else "")
    if when is not None:
        return f"no event of {stream.name!r} is behind {row} of the view {projection.name!r} as of {when}."
    what = f"the view {projection.name!r} of {stream.name!r}"
    return f"{what} has no {row}, and no event is behind it. Is it spelt right, and consumed (status)?"


def _document(
    projection: Projection[Any],
    stream: Stream,
    key: str,
    table_name: str | None,
    when: AsOf | None,
    answer: Why,
    shown: list[Step],
) -> dict[str, Any]:
    return {
        "view": projection.name,
        "stream": stream.name,
        "table": table_name or projection.table,
        "key": key,
        **told_of(when),
        "value": answer.value,
        "stored": answer.stored,
        "agrees": answer.agrees,
        "events": len(answer.steps),
        "steps": [_step(step) for step in shown],
        "positions": answer.positions,
        "read": answer.read,
        "scanned": answer.scanned,
    }


def _step(step: Step) -> dict[str, Any]:
    told = {
        name: getattr(step, name)
        for name in ("partition", "position", "occurred_at", "type", "event_id", "source")
    }
    changed = {field: {"before": before, "after": after} for field, (before, after) in step.changed.items()}
    return {**told, "changed": changed, "remark": step.remark}


def _show(
    projection: Projection[Any],
    key: str,
    table_name: str | None,
    when: AsOf | None,
    answer: Why,
    shown: list[Step],
) -> None:
    of = f" of {len(answer.steps):,}" if len(shown) < len(answer.steps) else ""
    title = (
        f"{projection.name}: why {harmless(key)}"
        + (f" in {table_name}" if table_name else "")
        + f" ({len(shown):,}{of} events)"
    )
    line(f"\n{title_of(title, when)}", "bold")
    for step in shown:
        place = f"{step.partition}/{step.position}"
        facts = (
            place,
            "" if step.occurred_at is None else _plain(step.occurred_at),
            step.type,
            step.event_id,
            step.source,
        )
        line(harmless("  ".join(fact for fact in facts if fact)))
        line(f"    {harmless(step.remark or _told(step))}", "dim" if step.remark else "")
    line("\nvalue", "bold")
    value = answer.value
    for name, held in value.items() if isinstance(value, dict) else [("", value)]:
        line(f"  {harmless(str(name)):<20} {harmless(_plain(held))}")
    line(positions_told(answer.positions), "dim")
    if answer.agrees:
        line("the view says the same", "green")
    elif answer.agrees is False:
        line(
            f"{DISAGREES}: it has {harmless(_plain(answer.stored), 400)}. Run `aurastream check`, then "
            "`aurastream rebuild`.",
            "bold red",
        )


def _told(step: Step) -> str:
    """The changes in a line, as in ``views 100 -> 150``; of a new row what it has."""
    if all(before is None for before, _ in step.changed.values()):
        return ", ".join(
            f"{name} {_plain(after)}"
            for name, (_, after) in step.changed.items()
            if after not in (None, "", 0, [], {})
        )
    return ", ".join(
        f"{name} {_plain(before)} -> {_plain(after)}" for name, (before, after) in step.changed.items()
    )


def _plain(value: Any) -> str:
    """Without the quotes of a text or a time."""
    return "-" if value is None else msgspec.json.encode(value).decode().strip('"')
