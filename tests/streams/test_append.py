"""Append: each event ID once, whole or not at all, on every server."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import redis

from aurastream.streams import (
    Ack,
    Count,
    Event,
    InvalidEvent,
    InvariantBroken,
    NotReplicated,
    Outcome,
    Server,
    ServerRefuses,
    ServerUnfit,
    Settings,
    Stream,
    UnknownOutcome,
    VersionConflict,
    open_stream,
)
from aurastream.streams import appending as log
from tests.facts import NOON, dump, observation
from tests.servers import CuttingProxy, ServerProcess


def entries(server: Server, stream: Stream) -> int:
    return sum(server.client.xlen(keys.log) for keys in stream.keys)


def test_an_event_appended_twice_is_one_entry_at_one_position(server: Server, stream: Stream) -> None:
    """A repeated poll must not be a second fact."""
    first = stream.append([observation(event_id="e1")])
    again = stream.append([observation(event_id="e1"), observation(event_id="e2", minute=1)])

    assert [item.outcome for item in (*first, *again)] == [
        Outcome.APPENDED,
        Outcome.DUPLICATE,
        Outcome.APPENDED,
    ]
    assert again[0].position == first[0].position
    assert entries(server, stream) == 2


def test_the_same_id_twice_in_one_batch_is_one_entry(server: Server, stream: Stream) -> None:
    """A caller that collects from two sources may have the same fact twice."""
    placed = stream.append([observation(event_id="e1"), observation(event_id="e1")])

    assert [item.outcome for item in placed] == [Outcome.APPENDED, Outcome.DUPLICATE]
    assert placed[0].position == placed[1].position
    assert entries(server, stream) == 1


def test_two_ids_with_one_digest_are_two_events(
    server: Server, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index holds digests; equality is decided on the entries."""
    monkeypatch.setattr(log, "field_of", lambda event_id: b"12345678")

    for _ in range(2):
        stream.append([observation(event_id="e1"), observation(event_id="e2", minute=1)])
        stream.append([observation(event_id="e3", minute=2)])

    assert entries(server, stream) == 3


def test_one_bad_event_keeps_the_whole_batch_out(server: Server, stream: Stream) -> None:
    """Half a batch in the log would leave the caller to find out which half."""
    with pytest.raises(InvalidEvent, match=r"number 2 .*views"):
        stream.append([observation(), observation(views=2**53, event_id="bad")])

    assert entries(server, stream) == 0


@pytest.mark.parametrize("subject", ["{x}", "a b", "", "x" * 129, "a\n", "ü", "a\x00"])
def test_identifiers_that_could_reach_a_key_or_a_terminal_are_refused(stream: Stream, subject: str) -> None:
    """Braces move a key to another slot; control characters obey nobody."""
    with pytest.raises(InvalidEvent, match="subject"):
        stream.append([observation(clip=subject, event_id="e1")])


def test_an_event_from_the_day_after_tomorrow_is_refused(stream: Stream) -> None:
    """A broken clock must not move the windows of everybody else."""
    late = datetime.now(UTC) + timedelta(hours=25) - NOON

    with pytest.raises(InvalidEvent, match="24 h ahead"):
        stream.append([observation(minute=late.total_seconds() / 60)])


def test_what_is_no_time_at_all_is_refused_like_a_wrong_one(server: Server, stream: Stream) -> None:
    """A struct checks no types: text that JSON would make a time again is still not what the event says it
    is.
    """
    odd = msgspec.structs.replace(observation(event_id="e2"), occurred_at="2026-04-15T12:00:00Z")

    with pytest.raises(InvalidEvent, match=r"number 2 .*no datetime"):
        stream.append([observation(event_id="e1"), odd])
    assert entries(server, stream) == 0


def test_a_name_with_a_line_break_in_it_is_not_two_names(stream: Stream) -> None:
    """Names are checked all at once, joined by breaks: one with a break in it must not pass for two."""
    with pytest.raises(InvalidEvent, match="event_id"):
        stream.append([observation(event_id="a\nb"), observation(event_id="c", minute=1)])


