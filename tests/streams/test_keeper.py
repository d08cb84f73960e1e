"""The thread that keeps a host's leases, on a real server."""

from __future__ import annotations

import threading

import pytest

from aurastream.streams import Claim, HostCard, LeaseKeeper, Leases, Server
from tests.servers import until

pytestmark = pytest.mark.any_server
LANES = 200


class Duty:
    """A host of many lanes whose loop lives."""

    def __init__(self) -> None:
        self.held: dict[Claim, int] = {}
        self._claims = [Claim(f"group-{number}", "clips-test", 0) for number in range(LANES)]

    def claims(self) -> list[Claim]:
        return self._claims

    def card(self, card: HostCard) -> HostCard:
        return card

    def blocked(self) -> str:
        return ""

    def changed(self, held: dict[Claim, int], surplus: set[Claim]) -> None:
        self.held = held


def test_many_lanes_given_back_one_by_one_are_one_question(server: Server) -> None:
    """A host gives each lane back as its work ends. A round trip for each, and no tick among them, took more
    than a lease where lanes were many or the network slow: all others lapsed.
    """
    duty, leases = Duty(), Leases(lease_ms=60_000)
    keeper = LeaseKeeper(server, leases, duty)
    keeper.start()
    try:
        until(lambda: len(duty.held) == LANES, "the lanes")
        begun, go_on = threading.Event(), threading.Event()

        def ticked() -> None:  # it looks for commands once all are given
            begun.set()
            go_on.wait(30)

        keeper.ticked = ticked
        keeper.hurry()
        assert begun.wait(30)
        before = scripts(server)
        given = [keeper.release([claim]) for claim in list(duty.held)]
        keeper.ticked = lambda: None
        go_on.set()
        for done in given:
            done.result(30)
        assert scripts(server) - before < 10
    finally:
        keeper.stop(10)
    assert duty.held == {}


def scripts(server: Server) -> int:
    """How many were run so far."""
    calls = server.client.info("commandstats")
    return sum(calls[name]["calls"] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in calls)


def test_a_host_s_own_fault_ends_no_thread_that_keeps_leases(server: Server) -> None:
    """Whatever the host answers, the thread says so and ticks again: without it the host owns nothing, and
    nobody notices.
    """

    class Faulty(Duty):
        faults = 0

        def blocked(self) -> str:
            if self.faults < 3:
                self.faults += 1
                raise KeyError("no frame")
            return ""

    duty = Faulty()
    keeper = LeaseKeeper(server, Leases(lease_ms=300), duty)
    keeper.start()
    try:
        until(lambda: "KeyError" in keeper.trouble, "the thread to say so")
        until(lambda: len(duty.held) == LANES, "the lanes")
        assert keeper.trouble == ""
    finally:
        keeper.stop(5)
