"""The exported schemas say what the codec says, to everybody, in the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aurastream.streams import (
    BUILT_IN,
    Codec,
    DamagedEntry,
    Event,
    StreamError,
    StreamFacts,
    UnknownEventVersion,
)
from aurastream.streams.schema.asyncapi import asyncapi
from aurastream.streams.schema.json_schema import as_bytes, json_schema, schema_id, tag_of, type_schema
from tests.streams.schema.shapes import Shape, event_of, event_type, shapes
from tests.streams.schema.validator import validate

GOLDEN = Path(__file__).parents[1] / "golden"
SAMPLES = {kind: (GOLDEN / f"{tag_of(kind)}.v{kind.schema_version}.json").read_bytes() for kind in BUILT_IN}


def decodes(kind: type[Event], raw: bytes) -> bool:
    try:
        return (
            Codec((kind,), {(tag_of(kind), n): dict for n in range(1, kind.schema_version)}).decode(raw)
            is not None
        )
    except (DamagedEntry, UnknownEventVersion):
        return False


@pytest.mark.parametrize("kind", BUILT_IN)
@pytest.mark.slow
def test_the_golden_entries_are_valid_by_their_schema_and_by_no_other(kind: type[Event]) -> None:
    """Other languages validate by these documents."""
    sample = json.loads(SAMPLES[kind])
    valid = [
        tag_of(other) for other in BUILT_IN if validate(sample, type_schema(other), type_schema(other)) == []
    ]
    assert valid == [tag_of(kind)]


@pytest.mark.parametrize("kind", BUILT_IN)
def test_what_the_codec_refuses_is_not_valid(kind: type[Event]) -> None:
    """Bounds and names are part of the schema, not only of our Python; newer producers' fields are valid."""
    sample, schema = json.loads(SAMPLES[kind]), type_schema(kind)
    changes: list[dict[str, Any]] = [
        {"more": 1},
        {"event_id": "a b"},
        {"subject": ""},
        {"occurred_at": "2026-04-15T12:00:00"},
        {"version": 7},
    ]
    changes += [
        {name: value}
        for name in schema["properties"]
        for value in (None, -1, 2**53, "x" * 6_000, [], "\x00")
        if name != "created_at"
    ]
    for change in changes:
        changed = {**sample, **change}
        assert decodes(kind, msgspec.json.encode(changed)) == (validate(changed, schema, schema) == []), (
            change
        )


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), shapes)
@pytest.mark.slow
def test_what_is_encoded_is_valid_and_what_is_valid_decodes(data: st.DataObject, shape: Shape) -> None:
    """Any struct's: nested, unions, defaults, every bound."""
    kind = event_type(shape)
    schema = type_schema(kind)
    raw = Codec((kind,)).encode(data.draw(event_of(shape, kind)))
    content = json.loads(raw)
    assert validate(content, schema, schema) == []

    name = data.draw(st.sampled_from(sorted(shape)))
    changed = {
        **content,
        name: data.draw(
            st.sampled_from(
                [None, -1, 51, 1.5, "abcd", "", True, [1, 2, 3], ["a"], {"a": 1}, {"type": "red"}]
            )
        ),
    }
    if validate(changed, schema, schema) == []:
        assert decodes(kind, json.dumps(changed).encode()), (changed, schema["properties"][name])


@pytest.mark.slow
def test_the_meta_schema_agrees() -> None:
    """The standard's own validator, where it is installed."""
    library = pytest.importorskip("jsonschema", reason="the package jsonschema is not installed")
    document = json_schema(BUILT_IN)

    library.Draft202012Validator.check_schema(document)

    validator = library.Draft202012Validator(
        document, format_checker=library.Draft202012Validator.FORMAT_CHECKER
    )
    for raw in SAMPLES.values():
        validator.validate({**json.loads(raw), "more": 1})
        with pytest.raises(library.ValidationError):
            validator.validate({**json.loads(raw), "event_id": "a b"})


class Tree(msgspec.Struct, frozen=True):
    """A part.

    leaves: with a docstring of several lines.
    """

    leaves: list[Tree] = []


class Grown(Event, frozen=True, kw_only=True, tag="test.grown"):
    schema_version = 2
    tree: Tree
    next: Grown | None = None


