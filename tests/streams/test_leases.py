"""Ownership by leases: shares, hand-over, take-over, and the epoch that fences."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurastream.streams import Server, StreamError, Trouble, Wires, drive, read_members
from aurastream.streams.keys import CARDS, HOSTS, Keys
from aurastream.streams.leases import Claim, Leases, host_name, share
from tests.servers import until

LEASE_MS = 300
CLAIMS = [Claim("app", "clips", partition) for partition in range(4)]


@pytest.fixture
def wires(server: Server) -> Iterator[Wires]:
    wires = Wires(server)
    yield wires
    wires.close()


def settle(wires: Wires, *hosts: Leases) -> None:
    """Some rounds of ticks, in which every host gives its surplus back."""
    for _ in range(4):
        for host in hosts:
            drive(host.tick(CLAIMS), wires.ask)
            drive(host.release(host.surplus), wires.ask)


def counts(*hosts: Leases) -> list[int]:
    return [len(host.held) for host in hosts]


def assert_disjoint(*hosts: Leases) -> None:
    held = [claim for host in hosts for claim in host.held]
    assert len(held) == len(set(held))


@given(st.integers(0, 200), st.integers(1, 30), st.integers(0, 10))
def test_shares_cover_every_partition_and_differ_by_at_most_one(total: int, hosts: int, group: int) -> None:
    """A partition that is in nobody's share is folded by nobody."""
    members = [f"w{n}" for n in range(hosts)]
    shares = [share(total, members, member, (f"g{group}", "clips")) for member in members]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
    assert share(total, members, "stranger") == 0


def test_one_host_owns_everything_at_its_first_tick(wires: Wires) -> None:
    """A lone host must not wait for others before it works."""
    alone = Leases("a", LEASE_MS)
    drive(alone.tick(CLAIMS), wires.ask)
    assert sorted(alone.held) == CLAIMS
    assert set(alone.held.values()) == {1}


def test_a_host_that_joins_gets_its_share_and_one_that_leaves_gives_it_back(wires: Wires) -> None:
    """Rolling a fleet over moves work without a take-over."""
    first, second, third = Leases("a", LEASE_MS), Leases("b", LEASE_MS), Leases("c", LEASE_MS)
    settle(wires, first)
    settle(wires, first, second)
    assert counts(first, second) == [2, 2]
    settle(wires, first, second, third)
    assert sorted(counts(first, second, third)) == [1, 1, 2]
    assert_disjoint(first, second, third)

    drive(first.leave(), wires.ask)
    settle(wires, second, third)

    assert counts(second, third) == [2, 2]
    assert second.takeovers == third.takeovers == 0, "what was given back was not taken over"


def test_a_dead_hosts_partitions_are_free_when_its_lease_ends(wires: Wires) -> None:
    """Not before, or a host that pauses would be fenced; and then at once."""
    dead, living = Leases("a", LEASE_MS), Leases("b", LEASE_MS)
    settle(wires, dead, living)
    assert counts(dead, living) == [2, 2]
    drive(living.tick(CLAIMS), wires.ask)
    assert len(living.held) == 2, "not before"

    until(lambda: drive(living.tick(CLAIMS), wires.ask) or len(living.held) == 4, "the leases to end")

    assert living.takeovers == 2
    drive(dead.tick(CLAIMS), wires.ask)
    assert dead.held == {}, "it woke up and learns at its next tick that it owns nothing"


def test_the_epoch_grows_with_every_owner_and_survives_a_release(wires: Wires) -> None:
    """It is the fencing token: a commit of an owner before must stay refusable."""
    epochs = []
    for name in ("a", "b", "a"):
        host = Leases(name, LEASE_MS)
        drive(host.tick(CLAIMS[:1]), wires.ask)
        epochs.append(host.held[CLAIMS[0]])
        drive(host.leave(), wires.ask)
    assert epochs == [1, 2, 3]


def test_a_claim_whose_answer_was_lost_is_claimed_again(wires: Wires) -> None:
    """The server gave the lease and the host never heard: with no room at the others, the partition would
    be nobody's for ever.
    """
    first, second = Leases("a", LEASE_MS), Leases("b", LEASE_MS)
    settle(wires, first, second)
    for host in (first, second):
        host.held.clear()

    settle(wires, first, second)

    assert counts(first, second) == [2, 2]
    assert_disjoint(first, second)
    assert set(first.held.values()) | set(second.held.values()) == {1, 2}, (
        "no owner changed, so no epoch grew"
    )


