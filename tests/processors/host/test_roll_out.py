"""docs/how-to/roll-out.md, done: two builds of a plug-in side by side on one server, by the order of the
page, and each step backed out of.

Nothing waits in silence, nothing is set aside, and the processor handles every event once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from aurastream.streams import Server
from tests.commands import Home
from tests.processors.host.rolling import STREAM, Build, Fleet

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.any_server]

HEAD = """
import os

import msgspec

from aurastream.processors.effects import Processor
from aurastream.projections import Projection
from aurastream.streams import Count, Event
from aurastream.streams.events import ShortText

"""
SOLD = '''
class Sold(Event, frozen=True, kw_only=True, tag="shop.sold"):
    """Some pieces of an article (the subject) were sold."""

    pieces: Count
'''
STOCKS = '''

class Stock(msgspec.Struct, frozen=True):
    pieces: int


class Stocks(Projection[Stock]):
    """How many pieces of each article were sold."""

    name = "stocks"
    streams = ("shop",)
    events = (Sold,)
    state = Stock

    def apply(self, state, event):
        return Stock((state.pieces if state else 0) + event.pieces)
'''
RECEIPTS = '''

class Receipts(Processor):
    """Writes a line for every sale."""

    name = "receipts"
    streams = ("shop",)
    start = "beginning"
    events = (Sold,)

    def handle(self, event, attempt):
        with open(os.environ["RECEIPTS"], "a") as file:
            file.write(f"{event.event_id}\\n")
'''
FIRST = HEAD + SOLD + STOCKS + RECEIPTS
COLOURED = FIRST.replace("    pieces: Count\n", '    pieces: Count\n    colour: ShortText = ""\n')
ITEMS = (
    FIRST.replace(
        "    pieces: Count\n", "    schema_version = 2\n    upcasters = {1: from_1}\n\n    items: Count\n"
    )
    .replace("event.pieces", "event.items")
    .replace(
        "\nclass Sold",
        '\ndef from_1(content):\n    content["items"] = content.pop("pieces")\n    return content\n\n'
        "\nclass Sold",
    )
)
DOZENS = (
    FIRST.replace('    name = "stocks"\n', '    name = "stocks"\n    version = 2\n')
    .replace("    pieces: int\n", "    pieces: int\n    dozens: int\n")
    .replace(
        "        return Stock((state.pieces if state else 0) + event.pieces)\n",
        "        pieces = (state.pieces if state else 0) + event.pieces\n"
        "        return Stock(pieces, pieces // 12)\n",
    )
)
RETURNED = FIRST.replace(
    STOCKS,
    '''

class Returned(Event, frozen=True, kw_only=True, tag="shop.returned"):
    """Some pieces came back."""

    pieces: Count
'''
    + STOCKS,
).replace('start = "beginning"\n    events = (Sold,)', 'start = "beginning"\n    events = (Sold, Returned)')
GROUPS = ("stocks", "receipts")


@pytest.fixture
def fleet(server: Server, url: str, home: Home) -> Iterator[Fleet]:
    """Nothing runs yet."""
    fleet = Fleet(server, url, home)
    yield fleet
    fleet.close()


def is_in_order(fleet: Fleet, build: Build, *groups: str) -> None:
    """What holds after each step: lag 0, view == fold(log), nothing set aside, each event handled once."""
    fleet.settled(*(groups or GROUPS))
    build.says("check")
    assert fleet.counts("stocks")["dead"] == 0
    fleet.wait_for(lambda: len(fleet.handled()) >= len(fleet.appended), "every event to be handled")
    assert fleet.handled() == sorted(fleet.appended)


def pieces(build: Build, article: int, field: str = "pieces") -> int:
    shown = json.loads(build.says("view", "stocks", f"article-{article}", "--stream", STREAM, "--json"))
    count: int = shown["state"][field]
    return count


def test_a_new_field_is_rolled_out_and_backed_out_of(fleet: Fleet) -> None:
    """Hosts one by one, then producers; and old hosts again, over the events that have the field."""
    old, new = Build(fleet, "old", FIRST), Build(fleet, "new", COLOURED)
    old.append("shop.sold", 0, 100, pieces=3)
    first = old.host().ready()
    is_in_order(fleet, old)

    second = new.host().ready()
    new.append("shop.sold", 100, 100, pieces=3, colour="red")  # too early: the old host is still there
    is_in_order(fleet, new)
    refused = old.run("append", "--stream", STREAM, stdin=_line(900, pieces=1, colour="red"))
    assert (refused.code, "unknown field `colour`" in refused.err) == (2, True)
    first.stop()
    new.append("shop.sold", 200, 100, pieces=3, colour="red")
    is_in_order(fleet, new)

    third = old.host().ready()
    new.append("shop.sold", 300, 100, pieces=3, colour="red")
    second.stop()
    old.append("shop.sold", 400, 100, pieces=3)
    is_in_order(fleet, old)
    third.stop()
    new.says("check")
    assert pieces(new, 7) == 50 * 3


def test_a_new_version_of_an_event_type_is_rolled_out_and_backed_out_of(fleet: Fleet) -> None:
    """A producer that is too early makes old hosts wait, loudly, and nothing is set aside; when the last of
    them is gone, all is read. Backing out ends at the first event of the new version: an old host waits
    there.
    """
    old, new = Build(fleet, "old", FIRST), Build(fleet, "new", ITEMS)
    old.append("shop.sold", 0, 100, pieces=3)
    old.says("schema", "export", "--output", "events.json")
    (new.folder / "events.json").write_bytes((old.folder / "events.json").read_bytes())
    new.says("schema", "check", "events.json")
    first = old.host().ready()
    is_in_order(fleet, old)

    second = new.host().ready()
    old.append("shop.sold", 100, 100, pieces=3)
    is_in_order(fleet, new)
    second.stop()  # backed out of, before anything of version 2 was written
    old.append("shop.sold", 200, 100, pieces=3)
    is_in_order(fleet, old)

    second = new.host().ready()
    new.append("shop.sold", 300, 100, items=3, version=2)  # too early
    fleet.wait_for(lambda: first.troubles != (), "the old host to say that it waits")
    for trouble in first.troubles:
        assert "version 2" in trouble.reason
        assert f"shop/{trouble.partition}/{trouble.position}" in trouble.reason
        assert trouble.event_id in fleet.appended
    assert fleet.counts("stocks")["dead"] == 0
    first.stop()
    old.append("shop.sold", 400, 100, pieces=3)
    is_in_order(fleet, new)

    second.stop()
    third = old.host().ready()
    new.append("shop.sold", 500, 100, items=3, version=2)
    fleet.wait_for(lambda: third.troubles != (), "the old host to wait at version 2")
    assert fleet.counts("stocks")["dead"] == 0
    third.stop()
    last = new.host().ready()
    is_in_order(fleet, new)
    last.stop()
    assert pieces(new, 7) == 60 * 3


def test_an_upcaster_that_raises_makes_lanes_wait_until_it_is_mended(fleet: Fleet) -> None:
    """The events are sound: views and processors stand before the first of them, with its place and the
    traceback, and go on where a build reads them.
    """
    old, new = Build(fleet, "old", FIRST), Build(fleet, "new", ITEMS)
    broken = Build(fleet, "broken", ITEMS.replace('content.pop("pieces")', 'content["pieces"].items'))
    old.append("shop.sold", 0, 100, pieces=3)
    new.append("shop.sold", 100, 100, items=3, version=2)
    tried = broken.run("schema", "check", "--log")
    assert (tried.code, "100 refused" in tried.out, "Traceback" in tried.err) == (1, True, False)

    first = broken.host().ready()
    fleet.wait_for(
        lambda: {trouble.group for trouble in first.troubles} == {*GROUPS}, "both lanes to say that they wait"
    )
    for trouble in first.troubles:
        assert re.search(r"\(AttributeError: .*\), in from_1 of .*shop\.py:\d+\.", trouble.reason)
        assert "UpcasterFailed" in trouble.traceback
        assert trouble.event_id in fleet.appended
    assert (fleet.counts("stocks")["dead"], fleet.handled()) == (0, [])
    first.stop()

    second = new.host().ready()
    is_in_order(fleet, new)
    second.stop()


def test_a_new_version_of_a_projection_is_rolled_out_and_backed_out_of(fleet: Fleet) -> None:
    """The old hosts keep the live view up until the rebuilt one is swapped in, and the kept one after that;
    the rollback makes it live again.
    """
    old, new = Build(fleet, "old", FIRST), Build(fleet, "new", DOZENS)
    old.append("shop.sold", 0, 100, pieces=3)
    first = old.host().ready()
    is_in_order(fleet, old)

    second = new.host().ready()
    fleet.wait_for(
        lambda: any("aurastream rebuild stocks" in note for note in second.notes),
        "the new host to say what it does not run, and why",
    )
    old.append("shop.sold", 100, 100, pieces=3)
    is_in_order(fleet, old)
    new.says("rebuild", "stocks", "--stream", STREAM, "--accept", "--why", "dozens")
    old.append("shop.sold", 200, 100, pieces=3)
    is_in_order(fleet, new, "stocks@2", "stocks", "receipts")
    assert pieces(new, 7, "dozens") == 30 * 3 // 12

    old.says("rollback", "stocks", "--stream", STREAM, "--why", "dozens are wrong")
    old.append("shop.sold", 300, 100, pieces=3)
    is_in_order(fleet, old)
    assert pieces(old, 7) == 40 * 3
    second.stop()
    old.append("shop.sold", 400, 100, pieces=3)
    is_in_order(fleet, old)

    second = new.host().ready()
    new.says("rebuild", "stocks", "--stream", STREAM, "--accept", "--why", "dozens, right")
    first.stop()
    new.append("shop.sold", 500, 100, pieces=3)
    is_in_order(fleet, new, "stocks@3", "receipts")
    second.stop()
    assert pieces(new, 7, "dozens") == 60 * 3 // 12


def _line(number: int, **fields: object) -> str:
    event = {"type": "shop.sold", "event_id": f"x{number}", "subject": "article-1"}
    return json.dumps({**event, "occurred_at": "2026-04-15T12:00:00Z", **fields})


def test_a_new_event_type_of_a_processor_is_rolled_out_and_backed_out_of(fleet: Fleet) -> None:
    """The old hosts run the processor until a person decides; what they passed over of the new type is
    handled then, and once.
    """
    old, new = Build(fleet, "old", FIRST), Build(fleet, "new", RETURNED)
    old.append("shop.sold", 0, 100, pieces=3)
    first = old.host().ready()
    is_in_order(fleet, old)

    second = new.host().ready()
    fleet.wait_for(
        lambda: any("aurastream processors accept receipts" in note for note in second.notes),
        "the new host to say what it does not run, and why",
    )
    old.append("shop.sold", 100, 100, pieces=3)
    is_in_order(fleet, old)
    new.append("shop.returned", 0, 50, pieces=1)  # too early: the old hosts pass them over
    fleet.settled(*GROUPS)
    accept = ("processors", "accept", "receipts", "--stream", STREAM)
    new.says(*accept, "--from", "skipped", "--why", "returns get a receipt, too")
    new.append("shop.returned", 50, 50, pieces=1)
    old.append("shop.sold", 200, 100, pieces=3)
    is_in_order(fleet, new)
    first.stop()
    new.append("shop.returned", 100, 50, pieces=1)
    is_in_order(fleet, new)

    third = old.host().ready()
    old.says(*accept, "--from", "now", "--why", "they get none after all")
    second.stop()
    handled = set(fleet.appended)
    new.append("shop.returned", 150, 50, pieces=1)
    fleet.appended = handled
    old.append("shop.sold", 300, 100, pieces=3)
    is_in_order(fleet, old)
    third.stop()