def test_types_within_types_keep_their_names_and_refer_within_their_own_schema() -> None:
    """Two types may each have an inner struct of one name."""
    schema = type_schema(Grown)

    assert schema["$id"] == schema_id("test.grown", 2)
    assert sorted(schema["$defs"]) == ["Grown", "Tree"]
    assert schema["$defs"]["Tree"]["description"] == "A part.\n\nleaves: with a docstring of several lines."
    entry = {
        "type": "test.grown",
        "event_id": "e",
        "subject": "s",
        "occurred_at": "2026-04-15T12:00:00Z",
        "version": 2,
    }
    assert validate({**entry, "tree": {"leaves": [{"leaves": []}]}}, schema, schema) == []
    assert validate({**entry, "tree": {"leaves": [{"leaves": 1}]}}, schema, schema) != []
    assert validate({**entry, "tree": {}, "version": 1}, schema, schema) != [], (
        "an entry of version 1 has a schema of its own"
    )


def test_a_type_that_json_cannot_express_is_named() -> None:
    """The person who wrote the type has to find it."""

    class Odd(Event, frozen=True, kw_only=True, tag="test.odd"):
        value: complex

    with pytest.raises(StreamError, match=r"test\.odd"):
        json_schema((Odd,))


def test_the_documents_are_the_same_bytes_in_any_order_of_types() -> None:
    """A file that changes when nothing did cannot be committed."""
    assert as_bytes(json_schema(BUILT_IN)) == as_bytes(json_schema(tuple(reversed(BUILT_IN))))
    streams = {"clips": StreamFacts(4), "imports": StreamFacts(1)}
    turned = dict(reversed(streams.items()))
    assert as_bytes(asyncapi(BUILT_IN, streams, version="1")) == as_bytes(
        asyncapi(BUILT_IN[::-1], turned, version="1")
    )


def refs_of(document: Any) -> list[str]:
    if isinstance(document, dict):
        own = [document["$ref"]] if isinstance(document.get("$ref"), str) else []
        return own + [ref for part in document.values() for ref in refs_of(part)]
    return [ref for part in document for ref in refs_of(part)] if isinstance(document, list) else []


class Place(msgspec.Struct, frozen=True):
    at: tuple[int, str]


class Spoken(Event, frozen=True, kw_only=True, tag="test/spoken: aloud"):
    """A name with characters that no key of AsyncAPI may have."""

    place: Place
    limits: Annotated[str, msgspec.Meta(max_length=3)] = ""


@pytest.mark.parametrize(
    "streams", [None, {"clips": StreamFacts(4), "kafka.topic": StreamFacts(2, log="kafka")}]
)
def test_an_asyncapi_document_is_whole(streams: Any) -> None:
    """Generators follow every reference."""
    document = asyncapi((*BUILT_IN, Spoken, Grown), streams, version="0.1.0")

    assert (document["asyncapi"], document["defaultContentType"]) == ("3.0.0", "application/json")
    assert [channel["address"] for channel in document["channels"].values()] == (
        ["{stream}"] if streams is None else ["clips", "kafka.topic"]
    )
    for ref in refs_of(document):
        place: Any = document
        for part in ref.removeprefix("#/").split("/"):
            place = place[part]
    messages = document["components"]["messages"]
    assert {message["name"] for message in messages.values()} == {
        tag_of(kind) for kind in (*BUILT_IN, Spoken, Grown)
    }
    location = document["components"]["correlationIds"]["story"]["location"].removeprefix(
        "$message.payload#/"
    )
    assert all(location in document["components"]["schemas"][name]["properties"] for name in messages)
    actions = sorted(
        (operation["action"], operation["channel"]["$ref"]) for operation in document["operations"].values()
    )
    assert actions == sorted(
        (action, f"#/channels/{name}") for name in document["channels"] for action in ("send", "receive")
    )
    for operation in document["operations"].values():
        assert len(operation["messages"]) == len(messages)


def test_the_schemas_of_asyncapi_are_draft_7() -> None:
    """AsyncAPI's default format: tuples are items and additionalItems, and nothing of 2020-12 is left."""
    schemas = asyncapi((*BUILT_IN, Spoken, Grown), version="1")["components"]["schemas"]

    text = json.dumps(schemas)
    assert not [word for word in ("prefixItems", "$defs", "$id", "unevaluated") if word in text]
    at = schemas["test-2f-spoken-3a--20-aloud.Place"]["properties"]["at"]
    assert (at["items"], at["additionalItems"]) == ([{"type": "integer"}, {"type": "string"}], False)


def test_two_types_that_asyncapi_cannot_tell_apart_are_refused() -> None:
    """One would silently stand for both."""

    class Twin(Event, frozen=True, kw_only=True, tag="test-2f-spoken-3a--20-aloud"):
        pass

    with pytest.raises(StreamError, match="Rename one"):
        asyncapi((Spoken, Twin), version="1")
