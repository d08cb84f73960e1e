"""Where a processor begins, what it is recorded to handle, what a person decides about holes and types."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from aurastream.processors.effects import (
    Acceptance,
    Accepted,
    Attempt,
    LetterPlace,
    Processor,
    Since,
    introduce,
    list_letters,
    processor_standing,
    read_meetings,
    resumption,
    retry,
)
from aurastream.processors.effects.lane import HoleInLog
from aurastream.processors.effects.steps import Ended, Handle, MovedOn
from aurastream.processors.host import LanesRefused
from aurastream.streams import (
    OPERATIONS,
    PROCESSORS,
    ClipViewsObserved,
    ProcessorAccepted,
    Server,
    Stream,
    forget,
    open_stream,
)
from aurastream.streams.groups import cursor_of, lag_of
from aurastream.streams.retention.trimmer import Goal, Trimmer
from tests.facts import observation
from tests.processors.effects.outside import (
    CODEC,
    SETTINGS,
    ClipNoted,
    Noting,
    assert_balanced,
    failing,
    operations,
    state,
    work,
)
from tests.processors.effects.test_answers import drive, lane_of

NOW, SKIPPED, BEGINNING = Since(None, "now"), Since(None, "skipped"), Since(0, "beginning")


class New(Noting):
    """With the start that a processor has where its author says none."""

    start = Processor.start


class Both(Noting):
    """A later build: it handles notes too."""

    events = (ClipViewsObserved, ClipNoted)
    into = "elsewhere"

    async def handle(self, event: Any, attempt: Attempt) -> list[Any]:
        self.calls.append((event.event_id, attempt.number))
        self.behave(event, attempt)
        return []


def seen(*event_ids: str, clip: str = "") -> list[Any]:
    return [observation(event_id=name, clip=clip or name[0], minute=n) for n, name in enumerate(event_ids)]


def noted(event_id: str, subject: str) -> ClipNoted:
    return ClipNoted(event_id=event_id, subject=subject, occurred_at=datetime.now(UTC))


def audit(server: Server) -> Stream:
    return open_stream(server, OPERATIONS, codec=CODEC, settings=SETTINGS, create=True)


def accept(server: Server, stream: Stream, processor: Processor, since: Since) -> Accepted:
    return Acceptance(processor, stream, audit(server)).decide(since, "a test")


def written(server: Server, name: str = "clips-test") -> Stream:
    """The stream, to append events of any type."""
    return open_stream(server, name, codec=CODEC, settings=SETTINGS, create=True)


def trim(stream: Stream, server: Server) -> None:
    keys = stream.keys[0]
    last = server.client.xrevrange(keys.log, count=1)[0][0]
    server.client.hset(keys.archive, "position", last)
    (done,) = Trimmer(stream, audit(server), Goal(keep_events=0)).run()
    assert not done.blockers, done


def test_a_new_processor_leaves_history_alone(server: Server, stream: Stream) -> None:
    """One that sends mails sent 2,001 of them, for all that had ever happened."""
    stream.append(seen("a1", "b1", "a2"))
    new = New()

    with capture_logs() as said:
        work(server, new)
    stream.append(seen("c1", "a3"))
    work(server, new)

    assert sorted(new.handled) == ["a3", "c1"]
    (met,) = [line for line in said if line["event"] == "processor_met"]
    assert (met["processor"], met["stream"], met["start"]) == ("noting", "clips-test", "end")
    cursor = cursor_of(stream.wire(0).ask(("HGETALL", stream.keys[0].cursor("noting")))[0])
    assert (cursor.read, cursor.skipped, cursor.applied) == (5, 3, 2)
    assert cursor.read_bytes == int(server.client.hget(stream.keys[0].meta, "bytes") or 0)
    assert lag_of(server, stream.keys[0], cursor).events == 0
    assert_balanced(server, stream)


def test_all_of_a_stream_that_is_made_later_is_handled(server: Server, stream: Stream) -> None:
    """A host looks for new streams now and then; what is appended before it looks is no history."""
    new = New()
    introduce(server, [new])
    later = written(server, "later")
    later.append(seen("a1", "a2"))

    work(server, new, streams=lambda: [later])

    assert new.handled == ["a1", "a2"]


@pytest.mark.parametrize("events", [10, 1_200])
def test_an_instant_is_where_it_begins(server: Server, stream: Stream, events: int) -> None:
    """Also where so much lies behind it that the first step does not count it at once."""
    stream.append(seen("a1", "a2"))
    last = int(stream.read(0)[-1].position.partition("-")[0])
    while int(server.client.time()[0] * 1_000 + server.client.time()[1] // 1_000) <= last + 1:
        pass
    stream.append([observation(event_id=f"b{n}", clip=f"b{n % 50}", minute=n) for n in range(events)])

    class Since(New):
        start = datetime.fromtimestamp((last + 1) / 1_000, UTC)
        parallel = 50

    since = Since()
    work(server, since)

    assert len(since.handled) == events
    assert not {"a1", "a2"} & set(since.handled)
    assert state(server, stream)["cursor"]["skipped"] == "2"
    assert_balanced(server, stream)


def test_a_start_that_is_none_is_refused() -> None:
    """At the start of the host, where its author sees it."""

    class Wrong(Noting):
        start = "today"  # type: ignore[assignment]

    with pytest.raises(Exception, match="start of the processor 'noting' is 'today'"):
        Wrong().check()


def test_a_build_with_other_types_does_not_go_on_until_a_person_says_from_when(
    server: Server, stream: Stream
) -> None:
    """Events that the old build skipped were never handled, and nobody noticed."""
    own = written(server)
    own.append([*seen("a1"), noted("n1", "a")])
    work(server, Noting())

    with pytest.raises(LanesRefused, match=r"handles test.clip_noted besides.*processors accept noting"):
        work(server, Both())
    assert "handles test.clip_noted besides" in processor_standing(Both(), stream, read_meetings(server))
    assert processor_standing(Noting(), stream, read_meetings(server)) == ""
    accepted = accept(server, stream, Both(), NOW)
    own.append([noted("n2", "a")])
    both = Both()
    work(server, both)

    assert (accepted.gained, accepted.recalled) == (("test.clip_noted",), 0)
    assert both.handled == ["n2"]
    with pytest.raises(LanesRefused, match=r"no longer handles test\.clip_noted"):
        work(server, Noting())
    (said,) = [event for event in operations(server) if isinstance(event, ProcessorAccepted)]
    assert (said.subject, said.gained, said.since, said.why) == ("noting", "test.clip_noted", "now", "a test")
    assert_balanced(server, stream)


def test_what_was_passed_over_runs_where_a_person_wants_it(server: Server, stream: Stream) -> None:
    """Each subject in order, before what came later; once, also where the decision is repeated."""
    own = written(server)
    for n in range(3):
        own.append([*seen(f"a{n}", f"b{n}"), noted(f"na{n}", "a"), noted(f"nb{n}", "b")])
    work(server, Noting())

    accepted = [accept(server, stream, Both(), SKIPPED) for _ in range(2)]
    own.append([noted("na3", "a")])
    both = Both()
    work(server, both)
    work(server, both)

    assert [(item.recalled, item.is_change) for item in accepted] == [(6, True), (0, False)]
    assert [name for name in both.handled if name.startswith("na")] == ["na0", "na1", "na2", "na3"]
    assert sorted(both.handled) == ["na0", "na1", "na2", "na3", "nb0", "nb1", "nb2"]
    assert list(list_letters(stream, "noting")) == []
    assert_balanced(server, stream)


def test_a_subject_with_a_parked_event_is_not_let_loose_by_a_decision(server: Server, stream: Stream) -> None:
    """A person decided about types, not about what failed."""
    own = written(server)
    own.append([*seen("a1"), noted("n1", "a")])
    work(server, Noting(failing("a1")))

    accept(server, stream, Both(), SKIPPED)
    both = Both(failing("a1"))
    work(server, both)

    assert both.handled == []
    assert [letter.event_id for letter in list_letters(stream, "noting")] == ["a1", "n1"]
    first = next(list_letters(stream, "noting"))
    retry(stream, audit(server), LetterPlace("noting", 0, first.position))
    both.behave = lambda event, attempt: None
    work(server, both)
    assert both.handled == ["a1", "n1"]
    assert_balanced(server, stream)


def test_a_decision_that_was_cut_short_goes_on_where_it_ended(
    server: Server, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lane goes on meanwhile, and nothing runs twice."""
    from aurastream.processors.effects import acceptance

    monkeypatch.setattr(acceptance, "READ_MAX", 2)
    own = written(server)
    own.append([noted(f"n{n}", "a") for n in range(7)])
    own.append(seen("a1"))
    work(server, Noting())
    calls: list[Any] = []
    letters = Acceptance._letters

    def ending(self: Acceptance, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return letters(self, *arguments)

    monkeypatch.setattr(Acceptance, "_letters", ending)
    with pytest.raises(KeyboardInterrupt):
        accept(server, stream, Both(), SKIPPED)
    with pytest.raises(Exception, match="has not reached all partitions"):
        work(server, Both())
    rest = accept(server, stream, Both(), NOW)
    both = Both()
    work(server, both)

    assert rest.recalled == 3
    assert both.handled == [f"n{n}" for n in range(7)]
    assert_balanced(server, stream)


def test_more_of_the_past_can_be_wanted_later(server: Server, stream: Stream) -> None:
    """What a new processor left alone is not lost: a person may have it handled after all."""
    stream.append(seen("a1", "b1"))
    new = New()
    work(server, new)

    accepted = accept(server, stream, new, BEGINNING)
    work(server, new)

    assert accepted.recalled == 2
    assert sorted(new.handled) == ["a1", "b1"]
    assert_balanced(server, stream)


@pytest.fixture
def hole(server: Server, stream: Stream) -> None:
    """A processor is away and was forgotten; what it had not handled was trimmed."""
    stream.append(seen("a1", "b1"))
    work(server, Noting())
    stream.append(seen("a2", "b2", "c2"))
    forget(server, stream.keys, "noting")
    trim(stream, server)
    stream.append(seen("a3", "d3"))


def test_a_processor_that_was_trimmed_past_is_refused_until_a_person_decides(
    server: Server, stream: Stream, hole: None
) -> None:
    """The events in the hole were never handled, without a word and with exit code 0."""
    noting = Noting()
    with pytest.raises(HoleInLog, match=r"archive alone.*processors accept noting"):
        work(server, noting)
    with pytest.raises(Exception, match="from skipped cannot be done"):
        accept(server, stream, noting, SKIPPED)
    assert noting.handled == []

    accepted = accept(server, stream, noting, BEGINNING)
    work(server, noting)

    assert accepted.passed == 3
    assert sorted(noting.handled) == ["a3", "d3"]
    said = operations(server)[-1]
    assert (type(said), said.passed, said.since) == (ProcessorAccepted, 3, "beginning")
    assert state(server, stream)["cursor"]["read"] == "7"
    assert_balanced(server, stream)


def test_a_person_may_go_on_with_what_comes_from_now_on(server: Server, stream: Stream, hole: None) -> None:
    """After months away, what lies in the log may be as old as what was trimmed."""
    noting = Noting()
    accepted = accept(server, stream, noting, NOW)
    stream.append(seen("e1"))
    work(server, noting)

    assert (accepted.passed, noting.handled) == (5, ["e1"])
    assert_balanced(server, stream)


def rest(stream: Stream, steps: Any, answer: Any) -> Any:
    """What a generator that has begun comes to."""
    try:
        while True:
            answer = [stream.wire(0).ask(ask.command)[0] for ask in steps.send(answer)]
    except StopIteration as finished:
        return finished.value


def test_a_build_that_a_decision_left_behind_neither_begins_nor_parks_and_may_end_what_it_began(
    server: Server, stream: Stream
) -> None:
    """It does not know the new types: what a person wants handled would be parked by it, as no event
    of its.
    """
    own = written(server)
    own.append([*seen("a1", "b1"), noted("n1", "c")])
    old = lane_of(server, stream)
    drive(stream, old.settle())
    items = drive(stream, old.read())
    steps = old.attempt(items[0])
    wanted = steps.send(None)
    while not isinstance(wanted, Handle):
        wanted = steps.send([stream.wire(0).ask(ask.command)[0] for ask in wanted])

    accept(server, stream, Both(), SKIPPED)
    letter = drive(stream, resumption.first_letter(old, "c"))

    assert (letter.problem, state(server, stream)["due"]) == ("noting no longer handles its type", ["c"])
    for item in (items[1], letter):
        with pytest.raises(MovedOn):
            drive(stream, old.attempt(item))
    assert rest(stream, steps, []) == Ended("done")
    both = Both()
    work(server, both)
    assert sorted(both.handled) == ["b1", "n1"]
    assert_balanced(server, stream)


@pytest.mark.parametrize("is_field", [True, False], ids=["a record", "the key"])
def test_a_damaged_record_is_a_sentence_and_stops_no_other(
    server: Server, stream: Stream, is_field: bool
) -> None:
    """Any producer may write there; the lanes of views, and other processors, are not to stand still
    for it.
    """
    stream.append(seen("a1"))

    class Other(Noting):
        name = "other"

    if is_field:
        server.client.hset(PROCESSORS, "clips-test/noting", "nonsense")
    else:
        server.client.set(PROCESSORS, "nonsense")
    noting, other = Noting(), Other()
    said = "holds no record of 'clips-test/noting'" if is_field else "records of processors: WRONGTYPE"
    with pytest.raises(LanesRefused, match=said):
        work(server, noting, other)
    assert (noting.handled, other.handled) == ([], ["a1"] if is_field else [])
    server.client.delete(PROCESSORS)
    work(server, noting)
    assert noting.handled == ["a1"]
