"""
Event types as JSON Schema (2020-12): what an entry of the log may look like, for other languages and for
evolution.py to compare.

    event types -> msgspec's schema of each -> envelope, version, bounds of names added
        -> one document, the same bytes every time

The document holds a schema per type under $defs, each with an $id of its type and version; the document
itself accepts any of them. Always true: what the codec writes of today's version is valid by its type's
schema, and what is valid the codec reads. The document depends on nothing but the types, so it can be
committed and compared.

Formats and contentEncoding are to be asserted; times that may lack an offset, which the format date-time
demands, have a pattern. Beyond the standard's vocabulary: ``x-schema-version`` of a type; ``x-personal`` of a
field that is sealed under its creator's key (personal/keyring.py), whose stored text is longer than what is
appended.

Decision (2026-11): a schema per type and version that admits entries of that version only, with its bounds,
so that what other languages validate is what the codec reads. Refused: one schema for all versions of a type,
which admits what nobody ever wrote.
Decision (2026-11): the schemas are what a reader may rely on, so they are open: a newer producer's fields are
passed over, by the codec too. Refused: closed ones, with which a consumer elsewhere would refuse such events.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias
from urllib.parse import quote

import msgspec
from msgspec import inspect as mi

from aurastream.streams import IDENTIFIER, Event, StreamError

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DOCUMENT_ID = "urn:aurastream:events"
REF = "#/$defs/"
Json = Any  # what a document holds at a place; the dialect says what
Schema = dict[str, Json]

ENVELOPE = {
    "type": "The event's name in the log, for ever.",
    "event_id": "Its identity, the same on every delivery.",
    "subject": "The entity it is about, and the partition key: order holds within a subject.",
    "occurred_at": "Event time, with an offset; at most 24 h ahead of the server's clock.",
    "source": "The worker and instance that saw it.",
    "correlation_id": "The story it belongs to.",
    "causation_id": "The event that led to it.",
    "traceparent": "W3C Trace Context.",
    "version": "The schema version the entry was written in; absent means 1.",
}
_DATE, _TIME = (
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T",
    r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?",
)
_OFFSET = r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?"
_FIELDS = mi.StructType, mi.DataclassType, mi.TypedDictType, mi.NamedTupleType
_WithFields: TypeAlias = mi.StructType | mi.DataclassType | mi.TypedDictType | mi.NamedTupleType


def tag_of(kind: type[Event]) -> str:
    """The type's name in the log."""
    return str(kind.__struct_config__.tag)


def schema_id(tag: str, version: int) -> str:
    """The $id of a type's schema."""
    return f"urn:aurastream:event:{quote(tag, safe='.-_~')}:{version}"


def json_schema(types: Iterable[type[Event]]) -> Schema:
    """The document of all these types, sorted by name. Raises StreamError for a type that JSON Schema cannot
    express.
    """
    kinds = sorted(types, key=tag_of)
    return {
        "$schema": DIALECT,
        "$id": DOCUMENT_ID,
        "title": "Events",
        "description": "Every installed event type, as an entry's field `event` holds it. Written by "
        "`aurastream schema export`.",
        "oneOf": [{"$ref": schema_id(tag_of(kind), kind.schema_version)} for kind in kinds],
        "$defs": {tag_of(kind): type_schema(kind) for kind in kinds},
    }


def _unwrapped(docstring: str) -> str:
    """The text without the breaks that a source file's width makes; one before a field's name is meant."""
    return re.sub(r"(?<!\n)\n(?!\n|[a-z_, ]+: )", " ", inspect.cleandoc(docstring))


def type_schema(kind: type[Event]) -> Schema:
    """One type's schema, self-contained: the structs it is made of are under its own $defs."""
    tag = tag_of(kind)
    try:
        document = msgspec.json.decode(
            msgspec.json.encode(msgspec.json.schema(kind))
        )  # defaults as JSON has them
    except TypeError as error:
        raise StreamError(
            f"the event type {tag!r} has no JSON Schema ({error}). Use types that JSON holds as they are."
        ) from error
    definitions: dict[str, Schema] = document["$defs"]
    info = mi.multi_type_info([kind])[0]
    for definition in definitions.values():
        if "properties" in definition:  # who reads passes over fields it does not know
            definition.pop("additionalProperties", None)
    _mark_times(info, document, definitions, set())
    for name, cls in _named(info, document, definitions, {}).items():
        if "description" in definitions[name]:
            definitions[name]["description"] = _unwrapped(cls.__doc__ or "")
    name = document["$ref"].removeprefix(REF)
    # A type that refers to itself stays under its own $defs as well.
    own = dict(definitions[name]) if REF + name in _refs(definitions) else definitions.pop(name)
    made = {"$id": schema_id(tag, kind.schema_version), **own, "x-schema-version": kind.schema_version}
    made["properties"] = _with_envelope(own["properties"], kind.schema_version)
    for field in kind.personal:
        made["properties"][field]["x-personal"] = True
    made["required"] = [*own["required"], *(["version"] if kind.schema_version > 1 else [])]
    if definitions:
        made["$defs"] = dict(sorted(definitions.items()))
    return made


