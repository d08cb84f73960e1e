"""`aurastream status`: what a person reads at a terminal of any width, of groups that are not installed."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from rich.cells import cell_len

from aurastream.streams import Server, Settings, Stream, open_stream
from tests.commands import Home
from tests.facts import consume, observation
from tests.processors.fleet.crew import Crew
from tests.projections.counting import Counting
from tests.servers import until

pytestmark = pytest.mark.any_server

LONG = "a-view-with-a-name-as-long-as-names-may-be.which-is-sixty-four.x"


class Verbose(Counting):
    name = LONG


@pytest.fixture
def live(server: Server) -> Iterator[Stream]:
    stream = open_stream(server, "clips-live", create=True, settings=Settings(partitions=2))
    stream.append([observation(views=n, minute=n, clip=f"clip-{n}") for n in range(40)])
    yield stream
    stream.close()


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_names_and_numbers_are_whole_at_any_width_and_columns_of_zeros_are_left_out(
    home: Home, server: Server, url: str, live: Stream, columns: int
) -> None:
    """A name that is cut cannot be typed again, a number that is cut is another one."""
    consume(server, live, Verbose(), Counting())
    server.client.hset(live.keys[0].cursor("counting"), "applied", 123_456_789)
    open_stream(server, "nothing-here", create=True, settings=Settings(partitions=2)).close()

    out = home.run("status", env={"AURASTREAM_REDIS_URL": url, "COLUMNS": str(columns)}).out

    assert LONG in out
    assert "123,456," in out
    assert "skipped" not in out
    assert "nothing yet in: nothing-here" in out
    wide = [line for line in out.splitlines() if cell_len(line) > columns and LONG not in line]
    assert wide == []


def test_hosts_are_listed_with_what_they_run_and_red_ends_with_1_where_that_is_asked_for(
    home: Home, server: Server, url: str, live: Stream
) -> None:
    """The first two questions of a night: who lives, and does it want me."""
    consume(server, live, Counting())
    crew = Crew(server, "clips-live")
    crew.host("one", "counting", lease_ms=60_000)
    env = {"AURASTREAM_REDIS_URL": url}

    shown, judged = home.run("status", env=env), home.run("status", "--exit-code", env=env)
    live.append([observation(views=1, minute=99, clip=f"clip-{n}", event_id=f"x{n}") for n in range(9)])
    server.client.delete("aura:{fleet}:hosts")
    for keys in live.keys:
        server.client.hset(keys.lease("counting"), "until", 1)
    red = home.run("status", "--exit-code", env=env)

    assert "one-1-00000000: run" in shown.out
    assert "counting of clips-live 0-1" in shown.out
    assert (shown.code, judged.code, red.code) == (0, 0, 1)
    assert "counting of clips-live/0-1: nobody runs it; no host lives" in red.out
    assert "Traceback" not in red.err
    crew.close()


def test_it_is_shown_again_and_again_until_ctrl_c(home: Home, server: Server, url: str, live: Stream) -> None:
    """During a roll-out somebody looks on."""
    running = home.start("status", "--watch", env={"AURASTREAM_REDIS_URL": url})

    until(lambda: running.out.count("The fleet is green") >= 2, "the second look")
    consume(server, live, Counting())
    until(lambda: "The fleet is amber" in running.out, "what is new")

    assert running.signal(signal.SIGINT) == 130
    assert "Traceback" not in running.err
