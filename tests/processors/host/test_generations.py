"""Workers follow a swap: they take the new generation up, keep the old one up, and let it go when its time is
over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from aurastream.projections import View
from aurastream.projections.built_in.trail import Trail
from aurastream.projections.engine.generations import change, read_record, swapped
from aurastream.projections.rebuild import Decision, Rebuild
from aurastream.streams import Server, Settings, Stream, open_stream, read_members
from aurastream.streams.history import History
from tests.facts import findings, observation
from tests.processors.host.test_host import Host, Start, append, start
from tests.projections.engine.test_generations import states
from tests.servers import until

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.any_server]

__all__ = ["start"]
DAY_MS = 86_400_000


@pytest.fixture
def live(server: Server) -> Iterator[Stream]:
    stream = open_stream(server, "clips-live", create=True, settings=Settings(partitions=2))
    yield stream
    stream.close()


def read(stream: Stream, generation: int) -> int:
    return sum(cursor.read for cursor in View(stream, Trail(), generation=generation).cursors().values())


def lanes(host: Host) -> set[tuple[int, int]]:
    """Generation and partition of the host's lanes of the stream."""
    status, body = host.page("/health")
    return (
        {
            (lane["generation"], lane["partition"])
            for lane in json.loads(body)["lanes"]
            if lane["stream"] == "clips-live"
        }
        if status
        else set()
    )


def test_a_host_takes_the_new_generation_up_keeps_the_old_one_up_and_retires_it_in_its_time(
    start: Start, server: Server, live: Stream
) -> None:
    """A swap needs no restart, and a rollback finds the view before it up to date."""
    append(live, 0, 400)
    host = start()
    until(lambda: read(live, 1) == 400, "the first events")
    with Rebuild(History(live), Trail(), Decision("ada@host")) as work:
        work.begin()
        work.build()
        assert [one.differing for one in work.compare() or []] == [0, 0]
        work.swap(DAY_MS)

    append(live, 400, 300)
    until(lambda: (read(live, 1), read(live, 2)) == (700, 700), "both generations")
    until(lambda: lanes(host) == {(1, 0), (1, 1), (2, 0), (2, 1)}, "lanes of both")
    assert findings(live, Trail()) == []

    change(server, live.name, "trail", lambda record: swapped(swapped(record, 1, 1, DAY_MS), 2, 2, 1))
    until(
        lambda: states(read_record(server, live.name, "trail")) == {2: "live"},
        "the host to retire what was kept",
    )
    until(lambda: lanes(host) == {(2, 0), (2, 1)}, "no lanes of what is gone")
    append(live, 700, 100)
    until(lambda: read(live, 2) == 800, "the live one goes on")

    assert server.client.keys("aura:{clips-live.*}:view:trail:1:*") == []
    assert host.page("/health")[0] == 200
    assert host.stop() == 0
    assert "Traceback" not in host.log()


def test_a_host_of_another_definition_than_the_live_one_says_so_and_its_other_views_go_on(
    start: Start, server: Server, live: Stream
) -> None:
    """During a rollout old hosts must not fold into a view of the new definition, nor stop altogether."""
    live.append([observation(1)])
    for keys in live.keys:
        server.client.hset(keys.cursor("trail"), "fingerprint", "0123456789abcdef")

    host = start("aurastream", "run", "--web-port", "PORT")

    until(lambda: any(member.card.notes for member in read_members(server)), "a note on its card")
    (member,) = read_members(server)
    assert not member.card.offers_lane("trail", live.name)
    assert "was folded by another definition (0123456789abcdef)" in member.card.notes[0]
    assert "aurastream rebuild trail" in host.log()
    assert host.page("/health")[0] == 200, "a restart would not help"
    until(
        lambda: server.client.hget(live.keys[live.partition_of("clip-1")].cursor("clips"), "read") == b"1",
        "the other view",
    )
