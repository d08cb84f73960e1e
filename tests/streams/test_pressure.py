"""Back-pressure: a producer waits for the slowest group or is told; nothing is dropped, and memory stays
within the budget.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from aurastream.projections import View
from aurastream.streams import BacklogFull, Outcome, Pressure, Server, Settings, Stream, open_stream
from aurastream.streams.appending import AppendAnswer
from aurastream.streams.pressure import OVERHEAD_BYTES, backlogs, forget, join
from tests.facts import consume, dump, findings, observation, raw_append
from tests.projections.counting import Counting
from tests.servers import until


def producer(stream: Stream, **settings: Any) -> Stream:
    """The stream as a producer with these settings sees it."""
    chosen: dict[str, Any] = {
        "pressure": Pressure.REFUSE,
        "partitions": stream.partitions,
        "budget_bytes": 0,
        **settings,
    }
    return open_stream(stream.server, stream.name, settings=Settings(**chosen))


def facts(first: int, last: int, **more: Any) -> list[Any]:
    return [observation(views=n, minute=n, event_id=f"e{n}", **more) for n in range(first, last)]


def length(stream: Stream) -> int:
    return int(stream.server.client.xlen(stream.keys[0].log))


def fill(ahead: Stream) -> tuple[int, BacklogFull]:
    """Append until the log takes no more; how many events it took, and what it said."""
    for start in range(0, 100_000, 250):
        try:
            ahead.append(facts(start, start + 250, title="x" * 300))
        except BacklogFull as full:
            return start, full
    raise AssertionError("the log took everything")


def command(stream: Stream, events: list[Any], after: bytes = b"") -> tuple[Any, ...]:
    """The call of append.lua as this producer makes it now."""
    (request,) = stream._requests(events, None)
    request.after = after
    return request.command(stream._gate)


def test_a_producer_a_budget_ahead_of_a_stopped_group_is_told_and_nothing_is_written(
    server: Server, stream: Stream
) -> None:
    """It must know whom it waits for; half a batch would be lost to it."""
    consume(server, stream, Counting())
    ahead = producer(stream, budget_events=100)
    ahead.append(facts(0, 100))
    before = dump(server)

    with pytest.raises(
        BacklogFull, match=r"'counting' is 100 events .* forget counting --stream clips-test"
    ) as told:
        ahead.append(facts(100, 103))

    assert dump(server) == before
    assert (told.value.group, told.value.partition, told.value.events, told.value.refused) == (
        "counting",
        0,
        100,
        3,
    )
    consume(server, stream, Counting())
    assert [item.outcome for item in ahead.append(facts(100, 103))] == [Outcome.APPENDED] * 3


def test_a_budget_in_bytes_counts_json_and_overhead(server: Server, stream: Stream) -> None:
    """What is counted must be near what memory costs."""
    consume(server, stream, Counting())
    size = len(stream.codec.encode(facts(0, 1)[0])) + OVERHEAD_BYTES
    ahead = producer(stream, budget_events=0, budget_bytes=10 * size)
    for n in range(10):
        ahead.append(facts(n, n + 1))

    with pytest.raises(BacklogFull) as told:
        ahead.append(facts(10, 11))

    assert (told.value.events, told.value.bytes) == (10, 10 * size)
    assert backlogs(server, stream.keys[0])[0].bytes == 10 * size


def test_what_is_there_already_is_a_duplicate_and_needs_no_room(server: Server, stream: Stream) -> None:
    """A producer that repeats after a lost reply must learn that its events are in."""
    consume(server, stream, Counting())
    ahead = producer(stream, budget_events=5)
    ahead.append(facts(0, 5))

    assert [item.outcome for item in ahead.append(facts(0, 5))] == [Outcome.DUPLICATE] * 5


def test_a_producer_that_does_not_know_all_groups_writes_nothing_and_learns_them(
    server: Server, stream: Stream
) -> None:
    """The script checks it, so a group counts from the moment it joined."""
    ahead = producer(stream, budget_events=2)
    ahead.append(facts(0, 2))
    stale = command(ahead, facts(2, 3))
    stream.wire(0).ask(join(stream.keys[0], "late"))
    before = dump(server)

    assert stream.wire(0).ask(stale)[0] == [AppendAnswer.REGROUP, b"late"]
    assert dump(server) == before
    ahead.append(facts(2, 4))
    with pytest.raises(BacklogFull, match="'late'"):
        ahead.append(facts(4, 5))


def test_a_chunk_whose_predecessor_was_refused_is_early(server: Server, stream: Stream) -> None:
    """The events of one call and partition are in order, also when the group advances between two chunks."""
    consume(server, stream, Counting())
    ahead = producer(stream, budget_events=2)
    before = dump(server)

    assert stream.wire(0).ask(command(ahead, facts(0, 1), after=b"12345678"))[0] == [AppendAnswer.EARLY]
    assert dump(server) == before


def test_the_slowest_of_several_groups_is_named(server: Server, stream: Stream) -> None:
    """It is the one that an operator must look at."""
    stream.wire(0).ask(join(stream.keys[0], "asleep"))
    consume(server, stream, Counting())
    ahead = producer(stream, budget_events=10)
    ahead.append(facts(0, 8))
    consume(server, stream, Counting())

    with pytest.raises(BacklogFull) as told:
        ahead.append(facts(8, 12))

    assert told.value.group == "asleep"
    assert [(item.group, item.events) for item in backlogs(server, stream.keys[0])] == [
        ("asleep", 8),
        ("counting", 0),
    ]


def test_a_forgotten_group_holds_nobody_back_until_it_starts_again(server: Server, stream: Stream) -> None:
    """A group that is gone for good must not stop the producers for ever."""
    consume(server, stream, Counting())
    ahead = producer(stream, budget_events=5)
    ahead.append(facts(0, 5))

    assert forget(server, stream.keys, "counting") == 1
    assert forget(server, stream.keys, "counting") == 0
    ahead.append(facts(5, 50))

    consume(server, stream, Counting())
    ahead.append(facts(50, 55))
    with pytest.raises(BacklogFull):
        ahead.append(facts(55, 56))


def test_a_new_group_on_an_old_log_does_not_stop_the_producers(server: Server, stream: Stream) -> None:
    """What was there before it joined is not counted: deploying a projection must not be an outage."""
    stream.append(facts(0, 100))
    consume(server, stream, Counting(), batch_max=10, on_commit=lambda progress: None)
    forget(server, stream.keys, "counting")
    server.client.delete(stream.keys[0].cursor("counting"))
    stream.wire(0).ask(join(stream.keys[0], "counting"))
    ahead = producer(stream, budget_events=50)

    ahead.append(facts(100, 150))

    with pytest.raises(BacklogFull):
        ahead.append(facts(150, 151))


def test_raw_entries_count_too(server: Server, stream: Stream) -> None:
    """They take memory as well, and a group must read them."""
    consume(server, stream, Counting())
    for event in facts(0, 5):
        raw_append(server, stream, event)

    with pytest.raises(BacklogFull):
        producer(stream, budget_events=5).append(facts(10, 11))


def test_what_alone_exceeds_the_budget_goes_in_when_nothing_is_ahead(server: Server, stream: Stream) -> None:
    """Or it could never be appended; the backlog is bounded by the budget and one script call."""
    consume(server, stream, Counting())
    ahead = producer(stream, budget_events=3)

    ahead.append(facts(0, 400))

    with pytest.raises(BacklogFull):
        ahead.append(facts(400, 401))


def test_a_stream_without_groups_or_without_budget_is_not_bounded(server: Server, stream: Stream) -> None:
    """Nobody is asked where nobody can be too far behind."""
    producer(stream, budget_events=1).append(facts(0, 10))
    consume(server, stream, Counting())
    free = producer(stream, budget_events=0)
    free.append(facts(10, 1_000))

    assert command(free, facts(0, 1))[2] == 5, "no key is looked at for a budget that is not there"


def test_a_group_that_cannot_fold_holds_nobody_back(server: Server, stream: Stream) -> None:
    """It joins with its first step that succeeded."""
    stream.append(facts(0, 1))
    server.client.set(View(stream, Counting()).key(0, "states"), "mine")
    with pytest.raises(Exception, match="is a string"):
        consume(server, stream, Counting())
    assert backlogs(server, stream.keys[0]) == []


@pytest.mark.parametrize("key", ["groups", "cursor"])
def test_a_key_of_another_type_fails_before_anything_is_written(
    server: Server, stream: Stream, key: str
) -> None:
    """Scripts do not roll back: what can fail is found before the first write."""
    ahead = producer(stream, budget_events=5)
    if key == "cursor":
        stream.wire(0).ask(join(stream.keys[0], "x"))
        ahead.append(facts(0, 1))
    server.client.set(stream.keys[0].cursor("x") if key == "cursor" else stream.keys[0].groups, "mine")
    before = dump(server)

    with pytest.raises(Exception, match="WRONGTYPE"):
        ahead.append(facts(1, 7))
    assert dump(server) == before


def test_a_waiting_producer_goes_on_when_the_group_does_and_order_holds(
    server: Server, stream: Stream, url: str
) -> None:
    """2,000 events in one call through a budget of 600, by two producers' worth of waiting."""
    consume(server, stream, Counting())
    ahead = producer(stream, budget_events=600, pressure=Pressure.WAIT)
    placed: list[Any] = []
    thread = threading.Thread(target=lambda: placed.extend(ahead.append(facts(0, 2_000))))
    thread.start()
    until(lambda: length(stream) >= 500, "the first chunk")
    own = Server(url)
    until(
        lambda: consume(own, open_stream(own, stream.name), Counting()) or not thread.is_alive(),
        "the producer to finish",
    )
    thread.join()

    consume(server, stream, Counting())
    views = [
        entry.event.views for start in ("0-0", placed[999].position) for entry in stream.read(0, after=start)
    ]
    assert views == list(range(2_000))
    assert findings(stream, Counting()) == []


