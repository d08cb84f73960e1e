"""
A validator of JSON Schema 2020-12, as much of it as our exports use, and not a line of the product's.

    validate(value, schema, document) -> sentences, none when the value is valid

A keyword that is not known here raises: what an export says is either tested or refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

ANNOTATIONS = {
    "$schema",
    "$id",
    "$defs",
    "title",
    "description",
    "default",
    "discriminator",
    "x-schema-version",
    "x-personal",
}
TYPES: dict[str, Any] = {"string": str, "array": list, "object": dict, "boolean": bool, "null": type(None)}


def validate(value: Any, schema: Any, document: Any) -> list[str]:
    """document: the resource that #/$defs/.. of the schema mean."""
    return list(_faults(value, schema, document))


def _faults(value: Any, schema: Any, document: Any) -> Iterator[str]:
    if schema is True or schema is False:
        yield from () if schema else ("nothing is allowed here",)
        return
    for keyword, wanted in schema.items():
        if keyword in ANNOTATIONS:
            continue
        if keyword == "$ref":
            yield from _faults(value, document["$defs"][wanted.removeprefix("#/$defs/")], document)
        elif keyword == "anyOf":
            if not any(validate(value, option, document) == [] for option in wanted):
                yield f"{value!r} is none of {wanted}"
        elif keyword in ("properties", "additionalProperties", "items", "prefixItems", "propertyNames"):
            yield from _inner(value, schema, keyword, document)
        elif not _holds(value, keyword, wanted):
            yield f"{value!r} is not {keyword} {wanted!r}"


def _inner(value: Any, schema: Any, keyword: str, document: Any) -> Iterator[str]:
    part = schema[keyword]
    if keyword == "properties" and isinstance(value, dict):
        for name in value.keys() & part.keys():
            yield from _faults(value[name], part[name], document)
    elif keyword == "additionalProperties" and isinstance(value, dict):
        for name in value.keys() - schema.get("properties", {}).keys():
            yield from _faults(value[name], part, document)
    elif keyword == "propertyNames" and isinstance(value, dict):
        for name in value:
            yield from _faults(name, part, document)
    elif keyword == "prefixItems" and isinstance(value, list):
        for item, its in zip(value, part, strict=False):
            yield from _faults(item, its, document)
    elif keyword == "items" and isinstance(value, list):
        for item in value[len(schema.get("prefixItems", [])) :]:
            yield from _faults(item, part, document)


def _holds(value: Any, keyword: str, wanted: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    length = len(value) if isinstance(value, str | list | dict) else 0
    sized = {"Length": str, "Items": list, "Properties": dict}
    if keyword == "type":
        if wanted == "integer":
            return is_number and value == int(value)
        return is_number if wanted == "number" else isinstance(value, TYPES[wanted])
    if keyword in ("enum", "const"):
        listed = wanted if keyword == "enum" else [wanted]
        return any(type(value) is type(one) and value == one for one in listed)
    if keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"):
        return not is_number or _number_holds(value, keyword, wanted)
    for end, kind in sized.items():
        if keyword in (f"min{end}", f"max{end}"):
            return not isinstance(value, kind) or (
                length >= wanted if keyword.startswith("min") else length <= wanted
            )
    if keyword == "required":
        return not isinstance(value, dict) or set(wanted) <= value.keys()
    if keyword == "uniqueItems":
        return not isinstance(value, list) or len({repr(item) for item in value}) == len(value)
    if keyword == "pattern":
        return not isinstance(value, str) or re.search(wanted, value) is not None
    if keyword == "format":
        return not isinstance(value, str) or _format_holds(value, wanted)
    if keyword == "contentEncoding" and wanted == "base64":
        return not isinstance(value, str) or _is_base64(value)
    raise AssertionError(f"the validator does not know {keyword} {wanted!r}")


def _number_holds(value: float, keyword: str, wanted: float) -> bool:
    return {
        "minimum": value >= wanted,
        "maximum": value <= wanted,
        "exclusiveMinimum": value > wanted,
        "exclusiveMaximum": value < wanted,
        "multipleOf": value % wanted == 0 if wanted else True,
    }[keyword]


def _format_holds(text: str, name: str) -> bool:
    assert name == "date-time", f"the validator does not know the format {name!r}"
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    return True
