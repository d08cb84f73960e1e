"""
The reference pages, made from the code: `make docs` writes them, tests/docs/test_reference.py says whether
they are current.

    settings.md   every setting: type, default, bounds           events.md   every event type with its fields
    verbs.md      every verb with its options; the exit codes    metrics.md  every metric of /metrics
    keys.md       every key on the server                        names.md    what the public packages export

Nothing here is written by hand but the sentences at the top of a page. The same code gives the same bytes.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

import click
import msgspec
from prometheus_client.metrics import MetricWrapperBase

import aurastream.streams.keys as keys_module
from aurastream.processors import find_plugins
from aurastream.processors.commands import main as main_module
from aurastream.processors.commands.main import cli
from aurastream.processors.host.measures import Measures
from aurastream.projections.built_in.clips import ClipSettings
from aurastream.streams import Event, Keys, Settings

HERE = Path(__file__).parent
FACES = (
    "aurastream.streams",
    "aurastream.projections",
    "aurastream.processors",
    "aurastream.processors.effects",
)
MADE = "This page is made from the code by `make docs`."


def pages() -> dict[str, str]:
    """Name of the file -> its text."""
    makers: dict[str, Callable[[], Iterable[str]]] = {
        "settings.md": settings,
        "verbs.md": verbs,
        "events.md": events,
        "keys.md": keys,
        "metrics.md": metrics,
        "names.md": names,
    }
    return {name: "\n".join(make()).strip() + "\n" for name, make in makers.items()}


# Words and tables


def prose(text: str | None) -> str:
    """A docstring for Markdown: code marks once, wrapped lines joined, paragraphs kept, no module named."""
    plain = re.sub(r"\s\([\w/ ',]*(?:\.py|\.lua|archive/)\)", "", inspect.cleandoc(text or ""))
    joined = "\n\n".join(" ".join(part.split()) for part in plain.replace("``", "`").split("\n\n"))
    return "".join(
        part if index % 2 else part.replace("<", "&lt;")
        for index, part in enumerate(re.split("(`[^`]*`)", joined))
    )


def sentence(text: str | None) -> str:
    """The first paragraph's first sentence."""
    first = prose(text).partition("\n\n")[0]
    return re.split(r"(?<=[a-z0-9)`\]])\. (?=[A-Z`])", first)[0].rstrip(".:") + "." if first else ""


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"| {' | '.join('---' for _ in heads)} |"
    for row in rows:
        yield f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |"
    yield ""


# Settings


def settings() -> Iterator[str]:
    yield from ("# Settings", "", MADE, "")
    yield "A process reads its settings from the environment, once, before it opens a connection; what cannot"
    yield "be used is refused with a sentence and exit code 2."
    yield "An empty variable counts as not set."
    yield ""
    for kind in (Settings, ClipSettings):
        prefix = str(kind.model_config.get("env_prefix"))
        yield from (f"## {prefix}…", "", prose(kind.__doc__), "")
        yield from table(
            ("setting", "type", "default", "meaning"),
            (_setting(prefix, *item) for item in kind.model_fields.items()),
        )
    yield from ("## Others", "")
    yield from table(
        ("setting", "type", "default", "meaning"),
        [
            (
                "`AURASTREAM_HOME`",
                "path",
                "`$XDG_DATA_HOME/aurastream`, else `~/.local/share/aurastream`",
                "directory of the embedded server and its data",
            )
        ],
    )


def _setting(prefix: str, name: str, field: Any) -> tuple[str, ...]:
    default = field.default_factory() if field.default_factory else field.default
    value = getattr(default, "value", default)
    shown = "" if value in (None, "", {}) else f"`{value}`"
    return f"`{(prefix + name).upper()}`", _setting_type(field), shown, str(field.description or "")


def _setting_type(field: Any) -> str:
    text = str(field.annotation)
    kind = field.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(f"`{member.value}`" for member in kind)
    if "SecretStr" in text:
        return "text, never shown"
    word = {int: "integer", float: "number", str: "text"}.get(kind, "JSON object")
    bounds = {
        name: bound
        for part in field.metadata
        for name in ("ge", "gt", "le")
        if (bound := getattr(part, name, None)) is not None
    }
    return word + _bounds(bounds)


def _bounds(bounds: dict[str, Any]) -> str:
    if "gt" in bounds and "le" in bounds:
        return f" above {bounds['gt']:,}, to {bounds['le']:,}"
    if "ge" in bounds and "le" in bounds:
        return f" {bounds['ge']:,} to {bounds['le']:,}"
    return (
        f" above {bounds['gt']:,}" if "gt" in bounds else f" from {bounds['ge']:,}" if "ge" in bounds else ""
    )


# Verbs and exit codes


def verbs() -> Iterator[str]:
    yield from ("# Verbs and exit codes", "", MADE, "")
    yield "`aurastream [--app MODULE] VERB [OPTIONS]`. Every verb has `--help`. What goes wrong is one line"
    yield 'on stderr; with `--json` it is an object `{"error": {"type", "message"}}`.'
    yield from ("", "## Exit codes", "")
    yield from table(("code", "meaning"), exit_codes())
    context = click.Context(cli, info_name="aurastream")
    yield from ("## aurastream", "", prose(cli.help), "")
    yield from _options(cli, context)
    yield from _verbs_of(cli, context, 2)


