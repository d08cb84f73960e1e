"""The fleet, judged from the log of a real server: what nobody runs, what is stuck and what was set aside is
named, whoever looks; and what healed is green.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from aurastream.processors.fleet import Colour, Fleet, FleetReader, GroupKind, LaneState, judged
from aurastream.projections.rebuild import Decision, Rebuild
from aurastream.streams import History, Server, Stream, Trouble
from aurastream.streams.retention import holds_of, let_go
from tests.facts import consume, observation, raw_append
from tests.processors.fleet.crew import LEASE_MS, Crew, append
from tests.projections.counting import Counting
from tests.servers import until


@pytest.fixture
def reader(server: Server) -> Iterator[FleetReader]:
    reader = FleetReader(server)
    yield reader
    reader.close()


def later(reader: FleetReader, seconds: int = 3) -> Fleet:
    """As the fleet is seen, were it so much later: nobody waits in a test."""
    facts = reader.seen()
    aged = [msgspec.structs.replace(at, now_ms=at.now_ms + seconds * 1_000) for at in facts.partitions]
    return judged(msgspec.structs.replace(facts, partitions=aged))


def states(fleet: Fleet, group: str) -> list[tuple[LaneState, Colour]]:
    return [(lane.state, lane.colour) for lane in fleet.lanes if lane.group == group]


def test_a_group_that_is_not_installed_here_is_seen_with_its_lag(
    server: Server, live: Stream, reader: FleetReader
) -> None:
    """Whoever looks has one package; the server has everybody's groups."""
    append(live, 0, 40)
    consume(server, live, Counting())
    append(live, 40, 10)
    server.client.xgroup_create(live.keys[0].log, "stranger", "0")

    fleet = reader.look()

    counting = [lane for lane in fleet.lanes if lane.group == "counting"]
    assert [lane.partition for lane in counting] == [0, 1]
    assert sum(lane.lag_events for lane in counting) == 10
    assert sum(lane.applied for lane in counting) == 40
    assert min(lane.moved_at or "" for lane in counting) > "2026"
    assert states(fleet, "stranger") == [(LaneState.FOREIGN, Colour.GREEN)]


def test_lanes_that_nobody_runs_are_red_while_events_wait_and_amber_while_none_does(
    server: Server, live: Stream, reader: FleetReader
) -> None:
    """Silence of a fleet that is not there must not look like health."""
    append(live, 0, 40)
    consume(server, live, Counting())
    idle = reader.look()
    append(live, 40, 40)
    waiting = later(reader)

    assert (idle.colour, states(idle, "counting")[0]) == (Colour.AMBER, (LaneState.UNOWNED, Colour.AMBER))
    assert (waiting.colour, waiting.reasons[0].what) == (Colour.RED, "unowned")
    assert waiting.reasons[0].text.startswith(
        "counting of clips-live/0-1: nobody runs it; no host lives; 40 events wait"
    )


def test_the_lanes_of_a_killed_host_are_nobodys_within_its_lease_and_green_once_they_are_run(
    server: Server, live: Stream, crew: Crew, reader: FleetReader
) -> None:
    """Whatever else lives: the other host has no code for them."""
    append(live, 0, 40)
    consume(server, live, Counting())
    crew.host("killed", "counting")
    append(live, 40, 40)
    other = crew.host("other", "trail")
    before = reader.look()

    def is_red() -> bool:
        crew.tick(other, "trail")
        return reader.look().colour is Colour.RED

    assert states(before, "counting") == [(LaneState.RUNS, Colour.GREEN)] * 2
    assert all(0 < lane.lease_left_ms <= LEASE_MS for lane in before.lanes)
    assert [(host.host[:5], host.held) for host in before.hosts] == [("kille", 2), ("other", 2)]
    until(is_red, "the lanes of the killed host to be nobody's", 5)
    (reason,) = [reason for reason in reader.look().reasons if reason.colour is Colour.RED]
    assert (reason.group, reason.partitions, reason.since is not None) == ("counting", (0, 1), True)
    assert "no host that lives has its code" in reason.text

    crew.host("new", "counting")
    assert [reason for reason in reader.look().reasons if reason.group == "counting"] == []


def test_a_version_that_no_host_has_is_said_so(
    server: Server, live: Stream, crew: Crew, reader: FleetReader
) -> None:
    """During a roll-out the group is offered in another generation; that is not the one that waits."""
    append(live, 0, 40)
    consume(server, live, Counting())
    append(live, 40, 4)
    crew.host("new", "counting@2")

    fleet = later(reader)

    assert "another definition of it (they run counting@2)" in fleet.reasons[0].text
    assert (fleet.colour, fleet.reasons[0].group) == (Colour.RED, "counting")


