"""
View == fold(log), each event ID once: every answer of commit.lua, every hazard of groups, and the mutation
check.

The scenarios are functions that end in an assertion; the tests run them on the scripts as they are, and the
mutation check runs the same ones on scripts with a guard removed, where that assertion must fail.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from redis.exceptions import TryAgainError

from aurastream.projections import Consumer, FoldFailed, LogRewound, ProjectionRedefined, View, ViewBroken
from aurastream.projections.built_in.clips import Clips
from aurastream.projections.built_in.trail import Trail
from aurastream.projections.engine import apply, commit
from aurastream.projections.engine.apply import Lane
from aurastream.projections.engine.commit import CommitAnswer, is_commit
from aurastream.projections.engine.consumer import GroupLane
from aurastream.streams import (
    Ask,
    InvariantBroken,
    Outcome,
    Script,
    Server,
    Settings,
    Stream,
    UnknownEventVersion,
    drive,
    index,
    open_stream,
)
from aurastream.streams import appending as log
from tests.facts import consume, dump, findings, observation, raw_append
from tests.projections.counting import Count, Counting
from tests.servers import CuttingProxy, ServerProcess, until


def counted(stream: Stream) -> dict[str, int]:
    return {key: state.applied for key, state in View(stream, Counting()).states().rows.items()}


def commit_of(server: Server, stream: Stream, flow: GroupLane | None = None) -> tuple[Any, ...]:
    """The commit command of the next batch, as a flow makes it, not yet sent."""
    steps = (flow or GroupLane(Counting(), stream, 0)).steps()
    answers: Any = None
    while True:
        asks = steps.send(answers)
        if asks and is_commit(asks[0].command):
            steps.close()
            return asks[0].command
        answers = stream.wires.exchange(asks)


def send(stream: Stream, command: tuple[Any, ...]) -> tuple[CommitAnswer, list[Any]]:
    answer = stream.wire(0).ask(command)[0]
    return CommitAnswer(answer[0]), answer[1:]


# The scenarios of the mutation check.


def a_late_repeat_of_a_commit_changes_nothing(server: Server, stream: Stream) -> None:
    """Its reply was lost, it was sent again, and the network delivers the first copy last."""
    stream.append([observation(minute=1), observation(minute=2)])
    late = commit_of(server, stream)
    assert send(stream, late)[0] is CommitAnswer.OK
    stream.append([observation(minute=3)])
    consume(server, stream, Counting())
    before = dump(server)

    answer = send(stream, late)[0]

    assert (answer, dump(server)) == (CommitAnswer.STALE, before)


def raw_duplicates_count_once(server: Server, stream: Stream) -> None:
    """Someone mirrors the log with plain XADD."""
    event, other = observation(event_id="e1"), observation(event_id="e2", minute=1)
    stream.append([event])
    raw_append(server, stream, event)
    consume(server, stream, Counting())
    for _ in range(2):
        raw_append(server, stream, other)
    raw_append(server, stream, event)
    consume(server, stream, Counting())

    assert counted(stream) == {"clip-1": 2}


def a_key_of_another_type_leaves_everything_unchanged(server: Server, stream: Stream) -> None:
    """Scripts do not roll back, so the types are looked at first."""
    stream.append([observation()])
    server.client.set(View(stream, Counting()).key(0, "most", ""), "mine")
    before = dump(server)

    with pytest.raises(Exception, match=r"is a string|WRONGTYPE"):
        consume(server, stream, Counting(), attempts_max=1)

    after = dump(server)
    after.pop(stream.keys[0].log.encode()), before.pop(stream.keys[0].log.encode())  # the group is made in it
    assert after == before


def an_appended_id_is_one_entry(server: Server, stream: Stream) -> None:
    for _ in range(2):
        stream.append([observation(event_id="e1")])
    assert server.client.xlen(stream.keys[0].log) == 1


SCENARIOS = (
    a_late_repeat_of_a_commit_changes_nothing,
    raw_duplicates_count_once,
    a_key_of_another_type_leaves_everything_unchanged,
    an_appended_id_is_one_entry,
)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_guarded(server: Server, stream: Stream, scenario: Callable[[Server, Stream], None]) -> None:
    """On the scripts as they are each scenario holds: only so do the mutants below mean something."""
    scenario(server, stream)


@pytest.mark.parametrize(
    ("scenario", "module", "name", "guard", "without"),
    [
        (SCENARIOS[0], commit, "_COMMIT", "position ~= head.after or ", ""),
        (SCENARIOS[1], commit, "_COMMIT", "if #places > 0 then return {ANSWER.ODD, places} end", ""),
        (SCENARIOS[1], commit, "_COMMIT", "is_pure = added == appended", "is_pure = true"),
        (SCENARIOS[2], commit, "_COMMIT", "local refusal = broken()", "local refusal"),
        (SCENARIOS[3], log, "APPEND", "local known = held[i] and unpacked(held[i])", "local known = nil"),
    ],
    ids=[
        "cursor compare",
        "ids check in commit",
        "who made the entries",
        "plan before commit",
        "ids check in append",
    ],
)
def test_a_script_without_its_guard_turns_the_named_test_red(
    server: Server,
    stream: Stream,
    monkeypatch: pytest.MonkeyPatch,
    scenario: Any,
    module: Any,
    name: str,
    guard: str,
    without: str,
) -> None:
    """The mutation check: tests that cannot fail prove nothing."""
    whole = getattr(module, name)
    assert whole.text.count(guard) == 1
    mutant = object.__new__(Script)
    mutant.name, mutant.text = "mutant", whole.text.replace(guard, without)
    mutant.sha = hashlib.sha1(mutant.text.encode()).hexdigest()
    monkeypatch.setitem(Script.every, mutant.sha, mutant)
    monkeypatch.setattr(module, name, mutant)

    with pytest.raises(AssertionError):
        scenario(server, stream)


# The answers of commit.lua, besides OK and STALE above.


def test_a_batch_the_log_does_not_hold_is_a_gap(server: Server, stream: Stream) -> None:
    """A ghost: read from the old primary, absent on the new one."""
    stream.append([observation(minute=1)])
    ghost = commit_of(server, stream)
    server.client.delete(stream.keys[0].log, stream.keys[0].ids)
    raw_append(
        server, stream, observation(minute=2), "9999999999999-0"
    )  # surely another position than the ghost's
    before = dump(server)

    assert send(stream, ghost)[0] is CommitAnswer.GAP
    assert dump(server) == before


def test_a_batch_whose_end_the_log_does_not_hold_is_a_gap(server: Server, stream: Stream) -> None:
    """A fail-over rewinds a log to a prefix: the beginning of the batch is there, its end is not."""
    stream.append([observation(minute=1)])
    last = stream.append([observation(minute=2)])[0].position
    ghost = commit_of(server, stream)
    server.client.xdel(stream.keys[0].log, last)
    before = dump(server)

    assert send(stream, ghost)[0] is CommitAnswer.GAP
    assert dump(server) == before


def test_a_batch_whose_end_is_another_event_here_is_a_gap(server: Server, stream: Stream) -> None:
    """After a fail-over with a clock behind, a position may come again with another event."""
    stream.append([observation(minute=1)])
    last = stream.append([observation(minute=2)])[0].position
    ghost = commit_of(server, stream)
    server.client.xdel(stream.keys[0].log, last)
    copy = server.client.xrange(stream.keys[0].log)
    server.client.delete(stream.keys[0].log)
    for position, fields in copy:
        server.client.xadd(stream.keys[0].log, fields, id=position)
    raw_append(server, stream, observation(minute=3), last)
    before = dump(server)

    assert send(stream, ghost)[0] is CommitAnswer.GAP
    assert dump(server) == before


def test_a_log_that_was_deleted_and_grows_anew_is_not_applied(server: Server, stream: Stream) -> None:
    """Its first entries would follow the cursor in time; the view would be the fold of no log that ever
    was.
    """
    stream.append([observation(minute=n) for n in range(5)])
    consume(server, stream, Counting())
    server.client.delete(stream.keys[0].log, stream.keys[0].ids, stream.keys[0].meta)
    stream.append([observation(minute=9)])
    before = counted(stream)

    with pytest.raises(LogRewound, match="ever got 1 entries, but the view 'counting' has read 5"):
        consume(server, stream, Counting())
    assert counted(stream) == before == {"clip-1": 5}


def test_an_owner_of_an_older_epoch_is_fenced(server: Server, stream: Stream) -> None:
    """It was stopped past its lease, and somebody else has the partition: what it folded must not land."""
    stream.append([observation(minute=1)])
    lease = stream.keys[0].lease("counting")
    server.client.hset(lease, mapping={"owner": "other", "epoch": 3})
    answers = []
    for epoch in (2, 3):
        flow = GroupLane(Counting(), stream, 0)
        flow.epoch = epoch
        command = commit_of(server, stream, flow)
        before = dump(server)
        answers.append((send(stream, command)[0], dump(server) == before))

    assert answers == [(CommitAnswer.FENCED, True), (CommitAnswer.OK, False)]


def test_an_event_the_index_does_not_name_is_odd(server: Server, stream: Stream) -> None:
    """A raw XADD bypassed append: nobody has decided yet whether it counts."""
    raw_append(server, stream, observation())
    before_commit = commit_of(server, stream)
    before = dump(server)

    assert send(stream, before_commit) == (CommitAnswer.ODD, [[1]])
    assert dump(server) == before


def test_another_definition_of_the_view_is_refused(
    server: Server, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two builds beside each other would fold one view by two meanings."""
    stream.append([observation(minute=1)])
    other = commit_of(server, stream)
    consume(server, stream, Counting())
    stream.append([observation(minute=2)])
    monkeypatch.setattr(Counting, "version", 2)

    assert send(stream, other)[0] is CommitAnswer.STALE
    assert send(stream, commit_with(other, server, stream))[0] is CommitAnswer.REDEFINED
    with pytest.raises(ProjectionRedefined, match="same version and settings"):
        consume(server, stream, Counting())


