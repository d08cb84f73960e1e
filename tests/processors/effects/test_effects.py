"""Handlers that work outside: derived events once, retries in order, dead letters with their followers, other
subjects flowing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from aurastream.processors import ProcessorError
from aurastream.processors.effects import (
    Attempt,
    GiveUp,
    LetterPlace,
    Processor,
    discard,
    list_letters,
    retry,
)
from aurastream.streams import ClipViewsObserved, Event, Server, Stream, open_stream
from tests.facts import observation, raw_append
from tests.processors.effects.outside import (
    CODEC,
    SETTINGS,
    ClipNoted,
    Noting,
    assert_balanced,
    failing,
    notes,
    operations,
    state,
    work,
)


def seen(event_id: str, clip: str = "clip-1", **more: Any) -> Any:
    return observation(event_id=event_id, clip=clip, **more)


def audit_stream(server: Server) -> Stream:
    return open_stream(server, "operations", codec=CODEC, settings=SETTINGS, create=True)


def states(stream: Stream) -> list[tuple[str, str]]:
    return [(letter.event_id, letter.state) for letter in list_letters(stream, "noting")]


def test_a_derived_event_says_where_it_comes_from(server: Server, stream: Stream) -> None:
    """Causation and correlation are what `why` and `audit` walk along."""
    stream.append([seen("e1", views=7, correlation_id="story"), seen("e2", minute=1)])

    work(server, Noting())

    first, second = notes(server)
    assert (first.event_id, first.causation_id, first.correlation_id, first.views) == (
        "e1:noting:0",
        "e1",
        "story",
        7,
    )
    assert (second.causation_id, second.correlation_id, second.subject) == ("e2", "e2", "clip-1")
    assert first.source, "the worker"
    assert_balanced(server, stream)


def test_a_handler_is_called_once_and_not_again_by_the_next_worker(server: Server, stream: Stream) -> None:
    """Done is done for every process that comes after."""
    stream.append([seen(f"e{n}", f"clip-{n % 3}", minute=n) for n in range(30)])
    noting = Noting()

    work(server, noting)
    work(server, noting)

    assert sorted(noting.handled) == sorted(f"e{n}" for n in range(30))
    assert state(server, stream)["cursor"]["applied"] == "30"


def test_a_handler_that_fails_is_attempted_again_under_one_idempotency_key(
    server: Server, stream: Stream
) -> None:
    """The outside recognises a repeat by the key alone."""
    stream.append([seen("e1")])
    noting = Noting(failing("e1", times=2))

    work(server, noting)

    assert noting.calls == [("e1", 1), ("e1", 2), ("e1", 3)]
    assert noting.keys == {"e1:noting"}
    assert [note.number for note in notes(server)] == [3]
    assert state(server, stream)["attempts"] == []


def test_what_always_fails_is_parked_with_the_reason_and_an_audit_event(
    server: Server, stream: Stream
) -> None:
    """Somebody must find it, with the reason, after the process is gone."""
    stream.append([seen("e1")])

    work(server, Noting(failing("e1")))

    (letter,) = list_letters(stream, "noting")
    assert (letter.state, letter.attempts, letter.reason, letter.subject) == (
        "parked",
        3,
        "RuntimeError: no answer",
        "clip-1",
    )
    (parked,) = operations(server)
    assert (parked.subject, parked.causation_id, parked.place, parked.attempts) == (
        "clip-1",
        "e1",
        f"clips-test/0/{letter.position}",
        3,
    )
    assert_balanced(server, stream)


def test_later_events_of_a_parked_subject_wait_and_others_flow(server: Server, stream: Stream) -> None:
    """One poisoned subject may neither lose its order nor stop the partition."""
    stream.append([seen("a1", "a"), seen("b1", "b"), seen("a2", "a", minute=1), seen("b2", "b", minute=1)])
    noting = Noting(failing("a1"))
    work(server, noting)
    stream.append([seen("a3", "a", minute=2), seen("b3", "b", minute=2)])

    work(server, noting)

    assert states(stream) == [("a1", "parked"), ("a2", "waiting"), ("a3", "waiting")]
    assert [event_id for event_id in noting.handled if event_id[0] == "b"] == ["b1", "b2", "b3"]
    assert "a2" not in noting.handled
    assert_balanced(server, stream)


def test_a_retry_runs_the_parked_event_and_then_its_followers_in_order(
    server: Server, stream: Stream
) -> None:
    """Mended means: as if it had never failed."""
    stream.append([seen("a1", "a"), seen("a2", "a", minute=1), seen("a3", "a", minute=2)])
    work(server, Noting(failing("a1")))
    (first, *_) = list_letters(stream, "noting")

    assert retry(stream, audit_stream(server), LetterPlace("noting", 0, first.position), "mended")
    assert not retry(stream, audit_stream(server), LetterPlace("noting", 0, first.position)), (
        "it is due already"
    )
    noting = Noting()
    work(server, noting)

    assert noting.calls == [("a1", 1), ("a2", 1), ("a3", 1)]
    assert states(stream) == []
    assert [type(event).__name__ for event in operations(server)] == ["EffectParked", "EffectRetried"]
    assert_balanced(server, stream)


def test_a_retry_that_fails_is_parked_again_and_its_followers_go_on_waiting(
    server: Server, stream: Stream
) -> None:
    """A wrong guess of a person costs nothing but the attempts."""
    stream.append([seen("a1", "a"), seen("a2", "a", minute=1)])
    for number in range(3):
        if number:
            retry(
                stream,
                audit_stream(server),
                LetterPlace("noting", 0, next(list_letters(stream, "noting")).position),
            )
        work(server, Noting(failing("a1")))

    assert states(stream) == [("a1", "parked"), ("a2", "waiting")]
    assert [type(event).__name__ for event in operations(server)] == ["EffectParked", "EffectRetried"] * 2 + [
        "EffectParked"
    ]
    assert_balanced(server, stream)


def test_a_discarded_event_gets_no_effect_and_its_followers_run(server: Server, stream: Stream) -> None:
    """A decision to go without an event sets its subject free."""
    stream.append([seen("a1", "a"), seen("a2", "a", minute=1)])
    work(server, Noting(failing("a1")))

    discard(
        stream,
        audit_stream(server),
        LetterPlace("noting", 0, next(list_letters(stream, "noting")).position),
        "sent by hand",
    )
    noting = Noting()
    work(server, noting)

    assert noting.handled == ["a2"]
    assert states(stream) == []
    dropped = operations(server)[-1]
    assert (dropped.subject, dropped.why, dropped.reason) == ("a", "sent by hand", "RuntimeError: no answer")
    assert_balanced(server, stream)


def test_a_subject_that_waits_for_its_next_attempt_blocks_no_other(server: Server, stream: Stream) -> None:
    """Also not by holding the only slot."""

    class Slow(Noting):
        parallel = 1
        first_s = max_s = 0.5
        jitter = 0.0

    stream.append([seen("a1", "a"), *(seen(f"b{n}", "b", minute=n) for n in range(20))])
    noting = Slow(failing("a1", times=1))

    work(server, noting)

    assert noting.calls[-1] == ("a1", 2), "the others came between its two attempts"
    assert noting.handled[1:-1] == [f"b{n}" for n in range(20)]


def test_subjects_run_at_the_same_time_up_to_parallel_and_each_in_order(
    server: Server, stream: Stream
) -> None:
    """Handlers wait for others, so a partition would crawl one by one; order matters within a subject
    alone.
    """

    class Busy(Noting):
        parallel = 4
        running = most = 0

        async def handle(self, event: Any, attempt: Attempt) -> list[Event]:
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0.002)
            self.running -= 1
            return await super().handle(event, attempt)

    stream.append([seen(f"{clip}{n:02}", clip, minute=n) for n in range(10) for clip in "abcdefgh"])
    busy = Busy()

    work(server, busy)

    assert busy.most == 4
    for clip in "abcdefgh":
        assert [event_id for event_id in busy.handled if event_id[0] == clip] == [
            f"{clip}{n:02}" for n in range(10)
        ]


def test_a_sync_handler_runs_in_a_thread(server: Server, stream: Stream) -> None:
    """A plain function that blocks may not stop the event loop of the whole host."""

    class Plain(Processor):
        name = "noting"
        start = "beginning"
        events = (ClipViewsObserved,)
        into = "notes"

        def handle(self, event: Any, attempt: Attempt) -> Any:
            self.thread = threading.current_thread()
            yield attempt.derive(ClipNoted)
            yield attempt.derive(ClipNoted, number=2)

    stream.append([seen("e1")])
    plain = Plain()

    work(server, plain)

    assert plain.thread is not threading.main_thread()
    assert [note.event_id for note in notes(server)] == ["e1:noting:0", "e1:noting:1"]


def test_a_handler_that_does_not_return_in_time_failed(server: Server, stream: Stream) -> None:
    """One that hangs would hold its slot for ever."""

    class Stuck(Noting):
        timeout_s = 0.02
        attempts_max = 2

        async def handle(self, event: Any, attempt: Attempt) -> list[Event]:
            await asyncio.sleep(60)
            return []

    stream.append([seen("e1")])
    started = time.monotonic()

    work(server, Stuck())

    (letter,) = list_letters(stream, "noting")
    assert letter.reason == "it did not return within timeout_s = 0.02 s"
    assert time.monotonic() - started < 10


def test_a_handler_that_gives_up_is_parked_at_once(server: Server, stream: Stream) -> None:
    """Further attempts at what cannot work only cost the outside."""

    def hopeless(event: Any, attempt: Attempt) -> None:
        raise GiveUp("the account is gone")

    stream.append([seen("e1")])
    work(server, Noting(hopeless))
    assert [(letter.reason, letter.attempts) for letter in list_letters(stream, "noting")] == [
        ("the account is gone", 1)
    ]


def test_returning_what_is_no_event_is_a_failed_attempt(server: Server, stream: Stream) -> None:
    """A mistake in a handler belongs in a dead letter, not in the log and not in a stopped host."""

    class Wrong(Noting):
        async def handle(self, event: Any, attempt: Attempt) -> Any:
            return ["no event"] if event.event_id == "e1" else [attempt.derive(ClipNoted, views="many")]

    stream.append([seen("e1", "a"), seen("e2", "b")])
    work(server, Wrong())
    reasons = [letter.reason for letter in list_letters(stream, "noting")]
    assert "is a str, not an Event" in reasons[0]
    assert "views" in reasons[1]


def test_other_types_are_passed_and_a_double_in_the_log_is_handled_once(
    server: Server, stream: Stream
) -> None:
    """What needs no handler moves the cursor; a mirror or an import may bring an event twice."""
    own = open_stream(server, stream.name, codec=CODEC, settings=SETTINGS)
    own.append([ClipNoted(event_id="other", subject="a", occurred_at=observation().occurred_at), seen("e1")])
    raw_append(server, stream, seen("e1"))
    noting = Noting()

    work(server, noting)

    cursor = state(server, stream)["cursor"]
    assert noting.handled == ["e1"]
    assert (cursor["read"], cursor["applied"], cursor["skipped"], cursor["duplicates"]) == (
        "3",
        "1",
        "1",
        "1",
    )
    assert_balanced(server, stream)


def test_entries_that_cannot_be_decoded_are_parked_under_their_position(
    server: Server, stream: Stream
) -> None:
    """One whose subject can be read stands in its subject's line; the others block nobody."""
    stream.append([seen("a1", "a")])
    log = stream.keys[0].log
    foreign = server.client.xadd(log, {"hello": "world"}).decode()
    from zlib import crc32

    raw = CODEC.encode(seen("a2", "a", minute=1)).replace(b'"views":100', b'"views":-1')
    server.client.xadd(log, {"event": raw, "crc32": crc32(raw)})
    stream.append([seen("a3", "a", minute=2), seen("b1", "b")])
    noting = Noting()

    work(server, noting)

    assert sorted(noting.handled) == ["a1", "b1"]
    assert [
        (item.position == foreign, item.subject, item.state) for item in list_letters(stream, "noting")
    ] == [(True, "", "parked"), (False, "a", "parked"), (False, "a", "waiting")]
    assert {event.subject for event in operations(server)} == {"noting", "a"}
    assert_balanced(server, stream)

    for letter in [item for item in list_letters(stream, "noting") if item.state == "parked"]:
        retry(stream, audit_stream(server), LetterPlace("noting", 0, letter.position))
    work(server, noting)
    assert [item.state for item in list_letters(stream, "noting")] == ["parked", "parked", "waiting"], (
        "this build cannot read it either"
    )


