"""
Streams and event types as an AsyncAPI 3.0 document, for catalogues, generators and people of other languages.

    channels    one per registered stream, or one whose address is the parameter {stream}
    operations  append_.. (send) and read_.. (receive), as a worker sees it
    messages    one per event type; payloads under components/schemas

Source: AsyncAPI 3.0.0, whose default schema format is a superset of JSON Schema draft 7: so the schemas of
json_schema.py are brought into that dialect (prefixItems, $defs, $id, discriminator). The document depends on
types and stream names only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from aurastream.streams import HERE, NAME, Event, StreamError, StreamFacts
from aurastream.streams.schema.json_schema import REF, Json, Schema, tag_of, type_schema

VERSION = "3.0.0"
COMPONENTS = "#/components/"
ANY_STREAM = "stream"
DESCRIPTION = (
    "Events of an AuraStream log on Redis Streams. An entry has two fields: `event`, the payload, and "
    "`crc32`, the decimal CRC-32 (zlib's) of its bytes. Append through AuraStream, which keeps an event ID "
    "single; a plain XADD is read, too."
)
STORY = {"description": "The story an event belongs to.", "location": "$message.payload#/correlation_id"}
_NOT_OURS = {"$id", "x-schema-version", "$defs"}


def asyncapi(
    types: Iterable[type[Event]], streams: Mapping[str, StreamFacts] | None = None, *, version: str
) -> Schema:
    """The document. streams: a channel for each; None: one for any. version: of the described application.

    Raises StreamError when two types or streams would have one name in it.
    """
    kinds = sorted(types, key=tag_of)
    names = {tag_of(kind): component_name(tag_of(kind)) for kind in kinds}
    channels = {ANY_STREAM: _any_channel(names)}
    if streams is not None:
        channels = {component_name(name): _channel(name, streams[name], names) for name in sorted(streams)}
    _refuse_doubles("event types", names.values())
    schemas: dict[str, Schema] = {}
    for kind in kinds:
        schemas |= _schemas(kind, names[tag_of(kind)])
    return {
        "asyncapi": VERSION,
        "info": {"title": "AuraStream events", "version": version, "description": DESCRIPTION},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": _operations(channels),
        "components": {
            "messages": {names[tag_of(kind)]: _message(kind, names[tag_of(kind)]) for kind in kinds},
            "schemas": dict(sorted(schemas.items())),
            "correlationIds": {"story": STORY},
        },
    }


def _refuse_doubles(what: str, names: Iterable[str]) -> None:
    listed = list(names)
    twice = sorted({name for name in listed if listed.count(name) > 1})
    if twice:
        raise StreamError(
            f"two {what} have the name {twice[0]!r} in AsyncAPI, whose keys allow A-Z a-z 0-9 . - _ only. "
            "Rename one."
        )


def _messages(names: Mapping[str, str]) -> Schema:
    return {name: {"$ref": f"{COMPONENTS}messages/{name}"} for name in sorted(names.values())}


def _channel(stream: str, facts: StreamFacts, names: Mapping[str, str]) -> Schema:
    where = (
        f"the Redis streams aura:{{{stream}.0}}:log to .{facts.partitions - 1}"
        if facts.log == HERE
        else f"{facts.log}"
    )
    replayed = " Its events were replayed from another stream." if facts.is_replay else ""
    return {
        "address": stream,
        "title": stream,
        "description": f"{facts.partitions} partitions, by subject; the log is in {where}.{replayed}",
        "messages": _messages(names),
    }


def _any_channel(names: Mapping[str, str]) -> Schema:
    return {
        "address": "{stream}",
        "title": "Any stream",
        "description": "A stream is some Redis streams aura:{<stream>.<partition>}:log; a subject's events "
        "are in one of them.",
        "parameters": {"stream": {"description": f"The stream's name: {NAME.pattern}"}},
        "messages": _messages(names),
    }


def _operations(channels: Schema) -> Schema:
    made: Schema = {}
    for name, channel in channels.items():
        messages = [{"$ref": f"#/channels/{name}/messages/{message}"} for message in channel["messages"]]
        for verb, action, summary in (
            ("append", "send", "Append events."),
            ("read", "receive", "Read events, in the order of the log."),
        ):
            made[f"{verb}_{name}"] = {
                "action": action,
                "channel": {"$ref": f"#/channels/{name}"},
                "summary": summary,
                "messages": messages,
            }
    return made


def _message(kind: type[Event], name: str) -> Schema:
    described = type_schema(kind).get("description", "")
    return {
        "name": tag_of(kind),
        "title": kind.__name__,
        **({"summary": described.split("\n")[0]} if described else {}),
        "contentType": "application/json",
        "correlationId": {"$ref": f"{COMPONENTS}correlationIds/story"},
        "payload": {"$ref": f"{COMPONENTS}schemas/{name}"},
        "x-schema-version": kind.schema_version,
    }


def _schemas(kind: type[Event], name: str) -> dict[str, Schema]:
    """The type's schema and those it refers to, by their names under components/schemas."""
    schema = type_schema(kind)
    made = {name: _draft_7({key: part for key, part in schema.items() if key not in _NOT_OURS}, name)}
    for inner, definition in schema.get("$defs", {}).items():
        made[f"{name}.{component_name(inner)}"] = _draft_7(definition, name)
    return made


def _draft_7(schema: Json, owner: str) -> Json:
    """The same in draft 7, as AsyncAPI reads it."""
    if isinstance(schema, list):
        return [_draft_7(part, owner) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:  # beside which draft 7 reads nothing
        return {"$ref": f"{COMPONENTS}schemas/{owner}.{component_name(schema['$ref'].removeprefix(REF))}"}
    return _keywords_in_draft_7(schema, owner)


def _keywords_in_draft_7(schema: Schema, owner: str) -> Schema:
    made = {
        key: part if key in ("default", "enum", "const", "properties") else _draft_7(part, owner)
        for key, part in schema.items()
    }
    if "properties" in made:  # whose keys are names of fields, whatever they spell
        made["properties"] = {field: _draft_7(part, owner) for field, part in made["properties"].items()}
    if "prefixItems" in made:
        rest = made.pop("items", None)
        made["items"] = made.pop("prefixItems")
        if rest is not None:
            made["additionalItems"] = rest
    if isinstance(made.get("discriminator"), dict):
        made["discriminator"] = made["discriminator"]["propertyName"]
    return made


def component_name(text: str) -> str:
    """As the keys of AsyncAPI's components may be; any other character is its code point."""
    return re.sub(r"[^A-Za-z0-9._-]", lambda match: f"-{ord(match[0]):x}-", text)