def test_order_holds_in_batches_larger_than_a_script_call(server: Server, stream: Stream) -> None:
    """A view of totals is wrong after one exchange of two events of a subject."""
    stream.append([observation(views=n, minute=n, event_id=f"e{n}") for n in range(1_234)])

    read = stream.read(0) + stream.read(0, after=stream.read(0)[-1].position)
    assert [entry.event.views for entry in read] == list(range(1_234))


@pytest.mark.parametrize("which", ["log", "ids", "meta", "versions"])
def test_a_key_of_another_type_fails_before_anything_is_written(
    server: Server, stream: Stream, which: str
) -> None:
    """Scripts do not roll back: what can fail is found before the first write."""
    server.client.set(getattr(stream.keys[0], which), "mine")
    before = dump(server)

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        stream.append([observation()])

    assert dump(server) == before


def test_out_of_memory_is_whole_or_absent(server: Server, stream: Stream) -> None:
    """A full server is the moment at which half an append would be found by nobody."""
    server.client.config_set("maxmemory", 1)
    hasty = open_stream(server, stream.name, settings=Settings(attempts_max=1, server_wait_s=0))

    with pytest.raises(ServerRefuses, match=r"OOM .*Nothing of it was written"):
        hasty.append([observation()])

    server.client.config_set("maxmemory", 0)
    assert entries(server, stream) == 0
    assert stream.append([observation()])[0].outcome is Outcome.APPENDED


def test_an_index_row_without_its_entry_is_an_invariant_broken(server: Server, stream: Stream) -> None:
    """Someone deleted an entry by hand: say so rather than vouch for it."""
    position = stream.append([observation(event_id="e1")])[0].position
    server.client.xdel(stream.keys[0].log, position)

    with pytest.raises(InvariantBroken, match="deleted by hand"):
        stream.append([observation(event_id="e1")])


def test_of_two_claims_at_the_same_version_one_wins_and_its_retry_is_a_duplicate(server: Server) -> None:
    """Two workers that claim one job: one has it, the other knows, and a lost reply changes neither."""
    claims = open_stream(server, "jobs", create=True, versioned=True, settings=Settings(partitions=1))

    won = claims.append([observation(event_id="worker-a")], expected={"clip-1": 0})
    with pytest.raises(VersionConflict, match="at version 1, not 0") as lost:
        claims.append([observation(event_id="worker-b")], expected={"clip-1": 0})
    retried = claims.append([observation(event_id="worker-a")], expected={"clip-1": 0})

    assert (lost.value.expected, lost.value.actual) == (0, 1)
    assert won[0].position == retried[0].position
    assert entries(server, claims) == 1


@pytest.mark.parametrize("cuts", [1, 5])
def test_a_lost_reply_leaves_one_entry(
    running: ServerProcess, server: Server, stream: Stream, cuts: int
) -> None:
    """redis-py's default would resend silently and leave cuts + 1 entries."""
    proxy = CuttingProxy(running.url)
    through = open_stream(Server(proxy.url), stream.name, settings=Settings(partitions=1))
    through.append([observation(event_id="warm")])
    proxy.cuts = cuts

    placed = through.append([observation(event_id="e1", minute=1)])

    assert placed[0].position == stream.read(0)[-1].position
    assert entries(server, stream) == 2
    proxy.close()


def test_no_answer_at_all_is_an_unknown_outcome(running: ServerProcess, stream: Stream) -> None:
    """The sentence must say that it is unknown, and what to do: repeat with the same IDs."""
    proxy = CuttingProxy(running.url)
    through = open_stream(Server(proxy.url), stream.name, settings=Settings(attempts_max=2, server_wait_s=0))
    through.append([observation(event_id="warm")])
    proxy.cuts = 10_000

    with pytest.raises(UnknownOutcome, match="same event IDs"):
        through.append([observation()])
    proxy.close()