def test_a_release_of_what_is_not_held_frees_nobodys_lease(wires: Wires) -> None:
    """A host that was fenced and does not know it must not free its successor's lease."""
    owner, other = Leases("a", LEASE_MS), Leases("b", LEASE_MS)
    drive(owner.tick(CLAIMS), wires.ask)
    other.held = dict(owner.held)  # it still believes so
    drive(other.release(list(other.held)), wires.ask)
    drive(owner.tick(CLAIMS), wires.ask)
    assert sorted(owner.held) == CLAIMS


def test_a_lease_key_of_another_type_fails_before_anything_is_written(server: Server, wires: Wires) -> None:
    """The script plans first: half a renewal would leave epochs that no host knows."""
    server.client.set(Keys("clips", 0).lease("app"), "mine")
    with pytest.raises(Exception, match="WRONGTYPE"):
        drive(Leases("a", LEASE_MS).tick(CLAIMS[:1]), wires.ask)


def test_no_lease_and_no_member_has_a_time_to_live(server: Server, wires: Wires) -> None:
    """Redis would delete the epoch, and an old owner would be the newest again."""
    drive(Leases("a", LEASE_MS).tick(CLAIMS), wires.ask)
    keys = [*(claim.keys.lease("app") for claim in CLAIMS), HOSTS, CARDS]
    assert {server.client.ttl(key) for key in keys} == {-1}


def test_names_of_hosts_are_never_used_twice() -> None:
    """A name met again would own what the dead one owned."""
    assert host_name() != host_name()
    with pytest.raises(StreamError, match="too short"):
        Leases("a", 10)


def lanes(group: str, count: int = 4) -> list[Claim]:
    return [Claim(group, "clips", partition) for partition in range(count)]


def rounds(wires: Wires, hosts: dict[Leases, list[Claim]], times: int = 4) -> None:
    """Ticks of hosts that can run unlike lanes, each giving its surplus back."""
    for _ in range(times):
        for host, claims in hosts.items():
            drive(host.tick(claims), wires.ask)
            drive(host.release(list(host.surplus)), wires.ask)


def test_hosts_that_can_run_unlike_lanes_starve_nobody(wires: Wires) -> None:
    """Two apps on one server, or a host of one projection beside one of all: what only one of them can run is
    its alone, what both can is shared.
    """
    both, one = Leases("a", 60_000), Leases("b", 60_000)
    rounds(wires, {both: lanes("x") + lanes("y"), one: lanes("y") + lanes("z")})

    assert {claim for claim in both.held if claim.group == "x"} == set(lanes("x"))
    assert {claim for claim in one.held if claim.group == "z"} == set(lanes("z"))
    assert [sum(claim.group == "y" for claim in host.held) for host in (both, one)] == [2, 2]
    assert_disjoint(both, one)


def test_a_lane_that_can_be_run_no_more_is_surplus_and_another_takes_it(wires: Wires) -> None:
    """A swap of a view's generation, or a definition that somebody else claimed: the lane must not stay."""
    first, second = Leases("a", 60_000), Leases("b", 60_000)
    rounds(wires, {first: lanes("x")})
    rounds(wires, {first: [], second: lanes("x")})
    assert first.held == {}
    assert set(second.held) == set(lanes("x"))


def test_every_group_is_balanced_within_one_and_extras_do_not_all_go_to_one_host(wires: Wires) -> None:
    """64 partitions x 10 groups x 8 hosts is the size the design is for; 5 partitions leave remainders."""
    hosts = [Leases(f"h{number}", 60_000) for number in range(8)]
    claims = [claim for group in range(10) for claim in lanes(f"g{group}", 5)]
    rounds(wires, dict.fromkeys(hosts, claims), times=6)
    assert_disjoint(*hosts)
    for group in range(10):
        each = [sum(claim.group == f"g{group}" for claim in host.held) for host in hosts]
        assert sum(each) == 5
        assert max(each) - min(each) <= 1
    assert max(counts(*hosts)) <= 10, "50 lanes among 8: nobody has all the remainders"