def commit_with(command: tuple[Any, ...], server: Server, stream: Stream) -> tuple[Any, ...]:
    """The command as if folded from today's cursor by another definition."""
    first = 3 + command[2]
    head = msgspec.msgpack.decode(command[first])
    head |= {"after": View(stream, Counting()).cursors()[0].position, "fingerprint": "another"}
    return (*command[:first], msgspec.msgpack.encode(head), *command[first + 1 :])


def test_a_broken_key_is_named_to_the_operator(server: Server, stream: Stream) -> None:
    """Somebody else wrote to our key: only a person can say which of the two goes."""
    stream.append([observation()])
    key = View(stream, Counting()).key(0, "states")
    server.client.set(key, "mine")

    with pytest.raises(ViewBroken, match="is a string") as told:
        consume(server, stream, Counting())
    assert told.value.key == key


# Hazards.


def fill(stream: Stream, events: int = 3_000, clips: int = 40) -> None:
    stream.append(
        [
            observation(views=n % 7, minute=n, clip=f"clip-{n % clips}", category=f"c{n % 3}")
            for n in range(events)
        ]
    )


def assert_all_counted(stream: Stream, events: int = 3_000) -> None:
    assert sum(counted(stream).values()) == events
    assert findings(stream, Counting()) == []


def test_an_id_adopted_from_a_raw_entry_is_known_to_append(server: Server, stream: Stream) -> None:
    """Else the producer that repeats the event would make a second entry that counts."""
    position = raw_append(server, stream, observation(event_id="e1"))
    consume(server, stream, Counting(), batch_max=1)

    placed = stream.append([observation(event_id="e1")])

    assert (placed[0].outcome, placed[0].position) == (Outcome.DUPLICATE, position)
    assert counted(stream) == {"clip-1": 1}
    assert findings(stream, Counting()) == []