def exit_codes() -> list[tuple[str, str]]:
    """As the command line's docstring says them."""
    told = re.search(r"Exit codes: (.*?)\. ", prose(main_module.__doc__))
    rows = re.findall(r"(\d+) ([^;]+)", told[1] if told else "")
    return [(f"`{code}`", meaning.strip()) for code, meaning in rows]


def _verb(command: click.Command, name: str, parent: click.Context, level: int) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent)
    yield from (f"{'#' * level} {context.command_path}", "")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield from (f"`{usage}`", "")
    for part in inspect.cleandoc(command.help or "").split("\n\n"):
        if "\b" in part:
            shown = part.replace("\b\n", "").strip("\n")
            yield from ("<!-- shown: as the help shows it -->", "```text", shown, "```", "")
        else:
            yield from (" ".join(part.split()), "")
    if command.epilog:
        yield from (prose(command.epilog), "")
    yield from _options(command, context)
    if isinstance(command, click.Group):
        yield from _verbs_of(command, context, level + 1)


def _verbs_of(group: click.Group, context: click.Context, level: int) -> Iterator[str]:
    for name in sorted(group.list_commands(context)):
        if inner := group.get_command(context, name):
            yield from _verb(inner, name, context, level)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    rows = [
        record
        for param in command.get_params(context)
        if param.name != "help" and (record := param.get_help_record(context))
    ]
    if rows:
        yield from table(
            ("option", "meaning"),
            ((f"`{' '.join(option.split())}`", " ".join(text.split())) for option, text in rows),
        )


# Events


def events() -> Iterator[str]:
    yield from ("# Events", "", MADE, "")
    yield "An event is one JSON object of the log. `type` is its name for ever; every event has the fields of"
    yield "the envelope, and its own. A field with a default may be absent. Times are ISO 8601 with an"
    yield from (
        "offset. `aurastream schema export` writes the same as JSON Schema.",
        "",
        "## The envelope",
        "",
    )
    yield from _fields(Event, frozenset())
    envelope = frozenset(field.name for field in msgspec.structs.fields(Event))
    for kind in sorted(find_plugins().events, key=lambda kind: str(kind.__struct_config__.tag)):
        yield from (f"## {kind.__struct_config__.tag}", "")
        yield f"Class `{kind.__name__}`, schema version {kind.schema_version}."
        yield from _fields(kind, envelope)
        if kind.personal:
            named = ", ".join(f"`{name}`" for name in kind.personal)
            yield from (f"Sealed under the key of `creator`: {named}.", "")


def _fields(kind: type[Event], but: frozenset[str]) -> Iterator[str]:
    """The docstring, what it says of single fields in a table with them."""
    info: Any = msgspec.inspect.type_info(kind)
    shown = [field for field in info.fields if field.name not in but]
    words = "|".join(field.name for field in info.fields)
    text = prose(kind.__doc__)
    heads = list(re.finditer(rf"(?:(?<=[.;:)]\s)|(?<=\n))((?:{words})(?:, (?:{words}))*): ", text))
    ends = [*(head.start() for head in heads), len(text)]
    meanings = {
        name: text[head.end() : end].strip(" ;\n").partition("\n\n")[0]
        for head, end in zip(heads, ends[1:], strict=True)
        for name in head[1].split(", ")
    }
    yield from (text[: ends[0]].strip(" ;\n"), "")
    of_envelope = [name for name in meanings if name in but]
    yield from (f"`{name}`: {meanings[name]}\n" for name in of_envelope)
    if shown:
        rows = (
            (f"`{field.name}`", _type(field.type), _default(field), meanings.get(field.name, ""))
            for field in shown
        )
        yield from table(("field", "type", "default", "meaning"), rows)
    if but == frozenset():
        rest = text[heads[-1].end() :].partition("\n\n")[2] if heads else ""
        yield from (rest, "")


def _default(field: msgspec.inspect.Field) -> str:
    return "required" if field.required else f"`{msgspec.json.encode(field.default).decode()}`"


def _type(kind: Any) -> str:
    """In words. kind: of msgspec.inspect."""
    told = type(kind).__name__.removesuffix("Type").lower()
    if isinstance(kind, msgspec.inspect.IntType):
        bounds = {name: bound for name in ("ge", "gt", "le") if (bound := getattr(kind, name)) is not None}
        told = "integer" + _bounds(bounds)
    elif isinstance(kind, msgspec.inspect.StrType):
        told = "text" + (f", at most {kind.max_length:,} characters" if kind.max_length else "")
        told += f" of the form `{kind.pattern}`" if kind.pattern else ""
    elif isinstance(kind, msgspec.inspect.VarTupleType | msgspec.inspect.ListType):
        told = f"list of {_type(kind.item_type)}"
    elif isinstance(kind, msgspec.inspect.UnionType):
        told = " or ".join(map(_type, kind.types))
    return {"datetime": "time with an offset", "none": "`null`"}.get(told, told)