def test_plain_commands_are_never_resent(running: ServerProcess, server: Server) -> None:
    """redis-py repeats by default, an XADD too: ten entries for one event."""
    proxy = CuttingProxy(running.url)
    client = Server(proxy.url).client
    client.ping()
    proxy.cuts = 1

    with pytest.raises(redis.ConnectionError):
        client.xadd("plain", {"a": 1})

    assert server.client.xlen("plain") == 1
    proxy.close()


def test_scripts_forgotten_by_the_server_are_loaded_again(server: Server, stream: Stream) -> None:
    """A restart or a fail-over forgets them; a producer must not notice."""
    stream.append([observation(event_id="e1")])
    server.client.script_flush()

    assert stream.append([observation(event_id="e2", minute=1)])[0].outcome is Outcome.APPENDED


def test_replica_acknowledgement_needs_a_replica_and_vouches_for_duplicates_too(
    server: Server, stream: Stream
) -> None:
    """WAIT after a call that wrote nothing says yes to everything."""
    asking = open_stream(server, stream.name, settings=Settings(partitions=1, ack=Ack.REPLICA, wait_ms=50))

    for _ in range(2):
        with pytest.raises(NotReplicated, match="0 of 1 replicas"):
            asking.append([observation()])

    assert entries(server, stream) == 1
    assert server.client.hget(stream.keys[0].meta, "duplicates") == b"1", (
        "a duplicate must write, or WAIT vouches for nothing"
    )


def test_disk_acknowledgement_is_refused_on_a_server_that_cannot_give_it(server: Server) -> None:
    """A promise that the server does not keep is worse than none."""
    with pytest.raises(ServerUnfit, match="appendfsync always"):
        open_stream(server, "clips-test", create=True, settings=Settings(ack=Ack.DISK))


def test_each_append_may_choose_what_its_success_vouches_for(server: Server, stream: Stream) -> None:
    """A job's claim may need a disk where a poll does not."""
    with pytest.raises(NotReplicated):
        stream.append([observation(event_id="e1")], ack=Ack.REPLICA)
    with pytest.raises(ServerUnfit, match="appendonly yes"):
        stream.append([observation(event_id="e2", minute=1)], ack=Ack.DISK)
    stream.append([observation(event_id="e1")], ack=Ack.MEMORY)
    assert entries(server, stream) == 1


def test_a_disk_acknowledgement_survives_kill_9(valkey: str) -> None:
    """It is what the level is for."""
    process = ServerProcess(valkey, "--appendonly", "yes", "--appendfsync", "always")
    try:
        writing = open_stream(Server(process.url), "clips", create=True, settings=Settings(ack=Ack.DISK))
        placed = writing.append([observation(minute=n) for n in range(50)])
        process.kill()
        process.start()
        reading = open_stream(Server(process.url), "clips")
        assert [entry.position for entry in reading.read(placed[0].partition)] == [
            item.position for item in placed
        ]
    finally:
        process.stop()


def test_two_threads_appending_the_same_events_leave_each_once(
    url: str, server: Server, stream: Stream
) -> None:
    """Two pollers see the same facts; the log is what decides, not who came first."""
    events = [observation(views=n, minute=n) for n in range(2_000)]

    def work() -> None:
        own = open_stream(Server(url), stream.name, settings=Settings(partitions=1))
        for start in range(0, len(events), 70):
            own.append(events[start : start + 70])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert entries(server, stream) == len(events)


class NotANumber(Event, frozen=True, kw_only=True, tag="test.not_a_number"):
    ratio: float | None = None
    count: Count = 0


def test_nan_is_refused_although_json_would_make_it_null(server: Server) -> None:
    """The one change that JSON makes in silence: what is read would not be what was written."""
    from aurastream.streams import Codec

    other = open_stream(server, "floats", create=True, codec=Codec((NotANumber,)))
    with pytest.raises(InvalidEvent, match="NaN"):
        other.append([NotANumber(event_id="e", subject="s", occurred_at=NOON, ratio=float("nan"))])
