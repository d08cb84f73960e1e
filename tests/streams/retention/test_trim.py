"""Trim: what is archived and read by all leaves the log with its ids rows; whoever is killed, nothing is lost
or told twice.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from aurastream.projections import View, check
from aurastream.streams import (
    OPERATIONS,
    LogTrimmed,
    Outcome,
    Server,
    Settings,
    Stream,
    StreamError,
    open_stream,
)
from aurastream.streams import appending as log
from aurastream.streams.archive import history_of, open_archive
from aurastream.streams.archive.archiver import Archiver
from aurastream.streams.groups import cursor_of, lag_of
from aurastream.streams.index import collided_field_of, field_of, pack_position
from aurastream.streams.pressure import backlogs, join
from aurastream.streams.retention import chunk, doubles
from aurastream.streams.retention.holders import Looker
from aurastream.streams.retention.notes import new_note
from aurastream.streams.retention.trimmer import Goal, Trimmed, Trimmer
from tests.cluster import Cluster
from tests.facts import consume, dump, observation, raw_append
from tests.projections.counting import Counting
from tests.servers import EVERY_SERVER, CuttingProxy, ServerProcess, binaries

ROOT = Path(__file__).parents[3]

ALL = Goal(keep_events=0)


@pytest.fixture
def operations(server: Server) -> Iterator[Stream]:
    operations = open_stream(server, OPERATIONS, create=True, settings=Settings(partitions=1))
    yield operations
    operations.close()


def fill(stream: Stream, count: int = 1_200, first: int = 0) -> list[str]:
    """Events e<first> .. in the log; their positions."""
    events = [
        observation(views=n, minute=n, clip=f"clip-{n % 7}", event_id=f"e{n}")
        for n in range(first, first + count)
    ]
    return [item.position for item in stream.append(events)]


def archive(stream: Stream, *positions: str) -> None:
    """As if the log were archived up to these positions, one a partition; to its end where none is said."""
    for keys in stream.keys:
        last = stream.server.client.xrevrange(keys.log, count=1)
        at = positions[keys.partition] if positions else last[0][0].decode() if last else ""
        stream.server.client.hset(
            keys.archive, mapping={"position": at, "number": 1, "entries": 1, "head": "", "url": "memory:"}
        )


def trim(
    stream: Stream, operations: Stream, goal: Goal = ALL, *, why: str = "", **options: Any
) -> list[Trimmed]:
    return list(Trimmer(stream, operations, msgspec.structs.replace(goal, why=why), **options).run())


def told(operations: Stream) -> list[LogTrimmed]:
    """What the audit trail says."""
    return [entry.event for entry in operations.read(0) if isinstance(entry.event, LogTrimmed)]


def wrongs(stream: Stream, group: str = "counting") -> list[str]:
    """What must hold of every partition at any time, as sentences where it does not."""
    wrong, client = [], stream.server.client
    for keys in stream.keys:
        meta = {name.decode(): value.decode() for name, value in client.hgetall(keys.meta).items()}
        length, rows = client.xlen(keys.log), client.hlen(keys.ids)
        if length + int(meta.get("trimmed", 0)) != int(meta.get("appended", 0)):
            wrong.append(f"{keys.where}: {length} entries, {meta}")
        if rows != length:
            wrong.append(f"{keys.where}: {rows} rows of {length} entries")
        cursor = cursor_of(stream.wire(keys.partition).ask(("HGETALL", keys.cursor(group)))[0])
        lag = lag_of(stream.server, keys, cursor)
        if lag.missing or lag.rewound:
            wrong.append(f"{keys.where}: {lag}")
    return wrong


def test_what_is_archived_and_read_goes_with_its_ids_and_is_told_once(
    server: Server, stream: Stream, operations: Stream
) -> None:
    """Memory comes back only if the index goes too, and an audit that counts twice is none."""
    positions = fill(stream)
    consume(server, stream, Counting())
    archive(stream)
    view = server.client.dump(stream.keys[0].view("counting", 1, "states"))

    (done,) = trim(stream, operations, Goal(keep_events=100), why="disk")
    again = trim(stream, operations, Goal(keep_events=100))

    assert (done.removed, done.until, done.left, done.blockers) == (1_100, positions[1_099], 100, [])
    assert again == [msgspec.structs.replace(done, removed=0, until="")]
    assert [(event.entries, event.until, event.why, event.partition) for event in told(operations)] == [
        (1_100, positions[1_099], "disk", 0)
    ]
    assert wrongs(stream) == []
    assert server.client.dump(stream.keys[0].view("counting", 1, "states")) == view


def test_an_id_of_the_live_log_stays_known_and_one_that_was_trimmed_is_new(
    server: Server, stream: Stream, operations: Stream
) -> None:
    """The horizon of deduplication is the live log."""
    fill(stream, 10)
    archive(stream)
    trim(stream, operations, Goal(keep_events=5))

    known = stream.append([observation(views=7, minute=7, clip="clip-0", event_id="e7")])
    new = stream.append([observation(views=2, minute=2, clip="clip-2", event_id="e2")])

    assert (known[0].outcome, new[0].outcome) == (Outcome.DUPLICATE, Outcome.APPENDED)
    assert wrongs(stream) == []


def test_a_log_may_be_trimmed_to_nothing_and_goes_on(
    server: Server, stream: Stream, operations: Stream
) -> None:
    """An empty log is not a lost one: cursors, counts and back-pressure go on from what was trimmed."""
    fill(stream)
    consume(server, stream, Counting())
    archive(stream)

    trim(stream, operations)
    assert wrongs(stream) == []
    fill(stream, 50, first=5_000)
    consume(server, stream, Counting())

    assert server.client.xlen(stream.keys[0].log) == 50
    assert cursor_of(stream.wire(0).ask(("HGETALL", stream.keys[0].cursor("counting")))[0]).read == 1_250
    assert wrongs(stream) == []


def test_by_time_what_was_appended_before_it_goes(server: Server, stream: Stream, operations: Stream) -> None:
    """By the server's clock, to the millisecond: what was appended at the time itself stays."""
    positions = [
        raw_append(server, stream, observation(event_id=f"e{n}"), f"{1_700_000_000_000 + n}-0")
        for n in range(10)
    ]
    archive(stream)

    (done,) = trim(stream, operations, Goal(before=datetime(2023, 11, 14, 22, 13, 20, 4_000, tzinfo=UTC)))
    (more,) = trim(stream, operations, Goal(before=datetime(2023, 11, 14, 22, 13, 20, 4_001, tzinfo=UTC)))

    assert (done.removed, done.until, done.blockers) == (4, positions[3], [])
    assert (more.removed, more.until, more.blockers) == (1, positions[4], [])


