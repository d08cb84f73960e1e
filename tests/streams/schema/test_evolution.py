"""`schema check`: what breaks old entries is found, and what is called compatible reads them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aurastream.streams import BUILT_IN, Codec, Event
from aurastream.streams.schema.evolution import BaselineUnfit, SchemaChange, compare, read_baseline
from aurastream.streams.schema.json_schema import as_bytes, json_schema
from tests.streams.schema.shapes import MAY_GO, TAG, Shape, event_of, event_type, shapes, successors

GOLDEN = Path(__file__).parents[1] / "golden" / "schema.json"
RENEW = "aurastream schema export --output tests/streams/golden/schema.json"
ENVELOPE = {"event_id": "e", "subject": "s", "occurred_at": "2026-04-15T12:00:00Z"}


def baseline(*types: type[Event]) -> dict[str, Any]:
    return read_baseline(as_bytes(json_schema(types)))


def test_the_built_in_types_read_what_the_committed_baseline_describes() -> None:
    """Entries of every released build decode for ever: a change that breaks one fails here."""
    assert [
        change.sentence
        for change in compare(read_baseline(GOLDEN.read_bytes()), BUILT_IN, [])
        if change.is_breaking
    ] == []


def test_the_committed_baseline_is_current() -> None:
    """Changes are compared with it: an old one would blame the wrong change."""
    assert GOLDEN.read_bytes() == as_bytes(json_schema(BUILT_IN)), (
        f"the event types changed; if the test above passes, run: {RENEW}"
    )


def plain(event: Event) -> dict[str, Any]:
    """As JSON has it: what another language would see."""
    found: dict[str, Any] = msgspec.json.decode(
        msgspec.json.encode({name: getattr(event, name) for name in event.__struct_fields__})
    )
    return found


def filled(value: Any, other: Any) -> bool:
    """Whether the other says the same: a struct may have got more fields with defaults, and an open one may
    have lost some.
    """
    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() - other.keys() <= MAY_GO and all(
            filled(value[name], other[name]) for name in value.keys() & other.keys()
        )
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(filled, value, other))
    return bool(value == other)


SEARCH = settings(deadline=None, max_examples=400, suppress_health_check=list(HealthCheck))


@SEARCH
@given(st.data(), shapes)
@pytest.mark.slow
def test_what_is_called_compatible_decodes_with_equal_values(data: st.DataObject, shape: Shape) -> None:
    """Any two types of one name: no breaking change means that every old entry reads as it was."""
    old = event_type(shape)
    later = data.draw(successors(shape))
    new = event_type(later, forbid_unknown_fields=data.draw(st.sampled_from([True, True, False])))
    if any(change.is_breaking for change in compare(baseline(old), [new], [])):
        return
    written = data.draw(event_of(shape, old))

    read = Codec((new,)).decode(Codec((old,)).encode(written))

    before, after = plain(written), plain(read)
    assert {name for name in before if name not in after} <= shape.keys() - later.keys()
    assert all(filled(before[name], after[name]) for name in before.keys() & after.keys()), (before, after)


@SEARCH
@given(shapes)
@pytest.mark.slow
def test_a_type_is_compatible_with_itself(shape: Shape) -> None:
    """The other way round: what does not change is never called breaking."""
    assert compare(baseline(event_type(shape)), [event_type(dict(reversed(shape.items())))], []) == []


def breaks(old: type[Event], new: type[Event], upcasters: Any = ()) -> list[SchemaChange]:
    return [change for change in compare(baseline(old), [new], upcasters) if change.is_breaking]


def typed(**fields: Any) -> type[Event]:
    """A type with these fields; (type, default) gives a default."""
    listed: list[Any] = [
        (name, *kind) if isinstance(kind, tuple) else (name, kind) for name, kind in fields.items()
    ]
    return msgspec.defstruct("Made", listed, bases=(Event,), frozen=True, kw_only=True, tag=TAG)


def at_most(kind: Any, **bounds: Any) -> Any:
    return Annotated[kind, msgspec.Meta(**bounds)]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int
    unit: str = "m"


class Smaller(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int


class Open(msgspec.Struct, frozen=True):
    size: int


class Other(msgspec.Struct, frozen=True):
    width: int = 0


# What was, what is, the kind of finding, the field it names, and the values of an old entry that no longer
# reads.
PLANTED: list[tuple[dict[str, Any], dict[str, Any], str, str, dict[str, Any]]] = [
    ({"a": int}, {"a": int, "b": str}, "required_added", "b", {"a": 1}),
    ({"a": (int, 1)}, {"a": int}, "default_removed", "a", {}),
    ({"a": float}, {"a": int}, "type_narrowed", "a", {"a": 1.5}),
    ({"a": int | None}, {"a": int}, "type_narrowed", "a", {"a": None}),
    ({"a": int | str}, {"a": str}, "type_narrowed", "a", {"a": 1}),
    ({"a": str}, {"a": list[str]}, "type_narrowed", "a", {"a": "x"}),
    ({"a": list[str]}, {"a": list[int]}, "type_narrowed", "a[]", {"a": ["x"]}),
    (
        {"a": at_most(tuple[int, ...], max_length=2)},
        {"a": tuple[int, int]},
        "bound_tightened",
        "a",
        {"a": [1]},
    ),
    ({"a": tuple[int, str]}, {"a": tuple[int, int]}, "type_narrowed", "a[1]", {"a": [1, "x"]}),
    ({"a": dict[str, str]}, {"a": dict[str, int]}, "type_narrowed", "a[*]", {"a": {"k": "x"}}),
    ({"a": int}, {"a": at_most(int, ge=0)}, "bound_tightened", "a", {"a": -1}),
    ({"a": at_most(int, le=9)}, {"a": at_most(int, lt=9)}, "bound_tightened", "a", {"a": 9}),
    (
        {"a": at_most(str, max_length=9)},
        {"a": at_most(str, max_length=3)},
        "bound_tightened",
        "a",
        {"a": "xxxx"},
    ),
    ({"a": str}, {"a": at_most(str, min_length=1)}, "bound_tightened", "a", {"a": ""}),
    ({"a": list[int]}, {"a": at_most(list[int], max_length=1)}, "bound_tightened", "a", {"a": [1, 2]}),
    (
        {"a": at_most(int, multiple_of=3)},
        {"a": at_most(int, multiple_of=2)},
        "bound_tightened",
        "a",
        {"a": 3},
    ),
    ({"a": Literal["x", "y"]}, {"a": Literal["x"]}, "enum_narrowed", "a", {"a": "y"}),
    ({"a": str}, {"a": Literal["x"]}, "enum_narrowed", "a", {"a": "y"}),
    ({"a": str}, {"a": at_most(str, pattern="^x")}, "pattern_tightened", "a", {"a": "y"}),
    ({"a": str}, {"a": bytes}, "contentencoding_tightened", "a", {"a": "y"}),
]


@pytest.mark.parametrize(("was", "now", "kind", "field", "entry"), PLANTED)
def test_every_kind_of_breaking_change_is_found_and_breaks(
    was: dict[str, Any], now: dict[str, Any], kind: str, field: str, entry: dict[str, Any]
) -> None:
    """Old entries stay in the log for ever."""
    old, new = typed(**was), typed(**now)
    raw = json.dumps({"type": TAG, **ENVELOPE, **entry}).encode()
    assert Codec((old,)).decode(raw) is not None, "the entry was one"
    with pytest.raises(Exception, match="cannot be used"):
        Codec((new,)).decode(raw)

    found = breaks(old, new)

    assert [(change.kind, change.field) for change in found] == [(kind, field)]
    assert found[0].sentence.startswith(f"{TAG}, field {field}: ")


@pytest.mark.parametrize(
    ("was", "now", "field"),
    [
        ({"a": int, "b": (str, "")}, {"a": int}, "b"),
        ({"a": int, "b": (str, "")}, {"a": int, "c": (str, "")}, "b"),
        ({"a": Part}, {"a": Smaller}, "a.unit"),
        ({"a": Open}, {"a": Other}, "a.size"),
        ({"a": list[Part]}, {"a": list[Smaller]}, "a[].unit"),
    ],
)
def test_a_field_that_is_gone_breaks_although_its_entries_are_read(
    was: dict[str, Any], now: dict[str, Any], field: str
) -> None:
    """Readers pass over what they do not know, so a field that was renamed would fall silent."""
    assert [(change.kind, change.field) for change in breaks(typed(**was), typed(**now))] == [
        ("field_removed", field)
    ]


@pytest.mark.parametrize(
    ("was", "now", "field"),
    [
        ({"a": Literal["x"]}, {"a": Literal["x", "y"]}, "a"),
        ({"a": int}, {"a": int | None}, "a"),
        ({"a": int}, {"a": (int, 5)}, "a"),
        ({"a": at_most(str, max_length=3)}, {"a": at_most(str, max_length=9)}, "a"),
    ],
)
def test_what_hosts_of_before_cannot_read_is_said(
    was: dict[str, Any], now: dict[str, Any], field: str
) -> None:
    """It is safe where every host is upgraded before the first producer; who rolls out must know it."""
    (told,) = compare(baseline(typed(**was)), [typed(**now)], [])

    assert (told.kind, told.field, told.is_breaking) == ("widened", field, False)
    assert "Upgrade every host before" in told.sentence


def test_what_hosts_of_before_pass_over_is_no_widening() -> None:
    """A new field with a default is the everyday change: a warning at each would be read by nobody."""
    changes = compare(baseline(typed(a=Smaller)), [typed(a=Part, b=(str, ""))], [])

    assert [(change.kind, change.field) for change in changes] == [("field_added", "b")]


def test_a_changed_default_would_change_the_past() -> None:
    """Entries at the default do not have the field: nothing fails to decode, and everything says something
    else.
    """
    (found,) = breaks(typed(a=(int, 1)), typed(a=(int, 2)))

    assert (found.kind, found.field) == ("default_changed", "a")
    assert breaks(
        typed(a=(list[int], msgspec.field(default_factory=list))),
        typed(a=(list[int], msgspec.field(default_factory=lambda: [1]))),
    )


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ({"a": int}, {"a": float}),
        ({"a": int}, {"a": int | None}),
        ({"a": int}, {"a": (int, 5)}),
        ({"a": int}, {"a": int, "b": (str, "")}),
        ({"a": at_most(int, ge=0)}, {"a": int}),
        ({"a": at_most(int, gt=0)}, {"a": at_most(int, ge=0)}),
        ({"a": Literal["x"]}, {"a": str}),
        ({"a": Literal["x"]}, {"a": Literal["x", "y"]}),
        ({"a": at_most(str, max_length=3)}, {"a": at_most(str, max_length=9)}),
        ({"a": tuple[int, int]}, {"a": list[int]}),
        ({"a": Smaller}, {"a": Part}),
        ({"a": Part}, {"a": dict[str, Any]}),
        ({"a": int}, {"a": Any}),
        ({"a": at_most(int, multiple_of=6)}, {"a": at_most(int, multiple_of=3)}),
        ({"a": bytes}, {"a": str}),
    ],
)
def test_what_widens_is_allowed(was: dict[str, Any], now: dict[str, Any]) -> None:
    """A check that refuses what is safe is switched off."""
    assert breaks(typed(**was), typed(**now)) == []


def versioned(version: int, **fields: Any) -> type[Event]:
    made = typed(**fields)
    made.schema_version = version
    return made


def test_a_raised_version_is_covered_by_upcasters_for_every_step() -> None:
    """One missing step, and entries of that version stop every lane."""
    old, new = versioned(1, a=int), versioned(3, b=str)
    assert [change.kind for change in breaks(old, new)] == [
        "upcaster_missing",
        "field_removed",
        "required_added",
    ]
    assert next(change.kind for change in breaks(old, new, [(TAG, 1)])) == "upcaster_missing"

    changes = compare(baseline(old), [new], [(TAG, 1), (TAG, 2)])

    assert not [change for change in changes if change.is_breaking]
    assert [change.kind for change in changes] == ["version_raised", "field_removed", "required_added"], (
        "what they cover is told"
    )


def test_a_version_that_goes_back_is_breaking_whatever_the_fields() -> None:
    """Entries of the newer version are in the log already."""
    (found,) = breaks(versioned(2, a=int), versioned(1, a=int))

    assert found.kind == "version_lowered"


def test_upcasters_cover_nothing_where_the_version_stayed() -> None:
    """They are asked by version, so they would never run."""
    assert breaks(typed(a=int), typed(a=str), [(TAG, 1)])


def test_a_type_that_is_gone_is_breaking_and_a_new_one_is_not() -> None:
    """Its entries stay, and nobody would read them."""
    changes = compare(baseline(typed(a=int)), BUILT_IN[:1], [])

    assert [(change.type, change.kind, change.is_breaking) for change in changes] == [
        (BUILT_IN[0].__struct_config__.tag, "type_added", False),
        (TAG, "type_removed", True),
    ]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[1]",
        b"{}",
        b'{"$id":"urn:aurastream:events"}',
        b'{"$id":"urn:aurastream:events","$defs":{"x":{"properties":{}}}}',
        b"\xff",
    ],
)
def test_a_file_that_is_no_export_is_refused(raw: bytes) -> None:
    """An empty baseline would find no change."""
    with pytest.raises(BaselineUnfit, match="schema export"):
        read_baseline(raw)


@pytest.mark.parametrize(
    "part",
    [
        {"$ref": "#/$defs/absent"},
        {"$ref": "#/$defs/loop"},
        {"type": "integer", "minimum": "0"},
        {"anyOf": 1},
        [1],
    ],
)
def test_a_baseline_that_was_edited_by_hand_is_refused_and_not_misread(part: Any) -> None:
    """It is a file in a repository, and people merge it."""
    old = baseline(typed(a=int))
    old[TAG]["properties"]["a"] = part
    old[TAG]["$defs"] = {"loop": {"$ref": "#/$defs/loop"}}
    with pytest.raises(BaselineUnfit, match=TAG):
        compare(old, [typed(a=at_most(int, ge=0))], [])


def test_a_keyword_that_nobody_knows_is_not_passed_over() -> None:
    """A baseline of a later build, or msgspec's next invention: compared for sameness, never ignored."""
    old, new = (
        baseline(typed(a=int)),
        typed(a=Annotated[int, msgspec.Meta(extra_json_schema={"contains": 1})]),
    )

    assert [change.kind for change in compare(old, [new], [])] == ["not_judged"]


@pytest.mark.slow
def test_a_type_within_itself_is_compared_once() -> None:
    """Trees are events too; the comparison must end."""
    code = (
        "import sys; from tests.streams.schema.test_evolution import *; "
        "from tests.streams.schema.test_schemas import Grown; "
        "sys.exit(len(compare(baseline(Grown), [Grown], [('test.grown', 1)])))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[3], timeout=30, check=False
        ).returncode
        == 0
    )
