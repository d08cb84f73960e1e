"""Every answer of the scripts of a lane and of a person's decisions, and that nothing is written with a
refusal.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from aurastream.processors.effects import (
    DeadLetterBehind,
    DeadLetterUnknown,
    LetterPlace,
    dead,
    discard,
    letters,
    list_letters,
    resumption,
    retry,
)
from aurastream.processors.effects.items import Item
from aurastream.processors.effects.lane import EffectLane, LaneStreams
from aurastream.processors.effects.letters import Letter
from aurastream.processors.effects.script import Bounds, EffectAnswer
from aurastream.processors.effects.steps import Again, Ended, Gap, Handle, HandlerFailed
from aurastream.projections.engine.apply import Fenced
from aurastream.streams import Keys, Server, Stream, open_stream
from tests.facts import dump, observation
from tests.processors.effects.outside import CODEC, SETTINGS, Noting, assert_balanced, state

NUMBERS = itertools.count(1)
LETTER = Letter("clip-1", "why", 3, datetime(2026, 4, 15, 12, tzinfo=UTC))
EVENT = letters.parked(letters.LetterAt("noting", Keys("clips-test", 0), "1-1"), LETTER, "w")


def lane_of(server: Server, stream: Stream) -> EffectLane:
    streams = [
        open_stream(server, name, codec=CODEC, settings=SETTINGS, create=True)
        for name in ("notes", "operations")
    ]
    return EffectLane(Noting(), LaneStreams(stream, *streams), 0)


def drive(stream: Stream, steps: Any, outcome: Any = ()) -> Any:
    """Answer a generator; every handler has this outcome."""
    answer: Any = None
    try:
        while True:
            wanted = steps.send(answer)
            if isinstance(wanted, Handle):
                answer = outcome
            else:
                wire = stream.wire(0)
                wire.send([command for _, command in wanted])
                answer = [wire.receive() for _ in wanted]
    except StopIteration as finished:
        return finished.value


@pytest.fixture
def lane(server: Server, stream: Stream) -> EffectLane:
    stream.append([observation(views=n, event_id=f"e{n}", minute=n) for n in range(3)])
    lane = lane_of(server, stream)
    drive(stream, lane.settle())
    return lane


@pytest.fixture
def items(stream: Stream, lane: EffectLane) -> list[Item]:
    found: list[Item] = drive(stream, lane.read())
    return found


def begin(
    stream: Stream, lane: EffectLane, item: Item, attempts_max: int = 3, kills_max: int = 3, token: str = ""
) -> tuple[EffectAnswer, int]:
    most, name = Bounds(attempts_max, kills_max), token or f"w:1:{next(NUMBERS)}"
    answer: tuple[EffectAnswer, int] = drive(stream, lane.scripts.begin(item, name, most, LETTER))
    return answer


def done(stream: Stream, lane: EffectLane, item: Item) -> tuple[EffectAnswer, str]:
    answer: tuple[EffectAnswer, str] = drive(stream, lane.scripts.done(item))
    return answer


def park(stream: Stream, lane: EffectLane, item: Item) -> EffectAnswer:
    answer: EffectAnswer = drive(stream, lane.scripts.park(item, LETTER, EVENT))
    return answer


VERBS: tuple[Callable[[Stream, EffectLane, Item], Any], ...] = (begin, done, park)


def test_begin_counts_before_anything_happens_and_exhausts(
    server: Server, stream: Stream, lane: EffectLane, items: list[Item]
) -> None:
    """A handler that kills its process must not be begun for ever: the count is there before the work is."""
    assert [begin(stream, lane, items[0], 2) for _ in range(2)] == [
        (EffectAnswer.OK, 1),
        (EffectAnswer.OK, 2),
    ]
    before = dump(server)
    assert begin(stream, lane, items[0], 2) == (EffectAnswer.EXHAUSTED, 2)
    assert dump(server) == before


def test_what_is_finished_is_stale(
    server: Server, stream: Stream, lane: EffectLane, items: list[Item]
) -> None:
    """A repeat after a lost reply, or somebody else was faster."""
    for item in (items[0], items[2]):  # the cursor passes the first; the last is done behind a gap
        assert done(stream, lane, item) == (EffectAnswer.OK, "")
    before = dump(server)

    for item in (items[0], items[2]):
        assert begin(stream, lane, item)[0] is EffectAnswer.STALE
        assert done(stream, lane, item) == (EffectAnswer.STALE, "")
        assert park(stream, lane, item) is EffectAnswer.STALE
    assert dump(server) == before


def test_the_cursor_is_the_closed_prefix_of_what_is_done(
    server: Server, stream: Stream, lane: EffectLane, items: list[Item]
) -> None:
    """Whoever starts anew starts at the cursor, so nothing unfinished may lie before it."""
    positions = []
    for item in (items[2], items[1], items[0]):
        done(stream, lane, item)
        held = state(server, stream)
        positions.append((held["cursor"].get("position"), len(held["done"])))
        assert_balanced(server, stream)
    assert positions == [(None, 1), (None, 2), (items[2].position, 0)]
    assert (
        state(server, stream)["cursor"]["read_bytes"]
        == server.client.hget(stream.keys[0].meta, "bytes").decode()
    )


def test_an_owner_of_an_older_epoch_is_fenced_at_every_verb(
    server: Server, stream: Stream, lane: EffectLane, items: list[Item]
) -> None:
    """A process that slept past its lease would undo what its successor did."""
    server.client.hset(stream.keys[0].lease("noting"), mapping={"owner": "other", "epoch": 3})
    lane.epoch = 2
    before = dump(server)
    for verb in VERBS:
        with pytest.raises(Fenced, match="epoch 2 is older than 3"):
            verb(stream, lane, items[0])
    with pytest.raises(Fenced):
        drive(stream, lane.skip("skipped", [items[0].position]))
    assert dump(server) == before
    lane.epoch = 3
    assert begin(stream, lane, items[0])[0] is EffectAnswer.OK


def test_an_entry_the_log_does_not_hold_is_a_gap(
    server: Server, stream: Stream, lane: EffectLane, items: list[Item]
) -> None:
    """A ghost: read from the old primary, absent on the new one; or another entry at its position."""
    import msgspec

    server.client.xdel(stream.keys[0].log, items[0].position)
    before = dump(server)
    for ghost in (items[0], msgspec.structs.replace(items[1], crc=b"1")):
        with pytest.raises(Gap):
            begin(stream, lane, ghost)
    assert dump(server) == before


def test_an_event_behind_a_dead_letter_of_its_line_waits(
    server: Server, stream: Stream, lane: EffectLane, items: list[Item]
) -> None:
    """The order of a subject holds through a failure of one of its events."""
    assert park(stream, lane, items[0]) is EffectAnswer.OK
    assert begin(stream, lane, items[1])[0] is EffectAnswer.WAITING
    held = state(server, stream)
    assert held["dead"] == [items[0].position, items[1].position]
    assert (held["attempts"], held["outbox"], held["cursor"]["position"]) == (
        [],
        [EVENT.event_id],
        items[1].position,
    )


def test_an_event_before_the_dead_letters_of_its_line_runs(
    server: Server, stream: Stream, lane: EffectLane, items: list[Item]
) -> None:
    """Order is by position, whatever was parked first."""
    park(stream, lane, items[1])
    assert begin(stream, lane, items[0]) == (EffectAnswer.OK, 1)


@pytest.mark.parametrize(
    "part", ["cursor", "lease", "attempts", "done", "dead", "line", "due", "outbox", "begun"]
)
def test_a_key_of_another_type_fails_before_anything_is_written(
    server: Server, stream: Stream, lane: EffectLane, items: list[Item], part: str
) -> None:
    """Redis does not roll back: half a step would break the balance of the counts."""
    server.client.delete(getattr(lane.at, part))
    server.client.set(getattr(lane.at, part), "mine")
    before = dump(server)
    with pytest.raises(Exception, match="WRONGTYPE"):
        done(stream, lane, items[0])
    assert dump(server) == before


def test_out_of_memory_an_attempt_is_not_counted_and_nothing_is_parked(
    server: Server, stream: Stream, lane: EffectLane, items: list[Item]
) -> None:
    """A full server must neither use attempts up nor lose the reason of a parking."""
    server.client.config_set("maxmemory", 1)
    before = dump(server)
    for verb in (begin, park):
        with pytest.raises(Exception, match=r"OOM|maxmemory"):
            verb(stream, lane, items[0])
    server.client.config_set("maxmemory", 0)
    assert dump(server) == before


# The lane on top: what an attempt comes to.


def test_an_attempt_ends_done_again_or_parked(
    server: Server, stream: Stream, lane: EffectLane, items: list[Item]
) -> None:
    """These are all the ways an item can go, and each leaves the counts in balance."""
    assert drive(stream, lane.attempt(items[0])) == Ended("done")
    assert isinstance(drive(stream, lane.attempt(items[1]), HandlerFailed("no")), Again)
    assert drive(stream, lane.attempt(items[1]), HandlerFailed("never", is_final=True)) == Ended("parked")
    assert drive(stream, lane.attempt(items[2])) == Ended("waiting")
    assert drive(stream, lane.attempt(items[0])) == Ended("stale")
    assert lane.window.room == 4096
    assert_balanced(server, stream)


def test_an_audit_event_left_in_the_outbox_is_appended_by_whoever_comes_next(
    server: Server, stream: Stream, lane: EffectLane, items: list[Item]
) -> None:
    """The process ended after the change and before the audit trail knew."""
    steps = lane.attempt(items[0])
    answer: Any = None
    while True:
        wanted = steps.send(answer)
        if isinstance(wanted, Handle):
            answer = HandlerFailed("no", is_final=True)
            continue
        if wanted[0].key == lane.streams.operations.keys[lane.streams.operations.partition_of("clip-1")].log:
            break  # here it is killed
        answer = stream.wire(0).ask(*[command for _, command in wanted])
    assert len(state(server, stream)["outbox"]) == 1

    for _ in range(2):
        drive(stream, resumption.due(lane_of(server, stream)))

    assert state(server, stream)["outbox"] == []
    operations = lane.streams.operations
    found = [
        entry.event for partition in range(operations.partitions) for entry in operations.read(partition)
    ]
    assert [(event.subject, event.reason) for event in found] == [("clip-1", "no")]


# The answers of retry.lua and discard.lua.


@pytest.fixture
def dead_line(stream: Stream, lane: EffectLane, items: list[Item]) -> list[str]:
    """Two dead letters of one line."""
    drive(stream, lane.attempt(items[0]), HandlerFailed("no", is_final=True))
    drive(stream, lane.attempt(items[1]))
    return [items[0].position, items[1].position]


def test_only_the_first_letter_of_a_line_may_be_retried(
    server: Server, stream: Stream, lane: EffectLane, dead_line: list[str]
) -> None:
    """A later one before it would turn the order of the subject around."""
    before = dump(server)
    with pytest.raises(DeadLetterBehind, match=f"waits behind {dead_line[0]}"):
        retry(stream, lane.streams.operations, LetterPlace("noting", 0, dead_line[1]))
    with pytest.raises(DeadLetterUnknown, match="no dead letter at clips-test/0/1-1"):
        discard(stream, lane.streams.operations, LetterPlace("noting", 0, "1-1"), "")
    assert dump(server) == before

    assert retry(stream, lane.streams.operations, LetterPlace("noting", 0, dead_line[0]))
    assert [letter.state for letter in list_letters(stream, "noting")] == ["due", "waiting"]
    assert not retry(stream, lane.streams.operations, LetterPlace("noting", 0, dead_line[0]))


def test_a_letter_that_changed_meanwhile_is_read_again(
    server: Server, stream: Stream, lane: EffectLane, dead_line: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two persons decide at once: the second decides about what is there by then."""
    answers = []
    decide = dead._Desk.decide

    def meddling(self: Any, *arguments: Any) -> Any:
        if not answers:
            text = server.client.hget(lane.at.dead, dead_line[0])
            server.client.hset(lane.at.dead, dead_line[0], text.replace(b'"no"', b'"yes"'))
        answers.append(decide(self, *arguments)[0])
        return answers[-1], ""

    monkeypatch.setattr(dead._Desk, "decide", meddling)
    retry(stream, lane.streams.operations, LetterPlace("noting", 0, dead_line[0]))
    assert answers == [dead.DecisionAnswer.CHANGED, dead.DecisionAnswer.OK]