def test_a_dry_run_says_the_same_and_changes_nothing(
    server: Server, stream: Stream, operations: Stream
) -> None:
    """A person decides by it."""
    positions = fill(stream)
    archive(stream, positions[699])
    before = dump(server)

    (planned,) = list(Trimmer(stream, None, Goal(keep_events=100)).run())
    unchanged = dump(server) == before
    (done,) = trim(stream, operations, Goal(keep_events=100))

    assert unchanged
    assert planned == done
    assert (done.removed, [holder.kind for holder in done.blockers]) == (700, ["archive"])


def unarchived(stream: Stream, positions: list[str]) -> str:
    archive(stream, positions[699])
    return "archive"


def unread(stream: Stream, positions: list[str]) -> str:
    stream.wire(0).ask(
        join(stream.keys[0], "slow"), ("HSET", stream.keys[0].cursor("slow"), "position", positions[699])
    )
    return "slow"


def rebuilding(stream: Stream, positions: list[str]) -> str:
    """A new generation has joined before it reads."""
    stream.wire(0).ask(
        join(stream.keys[0], "counting@2"),
        ("HSET", stream.keys[0].cursor("counting@2"), "position", positions[699]),
    )
    return "counting@2"


def foreign(stream: Stream, positions: list[str]) -> str:
    stream.server.client.xgroup_create(stream.keys[0].log, "theirs", positions[699])
    return "theirs"


