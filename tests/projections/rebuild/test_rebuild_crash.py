"""Rebuilds that are killed, raced and watched: the live view untouched, the swap all or nothing, no answer of
a mixture.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aurastream.projections import Consumer, View
from aurastream.projections.engine.generations import read_record
from aurastream.projections.rebuild import Decision, rollback
from aurastream.streams import Server, Settings, Stream, open_stream
from aurastream.streams.history import History
from tests.facts import consume, findings
from tests.projections.counting import Counting
from tests.projections.engine.test_generations import operations, states
from tests.projections.rebuild.rebuild_child import BEFORE_SWAP, STEPS
from tests.projections.rebuild.test_rebuild import DAY_MS, Second, crowd, rebuild, rebuilt, tables
from tests.servers import until

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.any_server]

ROOT = Path(__file__).parents[3]
LEASE_MS = 400
READS_PER_S = 1_000


@pytest.fixture
def parted(server: Server) -> Any:
    stream = open_stream(server, "clips-parted", create=True, settings=Settings(partitions=3))
    yield stream
    stream.close()


def kept_of(server: Server, generation: int) -> dict[bytes, bytes]:
    """What belongs to a generation: its tables and its cursor, as the server has them."""
    dumps = {
        key: server.client.dump(key) for key in server.client.keys(f"aura:{{*}}:view:counting:{generation}:*")
    }
    return dumps | {key: server.client.dump(key) for key in server.client.keys("aura:{*}:cursor:counting")}


@pytest.mark.parametrize("step", STEPS)
def test_a_rebuild_killed_at_any_step_is_ended_by_the_next_and_the_live_view_was_never_touched(
    server: Server, parted: Stream, step: str
) -> None:
    """A rebuild takes hours: it will be killed, and nobody may have to clean up by hand."""
    parted.append(crowd(1_500))
    consume(server, parted, Counting())
    before = kept_of(server, 1)

    child = [
        sys.executable,
        "-m",
        "tests.projections.rebuild.rebuild_child",
        server.url,
        parted.name,
        step,
        str(LEASE_MS),
    ]
    done = subprocess.run(child, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr
    record = read_record(server, parted.name, "counting")

    if step in BEFORE_SWAP:
        assert (record.live, kept_of(server, 1)) == (1, before)
    else:
        assert record.live == 2
        assert View(parted, Counting()).cursors().keys() == {0, 1, 2}
    if step == "in the middle":
        reads = [cursor.read for cursor in View(parted, Counting(), generation=2).cursors().values()]
        assert 0.2 * 1_500 < sum(reads) < 1_500, "it committed on the way"
    assert findings(parted, Counting()) == []

    parted.append(crowd(100, first=1_500))
    consume(server, parted, Counting())
    rebuilt(parted, Counting())

    live = read_record(server, parted.name, "counting").live
    assert live == (2 if step in BEFORE_SWAP else 3)
    assert sum(state.applied for state in View(parted, Counting()).states().rows.values()) == 1_600
    assert findings(parted, Counting()) == []
    announced = operations(server)
    assert len(announced) == len(set(announced)), "every event once"
    assert {("RebuildStarted", 2), ("ViewSwapped", 2)} <= set(announced)
    if "tomb" in step or "tables" in step or "cleared" in step:
        assert 1 not in states(read_record(server, parted.name, "counting"))
        assert kept_of(server, 1).keys() == {key for key in before if b":cursor:" in key}, "the tombstones"


class Watcher(threading.Thread):
    """Reads as fast as it is asked to, and keeps every answer that is none of those allowed."""

    def __init__(
        self, url: str, name: str, read: Callable[[View[Any]], Any], is_allowed: Callable[[Any], bool]
    ) -> None:
        super().__init__(daemon=True)
        self._url, self._name, self._read, self._is_allowed = url, name, read, is_allowed
        self.reads, self.took_s, self.slowest_s = 0, 0.0, 0.0
        self.wrong: list[Any] = []
        self.ends = threading.Event()

    def run(self) -> None:
        server = Server(self._url)
        stream = open_stream(server, self._name)
        view = View(stream, Counting())
        began = time.perf_counter()
        while not self.ends.is_set():
            start = time.perf_counter()
            try:
                answer = self._read(view)
                if not self._is_allowed(answer):
                    self.wrong.append(answer)
            except Exception as error:
                self.wrong.append(error)
            self.slowest_s = max(self.slowest_s, time.perf_counter() - start)
            self.reads += 1
        self.took_s = time.perf_counter() - began
        stream.close()
        server.close()


def test_readers_see_the_old_view_or_the_new_one_whole_through_swaps_and_rollbacks(
    server: Server, parted: Stream
) -> None:
    """Two definitions, whose rankings have the same keys and other states: a mixture would be seen in any one
    answer.
    """
    parted.append(crowd(2_000))
    consume(server, parted, Counting())
    rankings = [View(parted, Counting()).ranking("most", 12).rows]
    totals = [View(parted, Counting()).totals("all").rows]
    with rebuild(parted, Second()) as work:
        work.begin()
        work.build()
        work.compare(accept=True)
        rankings.append(View(parted, Second(), generation=2).ranking("most", 12).rows)
        totals.append(View(parted, Second(), generation=2).totals("all").rows)
        assert rankings[0] != rankings[1]
        assert totals[0] != totals[1]
        watchers = [
            Watcher(
                server.url, parted.name, lambda view: view.ranking("most", 12).rows, rankings.__contains__
            ),
            Watcher(server.url, parted.name, lambda view: view.totals("all").rows, totals.__contains__),
        ]
        for watcher in watchers:
            watcher.start()
        until(lambda: all(watcher.reads > 50 for watcher in watchers), "readers")

        began = time.perf_counter()
        work.swap(DAY_MS)
        swap_ms = (time.perf_counter() - began) * 1000
    for _ in range(10):
        rollback(History(parted), Second(), Decision("ada@host"), keep_ms=DAY_MS)
        seen = [watcher.reads for watcher in watchers]
        until(
            lambda seen=seen: all(w.reads > n + 20 for w, n in zip(watchers, seen, strict=True)),
            "reads between two swaps",
        )
    for watcher in watchers:
        watcher.ends.set()
        watcher.join()

    rates = [watcher.reads / watcher.took_s for watcher in watchers]
    print(
        f"swap {swap_ms:.1f} ms; readers/s {[round(rate) for rate in rates]}; slowest "
        f"{[w.slowest_s * 1000 for w in watchers]} ms"
    )
    assert [watcher.wrong[:3] for watcher in watchers] == [[], []]
    assert read_record(server, parted.name, "counting").live == 2


def test_appends_and_a_consumer_go_on_through_a_rebuild_and_its_swap(server: Server, parted: Stream) -> None:
    """Nothing is lost or counted twice, the view never shrinks, and the kept one stays up to date."""
    parted.append(crowd(2_000))
    consume(server, parted, Counting())
    stopped = threading.Event()
    appended: list[int] = []
    errors: list[BaseException] = []

    def append() -> None:
        own = open_stream(mine := Server(server.url), parted.name)
        number = 2_000
        while not stopped.is_set():
            own.append(crowd(50, first=number))
            number += 50
            appended.append(number)
        own.close()
        mine.close()

    def follow() -> None:
        own = open_stream(mine := Server(server.url), parted.name)
        Consumer(mine, [Counting()], lambda: [own]).run(stopped.is_set)
        own.close()
        mine.close()

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)

        return run

    largest = [0]

    def never_less(rows: Any) -> bool:
        applied = sum(row["applied"] for row in rows.values())
        is_more = (
            applied >= largest[0] * 0.8
        )  # the new one may be some events behind at the swap, never empty
        largest[0] = max(largest[0], applied)
        return is_more

    watcher = Watcher(server.url, parted.name, lambda view: view.totals("all").rows, never_less)
    threads = [threading.Thread(target=guarded(append)), threading.Thread(target=guarded(follow)), watcher]
    for thread in threads:
        thread.start()
    until(lambda: len(appended) > 5, "appends")

    parts = rebuilt(parted, Counting())
    swapped_at = appended[-1]
    until(lambda: appended[-1] > swapped_at + 500, "appends after the swap")
    stopped.set()
    watcher.ends.set()
    for thread in threads:
        thread.join()
    consume(server, parted, Counting())

    assert errors == []
    assert watcher.wrong == []
    assert [one.differing for one in parts] == [0, 0, 0]
    assert sum(state.applied for state in View(parted, Counting()).states().rows.values()) == appended[-1]
    assert tables(parted, Counting(), 1) == tables(parted, Counting(), 2)
    assert findings(parted, Counting()) == []
