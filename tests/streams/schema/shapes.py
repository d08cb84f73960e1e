"""Random event types, with values for their fields: old ones, and what a person may make of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from hypothesis import strategies as st

from aurastream.streams import Event

TAG = "test.shape"
WHEN = datetime(2026, 4, 15, 12, tzinfo=UTC)
instants = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1))
short = st.text("abc", max_size=4)
keys = st.text("xyz", max_size=2)  # of dicts: no field has such a name
MAY_GO = {"b", "c"}  # fields of structs within, which pass over what they do not know


class Inner(msgspec.Struct, frozen=True, omit_defaults=True):
    a: int
    b: str = ""


class InnerMore(msgspec.Struct, frozen=True, omit_defaults=True):
    a: int
    b: str = ""
    c: int = 3


class InnerClosed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    a: int


class Red(msgspec.Struct, frozen=True, tag="red"):
    depth: int


class Blue(msgspec.Struct, frozen=True, tag="blue"):
    name: str


@dataclass(frozen=True)
class Field:
    """A type and its values. default: absent is required."""

    kind: Any
    values: st.SearchStrategy[Any]
    default: Any = ...


def bounded(kind: type, values: Any, **bounds: Any) -> Field:
    return Field(Annotated[kind, msgspec.Meta(**bounds)], values)


# Few enough that two draws are often near each other, and together every kind of thing that msgspec writes
# into a schema.
FIELDS = [
    Field(int, st.integers(-(2**31), 2**31)),
    bounded(int, st.integers(0, 50), ge=0, le=50),
    bounded(int, st.integers(0, 99), ge=0, le=99),
    bounded(int, st.integers(1, 49), gt=0, lt=50),
    bounded(int, st.integers(0, 9).map(lambda n: 6 * n), multiple_of=6),
    bounded(int, st.integers(0, 9).map(lambda n: 3 * n), multiple_of=3),
    Field(float, st.floats(-5, 5)),
    bounded(float, st.floats(0, 5), ge=0),
    bounded(float, st.floats(0, 5, exclude_min=True), gt=0),
    Field(bool, st.booleans()),
    Field(str, short),
    bounded(str, st.text("abc", max_size=2), max_length=2),
    bounded(str, st.text("abc", min_size=1, max_size=4), min_length=1),
    bounded(str, st.text("ab", max_size=4), pattern="^[ab]*$"),
    Field(bytes, st.binary(max_size=4)),
    bounded(datetime, instants.map(lambda at: at.replace(tzinfo=UTC)), tz=True),
    bounded(datetime, instants, tz=False),
    Field(datetime, instants),
    Field(Literal["a", "b"], st.sampled_from("ab")),
    Field(Literal["a", "b", "c"], st.sampled_from("abc")),
    Field(Literal[1, 2], st.sampled_from((1, 2))),
    Field(list[int], st.lists(st.integers(0, 9), max_size=3)),
    bounded(list[int], st.lists(st.integers(0, 9), max_size=2), max_length=2),
    Field(list[str], st.lists(short, max_size=3)),
    Field(tuple[int, str], st.tuples(st.integers(0, 9), short)),
    Field(tuple[int, ...], st.lists(st.integers(0, 9), max_size=3).map(tuple)),
    Field(frozenset[int], st.frozensets(st.integers(0, 9), max_size=3)),
    Field(dict[str, int], st.dictionaries(keys, st.integers(0, 9), max_size=2)),
    Field(dict[str, Any], st.dictionaries(keys, short, max_size=2)),
    bounded(dict[str, int], st.dictionaries(keys, st.integers(0, 9), max_size=1), max_length=1),
    Field(Any, st.integers(0, 9) | short),
    Field(int | None, st.none() | st.integers(0, 9)),
    Field(str | None, st.none() | short),
    Field(int | str, st.integers(0, 9) | short),
    Field(Inner, st.builds(Inner, a=st.integers(0, 9), b=short)),
    Field(InnerMore, st.builds(InnerMore, a=st.integers(0, 9), c=st.integers(0, 9))),
    Field(InnerClosed, st.builds(InnerClosed, a=st.integers(0, 9))),
    Field(list[Inner], st.lists(st.builds(Inner, a=st.integers(0, 9)), max_size=2)),
    Field(Red | Blue, st.builds(Red, depth=st.integers(0, 9)) | st.builds(Blue, name=short)),
    Field(Red, st.builds(Red, depth=st.integers(0, 9))),
    Field(Red | Blue | None, st.none() | st.builds(Red, depth=st.integers(0, 9))),
]

Shape = dict[str, Field]


@st.composite
def fields(draw: Any) -> Field:
    """A field, with a default or without."""
    field = draw(st.sampled_from(FIELDS))
    if draw(st.booleans()):
        default = draw(field.values)
        is_immutable = not isinstance(default, list | dict) or not default
        return replace(field, default=default) if is_immutable else field
    return field


shapes = st.dictionaries(st.sampled_from(["one", "two", "three"]), fields(), min_size=1)


@st.composite
def successors(draw: Any, shape: Shape) -> Shape:
    """What became of a shape: one or two fields dropped, added, retyped, given or losing a default."""
    new = dict(shape)
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(["one", "two", "three", "four"]))
        act = draw(st.sampled_from(["drop", "put", "retype", "default", "require", "reorder"]))
        if act == "drop":
            new.pop(name, None)
        elif act in ("put", "retype"):
            new[name] = draw(fields())
        elif name in new and act == "default":
            default = draw(new[name].values)
            if not isinstance(default, list | dict) or not default:
                new[name] = replace(new[name], default=default)
        elif name in new and act == "require":
            new[name] = replace(new[name], default=...)
        else:
            new = dict(reversed(new.items()))
    return new


def event_type(shape: Shape, *, version: int = 1, **options: Any) -> type[Event]:
    """The class."""
    listed = [
        (name, field.kind) if field.default is ... else (name, field.kind, field.default)
        for name, field in shape.items()
    ]
    return msgspec.defstruct(
        "Shaped",
        listed,
        bases=(Event,),
        frozen=True,
        kw_only=True,
        tag=TAG,
        namespace={"schema_version": version},
        **options,
    )


@st.composite
def event_of(draw: Any, shape: Shape, kind: type[Event]) -> Event:
    """An event; fields that have a default are often left at it."""
    given = {
        name: draw(field.values)
        for name, field in shape.items()
        if field.default is ... or draw(st.booleans())
    }
    return kind(event_id="e", subject="s", occurred_at=WHEN, **given)
