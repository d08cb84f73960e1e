"""Ownership by leases: shares, hand-over, take-over, and the epoch that fences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurastream.streams import Server, StreamError, Wire
from aurastream.streams.keys import Keys, members_key
from aurastream.streams.leases import Claim, Leases, share, worker_name
from tests.servers import until

LEASE_MS = 300
CLAIMS = [Claim("app", "clips", partition) for partition in range(4)]


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    wire = server.wire("x")
    yield wire
    wire.close()


def drive(wire: Wire, asking: Any) -> None:
    """Answer a generator's commands until it ends."""
    answers = None
    while True:
        try:
            routed = asking.send(answers)
        except StopIteration:
            return
        answers = wire.ask(*[command for _, command in routed])


def settle(wire: Wire, *workers: Leases) -> None:
    """Some rounds of ticks, in which every worker gives its surplus back."""
    for _ in range(4):
        for worker in workers:
            drive(wire, worker.tick(CLAIMS))
            drive(wire, worker.release(worker.surplus))


def counts(*workers: Leases) -> list[int]:
    return [len(worker.held) for worker in workers]


def assert_disjoint(*workers: Leases) -> None:
    held = [claim for worker in workers for claim in worker.held]
    assert len(held) == len(set(held))


@given(st.integers(0, 200), st.integers(1, 30), st.integers(0, 10))
def test_shares_cover_every_partition_and_differ_by_at_most_one(
    total: int, workers: int, offset: int
) -> None:
    members = [f"w{n}" for n in range(workers)]
    shares = [share(total, members, member, offset) for member in members]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
    assert share(total, members, "stranger") == 0


def test_one_worker_owns_everything_at_its_first_tick(wire: Wire) -> None:
    alone = Leases("a", LEASE_MS)
    drive(wire, alone.tick(CLAIMS))
    assert sorted(alone.held) == CLAIMS
    assert set(alone.held.values()) == {1}


def test_a_worker_that_joins_gets_its_share_and_one_that_leaves_gives_it_back(wire: Wire) -> None:
    first, second, third = Leases("a", LEASE_MS), Leases("b", LEASE_MS), Leases("c", LEASE_MS)
    settle(wire, first)
    settle(wire, first, second)
    assert counts(first, second) == [2, 2]
    settle(wire, first, second, third)
    assert sorted(counts(first, second, third)) == [1, 1, 2]
    assert_disjoint(first, second, third)

    drive(wire, first.leave(["app"]))
    settle(wire, second, third)

    assert counts(second, third) == [2, 2]
    assert second.takeovers == third.takeovers == 0, "what was given back was not taken over"


def test_a_dead_workers_partitions_are_free_when_its_lease_ends(wire: Wire) -> None:
    dead, living = Leases("a", LEASE_MS), Leases("b", LEASE_MS)
    settle(wire, dead, living)
    assert counts(dead, living) == [2, 2]
    drive(wire, living.tick(CLAIMS))
    assert len(living.held) == 2, "not before"

    until(lambda: drive(wire, living.tick(CLAIMS)) or len(living.held) == 4, "the leases to end")

    assert living.takeovers == 2
    drive(wire, dead.tick(CLAIMS))
    assert dead.held == {}, "it woke up and learns at its next tick that it owns nothing"


def test_the_epoch_grows_with_every_owner_and_survives_a_release(wire: Wire) -> None:
    epochs = []
    for name in ("a", "b", "a"):
        worker = Leases(name, LEASE_MS)
        drive(wire, worker.tick(CLAIMS[:1]))
        epochs.append(worker.held[CLAIMS[0]])
        drive(wire, worker.leave(["app"]))
    assert epochs == [1, 2, 3]


def test_a_claim_whose_answer_was_lost_is_claimed_again(wire: Wire) -> None:
    """The server gave the lease and the worker never heard: with no room at the others, the partition would
    be nobody's for ever.
    """
    first, second = Leases("a", LEASE_MS), Leases("b", LEASE_MS)
    settle(wire, first, second)
    for worker in (first, second):
        worker.held.clear()

    settle(wire, first, second)

    assert counts(first, second) == [2, 2]
    assert_disjoint(first, second)
    assert set(first.held.values()) | set(second.held.values()) == {1, 2}, (
        "no owner changed, so no epoch grew"
    )


def test_a_release_of_what_is_not_held_frees_nobodys_lease(wire: Wire) -> None:
    owner, other = Leases("a", LEASE_MS), Leases("b", LEASE_MS)
    drive(wire, owner.tick(CLAIMS))
    other.held = dict(owner.held)  # it still believes so
    drive(wire, other.release(list(other.held)))
    drive(wire, owner.tick(CLAIMS))
    assert sorted(owner.held) == CLAIMS


def test_a_lease_key_of_another_type_fails_before_anything_is_written(server: Server, wire: Wire) -> None:
    server.client.set(Keys("clips", 0).lease("app"), "mine")
    with pytest.raises(Exception, match="WRONGTYPE"):
        drive(wire, Leases("a", LEASE_MS).tick(CLAIMS[:1]))


def test_no_lease_and_no_member_has_a_time_to_live(server: Server, wire: Wire) -> None:
    """Redis would delete the epoch, and an old owner would be the newest again."""
    drive(wire, Leases("a", LEASE_MS).tick(CLAIMS))
    keys = [*(claim.keys.lease("app") for claim in CLAIMS), members_key("app")]
    assert {server.client.ttl(key) for key in keys} == {-1}


def test_names_of_workers_are_never_used_twice() -> None:
    assert worker_name() != worker_name()
    with pytest.raises(StreamError, match="too short"):
        Leases("a", 10)
