"""Handlers and personal fields: opened for them, and what they say of them is sealed."""

from __future__ import annotations

from typing import Any

import pytest

from aurastream.processors.effects import Attempt, GiveUp, list_letters
from aurastream.streams import ClipViewsObserved, Event, Server, Stream, open_stream
from aurastream.streams.keys import CREATORS
from aurastream.streams.personal.erasure import erase
from tests.facts import observation
from tests.processors.effects.outside import SETTINGS, Behave, Noting, operations, work

TITLE = "a title like no other"


class Seeing(Noting):
    """Remembers what it was given."""

    def __init__(self, behave: Behave = lambda event, attempt: None) -> None:
        super().__init__(behave)
        self.seen: list[Any] = []

    async def handle(self, event: Any, attempt: Attempt) -> list[Event]:
        self.seen.append((event, attempt.source))
        return await super().handle(event, attempt)


def raising(error: Exception) -> Behave:
    def behave(event: Any, attempt: Attempt) -> None:
        raise error

    return behave


def test_a_handler_gets_texts_and_a_pseudonym(server: Server, stream: Stream) -> None:
    """It works with what was said, never with who said it."""
    stream.append([observation(creator="ada", title=TITLE, channel="")])
    seeing = Seeing()

    work(server, seeing)

    ((event, source),) = seeing.seen
    assert (event.title, event.channel) == (TITLE, "")
    assert event.creator == server.client.hget(CREATORS, "ada").decode()
    assert source == event


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (RuntimeError(f"about {TITLE}"), "RuntimeError: "),
        (GiveUp(f"about {TITLE}"), ""),
        (TimeoutError(f"about {TITLE}"), "TimeoutError: "),
        (KeyError(TITLE * 90), "KeyError: "),
    ],
)
def test_what_a_handler_says_of_a_creator_s_event_is_kept_sealed_and_shown_opened(
    server: Server, stream: Stream, error: Exception, kept: str
) -> None:
    """The text of an exception may repeat a title: erasure must reach it too."""
    stream.append([observation(creator="ada", title=TITLE)])

    work(server, Seeing(raising(error)))

    ((letter,), (fact,)) = list(list_letters(stream, "noting")), operations(server)
    assert letter.reason == f"{kept}{error}"[: len(kept) + 600]
    assert fact.reason.startswith(f"{kept}sealed:1:")
    assert stream.keyring.open_text(fact.reason) == letter.reason
    assert TITLE.encode() not in server.client.hget(stream.keys[0].dead("noting"), letter.position)
    erase(open_stream(server, "operations", settings=SETTINGS), "ada", why="asked", who="tests")
    assert [item.reason for item in list_letters(open_stream(server, stream.name), "noting")] == [kept]


def test_what_it_returned_and_was_refused_is_sealed_in_the_reason(server: Server, stream: Stream) -> None:
    """The refusal quotes what was returned, and that may hold personal texts."""

    class Returning(Noting):
        attempts_max = 1

        async def handle(self, event: Any, attempt: Attempt) -> list[Event]:
            return [attempt.derive(ClipViewsObserved, subject=event.title, views=1)]

    stream.append([observation(creator="ada", title=TITLE)])

    work(server, Returning())

    (letter,) = list_letters(stream, "noting")
    assert letter.reason.startswith("what it returned cannot be appended: ")
    assert TITLE in letter.reason
    assert TITLE not in operations(server)[0].reason


def test_what_the_framework_says_stays_legible(server: Server, stream: Stream) -> None:
    """It repeats no text of an event."""

    class Slow(Noting):
        attempts_max, timeout_s = 1, 0.001

        def handle(self, event: Any, attempt: Attempt) -> Any:
            import time

            time.sleep(0.05)  # the handler that takes too long

    stream.append(
        [observation(creator="ada", title=TITLE), observation(minute=1, clip="other", event_id="plain")]
    )

    work(server, Slow())

    assert {fact.reason for fact in operations(server)} == {"it did not return within timeout_s = 0.001 s"}


@pytest.mark.slow
def test_an_event_whose_creator_is_erased_between_two_attempts_is_handled_without_its_texts(
    server: Server, stream: Stream
) -> None:
    """And what is derived from it then is appended, under the pseudonym, with nothing in it."""

    class Praising(Seeing):
        attempts_max, max_s = 100, 0.1

        async def handle(self, event: Any, attempt: Attempt) -> list[Event]:
            await super().handle(event, attempt)
            return [
                attempt.derive(ClipViewsObserved, views=1, title=event.title and f"praise of {event.title}")
            ]

    def behave(event: Any, attempt: Attempt) -> None:
        if attempt.number == 1:
            erase(
                open_stream(server, "operations", settings=SETTINGS, create=True),
                "ada",
                why="asked",
                who="tests",
            )
        if event.title:
            raise RuntimeError(f"about {event.title}")

    stream.append([observation(creator="ada", title=TITLE)])
    praising = Praising(behave)

    work(server, praising)

    assert (praising.seen[0][0].title, praising.seen[-1][0].title) == (TITLE, "")
    (derived,) = [entry.event for entry in open_stream(server, "notes").read(0)]
    assert isinstance(derived, ClipViewsObserved)
    assert (derived.creator, derived.title) == (praising.seen[0][0].creator, "")
