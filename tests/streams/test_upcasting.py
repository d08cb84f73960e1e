"""Upcasters: declared once, with the event type, and named whatever comes out of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from aurastream.processors.effects import Processor
from aurastream.projections import MemoryView, Projection
from aurastream.streams import Codec, Count, Event, StreamError, UnknownEventVersion, Unread, UpcasterFailed
from tests.facts import NOON

FIRST = (
    b'{"type":"shop.sold","event_id":"a1","subject":"cap","occurred_at":"2026-04-15T12:00:00Z","pieces":%d}'
)


def from_1(content: dict[str, Any]) -> dict[str, Any]:
    content["items"] = 12 // content.pop("pieces")
    return content


class Sold(Event, frozen=True, kw_only=True, tag="shop.sold"):
    schema_version = 2
    upcasters = {1: from_1}  # noqa: RUF012 - as anybody writes it
    items: Count


class Stock(msgspec.Struct, frozen=True):
    items: int


class Stocks(Projection[Stock]):
    name = "stocks"
    events = (Sold,)
    state = Stock

    def apply(self, state: Stock | None, event: Sold) -> Stock:
        return Stock((state.items if state else 0) + event.items)


class Telling(Processor):
    name = "telling"
    start = "beginning"
    events = (Sold,)


def test_whoever_has_the_type_has_its_upcasters() -> None:
    """A fold, a handler and a test in memory decode by the class alone; a second declaration would be
    forgotten somewhere.
    """
    expected = Sold(event_id="a1", subject="cap", occurred_at=NOON, version=2, items=4)

    for codec in (Codec((Sold,)), Stocks().codec(), Telling().codec()):
        assert codec.decode(FIRST % 3) == expected
    view = MemoryView(Stocks())
    view.take([expected])
    assert view.tables["states"]["cap"] == b'{"items":4}'


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("x"),
        IndexError("x"),
        ZeroDivisionError("x"),
        RuntimeError("x"),
        AssertionError("x"),
        KeyError("x"),
        TypeError("x"),
        ValueError("x"),
        StopIteration("x"),
        RecursionError("x"),
        MemoryError("x"),
    ],
)
def test_whatever_an_upcaster_raises_names_the_event(error: Exception) -> None:
    """A bare traceback says neither which of a million events it was, nor where it lies."""

    def broken(content: dict[str, Any]) -> dict[str, Any]:
        raise error

    codec = Codec((_sold({1: broken}),))
    with pytest.raises(UpcasterFailed, match=r"'a1' at shop/0/5-1.*version 1.*Mend the upcaster") as refused:
        codec.decode(FIRST % 3, "shop/0/5-1")

    refusal = refused.value
    assert (refusal.event_id, refusal.position, refusal.version) == ("a1", "5-1", 1)
    assert refusal.__cause__ is error, "whose traceback a person needs"


def test_who_stops_a_process_in_an_upcaster_stops_it() -> None:
    """Control-C is no fault of the event."""

    def slow(content: dict[str, Any]) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Codec((_sold({1: slow}),)).decode(FIRST % 3)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda content: None,
        lambda content: {**content, "items": -1},
        lambda content: {**content, "event_id": "another", "items": 1},
        lambda content: {**content, "subject": "hat", "items": 1},
    ],
    ids=["nothing", "unfit", "another event", "another subject"],
)
def test_what_an_upcaster_makes_must_be_the_event(wrong: Any) -> None:
    """One that makes nothing, what does not fit, or another event: the index and the partition go by its
    names.
    """
    with pytest.raises(UpcasterFailed, match="a1"):
        Codec((_sold({1: wrong}),)).decode(FIRST % 3)


def test_a_newer_version_is_named_with_its_event_too() -> None:
    """Who deploys must know where the lane stands."""
    newer = FIRST.replace(b'"pieces":%d', b'"version":3')
    with pytest.raises(UnknownEventVersion, match=r"up to version 2 .*'a1' at shop/0/5-1") as refused:
        Codec((Sold,)).decode(newer, "shop/0/5-1")

    assert isinstance(refused.value, Unread)
    assert (refused.value.event_id, refused.value.position) == ("a1", "5-1")


@pytest.mark.parametrize(
    ("upcasters", "sentence"),
    [
        ({}, r"no upcaster from \[1\].*`upcasters = \{1: from_1\}`"),
        ({1: from_1, 2: from_1}, "from 2, which would never be called"),
        ({0: from_1, 1: from_1}, "from 0, which would never be called"),
        ({"1": from_1}, "from '1', which would never be called"),
        ({1: "from_1"}, "cannot be called"),
    ],
)
def test_what_is_declared_wrong_is_refused_at_once(upcasters: Any, sentence: str) -> None:
    """At the start, and not at the first old event in the middle of a night."""
    with pytest.raises(StreamError, match=sentence):
        Codec((_sold(upcasters),))


def test_two_upcasters_for_one_version_are_refused() -> None:
    """Of two that differ nobody knows which one made the view."""
    with pytest.raises(StreamError, match=r"two upcasters from version 1.*Sold\.upcasters"):
        Codec((Sold,), {("shop.sold", 1): dict})

    assert Codec((Sold,), {("shop.sold", 1): from_1}).decode(FIRST % 3) is not None, "the same one is one"


def _sold(upcasters: Any) -> type[Event]:
    """The type with these."""
    more = {"schema_version": 2, "upcasters": upcasters}
    return msgspec.defstruct(
        "Sold", [("items", Count)], bases=(Event,), frozen=True, kw_only=True, tag="shop.sold", namespace=more
    )
