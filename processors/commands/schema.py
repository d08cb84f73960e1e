"""aurastream schema: what events look like, for others, and whether today's types still read yesterday's."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from aurastream.processors import Installed, find_plugins, harmless, line, progress_bar, remark
from aurastream.processors import as_json as print_json
from aurastream.processors.commands.common import opened
from aurastream.processors.commands.options import json_option, stream_option_all
from aurastream.streams import list_streams
from aurastream.streams.archive import history_of
from aurastream.streams.schema import (
    Misread,
    SchemaChange,
    Survey,
    as_bytes,
    compare,
    json_schema,
    read_baseline,
    survey,
)

JSON_SCHEMA, ASYNCAPI = "json-schema", "asyncapi"
BREAKS = (
    "To keep old entries readable: undo the change, or raise the type's schema_version and declare an "
    "upcaster from the version before in the class: `upcasters = {1: from_1}`. If no such entry was ever "
    "appended, export a new baseline."
)


@click.group()
def schema() -> None:
    """Schemas of the installed event types: written for others, and compared with those of before.

    An export is JSON as it is; `check` has --json.
    """


@schema.command()
@click.option(
    "--format",
    "form",
    type=click.Choice([JSON_SCHEMA, ASYNCAPI]),
    default=JSON_SCHEMA,
    show_default=True,
    help="Which.",
)
@click.option(
    "--streams",
    "with_streams",
    is_flag=True,
    help="asyncapi: a channel for each registered stream; asks the server.",
)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Instead of stdout."
)
@click.pass_context
def export(context: click.Context, form: str, with_streams: bool, output: Path | None) -> None:
    """JSON Schema 2020-12 of every installed event type, or an AsyncAPI 3.0 document of streams and types.

    The same types give the same bytes, so the file can be committed; `aurastream schema check FILE` compares
    later types with it. Without --streams no server is asked.
    """
    if with_streams and form != ASYNCAPI:
        raise click.UsageError("--streams is of --format asyncapi; a JSON Schema names no streams")
    document = _document(context, form, with_streams=with_streams)
    if output is None:
        print_json(document)
        return
    output.write_bytes(as_bytes(document))
    types = document.get("$defs", document.get("components", {}).get("messages", ()))
    remark(f"{output}: {form} of {len(types)} event types")


def _document(context: click.Context, form: str, *, with_streams: bool) -> dict[str, Any]:
    if with_streams:
        with opened(context) as session:
            return _asyncapi(session.installed, list_streams(session.server))
    installed = find_plugins(context.obj or ())
    return json_schema(installed.events) if form == JSON_SCHEMA else _asyncapi(installed, None)


def _asyncapi(installed: Installed, streams: Any) -> dict[str, Any]:
    from aurastream.streams.schema import asyncapi

    return asyncapi(installed.events, streams, version=version("aurastream"))


@schema.command()
@click.argument("baseline", type=click.Path(path_type=Path), required=False)
@click.option(
    "--log",
    "with_log",
    is_flag=True,
    help="Decode every entry of every stream, archive included. The default without BASELINE.",
)
@stream_option_all
@json_option
@click.pass_context
def check(
    context: click.Context,
    baseline: Path | None,
    with_log: bool,
    stream_names: tuple[str, ...],
    as_json: bool,
) -> int:
    """Whether the installed types read what was written by those of BASELINE, a JSON Schema of `schema
    export`.

    Exit code 1 when an entry of before would not decode, or would mean something else, each change with a
    sentence; with --log, when an entry of a log does not decode. Entries that are damaged or of types not
    installed are counted, and fail nothing.
    """
    with_log = with_log or baseline is None
    if stream_names and not with_log:
        raise click.UsageError("--stream is of --log; a baseline names no streams")
    changes: list[SchemaChange] = []
    if baseline is not None:
        installed = find_plugins(context.obj or ())
        changes = compare(read_baseline(baseline.read_bytes()), installed.events)
    read = _read_logs(context, stream_names) if with_log else None
    breaking = [change for change in changes if change.is_breaking]
    compatible = not breaking and not (read and read.refused)
    if as_json:
        others = [change for change in changes if not change.is_breaking]
        print_json({"compatible": compatible, "breaking": breaking, "other": others, "log": read})
    else:
        _show(changes, read, baseline)
    return 0 if compatible else 1


def _read_logs(context: click.Context, stream_names: tuple[str, ...]) -> Survey:
    read = Survey()
    with opened(context) as session, progress_bar("entries decoded") as bar:
        for stream in session.streams(stream_names):
            if not stream.is_log_here:
                remark(f"{stream.name}: left out, its log is in Kafka")
                continue
            if stream.is_topic:
                remark(f"{stream.name}: left out, it has the messages of Faust apps, no events")
                continue
            survey(history_of(stream, session.settings), read, bar.to)
    return read


def _show(changes: list[SchemaChange], read: Survey | None, baseline: Path | None) -> None:
    breaking = [change for change in changes if change.is_breaking]
    for change in changes:
        verdict, style = ("breaks", "red") if change.is_breaking else ("fine", "dim")
        line(f"{verdict}: {harmless(change.sentence)}", style)
    if read is not None:
        _show_survey(read)
    if breaking:
        line(BREAKS)
        many = f"{len(breaking)} breaking change{'s' if len(breaking) > 1 else ''}"
        line(f"schema: {many} since {baseline}", "bold red")
    elif baseline is not None:
        line(f"schema: what {baseline} describes still decodes", "bold green")


def _show_survey(read: Survey) -> None:
    for tag, versions in sorted(read.decoded.items()):
        counts = ", ".join(f"{count:,} of version {number}" for number, count in sorted(versions.items()))
        line(f"{harmless(tag)}: {counts}", "dim")
    for tag, count in sorted(read.unknown.items()):
        line(f"{harmless(tag)}: {count:,} of a type that is not installed", "yellow")
    _show_unread("damaged", read.damaged, read.damaged_named)
    _show_unread("refused", read.refused, read.refused_named)
    decoded = sum(sum(versions.values()) for versions in read.decoded.values())
    rest = f"{read.refused:,} refused, {read.damaged:,} damaged"
    style = "bold red" if read.refused else "bold green"
    line(f"log: {decoded:,} of {read.entries:,} entries decode; {rest}", style)


def _show_unread(what: str, count: int, named: list[Misread]) -> None:
    """The first of the entries that do not decode, each with its reason, and how many more there are."""
    for item in named:
        line(f"{what}: {item.place}: {harmless(item.reason)}", "red")
    if count > len(named):
        line(f"{what}: {count - len(named):,} more", "red")