def _with_envelope(properties: dict[str, Schema], version: int) -> dict[str, Schema]:
    """The properties with what the codec checks beyond their types, and what they mean."""
    names = {"pattern": f"^{IDENTIFIER.pattern}$"}
    # Today's entries say their version unless it is 1, so an older entry is valid by its own version's schema
    # alone.
    stated: Schema = {"type": "integer", "const": version, **({"default": 1} if version == 1 else {})}
    more: dict[str, Schema] = {"event_id": names, "subject": names}
    return {
        name: {**(stated if name == "version" else schema), **more.get(name, {}), **_described(name)}
        for name, schema in properties.items()
    }


def _described(name: str) -> Schema:
    return {"description": ENVELOPE[name]} if name in ENVELOPE else {}


def _refs(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for part in schema.values():
            yield from _refs(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _refs(part)


def _field_parts(info: _WithFields, schema: Schema) -> Iterator[tuple[mi.Type, Schema]]:
    """The types of a struct's fields beside their schemas, by name or, of an array, by place."""
    is_tagged = isinstance(info, mi.StructType) and info.tag_field is not None
    types = [field.type for field in info.fields]
    if "properties" in schema:
        yield from zip(types, [schema["properties"][field.encode_name] for field in info.fields], strict=True)
    else:
        yield from zip(types, schema["prefixItems"][is_tagged:], strict=False)


def _parts(info: mi.Type, schema: Schema) -> Iterator[tuple[mi.Type, Schema]]:
    """The parts of a type beside the parts of its schema, as msgspec lays them out."""
    if isinstance(info, _FIELDS):
        yield from _field_parts(info, schema)
    elif isinstance(info, mi.CollectionType):
        yield info.item_type, schema.get("items", {})
    elif isinstance(info, mi.TupleType):
        yield from zip(info.item_types, schema.get("prefixItems", []), strict=True)
    elif isinstance(info, mi.DictType):
        yield info.value_type, schema.get("additionalProperties", {})
    elif isinstance(info, mi.UnionType):
        yield from _options(info, schema)


def _is_object(info: mi.Type) -> bool:
    """Whether it is a struct that is a JSON object."""
    return isinstance(info, mi.StructType) and not info.array_like


def _options(info: mi.UnionType, schema: Schema) -> Iterator[tuple[mi.Type, Schema]]:
    """A union's options: other types first, then structs (several of them in an anyOf of their own), then
    null.
    """
    structs = [part for part in info.types if _is_object(_bare(part))]
    others = [part for part in info.types if part not in structs and not isinstance(_bare(part), mi.NoneType)]
    options = schema["anyOf"]
    yield from zip(others, options, strict=False)
    if len(structs) > 1 and (others or len(info.types) > len(structs)):
        options = options[len(others)]["anyOf"]
    elif structs:
        options = options[len(others) :]
    yield from zip(structs, options, strict=False)


def _bare(info: mi.Type) -> mi.Type:
    while isinstance(info, mi.Metadata):
        info = info.type
    return info


def _named(
    info: mi.Type, schema: Schema, definitions: dict[str, Schema], classes: dict[str, type]
) -> dict[str, type]:
    """Name under $defs -> class."""
    info = _bare(info)
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(REF)
        if name in classes:
            return classes
        classes[name], schema = info.cls, definitions[name]  # type: ignore[attr-defined]
    for part, its_schema in _parts(info, schema):
        _named(part, its_schema, definitions, classes)
    return classes


def _mark_times(info: mi.Type, schema: Schema, definitions: dict[str, Schema], seen: set[str]) -> None:
    """Say of every time without an offset what msgspec's schema does not: that it is one."""
    info = _bare(info)
    if isinstance(info, mi.DateTimeType | mi.TimeType) and info.tz is not True:
        date = _DATE if isinstance(info, mi.DateTimeType) else ""
        schema["pattern"] = f"^{date}{_TIME}{'' if info.tz is False else _OFFSET}$"
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(REF)
        if name in seen:
            return
        seen.add(name)
        schema = definitions[name]
    for part, its_schema in _parts(info, schema):
        _mark_times(part, its_schema, definitions, seen)


def as_bytes(document: Schema) -> bytes:
    """The document as a file: indented, one newline at its end."""
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