def test_a_letter_that_waits_may_be_discarded_alone(
    server: Server, stream: Stream, lane: EffectLane, dead_line: list[str]
) -> None:
    """What a person drops must not set free what waits for somebody else."""
    discard(stream, lane.streams.operations, LetterPlace("noting", 0, dead_line[1]), "twice")
    held = state(server, stream)
    assert (held["dead"], held["due"]) == ([dead_line[0]], [])
    discard(stream, lane.streams.operations, LetterPlace("noting", 0, dead_line[0]), "too old")
    assert state(server, stream)["line"] == []
    assert_balanced(server, stream)


def test_a_letter_runs_only_while_it_is_due_and_as_it_was_read(
    server: Server, stream: Stream, lane: EffectLane, dead_line: list[str]
) -> None:
    """A person may discard it while its handler runs: then what the handler says about it is stale."""
    retry(stream, lane.streams.operations, LetterPlace("noting", 0, dead_line[0]))
    letter: Item = drive(stream, resumption.first_letter(lane, "clip-1"))
    assert begin(stream, lane, letter) == (EffectAnswer.OK, 1)
    discard(stream, lane.streams.operations, LetterPlace("noting", 0, dead_line[0]), "too late")

    assert done(stream, lane, letter) == (EffectAnswer.STALE, dead_line[1]), "and it learns who is next"
    assert park(stream, lane, letter) is EffectAnswer.STALE
    assert_balanced(server, stream)


def test_a_late_repeat_of_a_parking_does_not_undo_a_retry(
    server: Server, stream: Stream, lane: EffectLane, dead_line: list[str]
) -> None:
    """Its reply was lost, a person was faster than the repeat."""
    retry(stream, lane.streams.operations, LetterPlace("noting", 0, dead_line[0]))
    letter: Item = drive(stream, resumption.first_letter(lane, "clip-1"))
    assert park(stream, lane, letter) is EffectAnswer.OK
    retry(stream, lane.streams.operations, LetterPlace("noting", 0, dead_line[0]))
    before = dump(server)

    assert park(stream, lane, letter) is EffectAnswer.STALE
    assert dump(server) == before