def foreign_pending(stream: Stream, positions: list[str]) -> str:
    """It has read on, but one entry is not acknowledged."""
    stream.server.client.xgroup_create(stream.keys[0].log, "theirs", positions[699])
    stream.server.client.xreadgroup("theirs", "one", {stream.keys[0].log: ">"}, count=200)
    stream.server.client.xack(stream.keys[0].log, "theirs", *positions[701:900])
    return "theirs"


def unacknowledged(stream: Stream, positions: list[str]) -> str:
    stream.server.client.hset(
        stream.keys[0].acked("orders"), mapping={"position": positions[699], "read": 700, "epoch": 1}
    )
    return "orders"


def parked(stream: Stream, positions: list[str]) -> str:
    """A processor's letters are read again from the log; what a projection could not use is not."""
    keys = stream.keys[0]
    stream.wire(0).ask(join(keys, "mails"), ("HSET", keys.cursor("mails"), "position", positions[-1]))
    stream.server.client.hset(
        keys.dead("mails"), mapping={positions[900]: '{"line":"b"}', positions[700]: '{"line":"a"}'}
    )
    stream.server.client.hset(keys.dead("counting"), positions[3], "it is no event")
    return "mails"


def forgotten(stream: Stream, positions: list[str]) -> str:
    """Nobody waits for the group, but its letters may still be retried."""
    stream.server.client.hset(stream.keys[0].dead("mails"), mapping={positions[700]: '{"line":"a"}'})
    return "mails"


def twice(stream: Stream, positions: list[str]) -> str:
    """The first entry of an ID is what makes the second one a duplicate."""
    second = raw_append(
        stream.server, stream, observation(views=700, minute=700, clip="clip-0", event_id="e700")
    )
    consume(stream.server, stream, Counting())
    return second


@pytest.mark.parametrize(
    "goal", [Goal(keep_events=100), Goal(before=datetime(2100, 1, 1, tzinfo=UTC))], ids=["number", "time"]
)
@pytest.mark.parametrize(
    "hold",
    [unarchived, unread, rebuilding, foreign, foreign_pending, unacknowledged, parked, forgotten, twice],
    ids=lambda hold: hold.__name__,
)
@pytest.mark.slow
def test_what_somebody_needs_stays_and_he_is_named(
    server: Server, stream: Stream, operations: Stream, hold: Callable[[Stream, list[str]], str], goal: Goal
) -> None:
    """Trimmed too early it is lost to that reader, and a refusal without a name cannot be resolved."""
    positions = fill(stream)
    consume(server, stream, Counting())
    archive(stream)
    name = hold(stream, positions)

    if hold is twice and goal.keep_events is None:
        archive(stream, positions[-1])
    (done,) = trim(stream, operations, goal)

    through = positions[700] if hold is unarchived else positions[699]
    assert (done.removed, done.until) == (700, positions[699]), done
    assert [holder.name for holder in done.blockers if holder.kind != "archive" or hold is unarchived] == [
        name
    ]
    assert server.client.xrange(stream.keys[0].log, count=1)[0][0].decode() == positions[700], through
    assert [event.entries for event in told(operations)] == [700]