def test_a_raw_entry_at_a_position_of_its_own_is_adopted(server: Server, stream: Stream) -> None:
    """Explicit IDs beyond the packed form stay text."""
    raw_append(server, stream, observation(minute=1), "999999999999999-12345678901")
    raw_append(server, stream, observation(minute=2), "999999999999999-12345678902")
    consume(server, stream, Counting())
    assert counted(stream) == {"clip-1": 2}
    assert findings(stream, Counting()) == []


def test_ids_with_one_digest_all_count(
    server: Server, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digests are 8 bytes, so two IDs may share one; neither may be taken for the other."""
    from aurastream.projections.engine import intake

    for module in (index, log, intake, apply):
        monkeypatch.setattr(module, "field_of", lambda event_id: b"12345678")
    stream.append([observation(minute=n) for n in range(5)])
    consume(server, stream, Counting())
    assert counted(stream) == {"clip-1": 5}
    assert findings(stream, Counting()) == []


@pytest.mark.parametrize(
    "hazard",
    [
        lambda client, key: client.xgroup_destroy(key, "counting"),
        lambda client, key: client.xgroup_setid(key, "counting", "0"),
        lambda client, key: client.xgroup_setid(key, "counting", "$"),
        lambda client, key: client.xgroup_delconsumer(key, "counting", "owner"),
        lambda client, key: client.xreadgroup("counting", "thief", {key: ">"}, count=700),
        lambda client, key: client.xreadgroup("counting", "thief", {key: ">"}, count=700, noack=True),
        lambda client, key: client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
        lambda client, key: client.script_flush(),
    ],
    ids=["destroy", "setid back", "setid $", "delconsumer", "stolen", "noack", "client kill", "script flush"],
)
def test_the_group_is_a_hint_and_the_cursor_the_truth(
    server: Server, stream: Stream, hazard: Callable[[Any, str], Any]
) -> None:
    """With XACK as the gate, each of these loses or doubles events."""
    fill(stream)
    done: list[int] = []

    def disturb(progress: Any) -> None:
        done.append(progress.events)
        if len(done) in {2, 9}:
            hazard(server.client, stream.keys[0].log)

    consume(server, stream, Counting(), batch_max=100, on_commit=disturb)
    consume(server, stream, Counting())

    assert_all_counted(stream)


def test_an_entry_another_client_reads_in_our_name_is_read_again(server: Server, stream: Stream) -> None:
    """The group says it was delivered and the log says it is unread: waiting for something newer would be
    waiting for ever.
    """
    from aurastream.projections import Consumer

    key = stream.keys[0].log
    rounds: list[int] = []

    def stopping() -> bool:
        if len(rounds) == 1:  # the consumer is idle: an entry comes, and a thief takes it
            stream.append([observation(event_id="stolen", minute=99)])
            server.client.xreadgroup("counting", "thief", {key: ">"})
        rounds.append(1)
        return counted(stream) == {"clip-1": 2} or len(rounds) > 200

    stream.append([observation(event_id="first")])
    consume(server, stream, Counting())
    Consumer(server, [Counting()], lambda: [stream]).run(stopping)

    assert counted(stream) == {"clip-1": 2}


@pytest.mark.process
def test_two_consumers_on_the_same_partitions_count_each_event_once(url: str, server: Server) -> None:
    """Without leases they race: one wins each commit, the other begins anew."""
    stream = open_stream(server, "clips-two", create=True, settings=Settings(partitions=2))
    fill(stream)
    program = (
        "import sys; from aurastream.streams import *; from aurastream.projections import Consumer; "
        "from tests.projections.counting import Counting; server = Server(sys.argv[1]); "
        "stream = open_stream(server, 'clips-two'); "
        "Consumer(server, [Counting()], lambda: [stream], batch_max=50).run(until_idle=True)"
    )
    racers = [subprocess.Popen([sys.executable, "-c", program, url]) for _ in range(2)]

    assert [racer.wait(60) for racer in racers] == [0, 0]
    consume(server, stream, Counting())
    assert_all_counted(stream)


@pytest.mark.process
@pytest.mark.slow
def test_a_consumer_killed_at_any_moment_loses_and_doubles_nothing(url: str, server: Server) -> None:
    """kill -9, twelve times; the seed is printed and AURASTREAM_TEST_SEED takes it back."""
    seed = int(os.environ.get("AURASTREAM_TEST_SEED", random.randrange(10**6)))
    print("seed", seed)
    dice = random.Random(seed)
    stream = open_stream(server, "clips-kill", create=True, settings=Settings(partitions=2))
    fill(stream, 20_000)
    program = (
        "import sys; from aurastream.streams import *; from aurastream.projections import Consumer; "
        "from tests.projections.counting import Counting; server = Server(sys.argv[1]); "
        "stream = open_stream(server, 'clips-kill'); Consumer(server, [Counting()], lambda: [stream], "
        "batch_max=20).run()"
    )
    reader = View(stream, Counting())
    for _ in range(12):
        before = sum(cursor.read for cursor in reader.cursors().values())
        killed = subprocess.Popen([sys.executable, "-c", program, url])
        goal = min(20_000, before + dice.randrange(1, 1_200))
        until(lambda goal=goal: sum(cursor.read for cursor in reader.cursors().values()) >= goal, "progress")
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    consume(server, stream, Counting())
    assert_all_counted(stream, 20_000)


@pytest.mark.parametrize("cuts", [1, 3])
def test_a_commit_whose_reply_is_lost_counts_once(
    running: ServerProcess, server: Server, stream: Stream, cuts: int
) -> None:
    """Nobody knows whether it was done; the cursor does."""
    fill(stream)
    proxy = CuttingProxy(running.url)
    through = Server(proxy.url)
    done: list[int] = []

    def cut(progress: Any) -> None:
        done.append(progress.events)
        if len(done) == 3:
            proxy.cuts = cuts

    Consumer(through, [Counting()], lambda: [stream], batch_max=100, on_commit=cut).run(until_idle=True)
    proxy.close()
    assert_all_counted(stream)


def test_answers_under_way_at_a_passing_fault_are_nobodys(server: Server) -> None:
    """The last attempt failed after some progress: what the flows of before asked must not be taken for the
    answers of the new ones.
    """
    stream = open_stream(server, "clips-two", create=True, settings=Settings(partitions=2))
    fill(stream)
    done: list[int] = []

    def fault(progress: Any) -> None:
        done.append(progress.events)
        if len(done) in {3, 8, 13}:
            raise TryAgainError("a slot is moving", status_code="TRYAGAIN")

    consume(server, stream, Counting(), batch_max=100, attempts_max=1, on_commit=fault)
    assert_all_counted(stream)


@pytest.mark.process
def test_a_server_killed_in_the_middle_comes_back_with_view_and_log_in_step(valkey: str) -> None:
    """View and cursor are one script, so one write of the AOF: there is no half of it."""
    process = ServerProcess(valkey, "--appendonly", "yes", "--appendfsync", "always")
    try:
        server = Server(process.url)
        stream = open_stream(server, "clips", create=True, settings=Settings(partitions=1))
        fill(stream)
        done: list[int] = []

        def crash(progress: Any) -> None:
            done.append(progress.events)
            if len(done) in {3, 11}:
                process.kill()
                process.start()

        consume(server, stream, Counting(), batch_max=100, on_commit=crash)
        assert_all_counted(stream)
    finally:
        process.stop()


def answered(steps: Any, stream: Stream, commit_answer: list[Any] | None = None) -> Any:
    """Drive a lane; a commit gets the answer given, or the server's."""

    def answer(asks: list[Ask]) -> list[Any]:
        is_given = commit_answer is not None and is_commit(asks[0].command)
        return [commit_answer] if is_given else stream.wires.ask(asks)

    return drive(steps, answer)


def test_starting_again_is_no_refusal_however_often(server: Server, stream: Stream) -> None:
    """A slot that moves, or a server that comes and goes: each costs a settle, and none of them says that the
    log is broken.
    """
    stream.append([observation(event_id="e1")])
    applier = Lane(Counting(), stream, 0)
    for _ in range(apply.REFUSALS_MAX * 2):
        answered(applier.settle(), stream)

    answered(applier.catch_up(), stream)

    assert counted(stream) == {"clip-1": 1}


def test_a_batch_that_is_refused_for_ever_is_told_and_may_be_tried_again(
    server: Server, stream: Stream
) -> None:
    """A loop without a bound would look like work; a person is told, and may mend it."""
    stream.append([observation(event_id="e1")])
    raw = stream.read_raw(0)
    applier = Lane(Counting(), stream, 0)
    answered(applier.settle(), stream)

    for _ in range(apply.REFUSALS_MAX):
        assert answered(applier.commit(raw), stream, [int(CommitAnswer.GAP), b""])[0] is CommitAnswer.GAP
        answered(applier.settle(), stream)
    with pytest.raises(InvariantBroken, match="cannot get past the start of clips-test/0"):
        answered(applier.commit(raw), stream, [int(CommitAnswer.GAP), b""])

    answered(applier.settle(), stream)
    assert answered(applier.commit(raw), stream)[0] is CommitAnswer.OK
    assert counted(stream) == {"clip-1": 1}


# Bad entries in the log.


def test_damaged_entries_are_set_aside_with_the_reason_and_the_next_is_unaffected(
    server: Server, stream: Stream
) -> None:
    """One bad entry must not stop a partition, nor be lost without a word."""
    key = stream.keys[0].log
    server.client.xadd(key, {"hello": "world"})
    position = raw_append(server, stream, observation(event_id="e1"))
    raw = server.client.xrange(key, position, position)[0][1]
    server.client.xadd(key, {b"event": raw[b"event"].replace(b"100", b"900"), b"crc32": raw[b"crc32"]})
    raw_append(server, stream, observation(event_id="e2", minute=60 * 24 * 365 * 40))
    stream.append([observation(event_id="e3", minute=2)])

    consume(server, stream, Counting())

    cursor = View(stream, Counting()).cursors()[0]
    reasons = [reason.decode() for reason in server.client.hgetall(stream.keys[0].dead("counting")).values()]
    assert (cursor.applied, cursor.dead, cursor.quarantined) == (2, 2, 1)
    assert [
        word for word in ("hello", "checksum", "24 h after") if any(word in reason for reason in reasons)
    ] == ["hello", "checksum", "24 h after"]
    assert findings(stream, Counting()) == []


def test_an_event_of_a_newer_build_stops_the_view_and_waits(server: Server, stream: Stream) -> None:
    """Skipping it would make a view that no log says; the events wait for the build that knows them."""
    from zlib import crc32

    from aurastream.streams import Codec

    stream.append([observation(event_id="e1")])
    raw = Codec().encode(observation(event_id="e2"))[:-1] + b',"version":2}'
    server.client.xadd(stream.keys[0].log, {"event": raw, "crc32": crc32(raw)})

    with pytest.raises(UnknownEventVersion, match="Deploy"):
        consume(server, stream, Counting(), batch_max=1)
    assert counted(stream) == {"clip-1": 1}


def test_a_projection_that_raises_is_named_with_its_event_and_resumes_when_mended(
    server: Server, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The view stands before the event, so that mending the code is all it takes."""
    stream.append([observation(event_id=f"e{n}", minute=n) for n in range(5)])
    sound = Counting.apply

    def fails(self: Counting, state: Count | None, event: Any) -> Count:
        if event.event_id == "e3":
            raise ZeroDivisionError("oh")
        return sound(self, state, event)

    monkeypatch.setattr(Counting, "apply", fails)
    with pytest.raises(FoldFailed, match=r"'e3' at .* of clips-test/0.*ZeroDivisionError"):
        consume(server, stream, Counting())
    assert counted(stream) == {"clip-1": 3}
    monkeypatch.setattr(Counting, "apply", sound)
    consume(server, stream, Counting())

    assert counted(stream) == {"clip-1": 5}


# What check sees.


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (
            lambda client, view, keys: client.hset(
                view.key(0, "states"), "clip-1", '{"applied":9,"views":1,"category":""}'
            ),
            "states clip-1",
        ),
        (lambda client, view, keys: client.hdel(view.key(0, "states"), "clip-2"), "states clip-2"),
        (lambda client, view, keys: client.zadd(view.key(0, "most"), {"clip-1": -99}), "most clip-1"),
        (lambda client, view, keys: client.hset(view.key(0, "foreign"), "x", "1"), "foreign x"),
        (lambda client, view, keys: client.hset(keys.cursor("counting"), "applied", 7), "applied 7"),
        (
            lambda client, view, keys: client.xtrim(keys.log, maxlen=10, approximate=False),
            "gone without the trimmer",
        ),
        (lambda client, view, keys: client.delete(keys.log), "ends before the cursor"),
    ],
)
def test_check_names_what_was_tampered_with(
    server: Server, stream: Stream, tamper: Callable[..., Any], said: str
) -> None:
    """Check is the proof of the equation: a proof that misses a change proves nothing."""
    fill(stream, 200)
    consume(server, stream, Counting())
    assert findings(stream, Counting()) == []

    tamper(server.client, View(stream, Counting()), stream.keys[0])

    assert any(said in finding for finding in findings(stream, Counting()))


def test_the_built_in_views_agree_with_the_log_beside_each_other(server: Server, stream: Stream) -> None:
    """Views share logs, indexes and connections, and must share nothing else."""
    fill(stream)
    consume(server, stream, Clips(), Trail(), Counting(), batch_max=333)

    assert findings(stream, Clips(), Trail(), Counting()) == []
    assert len(View(stream, Trail()).listing("positions", "clip-3").rows[0]) == 75


def test_the_script_names_its_answers_as_python_does() -> None:
    """A number that means one thing here and another there would heal what must stop a person, or stop what
    heals.
    """
    text = commit._COMMIT.text
    table = text[text.index("local ANSWER = {") : text.index("}", text.index("local ANSWER = {"))]

    assert {name: int(number) for name, number in re.findall(r"(\w+) = (\d+),", table)} == {
        answer.name: answer.value for answer in CommitAnswer
    }
