"""aurastream why: the events behind a value, and what each of them changed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line, progress_bar, remark
from aurastream.processors.commands.common import opened
from aurastream.processors.commands.options import Keyed, into, json_option, stream_option
from aurastream.processors.commands.when import as_of, at_options, positions_told, title_of, told_of
from aurastream.projections import Projection, ProjectionError
from aurastream.projections.past import AsOf, Inquiry, Step, Why, has_index
from aurastream.projections.past import why as explain
from aurastream.streams import Stream

DISAGREES = "the view and the log disagree"
TRAIL_BEHIND = (
    "{:,} entries were read one by one: `trail` has not come so far. Is it consumed (`aurastream status`)?"
)


class WhyOptions(msgspec.Struct, frozen=True):
    """The command line."""

    view: str
    key: str
    table_name: str | None
    last: int | None
    at: datetime | None
    by: str
    stream_name: str | None
    as_json: bool


class Explained(msgspec.Struct, frozen=True):
    """A question and its answer. table: "" for the state. shown: the steps that are looked at."""

    stream: Stream
    projection: Projection[Any]
    key: str
    table: str
    when: AsOf | None
    answer: Why
    shown: list[Step]

    @property
    def is_trail_behind(self) -> bool:
        """Whether entries had to be read one by one although the view `trail` indexes them."""
        return bool(self.answer.scanned) and has_index(self.projection, self.table or self.projection.table)


@click.command(cls=Keyed)
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
@into(WhyOptions)
def why(context: click.Context, options: WhyOptions) -> int:
    """The events behind the value of KEY, and what each one changed.

    In the order of the log. States and rankings of subjects take no longer in a longer log, by the view
    `trail`; any other row folds all of it. The events are folded anew and compared with the view: exit code 1
    where the two disagree.
    """
    explained = _explained(context, options)
    if options.as_json:
        print_json(_document(explained))
    else:
        _show(explained)
    if explained.is_trail_behind:
        remark(TRAIL_BEHIND.format(explained.answer.scanned))
    return 1 if explained.answer.agrees is False else 0


def _explained(context: click.Context, options: WhyOptions) -> Explained:
    """The answer. Raises ProjectionError where no event and no row is there."""
    when = as_of(options.at, options.by)
    with opened(context) as session, progress_bar("entries read") as bar:
        projection = session.installed.projection(options.view)
        stream = session.holding(projection, options.stream_name)
        projection = session.recorded(stream, projection)
        inquiry = Inquiry(session.history(stream), projection, options.key, options.table_name, when)
        inquiry.on_read = bar.by
        answer = explain(inquiry)
    shown = answer.steps[-options.last :] if options.last else answer.steps
    explained = Explained(stream, projection, options.key, options.table_name or "", when, answer, shown)
    if not answer.steps and answer.stored is None:
        raise ProjectionError(_nothing(explained))
    return explained


def _nothing(explained: Explained) -> str:
    row = f"{explained.key!r}" + (f" in {explained.table}" if explained.table else "")
    view, stream = explained.projection.name, explained.stream.name
    if explained.when is not None:
        return f"no event of {stream!r} is behind {row} of the view {view!r} as of {explained.when}."
    what = f"the view {view!r} of {stream!r}"
    return f"{what} has no {row}, and no event is behind it. Is it spelt right, and consumed (status)?"


def _document(explained: Explained) -> dict[str, object]:
    answer = explained.answer
    return {
        "view": explained.projection.name,
        "stream": explained.stream.name,
        "table": explained.table or explained.projection.table,
        "key": explained.key,
        **told_of(explained.when),
        "value": answer.value,
        "stored": answer.stored,
        "agrees": answer.agrees,
        "events": len(answer.steps),
        "steps": [_plain_step(step) for step in explained.shown],
        "positions": answer.positions,
        "read": answer.read,
        "scanned": answer.scanned,
    }


def _plain_step(step: Step) -> dict[str, object]:
    changed = {field: {"before": before, "after": after} for field, (before, after) in step.changed.items()}
    return {**msgspec.structs.asdict(step), "changed": changed}


def _show(explained: Explained) -> None:
    answer, shown = explained.answer, explained.shown
    of = f" of {len(answer.steps):,}" if len(shown) < len(answer.steps) else ""
    table = f" in {explained.table}" if explained.table else ""
    what = f"{explained.projection.name}: why {harmless(explained.key)}{table} ({len(shown):,}{of} events)"
    line(f"\n{title_of(what, explained.when)}", "bold")
    for step in shown:
        _show_step(step)
    line("\nvalue", "bold")
    value = answer.value
    for name, held in value.items() if isinstance(value, dict) else [("", value)]:
        line(f"  {harmless(str(name)):<20} {harmless(_plain(held))}")
    line(positions_told(answer.positions), "dim")
    _show_verdict(answer)


def _show_verdict(answer: Why) -> None:
    if answer.agrees:
        line("the view says the same", "green")
    elif answer.agrees is False:
        stored = harmless(_plain(answer.stored), 400)
        line(f"{DISAGREES}: it has {stored}. Run `aurastream check`, then `aurastream rebuild`.", "bold red")


def _show_step(step: Step) -> None:
    moment = "" if step.occurred_at is None else _plain(step.occurred_at)
    facts = (f"{step.partition}/{step.position}", moment, step.type, step.event_id, step.source)
    line(harmless("  ".join(fact for fact in facts if fact)))
    line(f"    {harmless(step.remark or _changes(step))}", "dim" if step.remark else "")


def _changes(step: Step) -> str:
    """In a line, as in ``views 100 -> 150``; of a new row what it has."""
    if all(before is None for before, _ in step.changed.values()):
        return ", ".join(
            f"{name} {_plain(after)}"
            for name, (_, after) in step.changed.items()
            if after not in (None, "", 0, [], {})
        )
    return ", ".join(
        f"{name} {_plain(before)} -> {_plain(after)}" for name, (before, after) in step.changed.items()
    )


def _plain(value: object) -> str:
    """Without the quotes of a text or a time."""
    return "-" if value is None else msgspec.json.encode(value).decode().strip('"')
