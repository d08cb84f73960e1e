"""The record of a view's generations: its transitions, its compare-and-set, and the events waiting in it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from aurastream.projections import Consumer, ProjectionError, TrimmedUnread, View, check
from aurastream.projections.engine.apply import Lane, Retired
from aurastream.projections.engine.commit import CommitAnswer
from aurastream.projections.engine.errors import RecordDamaged
from aurastream.projections.engine.generations import (
    NEVER_REBUILT,
    Generation,
    Record,
    Start,
    State,
    announce,
    announced,
    announcing,
    begun,
    change,
    cleared,
    field_of,
    read_record,
    read_records,
    retired,
    swapped,
)
from aurastream.projections.engine.intake import Batch
from aurastream.projections.engine.reads import GenerationGone
from aurastream.projections.engine.retirement import retire, retire_due
from aurastream.projections.rebuild.builder import BuildLane, Refused
from aurastream.streams import OPERATIONS, Server, Settings, Stream, drive, named_id, open_stream
from aurastream.streams.events import ViewSwapped
from aurastream.streams.history import History, Span
from aurastream.streams.keys import VIEWS
from tests.facts import consume, findings, observation, raw_append
from tests.projections.counting import Count, Counting

HOUR_MS = 3_600_000
OWN = Counting().fingerprint


def building(held: str = "old", own: str = "new") -> Record:
    return begun(NEVER_REBUILT, held, own, Start("ada@host", "host-1-aa", 1_000))


def states(record: Record) -> dict[int, str]:
    return {item.number: item.state.value for item in record.generations}


# Transitions.


def test_a_rebuild_begins_beside_the_live_one_and_notes_whose_definition_that_is() -> None:
    """Readers go on with the live one; who folded it must be known when it is compared."""
    record = building()

    assert states(record) == {1: "live", 2: "building"}
    assert [item.fingerprint for item in record.generations] == ["old", "new"]
    assert (record.live, record.last) == (1, 2)


def test_a_second_start_goes_on_with_what_is_being_built() -> None:
    """A rebuild that was killed must not begin again from nothing, nor build a third."""
    again = begun(building(), "old", "new", Start("bob@host", "host-2-bb", 5_000))

    assert states(again) == {1: "live", 2: "building"}
    assert again.building == Generation(2, State.BUILDING, "new", "ada@host", "host-2-bb", 1_000, 5_000)


def test_a_swap_makes_one_live_and_keeps_the_other_until_its_time() -> None:
    """There is always exactly one live generation, and a way back for a while."""
    record = swapped(building(), 2, 10_000, HOUR_MS)

    assert states(record) == {1: "kept", 2: "live"}
    assert record.live == 2
    assert record.find(1).kept_until_ms == 10_000 + HOUR_MS
    assert record.due(10_000 + HOUR_MS - 1) == []
    assert [item.number for item in record.due(10_000 + HOUR_MS)] == [1]


def test_a_rollback_is_a_swap_back_and_keeps_the_other_likewise() -> None:
    """The way back is the same step, with the same promises."""
    record = swapped(swapped(building(), 2, 10_000, HOUR_MS), 1, 20_000, HOUR_MS)

    assert states(record) == {1: "live", 2: "kept"}
    assert record.find(2).kept_until_ms == 20_000 + HOUR_MS
    assert record.find(1).kept_until_ms == 0
    assert record.changes == 2


def test_what_is_kept_for_no_time_is_retired_at_once() -> None:
    """Who wants no way back wants the memory."""
    assert states(swapped(building(), 2, 10_000, 0)) == {1: "retired", 2: "live"}


def test_the_live_one_is_never_retired_and_a_retired_one_never_comes_back() -> None:
    """Readers would find nothing, or half of what was taken away."""
    record = retired(building(), 2)

    with pytest.raises(ProjectionError, match="is the live one"):
        retired(record, 1)
    with pytest.raises(ProjectionError, match="it is retired"):
        swapped(record, 2, 1, 1)
    with pytest.raises(ProjectionError, match="it is gone"):
        swapped(cleared(record, 2), 2, 1, 1)


def test_a_number_is_used_once() -> None:
    """Keys carry the number: used again, old rows would be taken for new ones."""
    record = begun(cleared(retired(building(), 2), 2), "old", "new", Start("ada@host", "host-1-aa", 1_000))

    assert states(record) == {1: "live", 3: "building"}


def test_a_process_keeps_up_what_its_own_definition_folded() -> None:
    """Old and new builds run beside each other during a rollout."""
    record = swapped(building(), 2, 10_000, HOUR_MS)

    assert record.followed("new") == (2,)
    assert record.followed("old") == (1,)
    assert record.followed("third") == (2,), "its applier says what is wrong"
    assert swapped(building("same", "same"), 2, 1, HOUR_MS).followed("same") == (1, 2)
    assert building("same", "same").followed("same") == (1,), "who builds is the rebuild alone"
    assert NEVER_REBUILT.followed("any") == (1,)


def test_an_event_waits_once_and_until_it_is_told() -> None:
    """A process that dies between the change and the log must leave the fact behind, once."""
    record = announcing(announcing(building(), event(2)), event(2))

    assert len(record.outbox) == 1
    assert announced(record, [event(2).event_id]) == building()


def test_a_record_comes_back_from_its_json_as_it_was() -> None:
    """The record is the only place that says which generation is live."""
    record = announcing(swapped(building(), 2, 10_000, HOUR_MS), event(2))

    assert msgspec.json.decode(msgspec.json.encode(record), type=Record) == record


def event(number: int) -> ViewSwapped:
    return ViewSwapped(
        event_id=named_id("rebuild", "clips-test", "counting", number, "swapped"),
        subject="counting",
        source="ada@host",
        occurred_at=datetime(2026, 4, 15, tzinfo=UTC),
        stream="clips-test",
        generation=number,
        previous=1,
    )


# Compare-and-set, and what waits in the record.


def test_a_change_is_made_on_what_somebody_else_has_made_of_it_meanwhile(server: Server) -> None:
    """Compare-and-set: a lost update would bring a retired generation back."""
    tries: list[Record] = []

    def late(record: Record) -> Record:
        tries.append(record)
        if len(tries) == 1:  # between our look and our set
            change(server, "s", "p", lambda other: begun(other, "", "new", Start("bob@host", "b", 1)))
        return begun(record, "", "new", Start("ada@host", "a", 2))

    after = change(server, "s", "p", late)

    assert [len(seen.generations) for seen in tries] == [1, 2]
    assert after == read_record(server, "s", "p")
    assert after.building == Generation(2, State.BUILDING, "new", "bob@host", "a", 1, 2)


def test_a_record_that_others_change_for_ever_is_given_up_after_a_bound(server: Server) -> None:
    """Every loop has a bound, and says so when it is met."""
    numbers = iter(range(1, 1_000))

    def never_in_time(record: Record) -> Record:
        server.client.hset(VIEWS, "s/p", msgspec.json.encode(Record(last=next(numbers))))
        return begun(record, "", "new", Start("ada@host", "a", 1))

    with pytest.raises(ProjectionError, match="50 times in a row"):
        change(server, "s", "p", never_in_time)


def test_an_event_that_waits_is_appended_by_whoever_comes_next_and_once(
    server: Server, stream: Stream
) -> None:
    """The audit trail must not depend on the process that made the change living on."""
    change(server, stream.name, "counting", lambda record: announcing(record, event(2)))

    assert announce(stream, "counting") == 1
    change(
        server, stream.name, "counting", lambda record: announcing(record, event(2))
    )  # it died before it took it out
    assert announce(stream, "counting") == 1

    assert read_record(server, stream.name, "counting").outbox == ()
    assert operations(server) == [("ViewSwapped", 2)]


def operations(server: Server) -> list[tuple[str, int]]:
    """Type and generation of what the audit trail holds, in no order."""
    stream = open_stream(server, OPERATIONS, settings=Settings(partitions=1), create=True)
    found: list[Any] = [
        entry.event for partition in range(stream.partitions) for entry in stream.read(partition)
    ]
    stream.close()
    return sorted((type(item).__name__, item.generation) for item in found)


# What commit.lua refuses, and what readers see.


def retired_view(server: Server, stream: Stream) -> None:
    """Two generations of the view were folded; the first was kept, and is retired now."""
    change(server, stream.name, "counting", lambda record: begun(record, OWN, OWN, Start("ada@host", "a", 1)))
    ask_all(stream, Lane(Counting(), stream, 0, generation=2).catch_up())
    change(server, stream.name, "counting", lambda record: swapped(record, 2, 1, 1))


def ask_all(stream: Stream, steps: Any) -> Any:
    """Drive a lane's steps over the stream's connections."""
    return drive(steps, stream.wires.exchange)


def test_a_writer_of_a_retired_generation_is_refused_by_the_script_for_ever(
    server: Server, stream: Stream
) -> None:
    """Retired between its fold and its commit: nothing but the script can know."""
    stream.append([observation(1), observation(2, minute=1)])
    consume(server, stream, Counting())
    stream.append([observation(3, minute=2)])
    asleep = Lane(Counting(), stream, 0)
    ask_all(stream, asleep.settle())
    raw = stream.read_raw(0, asleep.cursor.position)
    retired_view(server, stream)
    retire(stream, "counting", 1, "ada@host")
    refusals: list[CommitAnswer] = []
    asleep.on_refusal = refusals.append

    with pytest.raises(Retired):
        ask_all(stream, asleep.commit(raw))
    with pytest.raises(Retired):
        ask_all(stream, asleep.settle())

    assert refusals == [CommitAnswer.RETIRED]
    assert sorted(server.client.hkeys(stream.keys[0].cursor("counting"))) == [b"retired"]
    assert server.client.keys("aura:{clips-test.0}:view:counting:1:*") == []


def test_a_view_behind_what_was_trimmed_is_refused_and_says_what_to_do(
    server: Server, stream: Stream
) -> None:
    """Going on would leave out events without a word; the archive has them."""
    stream.append([observation(n, minute=n) for n in range(6)])
    applier = Lane(Counting(), stream, 0)
    ask_all(stream, applier.settle())
    raw = stream.read_raw(0)
    server.client.xtrim(stream.keys[0].log, maxlen=4)
    server.client.hincrby(stream.keys[0].meta, "trimmed", 2)
    refusals: list[CommitAnswer] = []
    applier.on_refusal = refusals.append

    with pytest.raises(TrimmedUnread, match="aurastream rebuild counting"):
        ask_all(stream, applier.commit(raw[2:]))
    with pytest.raises(TrimmedUnread, match="has read 0 entries of clips-test/0, and 2 were trimmed"):
        consume(server, stream, Counting())

    assert refusals == [CommitAnswer.BEHIND]
    assert server.client.exists(stream.keys[0].cursor("counting")) == 0


def test_a_view_that_has_read_what_was_trimmed_goes_on(server: Server, stream: Stream) -> None:
    """Trimming what every view has read is the normal case and must cost nothing."""
    stream.append([observation(n, minute=n) for n in range(6)])
    consume(server, stream, Counting())
    server.client.xtrim(stream.keys[0].log, maxlen=4)
    server.client.hincrby(stream.keys[0].meta, "trimmed", 2)
    stream.append([observation(7, minute=7)])

    consume(server, stream, Counting())

    assert View(stream, Counting()).cursor(0).read == 7


def test_a_generation_has_cursor_dead_entries_and_group_of_its_own(server: Server, stream: Stream) -> None:
    """Shared, a build would move the live view, or be held up by it."""
    stream.append([observation(1)])
    server.client.xadd(stream.keys[0].log, {"event": "no event", "crc32": 1})
    consume(server, stream, Counting())

    retired_view(server, stream)

    keys = stream.keys[0]
    assert server.client.hget(keys.cursor("counting@2"), "read") == b"2"
    assert server.client.hlen(keys.dead("counting@2")) == 1
    assert server.client.hexists(keys.groups, "counting@2")
    assert findings(stream, Counting()) == []


def test_a_reader_follows_the_live_generation_and_a_pinned_one_stays(server: Server, stream: Stream) -> None:
    """A swap must reach every reader by itself, but whoever compares two must not be moved."""
    stream.append([observation(1)])
    consume(server, stream, Counting())
    view, first, second = (View(stream, Counting(), generation=number) for number in (None, 1, 2))
    assert view.state("clip-1").applied == 1
    retired_view(server, stream)
    server.client.hset(view.key(0, "states"), "clip-1", '{"applied":99,"views":1,"category":""}')

    assert first.state("clip-1").applied == 99
    assert second.state("clip-1").applied == view.state("clip-1").applied == 1
    assert (view.generation, view.record().live) == (2, 2)


def test_a_read_whose_generation_is_retired_between_its_rounds_begins_anew(
    server: Server, stream: Stream
) -> None:
    """A ranking may take several rounds; they are of one generation, and none of them is of one that is
    gone.
    """
    stream.append([observation(n + 1, clip=f"clip-{n}") for n in range(40)])
    consume(server, stream, Counting())

    class Slow(View[Any]):
        rounds = 0

        def ask(self, requests: Any, **options: Any) -> Any:
            found = super().ask(requests, **options)
            self.rounds += 1
            if self.rounds == 1:
                retired_view(server, stream)
                retire(stream, "counting", 1, "ada@host")
                super().ask(requests, goes_on=True)  # as the next round of the same read
            return found

    view = Slow(stream, Counting())

    assert len(view.ranking("most", 40).rows) == 40
    assert view.generation == 2
    with pytest.raises(GenerationGone, match="generation 1 of the view 'counting'"):
        View(stream, Counting(), generation=1).ranking("most", 40)


# The end of a generation.


def test_a_kept_generation_is_kept_up_until_its_time_is_over_and_then_gone(
    server: Server, stream: Stream
) -> None:
    """A rollback to a view that stood still would lose what came since."""
    stream.append([observation(1)])
    consume(server, stream, Counting())
    retired_view(server, stream)
    change(server, stream.name, "counting", lambda r: swapped(swapped(r, 1, 1, HOUR_MS), 2, 2, 2**50))
    stream.append([observation(2, minute=1)])

    consume(server, stream, Counting())

    assert [View(stream, Counting(), generation=number).cursor(0).read for number in (1, 2)] == [2, 2]
    assert retire_due(stream, "counting", "ada@host") == []
    change(server, stream.name, "counting", lambda r: swapped(swapped(r, 1, 1, HOUR_MS), 2, 2, 2))
    assert retire_due(stream, "counting", "ada@host") == [1]
    assert states(read_record(server, stream.name, "counting")) == {2: "live"}
    assert operations(server) == [("GenerationRetired", 1)]
    assert not server.client.hexists(stream.keys[0].groups, "counting")
    assert [group["name"] for group in server.client.xinfo_groups(stream.keys[0].log)] == [b"counting@2"]
    assert findings(stream, Counting()) == []


@pytest.mark.parametrize("step", ["tombstone", "tables", "event"])
def test_a_retirement_that_was_killed_is_finished_by_the_next_to_look(
    server: Server, stream: Stream, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Half of a generation left behind would be memory that nobody names."""
    stream.append([observation(1)])
    consume(server, stream, Counting())
    retired_view(server, stream)
    whole, names = (
        "aurastream.projections.engine.retirement.",
        {"tombstone": "_clear", "tables": "forget", "event": "announce"},
    )

    def killed(*given: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(whole + names[step], killed)
        with pytest.raises(KeyboardInterrupt):
            retire_due(stream, "counting", "ada@host")
    retire_due(stream, "counting", "ada@host")

    assert states(read_record(server, stream.name, "counting")) == {2: "live"}
    assert operations(server) == [("GenerationRetired", 1)]
    assert server.client.keys("aura:{clips-test.0}:view:counting:1:*") == []
    assert View(stream, Counting()).state("clip-1").applied == 1


def test_a_consumer_lets_a_retired_generation_go_and_takes_the_new_one_up(
    server: Server, stream: Stream
) -> None:
    """A process that runs for months sees many swaps without a restart."""
    stream.append([observation(1)])
    looks: list[int] = []

    def streams() -> list[Stream]:
        looks.append(1)
        if len(looks) == 2:  # the consumer waits for news
            retired_view(server, stream)
            retire(stream, "counting", 1, "ada@host")
            stream.append([observation(2, minute=1)])
        return [stream]

    Consumer(server, [Counting()], streams).run(lambda: len(looks) > 3)

    assert View(stream, Counting()).cursor(0).read == 2
    assert list(read_records(server)) == ["clips-test/counting"]


# Where the entries of a commit come from: commit.lua's modes for who builds a generation.


def bulk(stream: Stream, raw: list[Any], duplicates: frozenset[bytes] | None = None) -> BuildLane:
    """A builder that has sent the commit of these entries, as from the log or, with duplicates, from the
    archive.
    """
    builder = BuildLane(Counting(), History(stream), 0, 1)
    builder.drive(builder.settle(is_trim_passed=True))
    builder._bulk([Batch(Span(raw, duplicates), Counting().codec(), "x", False)], 1)
    return builder


def test_a_commit_without_digests_is_refused_once_others_have_added_entries(
    server: Server, stream: Stream
) -> None:
    """A doubled event ID would count twice: without digests nobody would have noticed."""
    stream.append([observation(1)])
    raw_append(server, stream, observation(1))
    builder = bulk(stream, stream.read_raw(0))

    with pytest.raises(Refused) as refused:
        builder._answered()

    assert refused.value.answer is CommitAnswer.IMPURE
    assert server.client.exists(stream.keys[0].cursor("counting")) == 0
    builder.build()
    assert View(stream, Counting()).state("clip-1") == Count(1, 1, "")
    builder.close()


def test_a_commit_without_digests_must_be_what_follows_the_cursor(server: Server, stream: Stream) -> None:
    """A build is faster without evidence, not looser: a gap is a gap."""
    stream.append([observation(n, minute=n) for n in range(4)])
    builder = bulk(stream, stream.read_raw(0)[1:])

    with pytest.raises(Refused) as refused:
        builder._answered()

    assert refused.value.answer is CommitAnswer.GAP
    builder.close()


def test_entries_of_the_archive_are_counted_as_it_says_and_compared_with_no_log(
    server: Server, stream: Stream
) -> None:
    """They are no longer in the log; which of them are duplicates was decided when they were archived."""
    stream.append([observation(1), observation(2, minute=1)])
    raw_append(server, stream, observation(1))
    raw = stream.read_raw(0)
    server.client.xtrim(stream.keys[0].log, maxlen=0)
    server.client.hset(stream.keys[0].meta, "trimmed", 3)
    builder = bulk(stream, raw, frozenset([raw[2][0]]))

    builder._answered()

    cursor = View(stream, Counting()).cursor(0)
    assert (cursor.read, cursor.applied, cursor.duplicates, cursor.position) == (3, 2, 1, raw[2][0].decode())
    assert View(stream, Counting()).state("clip-1") == Count(2, 3, "")
    builder.close()


def test_a_commit_is_refused_where_rows_were_repaired_since_its_states_were_loaded(
    server: Server, stream: Stream
) -> None:
    """It was folded from the wrong row, and would write it back."""
    stream.append([observation(1)])
    consume(server, stream, Counting())
    stream.append([observation(2, minute=1)])
    applier = Lane(Counting(), stream, 0)
    ask_all(stream, applier.settle())
    server.client.hincrby(stream.keys[0].cursor("counting"), "repairs", 1)

    answer, _ = ask_all(stream, applier.commit(stream.read_raw(0, applier.cursor.position)))

    assert answer is CommitAnswer.STALE
    ask_all(stream, applier.catch_up())
    assert findings(stream, Counting()) == []
    assert View(stream, Counting()).cursor(0).repairs == 1


def test_a_consumer_that_is_never_idle_takes_the_new_generation_up_as_well(
    server: Server, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a load that does not end it would otherwise go on with the old one for ever."""
    monkeypatch.setattr("aurastream.projections.engine.consumer.LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(Consumer, "_wait", lambda self, _: pytest.fail("it was idle"))
    stream.append([observation(n, minute=n) for n in range(400)])
    commits: list[int] = []

    def swap_at_the_first(progress: Any) -> None:
        commits.append(progress.events)
        if len(commits) == 1:
            change(
                server,
                stream.name,
                "counting",
                lambda record: begun(record, OWN, OWN, Start("ada@host", "a", 1)),
            )
            change(server, stream.name, "counting", lambda record: swapped(record, 2, 1, HOUR_MS * 10**6))

    Consumer(server, [Counting()], lambda: [stream], batch_max=10, on_commit=swap_at_the_first).run(
        lambda: View(stream, Counting(), generation=2).cursor(0).read > 50
    )

    assert View(stream, Counting(), generation=1).cursor(0).read < 400


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw.replace(
            b'"live":1', b'"live":3'
        ),  # of which nothing is there: readers would see nothing
        lambda raw: raw.replace(b'"state":"live"', b'"state":"live'),
        lambda raw: raw.replace(b'"state":"live"', b'"state":"kept"'),
        lambda raw: b"\xff" + raw[1:],
    ],
    ids=["no such generation", "cut short", "no such state", "no JSON"],
)
def test_a_damaged_record_is_refused_by_reader_and_check_alike(
    server: Server, spoil: Callable[[bytes], bytes]
) -> None:
    """A flipped bit in it must not make a view empty."""
    stream = open_stream(server, "clips-test", create=True, partitions=1)
    good = msgspec.json.encode(NEVER_REBUILT)
    server.client.hset(VIEWS, field_of("clips-test", "counting"), good)
    assert View(stream, Counting()).states().rows == {}

    server.client.hset(VIEWS, field_of("clips-test", "counting"), spoil(good))

    for ask in (View(stream, Counting()).states, lambda: list(check(stream, [Counting()]))):
        with pytest.raises(RecordDamaged, match=r"aura:views|counting"):
            ask()


def test_a_record_with_more_words_than_an_event_can_hold_is_read_and_its_event_appended(
    server: Server,
) -> None:
    """Earlier builds let a reason of any length in, and nobody could read the record again."""
    stream = open_stream(server, "clips-test", create=True, partitions=1)
    swap = ViewSwapped(
        event_id=named_id("x", 1),
        subject="counting",
        occurred_at=datetime.now(UTC),
        source="ada@host",
        stream="clips-test",
        generation=2,
        previous=1,
        why="LONG",
    )
    raw = msgspec.json.encode(announcing(NEVER_REBUILT, swap)).replace(b"LONG", b"y" * 1_001)
    server.client.hset(VIEWS, field_of("clips-test", "counting"), raw)

    assert read_record(server, "clips-test", "counting").live == 1
    assert announce(stream, "counting") == 1

    operations = open_stream(server, OPERATIONS)
    entries = [entry.event for at in range(operations.partitions) for entry in operations.read(at)]
    (event,) = [event for event in entries if isinstance(event, ViewSwapped)]
    assert event.why == "y" * 999 + "\N{HORIZONTAL ELLIPSIS}"
    assert read_record(server, "clips-test", "counting") == NEVER_REBUILT