@pytest.mark.parametrize("which", ["group", "app"])
def test_a_group_that_has_read_nothing_holds_everything_back(
    server: Server, stream: Stream, operations: Stream, which: str
) -> None:
    """Having no position is not the same as having read all."""
    fill(stream)
    archive(stream)
    if which == "group":
        stream.wire(0).ask(join(stream.keys[0], "new"))
    else:
        server.client.hset(stream.keys[0].acked("new"), mapping={"position": "", "read": 0, "epoch": 1})
    before = dump(server)

    (done,) = trim(stream, operations)

    assert (done.removed, [(holder.kind, holder.through) for holder in done.blockers]) == (0, [(which, "")])
    assert dump(server) == before


def test_who_was_forgotten_or_given_up_holds_nothing_back(
    server: Server, stream: Stream, operations: Stream
) -> None:
    """A person decided: a forgotten group, though its server group is still there, and a retired generation's
    tombstone.
    """
    keys = stream.keys[0]
    fill(stream, 10)
    archive(stream)
    server.client.hset(keys.cursor("gone"), "position", "1-0")
    server.client.xgroup_create(keys.log, "gone", "0")
    stream.wire(0).ask(join(keys, "counting@2"), ("HSET", keys.cursor("counting@2"), "retired", 1))

    (done,) = trim(stream, operations)

    assert (done.removed, done.blockers) == (10, [])


def test_both_entries_of_an_id_go_together(server: Server, stream: Stream, operations: Stream) -> None:
    """Parted, the one that stays would count as new."""
    fill(stream, 10)
    raw_append(server, stream, observation(views=3, minute=3, clip="clip-3", event_id="e3"))
    consume(server, stream, Counting())
    archive(stream)

    (done,) = trim(stream, operations)

    assert (done.removed, done.blockers, server.client.hlen(stream.keys[0].ids)) == (11, [], 0)


@pytest.mark.parametrize("position", ["*", "999999999999999-5"], ids=["packed", "text"])
def test_the_row_of_a_canonical_entry_that_stays_stays(
    server: Server, stream: Stream, operations: Stream, position: str
) -> None:
    """A raw entry that nobody had read when its ID was appended properly: the later entry is the canonical
    one.
    """
    raw_append(server, stream, observation(event_id="e1"), position)
    (later,) = stream.append([observation(event_id="e1")])
    archive(stream)

    trim(stream, operations, Goal(keep_events=1))

    assert stream.append([observation(event_id="e1")]) == [
        msgspec.structs.replace(later, outcome=Outcome.DUPLICATE)
    ]


