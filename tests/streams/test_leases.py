"""Ownership by leases: shares, hand-over, take-over, and the epoch that fences."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurastream.streams import Server, StreamError, Wires, drive
from aurastream.streams.keys import Keys, members_key
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
def test_shares_cover_every_partition_and_differ_by_at_most_one(total: int, hosts: int, offset: int) -> None:
    """A partition that is in nobody's share is folded by nobody."""
    members = [f"w{n}" for n in range(hosts)]
    shares = [share(total, members, member, offset) for member in members]
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

    drive(first.leave(["app"]), wires.ask)
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
        drive(host.leave(["app"]), wires.ask)
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
    keys = [*(claim.keys.lease("app") for claim in CLAIMS), members_key("app")]
    assert {server.client.ttl(key) for key in keys} == {-1}


def test_names_of_hosts_are_never_used_twice() -> None:
    """A name met again would own what the dead one owned."""
    assert host_name() != host_name()
    with pytest.raises(StreamError, match="too short"):
        Leases("a", 10)