def test_a_processor_that_cannot_work_is_refused_with_the_reason() -> None:
    """At the start, where its author sees it, and not at the first event."""

    class Endless(Noting):
        attempts_max = 0

    with pytest.raises(ProcessorError, match="attempts_max of the processor 'noting' is 0"):
        Endless().check()


def test_pauses_grow_up_to_a_bound_and_differ_by_chance() -> None:
    """Retries in step would hit the outside all at once."""

    class Pausing(Noting):
        first_s, factor, max_s, jitter = 1.0, 3.0, 10.0, 0.5

    pausing = Pausing()
    assert [pausing.pause_s(number, 0.0) for number in (1, 2, 3, 4)] == [1.0, 3.0, 9.0, 10.0]
    assert pausing.pause_s(1, 1.0) == 0.5


def test_an_outage_of_minutes_parks_nothing() -> None:
    """With the settings nobody touched: ten minutes on the average, and seven at least."""

    class Usual(Processor):
        name, events = "usual", (ClipViewsObserved,)

    pauses = [[Usual().pause_s(number, chance) for number in range(1, 15)] for chance in (0.0, 0.5, 1.0)]

    assert Usual.attempts_max == 15
    assert [round(sum(each) / 60, 1) for each in pauses] == [14.1, 10.6, 7.1]


def test_failed_attempts_and_parked_events_are_lines_of_the_log(server: Server, stream: Stream) -> None:
    """They left none: who watches the log saw a lane that was well."""
    stream.append([seen("e1"), seen("e2", "b", creator="ada", title="a secret")])

    with capture_logs() as said:
        work(server, Noting(failing("e1", "e2")))

    failed = [line for line in said if line["event"] == "attempt_failed"]
    parked = [line for line in said if line["event"] == "event_parked"]
    assert [(line["attempt"], line["reason"]) for line in failed if line["event_id"] == "e1"] == [
        (1, "RuntimeError: no answer"),
        (2, "RuntimeError: no answer"),
    ]
    assert {line["reason"] for line in failed if line["event_id"] == "e2"} == {"RuntimeError: (sealed)"}
    assert sorted((line["event_id"], line["log_level"]) for line in parked) == [
        ("e1", "error"),
        ("e2", "error"),
    ]
    assert all(line["place"].startswith("clips-test/0/") for line in said if line in failed + parked)
    assert not any("no answer" in str(line) for line in parked if line["event_id"] == "e2")
