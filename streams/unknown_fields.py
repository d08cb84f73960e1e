"""
Fields of an event's JSON that its type does not have, at any depth: passed over by who reads, refused by who
appends.

    type, content -> [the object it stands in, its name, its path, the names there are]

Only msgspec's kinds of objects have names: structs, data classes, typed dicts. Of a union the member that the
content says it is (by its tag) is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from typing import NamedTuple, TypeAlias, TypeGuard

from msgspec import inspect as mi

from aurastream.streams.events import Event, Json

_Named: TypeAlias = mi.StructType | mi.DataclassType | mi.TypedDictType
_SHOWN_MAX = 40  # characters of a name in a sentence
_NEAR = 0.7  # of difflib's likeness: letters changed places, or one is missing


class UnknownField(NamedTuple):
    """One of them. holder: the object it stands in. path: of that, "" for the event. known: its fields."""

    holder: Json
    name: str
    path: str
    known: tuple[str, ...]

    def sentence(self, kind: str) -> str:
        """What is the matter, with the nearest name there is. kind: the event's type."""
        near = get_close_matches(self.name, self.known, 1, _NEAR)
        meant = f"did you mean `{near[0]}`?" if near else f"{kind} has {', '.join(self.known)}"
        return f"it has the unknown field `{f'{self.path}{self.name}'[:_SHOWN_MAX]}` ({meant})"


@cache
def _type_of(kind: type[Event]) -> mi.Type:
    return mi.type_info(kind)


@cache
def may_hide_fields(kind: type[Event]) -> bool:
    """Whether msgspec may read an event that has unknown ones: the type is open, or has objects within it."""
    described = _type_of(kind)
    if not isinstance(described, mi.StructType) or not described.forbid_unknown_fields:
        return True
    return any(_has_named(field.type) for field in described.fields)


def _has_named(info: mi.Type) -> bool:
    info = _bare(info)
    if isinstance(info, mi.StructType | mi.DataclassType | mi.TypedDictType | mi.NamedTupleType):
        return True
    if isinstance(info, mi.UnionType):
        return any(map(_has_named, info.types))
    if isinstance(info, mi.TupleType):
        return any(map(_has_named, info.item_types))
    if isinstance(info, mi.CollectionType):
        return _has_named(info.item_type)
    return isinstance(info, mi.DictType) and _has_named(info.value_type)


def unknown_fields(kind: type[Event], content: Json) -> list[UnknownField]:
    """In the order of the JSON."""
    return list(_within(_type_of(kind), content, ""))


def without_unknown_fields(kind: type[Event], content: Json) -> Json | None:
    """The content without them, changed in place; None where there is none."""
    unknown = unknown_fields(kind, content)
    for field in unknown:
        del field.holder[field.name]
    return content if unknown else None


def _within(info: mi.Type, value: object, path: str) -> Iterator[UnknownField]:
    info = _bare(info)
    if isinstance(info, mi.UnionType):
        for option in _options(info, value):
            yield from _within(option, value, path)
    elif isinstance(value, dict):
        yield from _of_object(info, value, path)
    elif isinstance(value, list):
        for index, (part, item) in enumerate(_items(info, value)):
            yield from _within(part, item, f"{path.removesuffix('.')}[{index}].")


def _of_object(info: mi.Type, value: Json, path: str) -> Iterator[UnknownField]:
    if isinstance(info, mi.DictType):
        for name, item in value.items():
            yield from _within(info.value_type, item, f"{path}{name}.")
    elif _is_named(info):
        fields = {field.encode_name: field.type for field in info.fields}
        tag = _tag_field(info)
        for name, item in value.items():
            if name in fields:
                yield from _within(fields[name], item, f"{path}{name}.")
            elif name != tag:
                yield UnknownField(value, name, path, tuple(fields))


def _items(info: mi.Type, value: list[object]) -> Iterator[tuple[mi.Type, object]]:
    if isinstance(info, mi.CollectionType):
        yield from ((info.item_type, item) for item in value)
    elif isinstance(info, mi.TupleType):
        yield from zip(info.item_types, value, strict=False)
    elif isinstance(info, mi.NamedTupleType):
        yield from zip([field.type for field in info.fields], value, strict=False)
    elif isinstance(info, mi.StructType) and info.array_like:
        is_tagged = info.tag_field is not None
        yield from zip([field.type for field in info.fields], value[is_tagged:], strict=False)


def _options(info: mi.UnionType, value: object) -> Iterator[mi.Type]:
    """What the value is meant to be: of several tagged ones, that of its tag."""
    for option in map(_bare, info.types):
        if not isinstance(option, mi.StructType) or option.tag_field is None:
            yield option
        elif isinstance(value, dict) and not option.array_like:
            if value.get(option.tag_field) == option.tag:
                yield option
        elif isinstance(value, list) and option.array_like and value[:1] == [option.tag]:
            yield option


def _bare(info: mi.Type) -> mi.Type:
    while isinstance(info, mi.Metadata):
        info = info.type
    return info


def _is_named(info: mi.Type) -> TypeGuard[_Named]:
    """Whether it is an object whose fields have names."""
    is_object = not (isinstance(info, mi.StructType) and info.array_like)
    return is_object and isinstance(info, mi.StructType | mi.DataclassType | mi.TypedDictType)


def _tag_field(info: _Named) -> str | None:
    return info.tag_field if isinstance(info, mi.StructType) else None