def test_the_lanes_of_a_partition_tend_to_be_on_one_host(wires: Wires) -> None:
    """One call renews them all: at 64 partitions x 10 groups that decides what leases cost the server."""
    hosts = [Leases(f"h{number}", 60_000) for number in range(4)]
    claims = [claim for group in range(6) for claim in lanes(f"g{group}", 16)]
    rounds(wires, {hosts[0]: claims})
    rounds(wires, dict.fromkeys(hosts, claims), times=6)
    calls = sum(len({claim.partition for claim in host.held}) for host in hosts)
    assert sum(counts(*hosts)) == 96
    assert calls <= 40, "16 were perfect, 64 is chance"


def test_a_clock_that_stepped_back_keeps_no_lane_from_the_living(server: Server, wires: Wires) -> None:
    """The dead owner's lease and mark would end minutes from now; after at most one lease they are over."""
    dead, living = Leases("a", LEASE_MS), Leases("b", LEASE_MS)
    settle(wires, dead, living)
    minutes = 300_000
    for claim in CLAIMS:
        key = claim.keys.lease("app")
        server.client.hincrby(key, "until", minutes)
    server.client.zincrby(HOSTS, minutes, "a")
    drive(living.tick(CLAIMS), wires.ask)
    living._time._seen = (living._time.clock(), _server_ms(server) + minutes)  # what it saw before the step

    drive(living.tick(CLAIMS), wires.ask)

    until(lambda: drive(living.tick(CLAIMS), wires.ask) or len(living.held) == 4, "a lease's time", 2.0)
    assert dead.host not in living.cards


def test_who_sees_the_clock_step_ahead_waits_a_lease_before_it_claims(server: Server, wires: Wires) -> None:
    """All leases end at once; the living renew theirs at their next tick, and nothing needs to move."""
    now = [0.0]
    owner, other = Leases("a", LEASE_MS), Leases("b", LEASE_MS, clock=lambda: now[0])
    settle(wires, owner)
    drive(other.tick(CLAIMS), wires.ask)
    for claim in CLAIMS:
        server.client.hset(claim.keys.lease("app"), "until", 1)
    other._time._seen = (now[0], _server_ms(server) - 300_000)
    drive(other.tick(CLAIMS), wires.ask)
    assert other.held == {}
    drive(owner.tick(CLAIMS), wires.ask)
    assert set(owner.held) == set(CLAIMS)
    now[0] += 2 * LEASE_MS / 1000
    drive(other.tick(CLAIMS), wires.ask)
    assert other.held == {}, "renewed meanwhile"


def test_a_host_that_was_forgotten_says_anew_what_it_can_run(wires: Wires) -> None:
    """A process stopped past its lease is dropped with its card; without one it would be nobody's peer."""
    paused, living = Leases("a", LEASE_MS), Leases("b", LEASE_MS)
    settle(wires, paused, living)
    until(lambda: drive(living.tick(CLAIMS), wires.ask) or "a" not in living.cards, "the mark to end")
    for _ in range(2):
        drive(paused.tick(CLAIMS), wires.ask)
    drive(living.tick(CLAIMS), wires.ask)
    assert living.cards["a"].offers == {"clips": {"app": 4}}


def test_whoever_looks_sees_hosts_what_they_can_run_and_what_troubles_them(
    server: Server, wires: Wires
) -> None:
    """Status and /fleet are made of it."""
    host = Leases("a", 60_000)
    host.card = msgspec.structs.replace(
        host.card, troubles=(Trouble("app", "clips", 1, "no luck", "1-1", "e"),)
    )
    drive(host.tick(CLAIMS), wires.ask)
    (member,) = read_members(server)
    assert member.card.host == "a"
    assert member.card.offers_lane("app", "clips")
    assert not member.card.offers_lane("app", "other")
    assert member.card.troubles[0].event_id == "e"
    assert 0 < member.left_ms <= 60_000
    server.client.hset(CARDS, "a", "no card")
    assert read_members(server)[0].card.kind == "unreadable"
    drive(host.leave(), wires.ask)
    assert read_members(server) == []


def _server_ms(server: Server) -> int:
    seconds, microseconds = server.client.time()
    return int(seconds) * 1000 + int(microseconds) // 1000
