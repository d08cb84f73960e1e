"""
Whether today's event types still read what the log may hold: today's JSON Schemas against an exported
baseline's.

    baseline document, today's types -> type by type: is every value of the old schema one of the new? ->
        SchemaChange, a sentence each

Old entries are what matters: a change breaks when an entry that the baseline's types wrote would no longer
decode, or would decode to something else: a field that is gone too, as readers pass over what they do not
know. What the new types write and hosts of before cannot read is told, and breaks nothing where hosts are
upgraded before producers. A type whose ``schema_version`` was raised is covered by its
upcasters, provided there is one for every step.

Always true: of a type without a breaking change, and of the same version, every entry written by the
baseline's type decodes, with equal values. Where that cannot be told from the schemas, the change counts as
breaking. What upcasters do with an old entry is not
in a schema: ``aurastream schema check --log`` reads the entries themselves.

Decision (2026-11): defaults are part of the contract, as a field at its default is left out of the entry: a
changed default would
silently change the past. Refused: comparing Python types, which other languages' producers and an older build
do not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from aurastream.streams import Event, StreamError
from aurastream.streams.schema.json_schema import DOCUMENT_ID, Schema, json_schema, tag_of
from aurastream.streams.schema.narrowing import Narrowing, narrowings

# New fields are passed over; what went or changed was said of the old entries.
_NO_WIDENING = {"field_removed", "required_added", "default_changed"}


class BaselineUnfit(StreamError):
    """The file given as a baseline is no exported document."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the baseline cannot be used: {reason}. Write one with `aurastream schema export --output FILE`."
        )


class SchemaChange(msgspec.Struct, frozen=True):
    """One difference between the baseline and today. field: its path, "" for the type itself. kind:
    type_removed, field_removed, ..
    """

    type: str
    field: str
    kind: str
    is_breaking: bool
    sentence: str


def _is_whole(schema: object) -> bool:
    """Whether that has all that is compared."""
    return (
        isinstance(schema, dict)
        and isinstance(schema.get("properties"), dict)
        and isinstance(schema.get("required"), list)
        and type(schema.get("x-schema-version")) is int
    )


def read_baseline(raw: bytes) -> dict[str, Schema]:
    """Type -> schema, of an exported document. Raises BaselineUnfit."""
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BaselineUnfit(f"it is no JSON ({error})") from error
    is_ours = isinstance(document, dict) and document.get("$id") == DOCUMENT_ID
    if not is_ours or not isinstance(document.get("$defs"), dict):
        raise BaselineUnfit(f"its $id is not {DOCUMENT_ID}")
    types: dict[str, Schema] = document["$defs"]
    for tag, schema in types.items():
        if not _is_whole(schema):
            raise BaselineUnfit(f"its type {tag!r} has no properties, required or x-schema-version")
    return types


def compare(
    baseline: Mapping[str, Schema], types: Iterable[type[Event]], upcasters: Iterable[tuple[str, int]] = ()
) -> list[SchemaChange]:
    """Every difference, by type. upcasters: (tag, version) of those that the types do not declare themselves.
    Raises BaselineUnfit.
    """
    kinds = {tag_of(kind): kind for kind in types}
    today: dict[str, Schema] = json_schema(kinds.values())["$defs"]
    steps = {*upcasters, *((tag, step) for tag, kind in kinds.items() for step in kind.upcasters)}
    changes: list[SchemaChange] = []
    for tag in sorted(baseline.keys() | kinds.keys()):
        if tag not in today:
            problem = (
                "it is no longer installed: its entries stay in the log and nobody reads them. Install the "
                "package that has it."
            )
            changes.append(_change(tag, ("type_removed", "", problem), True))
            continue
        missing = [step for step in range(1, kinds[tag].schema_version) if (tag, step) not in steps]
        if missing:
            without = ", ".join(map(str, missing))
            version = kinds[tag].schema_version
            problem = (
                f"it is at version {version} without an upcaster from {without}. Declare it in the class's "
                "`upcasters`."
            )
            changes.append(_change(tag, ("upcaster_missing", "", problem), True))
        if tag in baseline:
            try:
                changes += _of_type(tag, baseline[tag], today[tag], not missing)
            except (KeyError, TypeError, AttributeError, RecursionError) as error:  # a file may hold anything
                raise BaselineUnfit(
                    f"its schema of {tag!r} is none of ours ({type(error).__name__}: {error})"
                ) from error
        else:
            changes.append(_change(tag, ("type_added", "", "it is new."), False))
    return changes


def _change(tag: str, finding: Narrowing, is_breaking: bool) -> SchemaChange:
    kind, path, problem = finding
    return SchemaChange(tag, path, kind, is_breaking, f"{tag}{f', field {path}' if path else ''}: {problem}")


def _of_type(tag: str, old: Schema, new: Schema, has_upcasters: bool) -> Iterator[SchemaChange]:
    before, now = old["x-schema-version"], new["x-schema-version"]
    findings = list(narrowings(_without_version(old), _without_version(new)))
    if now < before:
        problem = (
            f"its version went back from {before} to {now}: entries of version {before} cannot be read. "
            "Versions only rise."
        )
        yield _change(tag, ("version_lowered", "", problem), True)
    if now > before and has_upcasters:
        covered = (
            f"version {before} became {now}; there are upcasters for every step. `schema check --log` tries "
            "them on real entries."
        )
        yield _change(tag, ("version_raised", "", covered), False)
        yield from (
            _change(tag, (kind, path, f"{problem} Upcasters cover it."), False)
            for kind, path, problem in findings
        )
    else:
        yield from (_change(tag, finding, True) for finding in findings)
    yield from (
        _change(tag, ("field_added", name, "it is new, and may be absent."), False)
        for name in _added(old, new)
    )
    if now == before:
        yield from (_change(tag, finding, False) for finding in _widened(old, new))


def _widened(old: Schema, new: Schema) -> Iterator[Narrowing]:
    """What the type allows now and hosts of before do not read: one finding a field."""
    wider = {
        path: kind
        for kind, path, _ in narrowings(_without_version(new), _without_version(old))
        if kind not in _NO_WIDENING
    }
    for path in wider:
        problem = (
            "it allows more now, and hosts of before set such events aside. Upgrade every host before a "
            "producer uses it, or raise schema_version, so that they wait."
        )
        yield "widened", path, problem


def _without_version(schema: Schema) -> Schema:
    """The version's own bound is what makes it another version, and no change of the content."""
    kept = {name: part for name, part in schema["properties"].items() if name != "version"}
    return {
        **schema,
        "properties": kept,
        "required": [name for name in schema["required"] if name != "version"],
    }


def _added(old: Schema, new: Schema) -> list[str]:
    required = set(new["required"])
    return [name for name in new["properties"] if name not in old["properties"] and name not in required]
