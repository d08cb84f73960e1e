"""What becomes of lanes is logged once, whoever is the leader."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from aurastream.processors.fleet import Fleet, FleetReader, FleetWatch, Line, judged
from aurastream.streams import WATCH, Leases, Server, Stream, Trouble
from tests.facts import consume
from tests.processors.fleet.crew import Crew, append
from tests.projections.counting import Counting


class Leader:
    """One that looks and logs."""

    def __init__(self, server: Server) -> None:
        self._reader, self._watch = FleetReader(server), FleetWatch(server)
        self.fleet: Fleet

    def look(self, later_s: int = 0) -> list[Line]:
        """later_s: as if it were so much later."""
        facts = self._reader.seen()
        aged = [msgspec.structs.replace(at, now_ms=at.now_ms + later_s * 1_000) for at in facts.partitions]
        self.fleet = judged(msgspec.structs.replace(facts, partitions=aged))
        return self._watch.notice(self.fleet, facts.said, facts.now_ms + later_s * 1_000)

    def close(self) -> None:
        self._reader.close()


@pytest.fixture
def leaders(server: Server) -> Iterator[tuple[Leader, Leader]]:
    pair = Leader(server), Leader(server)
    yield pair
    for leader in pair:
        leader.close()


def said(lines: list[Line]) -> list[tuple[str, str, object]]:
    return [(line.level, line.event, line.facts["partitions"]) for line in lines]


def with_trouble(host: Leases, crew: Crew, *troubles: Trouble) -> None:
    host.card = msgspec.structs.replace(host.card, troubles=troubles)
    crew.tick(host, "counting")


def test_what_was_said_is_not_said_again_by_another_leader(
    server: Server, live: Stream, crew: Crew, leaders: tuple[Leader, Leader]
) -> None:
    """A leader may change at any time; an operator is called once, and hears how it ended."""
    one, other = leaders
    append(live, 0, 40)
    consume(server, live, Counting())
    at_once, idle = one.look(), one.look(later_s=11)
    append(live, 40, 40)
    restarting, waiting, again = one.look(), one.look(later_s=3), one.look(later_s=4)
    elsewhere = other.look(later_s=5)
    crew.host("new", "counting")
    well, over = other.look(), one.look()

    assert (at_once, restarting) == ([], []), "hosts are restarted"
    assert said(idle) == [("warning", "lane_unowned", "0-1")]
    assert said(waiting) == [("error", "lane_unowned", "0-1")]
    assert (waiting[0].facts["group"], waiting[0].facts["lag_events"]) == ("counting", 40)
    assert (again, elsewhere, over) == ([], [], [])
    assert said(well) == [("warning", "lane_well_again", "0-1")]
    assert well[0].facts["was"] == "lane_unowned"
    assert server.client.exists(WATCH) == 0, "nothing is kept of what is well"


def test_a_processor_that_is_stuck_is_said_by_the_leader_and_a_view_by_its_owner(
    live: Stream, crew: Crew, leaders: tuple[Leader, Leader]
) -> None:
    """One line for one fact: a view's owner has said it with its traceback."""
    leader, _ = leaders
    append(live, 0, 10)
    host = crew.host("one", "counting")
    trouble = Trouble("counting", "clips-live", 1, "it raised", "5-1", "e-7")
    with_trouble(host, crew, trouble)
    of_a_view = leader.look()
    with_trouble(host, crew)

    assert of_a_view == []
    assert said(leader.look()) == [("warning", "lane_well_again", "1")]


def test_events_set_aside_are_said_with_how_many_are_new_and_the_newest(
    server: Server, live: Stream, leaders: tuple[Leader, Leader]
) -> None:
    """Each within seconds, and none again because another came."""
    leader, other = leaders
    log = live.keys[0].log
    server.client.xadd(log, {"event": "{}", "crc32": "1"})
    consume(server, live, Counting())
    (first,) = [line for line in leader.look() if line.event == "event_set_aside"]
    server.client.xadd(log, {"event": "{}", "crc32": "1"})
    newest = server.client.xadd(log, {"event": "{}", "crc32": "1"}).decode()
    consume(server, live, Counting())
    (second,) = [line for line in other.look() if line.event == "event_set_aside"]

    assert (first.facts["count"], second.facts["count"]) == (1, 2)
    assert (second.facts["position"], second.level) == (newest, "warning")
    assert second.facts["reason"]


def test_what_cannot_be_kept_is_still_said_once_by_this_leader(
    server: Server, live: Stream, leaders: tuple[Leader, Leader]
) -> None:
    """A server that refuses writes is when lines are needed most."""
    leader, _ = leaders
    append(live, 0, 40)
    consume(server, live, Counting())
    append(live, 40, 40)
    server.client.config_set("maxmemory", 1)

    lines, again = leader.look(later_s=3), leader.look(later_s=4)
    server.client.config_set("maxmemory", 0)
    leader.look(later_s=5)

    assert said(lines) == [("error", "lane_unowned", "0-1")]
    assert again == []
    assert server.client.hlen(WATCH) == 2, "kept as soon as it can be"