def test_rows_of_ids_that_share_a_digest_go_with_their_own_entries(
    server: Server, stream: Stream, operations: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrong row gone makes a known event new."""
    for module in (log, chunk, doubles):
        monkeypatch.setattr(module, "field_of", lambda event_id: b"12345678")
    fill(stream, 3)
    archive(stream)
    short, long = b"12345678", [collided_field_of(f"e{n}") for n in range(3)]

    assert set(server.client.hkeys(stream.keys[0].ids)) == {short, *long[1:]}
    trim(stream, operations, Goal(keep_events=2))
    assert set(server.client.hkeys(stream.keys[0].ids)) == set(long[1:])
    trim(stream, operations, Goal(keep_events=1))
    assert set(server.client.hkeys(stream.keys[0].ids)) == set(long[2:])


def test_positions_that_do_not_pack_are_trimmed_like_others(
    server: Server, stream: Stream, operations: Stream
) -> None:
    """A raw XADD may name any position; its row has another length."""
    raw_append(server, stream, observation(event_id="far"), "999999999999999-5")
    fill(stream, 5)
    consume(server, stream, Counting())
    archive(stream)

    trim(stream, operations, Goal(keep_events=2))

    assert server.client.hlen(stream.keys[0].ids) == 2
    assert len(pack_position(server.client.hvals(stream.keys[0].ids)[0])) > 10


@pytest.mark.parametrize("text", [b"{}", b"\xff", b'{"type":"x","event_id":'])
def test_an_entry_damaged_beyond_reading_takes_its_row_along(
    server: Server, stream: Stream, operations: Stream, text: bytes
) -> None:
    """Its event ID is lost, but the row names its position: one that stayed would break the next append of
    that ID.
    """
    fill(stream, 5)
    archive(stream)
    server.client.xtrim(stream.keys[0].log, maxlen=0)
    server.client.hincrby(stream.keys[0].meta, "trimmed", 5)
    server.client.delete(stream.keys[0].ids)
    position = server.client.xadd(stream.keys[0].log, {"event": text, "crc32": 1})
    server.client.hset(stream.keys[0].ids, field_of("lost"), pack_position(position))
    archive(stream)

    (done,) = trim(stream, operations)

    assert (done.removed, server.client.hlen(stream.keys[0].ids)) == (1, 0)


@pytest.mark.parametrize("which", ["ids", "meta", "groups", "archive", "cursor", "dead"])
def test_a_key_of_another_type_fails_before_anything_is_removed(
    server: Server, stream: Stream, operations: Stream, which: str
) -> None:
    """Scripts do not roll back."""
    keys = stream.keys[0]
    fill(stream, 10)
    consume(server, stream, Counting())
    archive(stream)
    call = chunk.trim_call(stream, 0, Looker(stream).look(0), stream.read_raw(0), new_note(""))
    key = getattr(keys, which)("counting") if which in {"cursor", "dead"} else getattr(keys, which)
    server.client.delete(key)
    server.client.set(key, "mine")
    before = dump(server)

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        stream.wire(0).ask(call)

    assert dump(server) == before


def test_a_note_with_more_words_than_an_event_can_hold_is_told_with_what_fits(
    server: Server, stream: Stream, operations: Stream
) -> None:
    """Earlier builds let a reason of any length in, removed, and refused ever after."""
    positions = fill(stream, 20)
    archive(stream, positions[9])
    note = msgspec.json.decode(new_note("disk")) | {"why": "y" * 1_001, "who": "z" * 1_001}
    meta = {"trim": f"0 {msgspec.json.encode(note).decode()}", "trimmed": 0, "trimmed_to": positions[0]}
    server.client.hset(stream.keys[0].meta, mapping=meta)

    (done,) = trim(stream, operations, Goal(keep_events=10))

    assert done.removed == 10
    assert [len(event.why) for event in told(operations)] == [1_000, 0]
    with pytest.raises(StreamError, match="1,001 characters"):
        trim(stream, operations, why="y" * 1_001)


def test_a_full_memory_can_be_trimmed(server: Server, stream: Stream, operations: Stream) -> None:
    """That is when it is needed most."""
    fill(stream)
    archive(stream)
    held: list[int] = []

    def fill_up(step: str, removed: int) -> None:
        if step in {"read", "closed"}:
            server.client.config_set("maxmemory", 1)
        if step in {"removed", "closed"}:
            held.append(removed)
            server.client.config_set("maxmemory", 0)

    (done,) = trim(stream, operations, on_step=fill_up)

    assert (done.removed, held[:3]) == (1_200, [500, 1_000, 1_200])
    assert [event.entries for event in told(operations)] == [1_200]


CHANGES = [
    "joined",
    "letter",
    "trimmed",
    "raw",
    "foreign",
    "pending",
    "unread",
    "unacknowledged",
    "unarchived",
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.slow
def test_what_changes_between_look_and_removal_is_looked_at_again(
    server: Server, stream: Stream, operations: Stream, change: str
) -> None:
    """The script verifies what the look said: nothing goes that has become somebody's meanwhile."""
    keys, positions = stream.keys[0], fill(stream)
    consume(server, stream, Counting())
    archive(stream)
    server.client.hset(keys.acked("orders"), "position", positions[-1])
    looks: list[str] = []

    def meddle(step: str, removed: int) -> None:
        looks.append(step)
        if (step, looks.count("read")) != ("read", 1):
            return
        if change == "joined":
            stream.wire(0).ask(join(keys, "new"), ("HSET", keys.cursor("new"), "position", positions[99]))
        elif change == "letter":  # as after a fail-over that took a decision back
            server.client.hset(keys.dead("counting"), positions[100], '{"line":"a"}')
        elif change == "trimmed":
            trim(stream, operations, Goal(keep_events=1_100))
            archive(stream, positions[99])
        elif change == "raw":
            raw_append(server, stream, observation(views=100, minute=100, clip="clip-2", event_id="e100"))
            archive(stream, positions[-1])
        elif change == "foreign":
            server.client.xgroup_create(keys.log, "theirs", positions[99])
        elif change == "pending":
            server.client.xgroup_create(keys.log, "theirs", positions[99])
            server.client.xreadgroup("theirs", "one", {keys.log: ">"}, count=600)
            server.client.xack(keys.log, "theirs", *positions[101:700])
        elif change == "unacknowledged":
            server.client.hset(keys.acked("orders"), "position", positions[99])
        elif change == "unread":  # as after a fail-over that took cursors back
            server.client.hset(keys.cursor("counting"), "position", positions[99])
        else:
            archive(stream, positions[99])

    (done,) = trim(stream, operations, on_step=meddle)

    assert looks.count("looked") == 2
    assert done.removed == (0 if change == "trimmed" else 100)
    assert server.client.xrange(keys.log, count=1)[0][0].decode() == positions[100]
    assert sum(event.entries for event in told(operations)) == 100


def test_what_another_run_has_removed_meanwhile_is_not_counted_again(
    server: Server, stream: Stream, operations: Stream
) -> None:
    """The counts say whether entries are missing."""
    fill(stream)
    archive(stream)
    looks: list[str] = []

    def meddle(step: str, removed: int) -> None:
        looks.append(step)
        if (step, looks.count("read")) == ("read", 1):
            trim(stream, operations, Goal(keep_events=1_100), why="theirs")

    (done,) = trim(stream, operations, why="ours", on_step=meddle)

    assert done.removed == 1_100
    assert [(event.why, event.entries) for event in told(operations)] == [("theirs", 100), ("ours", 1_100)]


def test_what_a_run_removed_that_ended_meanwhile_is_told_as_its_own(
    server: Server, stream: Stream, operations: Stream
) -> None:
    """Its note is still open when this run comes to removing: nothing goes under the name of another."""
    fill(stream)
    archive(stream)
    looks: list[str] = []

    def end(step: str, removed: int) -> None:
        if step == "removed":
            raise InterruptedError

    def meddle(step: str, removed: int) -> None:
        looks.append(step)
        if (step, looks.count("read")) == ("read", 1):
            with pytest.raises(InterruptedError):
                trim(stream, operations, why="theirs", on_step=end)

    (done,) = trim(stream, operations, why="ours", on_step=meddle)

    assert done.removed == 700
    assert [(event.why, event.entries) for event in told(operations)] == [("theirs", 500), ("ours", 700)]


def test_a_log_that_has_other_entries_at_these_positions_is_left_alone(
    server: Server, stream: Stream, operations: Stream
) -> None:
    """Restored from a copy, and gone on in the same milliseconds: the rows worked out would not be its
    entries'.
    """
    positions = fill(stream, 10)
    archive(stream)
    call = chunk.trim_call(stream, 0, Looker(stream).look(0), stream.read_raw(0), new_note(""))
    server.client.delete(stream.keys[0].log)
    for n, position in enumerate(positions):
        raw_append(server, stream, observation(event_id=f"other{n}"), position)
    before = dump(server)

    (answer,) = stream.wire(0).ask(call)

    assert (answer, dump(server) == before) == ([1], True)


STEPS = ["looked", "read", "removed", "closed", "audited", "settled"]

KILLED = """
import os, signal, sys
from aurastream.streams import Server, open_stream
from aurastream.streams.retention.trimmer import Goal, Trimmer
url, step, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
server, seen = Server(url), []
def on_step(name, removed):
    seen.append(name)
    if name == step and seen.count(name) == number:
        os.kill(os.getpid(), signal.SIGKILL)
stream, operations = open_stream(server, "clips-test"), open_stream(server, "operations")
list(Trimmer(stream, operations, Goal(keep_events=0, why="first"), on_step=on_step).run())
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_it_goes_on_and_all_is_told_once(
    server: Server, stream: Stream, operations: Stream, step: str, number: int
) -> None:
    """kill -9; the counts hold at once, and the next run tells what the killed one removed before it removes
    on.
    """
    positions = fill(stream)
    consume(server, stream, Counting())
    archive(stream)
    view = server.client.dump(stream.keys[0].view("counting", 1, "states"))

    code = subprocess.run(
        [sys.executable, "-c", KILLED, server.url, step, str(number)], cwd=ROOT, check=False
    ).returncode
    killed, between = code == -9, wrongs(stream)
    first = 1_200 - server.client.xlen(stream.keys[0].log)
    (done,) = trim(stream, operations, why="second")

    assert killed == ((step, number) not in {("looked", 2), ("closed", 2), ("audited", 2)})
    assert (between, wrongs(stream)) == ([], [])
    assert (done.removed, server.client.xlen(stream.keys[0].log)) == (1_200 - first, 0)
    events = [(event.why, event.entries, event.until) for event in told(operations)]
    expected = [("first", first, positions[first - 1])] if first else []
    assert events == expected + ([("second", 1_200 - first, positions[-1])] if first < 1_200 else [])
    assert server.client.dump(stream.keys[0].view("counting", 1, "states")) == view
    assert set(server.client.hkeys(stream.keys[0].meta)) & {b"trim", b"closed"} == set()


@pytest.mark.parametrize("cuts", [1, 2, 3])
def test_a_lost_reply_removes_and_tells_nothing_twice(
    running: ServerProcess, server: Server, stream: Stream, operations: Stream, cuts: int
) -> None:
    """The outcome is unknown then, and the call is repeated."""
    fill(stream)
    archive(stream)
    proxy = CuttingProxy(running.url)
    through = Server(proxy.url)
    seen: list[str] = []

    def cut(step: str, removed: int) -> None:
        seen.append(step)
        if step in {"read", "closed", "audited"} and seen.count(step) == 1:
            proxy.cuts = cuts

    far, audit = open_stream(through, "clips-test"), open_stream(through, OPERATIONS)
    (done,) = trim(far, audit, on_step=cut)
    proxy.close()

    assert (done.removed, done.left, proxy.cuts) == (1_200, 0, 0)
    assert [event.entries for event in told(operations)] == [1_200]
    assert wrongs(stream) == []


def test_of_two_trims_at_once_each_removes_what_the_other_has_not(
    url: str, server: Server, operations: Stream
) -> None:
    """Two operators, or a timer and one, do not know of each other."""
    stream = open_stream(server, "clips-race", create=True, settings=Settings(partitions=2))
    fill(stream, 6_000)
    archive(stream)
    done: list[Trimmed] = []

    def run(seed: int) -> None:
        own = Server(url)
        ours, audit, dice = open_stream(own, "clips-race"), open_stream(own, OPERATIONS), random.Random(seed)
        order = [0, 1] if dice.random() < 0.5 else [1, 0]
        trimmer = Trimmer(ours, audit, Goal(keep_events=0, why=str(seed)))
        done.extend(trimmer.partition(partition) for partition in order)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(done) == 6
    assert sum(item.removed for item in done) == sum(event.entries for event in told(operations)) == 6_000
    assert wrongs(stream) == []


def test_appends_and_consumers_go_on_during_a_trim(
    url: str, server: Server, stream: Stream, operations: Stream
) -> None:
    """It runs beside production, not instead of it."""
    fill(stream, 4_000)
    consume(server, stream, Counting())
    archive(stream)
    number = iter(range(10_000, 20_000, 100))

    def append_more(step: str, removed: int) -> None:
        if step == "read":
            fill(stream, 100, first=next(number))
            consume(server, stream, Counting())

    (done,) = trim(stream, operations, Goal(keep_events=1_000), on_step=append_more)

    assert (done.removed, wrongs(stream)) == (3_000, [])
    assert backlogs(server, stream.keys[0])[0].events == 0


def test_a_log_in_kafka_and_an_unclear_goal_are_refused(
    server: Server, stream: Stream, operations: Stream
) -> None:
    """What is removed cannot be put back by a second try."""
    stream.is_log_here = False
    with pytest.raises(StreamError, match="Kafka"):
        Trimmer(stream, operations, ALL)
    stream.is_log_here = True
    with pytest.raises(StreamError, match="what shall go"):
        Trimmer(stream, operations, Goal())


@pytest.mark.slow
def test_with_a_real_archive_history_and_check_agree_before_and_after(server: Server, tmp_path: Path) -> None:
    """Append, consume, archive, trim, append again, twice; the past stays whole and the view stays the fold
    of all of it.
    """
    settings = Settings(partitions=2, archive=str(tmp_path), segment_events=300)
    stream = open_stream(server, "clips-kept", create=True, settings=settings)
    operations = open_stream(server, OPERATIONS, create=True, settings=settings)
    past: dict[int, list[Any]] = {0: [], 1: []}

    for turn in range(2):
        fill(stream, 1_500, first=turn * 1_500)
        second = raw_append(
            server, stream, observation(views=1, clip="clip-1", minute=turn, event_id=f"e{turn * 1_500 + 1}")
        )
        consume(server, stream, Counting())
        for keys in stream.keys:
            past[keys.partition] += map(tuple, stream.read_raw(keys.partition, count=10_000))
            archive = open_archive(settings, stream)
            assert archive is not None
            list(Archiver(archive, operations).run(keys.partition))
        done = trim(stream, operations, Goal(keep_events=100))
        held, free = done[stream.partition_of("clip-1")], done[1 - stream.partition_of("clip-1")]
        assert (free.left, free.blockers, [holder.name for holder in held.blockers]) == (100, [], [second])
        assert [(item.left, item.blockers) for item in trim(stream, operations)] == [(0, []), (0, [])]

    fill(stream, 50, first=9_000)
    consume(server, stream, Counting())
    for keys in stream.keys:
        past[keys.partition] += map(tuple, stream.read_raw(keys.partition, count=10_000))
        whole = [tuple(entry) for span in history_of(stream).spans(keys.partition) for entry in span.raw]
        assert whole == past[keys.partition]
    results = list(check(stream, [Counting()], history=history_of(stream)))
    assert [(item.differences, item.complaints) for item in results] == [([], []), ([], [])]
    assert sum(item.duplicates for item in results) == 2
    assert sum(state.applied for state in View(stream, Counting()).states().rows.values()) == 3_050


@pytest.mark.slow
@pytest.mark.parametrize("kind", EVERY_SERVER)
def test_it_works_on_a_cluster(kind: str) -> None:
    """All keys of the script must be in one slot."""
    cluster = Cluster(binaries()[kind])
    try:
        server = Server(cluster.url)
        stream, operations = (
            open_stream(server, "clips", create=True, partitions=4),
            open_stream(server, OPERATIONS, create=True),
        )
        fill(stream)
        consume(server, stream, Counting())
        archive(stream)

        done = trim(stream, operations, Goal(keep_events=10))

        assert sum(item.removed for item in done) == 1_200 - sum(item.left for item in done) > 1_000
        assert wrongs(stream) == []
        assert {
            item.outcome
            for item in stream.append([observation(views=1_199, clip="clip-2", event_id="e1199")])
        } == {Outcome.DUPLICATE}
    finally:
        cluster.stop()
