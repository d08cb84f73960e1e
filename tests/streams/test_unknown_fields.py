"""Fields that a newer producer writes: passed over by who reads, refused by who appends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from aurastream.streams import Codec, Event, InvalidEvent, from_cloudevent
from tests.facts import NOON


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    category: str = ""


class Red(msgspec.Struct, frozen=True, tag="red"):
    depth: int


class Blue(msgspec.Struct, frozen=True, tag="blue", forbid_unknown_fields=True):
    name: str


class Pair(msgspec.Struct, frozen=True, array_like=True):
    left: Place
    right: int = 0


@dataclass(frozen=True)
class Size:
    width: int


class Shown(Event, frozen=True, kw_only=True, tag="test.shown"):
    views: int = 0
    place: Place | None = None
    places: list[Place] = msgspec.field(default_factory=list)
    named: dict[str, Place] = msgspec.field(default_factory=dict)
    both: tuple[int, Place] | None = None
    colour: Red | Blue | None = None
    pair: Pair | None = None
    size: Size | None = None
    anything: Any = None


class Closed(Event, frozen=True, kw_only=True, tag="test.closed", forbid_unknown_fields=True):
    views: int = 0


class Opened(Event, frozen=True, kw_only=True, tag="test.opened", forbid_unknown_fields=False):
    views: int = 0


ENVELOPE = {"event_id": "e", "subject": "s", "occurred_at": "2026-04-15T12:00:00Z"}


def raw(kind: type[Event], **fields: Any) -> bytes:
    return msgspec.json.encode({"type": kind.__struct_config__.tag, **ENVELOPE, **fields})


# What a newer producer wrote, what is read of it, and the path of what is passed over.
NEWER: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"views": 3, "veiws": 4}, {"views": 3}, "veiws"),
    ({"place": {"category": "x", "more": {"a": [1]}}}, {"place": Place("x")}, "place.more"),
    ({"places": [{}, {"more": 1}]}, {"places": [Place(), Place()]}, "places[1].more"),
    ({"named": {"k": {"more": 1}}}, {"named": {"k": Place()}}, "named.k.more"),
    ({"both": [1, {"more": 1}]}, {"both": (1, Place())}, "both[1].more"),
    ({"colour": {"type": "blue", "name": "b", "more": 1}}, {"colour": Blue("b")}, "colour.more"),
    ({"colour": {"type": "red", "depth": 1, "name": 1}}, {"colour": Red(1)}, "colour.name"),
    ({"pair": [{"more": 1}, 2]}, {"pair": Pair(Place(), 2)}, "pair[0].more"),
    ({"size": {"width": 1, "height": 2}}, {"size": Size(1)}, "size.height"),
]


@pytest.mark.parametrize(("written", "read", "path"), NEWER)
def test_readers_pass_over_what_a_newer_producer_added(
    written: dict[str, Any], read: dict[str, Any], path: str
) -> None:
    """An old host that took such an event for damaged would go on without it, at any depth."""
    entry = raw(Shown, **written)
    expected = Shown(event_id="e", subject="s", occurred_at=NOON, **read)

    assert Codec((Shown,)).decode(entry) == expected
    assert Codec((Shown,)).decode_each([entry])[0] in (expected, None), "None is looked at by decode"
    assert Codec((Shown,)).decode_open(entry) in (expected, None), "so it is here"


def test_the_quick_way_reads_what_the_close_look_reads_or_leaves_it_to_it() -> None:
    """A host behind its producers takes it for every event."""
    codec, plain = Codec((Shown, Closed)), raw(Shown, views=3, more=1)

    assert codec.decode_open(plain) == codec.decode(plain)
    assert type(codec.decode_open(plain)) is Shown
    assert type(codec.decode_open(raw(Closed, views=3, more=1))) is Closed
    for other in (
        raw(Shown, views="3", more=1),
        raw(Shown, views=3, version=2),
        raw(Shown, place={"more": 1}),
        raw(Shown, views=3).replace(b'"event_id":"e"', b'"event_id":"e e"'),
        raw(Shown, views=3).replace(b"test.shown", b"test.other"),
        b"{",
    ):
        assert codec.decode_open(other) is None, other


def test_a_type_that_is_closed_by_hand_is_open_to_readers_too() -> None:
    """Whether a roll-out loses events must not hang on an option of one class."""
    assert Codec((Closed,)).decode(raw(Closed, views=3, more=1)) == Closed(
        event_id="e", subject="s", occurred_at=NOON, views=3
    )


@pytest.mark.parametrize(("written", "read", "path"), NEWER)
def test_append_refuses_what_its_type_does_not_have(
    written: dict[str, Any], read: dict[str, Any], path: str
) -> None:
    """A field that is misspelt would be lost for ever, without a word."""
    codec = Codec((Shown,))
    with pytest.raises(InvalidEvent) as refused:
        codec.admit(raw(Shown, **written), "stdin")
    assert f"unknown field `{path}`" in refused.value.reason

    content = {"specversion": "1.0", "id": "e", "source": "x", "type": "test.shown", "subject": "s"}
    with pytest.raises(InvalidEvent) as refused:
        from_cloudevent({**content, "time": "2026-04-15T12:00:00Z", "data": written}, codec)
    assert f"unknown field `{path}`" in refused.value.reason


def test_the_refusal_names_the_nearest_field_or_those_there_are() -> None:
    """Who misspelt it wants the word, and who guessed it the list."""
    with pytest.raises(InvalidEvent, match=r"unknown field `veiws` \(did you mean `views`\?\)"):
        Codec((Shown,)).admit(raw(Shown, veiws=4), "stdin")
    with pytest.raises(InvalidEvent, match=r"unknown field `place\.zzz` \(test\.shown has category\)"):
        Codec((Shown,)).admit(raw(Shown, place={"zzz": 4}), "stdin")


def test_a_type_that_is_opened_by_hand_admits_no_more() -> None:
    """What readers pass over is one thing, what is lost when it is appended another."""
    with pytest.raises(InvalidEvent, match="unknown field `veiws`"):
        Codec((Opened,)).admit(raw(Opened, veiws=4), "stdin")


def test_what_a_type_leaves_free_is_admitted_as_it_is() -> None:
    """Where anything may stand, nothing is unknown."""
    event = Codec((Shown,)).admit(raw(Shown, anything={"a": {"b": 1}}), "stdin")

    assert isinstance(event, Shown)
    assert event.anything == {"a": {"b": 1}}


def test_a_producer_in_python_is_refused_by_the_class() -> None:
    """There is no event with a field that its type does not have."""
    with pytest.raises(TypeError, match="veiws"):
        Shown(**ENVELOPE, veiws=4)  # type: ignore[arg-type, call-arg]