def test_a_stuck_lane_is_red_with_its_event_and_traceback_and_green_when_its_host_says_so(
    live: Stream, crew: Crew, reader: FleetReader
) -> None:
    """What an operator needs to know before he logs in anywhere."""
    append(live, 0, 4)
    host = crew.host("one", "counting")
    trouble = Trouble("counting", "clips-live", 1, "it raised", "5-1", "e-7", "Traceback: line 3", 1_000)
    host.card = msgspec.structs.replace(host.card, troubles=(trouble,))
    crew.tick(host, "counting")

    stuck = reader.look()
    host.card = msgspec.structs.replace(host.card, troubles=())
    crew.tick(host, "counting")
    well = reader.look()

    (lane,) = [lane for lane in stuck.lanes if lane.state is LaneState.STUCK]
    assert (lane.partition, lane.why, lane.since) == (1, "it raised", "1970-01-01T00:00:01+00:00")
    assert lane.trouble is not None
    assert (lane.trouble.position, lane.trouble.event_id) == ("5-1", "e-7")
    assert lane.trouble.traceback == "Traceback: line 3"
    assert stuck.colour is Colour.RED
    assert "stuck; it raised" in stuck.reasons[0].text
    assert stuck.reasons[0].text.endswith("at 5-1, event e-7")
    assert well.colour is Colour.GREEN


def test_a_cursor_that_stands_still_without_a_word_is_noticed_by_the_log(
    server: Server, live: Stream, crew: Crew, reader: FleetReader
) -> None:
    """A host may live, hold its leases and do nothing. The facts are aged here, as nobody waits in a test."""
    append(live, 0, 40)
    consume(server, live, Counting())
    append(live, 40, 40)
    crew.host("one", "counting")

    def after(seconds: int) -> tuple[LaneState, Colour]:
        return states(later(reader, seconds), "counting")[0]

    assert after(0) == (LaneState.RUNS, Colour.GREEN)
    assert after(6) == (LaneState.RUNS, Colour.AMBER)
    assert after(60) == (LaneState.STUCK, Colour.RED)


def test_what_a_view_set_aside_is_amber_for_a_day_and_listed_for_ever(
    server: Server, live: Stream, reader: FleetReader
) -> None:
    """It is a fact of the log: nobody can make it go away, and whoever is on duty has to see it once."""
    position = server.client.xadd(live.keys[0].log, {"event": "{}", "crc32": "1"}).decode()
    consume(server, live, Counting())

    def after(hours: int) -> Colour:
        fleet = later(reader, hours * 3_600)
        (reason,) = [reason for reason in fleet.reasons if reason.what == "set aside"]
        assert f"1 events damaged, the first at {position}: " in reason.text
        return reason.colour

    assert after(0) is Colour.AMBER
    assert after(25) is Colour.GREEN


def test_a_key_of_another_type_is_a_red_lane_and_hides_no_other(
    server: Server, live: Stream, reader: FleetReader
) -> None:
    """Somebody else's program writes into the same database: one lane is lost to sight, not the fleet."""
    append(live, 0, 40)
    consume(server, live, Counting())
    server.client.set(live.keys[0].dead("counting"), "mine")
    server.client.set(live.keys[1].cursor("counting"), "mine")
    server.client.hset("aura:streams", "torn", "not ours")
    server.client.hset("aura:streams", "other", '{"partitions": 1}')
    server.client.set("aura:{other.0}:log", "mine")

    fleet = reader.look()

    red = [reason for reason in fleet.reasons if reason.colour is Colour.RED]
    assert any("cursor:counting is a string, and never from us" in reason.text for reason in red)
    assert any("torn" in reason.text for reason in red)
    assert any("other/0 cannot be read" in reason.text for reason in red)
    assert fleet.lanes[0].applied > 0


def test_a_forgotten_group_is_nobodys_fault(server: Server, live: Stream, reader: FleetReader) -> None:
    """A person has let it go: it is listed, and green."""
    append(live, 0, 40)
    consume(server, live, Counting())
    append(live, 40, 4)
    for keys in live.keys:
        server.client.hdel(keys.groups, "counting")

    fleet = reader.look()

    assert states(fleet, "counting") == [(LaneState.FORGOTTEN, Colour.GREEN)] * 2
    assert fleet.colour is Colour.GREEN