def test_a_wait_has_an_end(server: Server, stream: Stream) -> None:
    """A producer that waits for ever looks like one that hangs."""
    consume(server, stream, Counting())
    ahead = producer(stream, budget_events=1, pressure=Pressure.WAIT, pressure_wait_s=0.2)
    ahead.append(facts(0, 1))
    started = time.monotonic()

    with pytest.raises(BacklogFull):
        ahead.append(facts(1, 2))

    assert 0.2 <= time.monotonic() - started < 5


def test_memory_stays_under_the_budget_with_a_stopped_consumer_and_nothing_is_dropped(
    server: Server, stream: Stream
) -> None:
    """The promise: a fast producer fills 8 MiB and not more, and all it was told is appended is counted after
    the consumer resumes.
    """
    budget = 8 * 2**20
    consume(server, stream, Counting())
    ahead = producer(stream, budget_events=0, budget_bytes=budget)
    used = int(server.client.info("memory")["used_memory"])

    appended, told = fill(ahead)

    grown = int(server.client.info("memory")["used_memory"]) - used
    assert 0.75 * budget < told.bytes <= budget
    assert 0.7 * budget < grown <= budget
    consume(server, stream, Counting())
    ahead.append(facts(appended, appended + 250, title="x" * 300))
    consume(server, stream, Counting())
    assert View(stream, Counting()).states().rows["clip-1"].applied == appended + 250
    assert findings(stream, Counting()) == []
