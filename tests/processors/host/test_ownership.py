"""Ownership by lanes, with real hosts: of unlike choices, versions and kinds, and what each may not keep from
the others.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from aurastream.projections import View
from aurastream.projections.built_in.trail import Trail
from aurastream.streams import BUILT_IN, Codec, Server, Settings, Stream, open_stream, read_members
from tests.facts import observation
from tests.processors.host.test_host import Host, Start, start  # noqa: F401 - fixture
from tests.servers import until

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.any_server]

NOTING = """
from pathlib import Path
from aurastream.processors.effects import Processor
from aurastream.streams import ClipViewsObserved

class {kind}(Processor):
    name = "{name}"
    events = (ClipViewsObserved,)
    streams = ("clips-live",)
    start = "beginning"
    attempts_max = 1

    async def handle(self, event, attempt):
        with Path("{name}.txt").open("a") as file:
            file.write(event.event_id + "\\n")
"""


@pytest.fixture
def live(server: Server) -> Iterator[Stream]:
    codec = Codec(BUILT_IN)
    stream = open_stream(server, "clips-live", codec=codec, create=True, settings=Settings(partitions=4))
    yield stream
    stream.close()


def append(stream: Stream, first: int, count: int) -> None:
    stream.append(
        [observation(views=n, minute=n, clip=f"clip-{n % 40}") for n in range(first, first + count)]
    )


def read_by(stream: Stream, group: str) -> int:
    client = stream.server.client
    return sum(int(client.hget(keys.cursor(group), "read") or 0) for keys in stream.keys)


def owners(stream: Stream, group: str) -> list[str]:
    client = stream.server.client
    return [(client.hget(keys.lease(group), "owner") or b"").decode() for keys in stream.keys]


def write_app(folder: Path, name: str) -> None:
    (folder / f"{name}_app.py").write_text(NOTING.format(kind=name.title(), name=name))


def handled(folder: Path, name: str) -> list[str]:
    path = folder / f"{name}.txt"
    return path.read_text().split() if path.exists() else []


def test_a_host_of_one_projection_beside_one_of_all_starves_nobody(
    start: Start,  # noqa: F811
    live: Stream,
) -> None:
    """Each owned half of all partitions, and the half that could not fold a view kept it from the other."""
    start("aurastream", "run", "--projection", "trail", "--web-port", "off")
    start("aurastream", "run", "--web-port", "off")
    until(lambda: len(set(owners(live, "trail"))) == 2, "both to have lanes of trail")
    append(live, 0, 200)
    until(lambda: read_by(live, "clips") == read_by(live, "trail") == 200, "both views to have read all", 10)
    until(lambda: len(set(owners(live, "clips"))) == 1, "one host alone to run clips")
    until(lambda: sorted(Counter(owners(live, "trail")).values()) == [2, 2], "equal shares of trail")


def test_two_apps_on_one_server_both_move(
    start: Start,  # noqa: F811
    live: Stream,
    tmp_path: Path,
) -> None:
    """A host must not keep from others what it has no code for."""
    for name in ("one", "two"):
        write_app(tmp_path, name)
        start("aurastream", "--app", f"{name}_app", "run", "--web-port", "off")
    append(live, 0, 100)
    until(lambda: len(handled(tmp_path, "one")) == len(handled(tmp_path, "two")) == 100, "all handled", 15)
    assert set(owners(live, "one")).isdisjoint(owners(live, "two"))


def test_hosts_of_one_stream_each_share_nothing_and_both_move(
    start: Start,  # noqa: F811
    server: Server,
    live: Stream,
) -> None:
    """--stream x beside --stream y: neither may own what only the other reads."""
    other = open_stream(server, "clips-other", create=True, settings=Settings(partitions=4))
    for name in ("clips-live", "clips-other"):
        start("aurastream", "run", "--stream", name, "--web-port", "off")
    append(live, 0, 100)
    append(other, 0, 100)
    until(lambda: read_by(live, "clips") == read_by(other, "clips") == 100, "both streams to be read", 10)
    other.close()


def test_a_run_until_idle_beside_a_host_handles_nothing_twice(
    start: Start,  # noqa: F811
    live: Stream,
    tmp_path: Path,
) -> None:
    """It is a member like any other: one attempt each, and none is parked for a try that another made."""
    write_app(tmp_path, "noting")
    start("aurastream", "--app", "noting_app", "run", "--web-port", "off")
    until(lambda: all(owners(live, "noting")), "the host to own the lanes")
    append(live, 0, 400)
    idle = [start("aurastream", "--app", "noting_app", "run", "--until-idle") for _ in range(2)]
    assert [host.process.wait(40) for host in idle] == [0, 0]
    counts = Counter(handled(tmp_path, "noting"))
    assert len(counts) == 400
    assert set(counts.values()) == {1}
    client = live.server.client
    assert sum(client.hlen(keys.dead("noting")) for keys in live.keys) == 0


def test_a_fresh_view_has_the_definition_of_who_came_first_and_the_other_version_says_so(
    start: Start,  # noqa: F811
    live: Stream,
    tmp_path: Path,
) -> None:
    """Two versions on a view that nothing was folded into yet must not fold half of it each."""
    app = "from aurastream.projections.built_in.trail import Trail as Was\n\nclass Trail2(Was):\n"
    (tmp_path / "old_app.py").write_text(app + "    name = 'paths'\n    version = 1\n    streams = None\n")
    (tmp_path / "new_app.py").write_text(app + "    name = 'paths'\n    version = 2\n    streams = None\n")
    start("aurastream", "--app", "old_app", "run", "--web-port", "off")
    until(lambda: all(owners(live, "paths")), "the old one to own the lanes")
    start("aurastream", "--app", "new_app", "run", "--web-port", "off")
    until(lambda: sum(len(member.card.notes) > 0 for member in read_members(live.server)) == 1, "a note")
    append(live, 0, 100)
    until(lambda: read_by(live, "paths") == 100, "the view to move")
    assert len(set(owners(live, "paths"))) == 1


def test_a_killed_hosts_lanes_are_taken_over_within_the_lease_and_a_second(
    start: Start,  # noqa: F811
    live: Stream,
) -> None:
    """By members who see it gone and by leases that have ended; nobody has to be told."""
    hosts: list[Host] = [
        start("aurastream", "run", "--projection", "trail", "--web-port", "off", lease_ms=600)
        for _ in range(2)
    ]
    until(lambda: sorted(Counter(owners(live, "trail")).values()) == [2, 2], "equal shares")
    hosts[0].kill()
    began = time.monotonic()
    append(live, 0, 100)
    until(lambda: View(live, Trail()).cursors() and read_by(live, "trail") == 100, "all to be read")
    assert time.monotonic() - began < 0.6 + 1.0 + 1.0, "a second more, for a machine that is busy"


def test_a_host_that_stops_gives_its_lanes_to_the_others_at_once(
    start: Start,  # noqa: F811
    live: Stream,
) -> None:
    """With a lease of a minute: nothing may have to lapse at a rolling restart."""
    first, second = (
        start("aurastream", "run", "--projection", "trail", "--web-port", "off", lease_ms=60_000)
        for _ in range(2)
    )
    until(lambda: len(read_members(live.server)) == 2, "both to be members")
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(20) == 0
    append(live, 0, 100)
    until(lambda: read_by(live, "trail") == 100, "the other to read all", 5)
    assert second.process.poll() is None


def test_a_row_changed_by_hand_stops_no_lane_that_runs(
    start: Start,  # noqa: F811
    server: Server,
    live: Stream,
) -> None:
    """What there is cannot be seen for a while: what is known goes on, and the host says so on its card."""
    start("aurastream", "run", "--projection", "trail", "--web-port", "off")
    until(lambda: all(owners(live, "trail")), "the lanes")
    server.client.hset("aura:streams", "broken", "no row")
    until(lambda: any("cannot be seen" in note for m in read_members(server) for note in m.card.notes), "it")
    epochs = [server.client.hget(keys.lease("trail"), "epoch") for keys in live.keys]
    append(live, 0, 100)
    until(lambda: read_by(live, "trail") == 100, "all to be read")
    server.client.hdel("aura:streams", "broken")
    until(lambda: not any(member.card.notes for member in read_members(server)), "the note to go")
    assert [server.client.hget(keys.lease("trail"), "epoch") for keys in live.keys] == epochs