def test_an_app_that_was_let_go_is_nobodys_fault(server: Server, live: Stream, reader: FleetReader) -> None:
    """An app of Faust has no cursor of ours: the mark is in its place."""
    append(live, 0, 40)
    for keys in live.keys:
        first = live.read_raw(keys.partition)[0][0].decode()
        server.client.hset(keys.acked("orders"), mapping={"position": first, "read": 1, "epoch": 1})
        server.client.xgroup_create(keys.log, "orders", first)
    before = states(later(reader), "orders")

    let_go(live, holds_of(live, "orders"))
    fleet = later(reader)

    assert before == [(LaneState.UNOWNED, Colour.RED)] * 2
    assert states(fleet, "orders") == [(LaneState.FORGOTTEN, Colour.GREEN)] * 2


def test_a_look_costs_one_call_a_partition_and_writes_nothing(
    server: Server, live: Stream, reader: FleetReader
) -> None:
    """Every host is asked by every scraper: what it asks of the server must not grow with the groups."""
    append(live, 0, 4)
    consume(server, live, Counting())
    reader.look()
    before = server.client.info("stats")["total_commands_processed"]
    keys = server.client.dbsize()
    server.client.config_resetstat()

    reader.look()

    calls = {name: each["calls"] for name, each in server.client.info("commandstats").items()}
    assert calls["cmdstat_evalsha"] == 2
    assert not [name for name in calls if name.split("_")[1] in ("hset", "set", "zadd", "xadd", "hdel")]
    assert (server.client.dbsize(), before > 0) == (keys, True)


def test_raw_entries_and_trimmed_ones_do_not_make_a_lag(
    server: Server, live: Stream, reader: FleetReader
) -> None:
    """The counts must add up, or every alert is a false one."""
    append(live, 0, 10)
    raw_append(server, live, observation(views=5, minute=99, clip="clip-raw"))
    consume(server, live, Counting())

    fleet = reader.look()

    assert {(lane.lag_events, lane.lag_seconds, lane.missing, lane.rewound) for lane in fleet.lanes} == {
        (0, 0.0, 0, False)
    }


def test_a_worker_app_of_fausts_is_a_group_like_any_other(
    server: Server, live: Stream, crew: Crew, reader: FleetReader
) -> None:
    """What a stranger's app acknowledged is how far it is; what hosts of earlier builds left is nobody's
    fault.
    """
    append(live, 0, 40)
    for keys in live.keys:
        server.client.hset(keys.acked("shop"), mapping={"position": "", "read": 0, "epoch": 1})
        server.client.hset(keys.acked("aurastream"), mapping={"position": "", "read": 0, "epoch": 1})
    for name in ("shop", "aurastream"):
        server.client.xgroup_create(live.keys[0].log, name, "0")
        server.client.xgroup_create(live.keys[1].log, name, "0")
    alone = later(reader)
    crew.host("app", "shop")
    run = reader.look()

    assert states(alone, "shop") == [(LaneState.UNOWNED, Colour.RED)] * 2
    assert sum(lane.lag_events for lane in alone.lanes if lane.group == "shop") == 40
    assert {lane.kind for lane in alone.lanes if lane.group == "shop"} == {GroupKind.APP}
    assert states(alone, "aurastream") == [(LaneState.FORGOTTEN, Colour.GREEN)] * 2
    assert states(run, "shop") == [(LaneState.RUNS, Colour.GREEN)] * 2


def test_a_generation_that_is_built_is_its_rebuilds_and_no_hosts(
    server: Server, live: Stream, reader: FleetReader
) -> None:
    """While it is made nobody else runs it; where that was cut off, somebody should know."""
    append(live, 0, 40)
    consume(server, live, Counting())
    with Rebuild(History(live), Counting(), Decision("ada@host")) as work:
        work.begin()
        work.build()
        going = reader.look()
    ended = reader.look()

    assert states(going, "counting@2") == [(LaneState.BUILDING, Colour.GREEN)] * 2
    assert states(ended, "counting@2") == [(LaneState.BUILDING, Colour.AMBER)] * 2


def test_while_hosts_of_the_old_scheme_live_what_they_own_is_judged_by_how_it_goes_on(
    server: Server, live: Stream, reader: FleetReader
) -> None:
    """Their leases are not of lanes: nothing is to be seen of who runs what, but that it stands still."""
    append(live, 0, 40)
    consume(server, live, Counting())
    append(live, 40, 40)
    server.client.zadd("aura:members:aurastream", {"old-1-00000000": 4_000_000_000_000})

    assert states(later(reader, 5), "counting")[0] == (LaneState.UNOWNED, Colour.AMBER)
    assert states(later(reader, 60), "counting")[0] == (LaneState.UNOWNED, Colour.RED)
    assert any(reason.what == "old hosts" for reason in later(reader, 5).reasons)