# Keys


def keys() -> Iterator[str]:
    yield from ("# Keys on the server", "", MADE, "")
    yield "Everything AuraStream keeps is under `aura:`. Keys of a partition share the hash tag"
    yield "`{STREAM.PARTITION}`, so that one script may change them together, on one server and in a"
    yield "cluster alike."
    yield from (
        "No key has a time to live. Read what you like with any client; write none of it by hand.",
        "",
        "## Of a partition",
        "",
    )
    yield from table(("key", "content"), _partition_keys())
    yield from ("## Of the whole server", "")
    yield from table(("key", "content"), _server_keys())


def _partition_keys() -> Iterator[tuple[str, str]]:
    place = Keys("STREAM", 0)
    for name, member in vars(Keys).items():
        if name.startswith("_") or name == "where":
            continue
        if isinstance(member, property):
            yield _key(getattr(place, name)), prose(member.fget.__doc__)
        elif inspect.isfunction(member) and member.__doc__:
            words = [argument for argument in inspect.signature(member).parameters if argument != "self"]
            given = [1 if word == "generation" else word for word in words]
            yield _key(getattr(place, name)(*given), words), prose(member.__doc__)


def _key(key: str, words: Iterable[str] = ()) -> str:
    shown = key.replace("{STREAM.0}", "{STREAM.PARTITION}")
    head, tail = shown.split("}:", 1)
    parts = [
        word.upper() if word in words else "GENERATION" if word == "1" else word for word in tail.split(":")
    ]
    return f"`{head}}}:{':'.join(parts)}`"


def _server_keys() -> Iterator[tuple[str, str]]:
    source = inspect.getsource(keys_module)
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    for node in ast.parse(source).body:
        value = getattr(node, "value", None)
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if (
            not isinstance(target, ast.Name)
            or not isinstance(value, ast.Constant)
            or not str(value.value).startswith("aura:")
        ):
            continue
        lines = [
            number
            for number in (node.lineno - 1, *range(node.lineno, (node.end_lineno or node.lineno) + 1))
            if number in comments
        ]
        own = [number for number in lines if number >= node.lineno] or lines
        told = prose(comments[own[0]]) if own else ""
        yield f"`{value.value}`", told[:1].upper() + told[1:]
    yield "`aura:members:GROUP`", prose(keys_module.old_members_key.__doc__)


# Metrics


def metrics() -> Iterator[str]:
    yield from ("# Metrics", "", MADE, "")
    yield "A host shows them at `/metrics` in Prometheus' text format. Counters begin at 0 with the process;"
    yield "lag is asked of the server when somebody asks the host."
    yield ""
    registry = Measures().registry
    collectors = {
        id(found): found
        for found in registry._names_to_collectors.values()
        if isinstance(found, MetricWrapperBase)
    }
    yield from table(("metric", "kind", "labels", "meaning"), sorted(map(_metric, collectors.values())))


def _metric(metric: MetricWrapperBase) -> tuple[str, str, str, str]:
    name = metric._name + ("_total" if metric._type == "counter" else "")
    return (
        f"`{name}`",
        metric._type,
        ", ".join(f"`{label}`" for label in metric._labelnames),
        metric._documentation,
    )


# Names


def names() -> Iterator[str]:
    yield from ("# Public names", "", MADE, "")
    yield "These packages are the public ones; a module inside them is private to its package."
    yield ""
    for face in FACES:
        module = importlib.import_module(face)
        yield from (f"## {face}", "", sentence(module.__doc__), "")
        yield from table(
            ("name", "kind", "what it is"),
            (_name(name, getattr(module, name)) for name in sorted(module.__all__, key=str.lower)),
        )


def _name(name: str, what: Any) -> tuple[str, str, str]:
    if isinstance(what, type):
        kind = (
            "exception"
            if issubclass(what, BaseException)
            else "enumeration"
            if issubclass(what, Enum)
            else "class"
        )
        told = what.__doc__ if what.__doc__ and not what.__doc__.startswith(f"{name}(") else ""
        return f"`{name}`", kind, sentence(told)
    if inspect.isfunction(what):
        return f"`{name}`", "function", sentence(what.__doc__)
    if isinstance(what, (int, float, str, datetime)):
        return f"`{name}`", "constant", f"`{_value(what)}`"
    if isinstance(what, click.Command):
        return f"`{name}`", "option", ""
    return f"`{name}`", "value", _described(what)


def _value(what: Any) -> str:
    return f"{what:_}" if type(what) is int else str(what)


def _described(what: Any) -> str:
    if isinstance(what, Path):  # where it is differs from machine to machine
        return f"`{what.name}`"
    shown = what.pattern if isinstance(what, re.Pattern) else str(what)
    return f"`{shown}`" if len(shown) <= 60 and " at 0x" not in shown else ""


def write() -> None:
    """Write the pages that changed."""
    for name, text in pages().items():
        path = HERE / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


if __name__ == "__main__":
    write()
