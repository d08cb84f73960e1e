"""aurastream dead and groups: what a person sees, decides, and finds again in the audit trail."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aurastream.processors.effects import Attempt, list_letters
from aurastream.processors.plugins import NameTaken, PluginBroken, find_plugins
from aurastream.streams import Server, Settings, Stream, open_stream
from tests.commands import Done, Home
from tests.facts import consume, observation
from tests.processors.effects.outside import (
    CODEC,
    STREAM,
    ClipNoted,
    Noting,
    failing,
    operations,
    state,
    work,
)
from tests.projections.counting import Counting
from tests.servers import until

pytestmark = pytest.mark.process

APP = "tests.processors.effects.outside"
Command = Callable[..., Done]


@pytest.fixture
def command(home: Home, url: str) -> Command:
    """The command line against the server of the test."""

    def run(*arguments: str, stdin: str = "", **environ: str) -> Done:
        return home.run("--app", APP, *arguments, stdin=stdin, env={"AURASTREAM_REDIS_URL": url, **environ})

    return run


@pytest.fixture
def line(server: Server, stream: Stream) -> list[str]:
    """A parked event and one that waits behind it, as places."""
    stream.append([observation(event_id="a1", clip="a"), observation(event_id="a2", clip="a", minute=1)])
    work(server, Noting(failing("a1")))
    return [f"{STREAM}/0/{position.decode()}" for position, _ in stream.read_raw(0)]


def test_dead_letters_are_listed_with_who_waits_for_whom(command: Command, line: list[str]) -> None:
    """A person sees which one to mend, and what goes on with it."""
    letters = command("dead", "list", "--json").json()["letters"]

    assert [(row["position"], row["state"], row["subject"], row["attempts"]) for row in letters] == [
        (line[0].rpartition("/")[2], "parked", "a", 3),
        (line[1].rpartition("/")[2], "waiting", "a", 0),
    ]
    shown = command("dead", "list").out
    assert "RuntimeErr" in shown
    assert line[0] in shown
    assert command("dead", "list", "other", "--json").json() == {"letters": []}


def test_a_dead_letter_is_shown_with_its_event(command: Command, line: list[str]) -> None:
    """Without the event nobody can tell what to mend."""
    told = command("dead", "show", "noting", line[0], "--json").json()
    assert (told["letter"]["reason"], told["event"]["event_id"], told["event"]["views"]) == (
        "RuntimeError: no answer",
        "a1",
        100,
    )
    assert '"event_id":"a1"' in command("dead", "show", "noting", line[0]).out


def test_a_retry_and_a_discard_are_found_in_the_audit_trail_of_the_subject(
    command: Command, server: Server, line: list[str], stream: Stream
) -> None:
    """Who asks later what became of an event finds the decision."""
    behind = command("dead", "retry", "noting", line[1])
    assert (behind.code, "waits behind" in behind.err) == (1, True)
    assert command("dead", "retry", "noting", line[0], "--why", "mended", "--json").json()["changed"] is True
    assert "already" in command("dead", "retry", "noting", line[0]).out
    work(server, Noting(failing("a1")))
    assert command("dead", "discard", "noting", line[0], "--why", "sent by hand").code == 0
    noting = Noting()
    work(server, noting)
    assert noting.handled == ["a2"]
    command("run", "--until-idle", "--projection", "trail")

    trail = command("audit", "a", "--json").json()

    happened = [row["type"] for row in trail if row["stream"] == "operations"]
    assert happened == ["effect.parked", "effect.retried", "effect.parked", "effect.discarded"]
    assert [row["why"] for row in trail if "why" in row] == ["mended", "sent by hand"]
    assert {row["position"] for row in trail if row["stream"] == STREAM} == {
        part.rpartition("/")[2] for part in line
    }
    assert command("dead", "list", "--json").json() == {"letters": []}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("show", "noting", f"{STREAM}/0/1-1"), 1, "no dead letter at"),
        (("retry", "noting", f"{STREAM}/0/1-1"), 1, "dead list"),
        (("retry", "noting", "nonsense"), 2, "STREAM/PARTITION/POSITION"),
        (("retry", "noting", f"{STREAM}/9/1-1"), 2, "partitions 0 to 0"),
        (("discard", "noting", f"{STREAM}/0/1-1"), 2, "--why"),
        (("discard", "noting", "nowhere/0/1-1", "--why", "x"), 2, "no stream 'nowhere'"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_done_is_one_sentence_and_an_honest_exit_code(
    command: Command, line: list[str], arguments: tuple[str, ...], code: int, said: str
) -> None:
    """Scripts go by the code, persons by the sentence."""
    done = command("dead", *arguments)
    assert done.code == code
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_status_shows_a_processors_lag_and_dead_letters(command: Command, line: list[str]) -> None:
    """Operators look in one place for what is behind and what is stuck."""
    content = command("status", "--json").json()
    row = content["streams"][STREAM]["groups"]["noting"][0]
    assert (row["lag_events"], row["applied"], row["dead"]) == (0, 0, 2)
    assert content["streams"][STREAM]["partitions"][0]["pressure"] == {
        "slowest": "noting",
        "events": 0,
        "bytes": 0,
        "is_full": False,
    }


def test_the_group_that_holds_producers_back_is_shown_and_can_be_forgotten(
    command: Command, server: Server, stream: Stream
) -> None:
    """Every step of the way out, as the refusal describes it."""
    consume(server, stream, Counting())
    tight = {"AURASTREAM_BUDGET_EVENTS": "2", "AURASTREAM_PRESSURE_WAIT_S": "0"}
    ahead = open_stream(server, STREAM, settings=Settings(budget_events=2))
    ahead.append([observation(views=n, minute=n) for n in range(2)])

    refused = command("status", **tight)
    assert f"producers of {STREAM}/0 wait for counting, 2 events behind" in refused.out
    (row,) = command("groups", "list", "--json").json()["groups"]
    assert (row["group"], row["events"]) == ("counting", 2)
    assert "counting" in command("groups", "list").out

    told = command("groups", "forget", "counting", "--stream", STREAM, "--why", "gone", "--json").json()
    assert told == {
        "group": "counting",
        "stream": STREAM,
        "kinds": ["group"],
        "partitions": 1,
        "behind_events": 2,
        "letters": 0,
    }
    ahead.append([observation(views=n, minute=n) for n in range(2, 9)])
    again = command("groups", "forget", "counting", "--stream", STREAM)
    assert (again.code, "groups list" in again.err) == (1, True)
    command("run", "--until-idle", "--projection", "trail")
    assert [row["why"] for row in command("audit", "counting", "--json").json()] == ["gone"]


def test_a_refused_append_says_so_at_the_command_line(
    command: Command, server: Server, stream: Stream
) -> None:
    """A producer held back must learn who holds it back."""
    consume(server, stream, Counting())
    rows = "".join(
        f'{{"type":"clip.views_observed","event_id":"e{n}","subject":"c",'
        '"occurred_at":"2026-04-15T12:00:00Z","views":1}\n'
        for n in range(2)
    )
    stream.append([observation(event_id="warm")])

    done = command(
        "append", "--stream", STREAM, stdin=rows, AURASTREAM_BUDGET_EVENTS="2", AURASTREAM_PRESSURE="refuse"
    )

    assert done.code == 1
    assert "aurastream groups forget counting" in done.err


def test_a_processor_is_a_plugin_as_a_projection_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry point brings whatever a package offers; names are groups and so must differ."""
    assert [type(processor).__name__ for processor in find_plugins([APP]).processors.values()] == ["Noting"]
    monkeypatch.syspath_prepend(str(tmp_path))
    head = "from aurastream.processors.effects import Processor\n"
    head += "from aurastream.streams import ClipViewsObserved\n\n"
    body = "class Trailing(Processor):\n    name = '{}'\n    events = ({},)\n"
    (tmp_path / "effect_taken.py").write_text(head + body.format("trail", "ClipViewsObserved"))
    (tmp_path / "effect_empty.py").write_text(head + body.format("empty", "").replace("(,)", "()"))

    with pytest.raises(NameTaken, match="two groups are named 'trail'"):
        find_plugins(["effect_taken"])
    with pytest.raises(PluginBroken, match="handles no events"):
        find_plugins(["effect_empty"])


def test_a_person_lets_a_processor_go_on_with_other_types(
    command: Command, server: Server, stream: Stream
) -> None:
    """Listed, refused with the verb that decides, decided, and found again in the audit trail."""
    own = open_stream(server, STREAM, codec=CODEC)
    at = observation().occurred_at
    own.append([observation(event_id="a1"), ClipNoted(event_id="n1", subject="clip-1", occurred_at=at)])

    class Both(Noting):
        events = (*Noting.events, ClipNoted)

    work(server, Both())
    stuck = command("run", "--until-idle")
    (row,) = command("processors", "list", "--stream", STREAM, "--json").json()["processors"]
    assert (stuck.code, "aurastream processors accept noting" in stuck.err) == (1, True)
    assert (row["since"]["test.clip_noted"], "no longer handles" in row["standing"]) == (
        "the beginning",
        True,
    )
    assert "no longer handles test.clip_noted" in command("processors", "list").out

    accepted = command("processors", "accept", "noting", "--stream", STREAM, "--why", "notes are not mailed")
    again = command("processors", "accept", "noting", "--stream", STREAM, "--why", "again")
    assert (accepted.code, "no longer handles test.clip_noted" in accepted.out) == (0, True)
    assert (again.code, "nothing to decide" in again.out) == (1, True)
    assert command("run", "--until-idle").code == 0
    trail = command("audit", "noting", "--json").json()
    assert [row["why"] for row in trail if row["type"] == "processor.accepted"] == ["notes are not mailed"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("noting", "--why", "x", "--from", "yesterday"), 2, "none of now, skipped, beginning"),
        (("noting",), 2, "--why"),
        (("other", "--why", "x"), 1, "no processor 'other' is installed here"),
    ],
)
def test_a_decision_that_cannot_be_made_is_one_sentence(
    command: Command, server: Server, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """As for every verb."""
    done = command("processors", "accept", *arguments)
    assert (done.code, said in done.err, len(done.err.splitlines())) == (code, True, 1)


@pytest.fixture
def parked(server: Server, stream: Stream) -> None:
    """Letters of two reasons: four subjects with a parked event each, one of which has followers."""

    def failing_each(event: Any, attempt: Attempt) -> None:
        raise RuntimeError("no answer" if event.subject < "c" else "no such account")

    stream.append([observation(event_id=f"{clip}1", clip=clip) for clip in "abcd"])
    stream.append([observation(event_id=f"a{n}", clip="a", minute=n) for n in (2, 3)])
    work(server, Noting(failing_each))


def left(stream: Stream) -> list[str]:
    return sorted(letter.event_id for letter in list_letters(stream, "noting"))


def test_letters_are_let_run_again_by_what_they_are(
    command: Command, server: Server, stream: Stream, parked: None
) -> None:
    """After an outage there are hundreds, of one reason; the others are somebody else's."""
    done = command("dead", "retry", "--reason", "No Answer", "--why", "mended", "--json").json()
    assert (done["decided"], done["behind"], done["changed"]) == (2, 0, 0)
    noting = Noting()
    work(server, noting)

    assert noting.handled.count("a1") == 1
    assert sorted(noting.handled) == ["a1", "a2", "a3", "b1"]
    assert left(stream) == ["c1", "d1"]
    retried = [event for event in operations(server) if type(event).__name__ == "EffectRetried"]
    assert sorted((event.subject, event.why) for event in retried) == [("a", "mended"), ("b", "mended")]

    every = command("dead", "retry", "--processor", "noting", "--all")
    assert (every.code, "2 events run again" in every.out) == (0, True)
    none = command("dead", "retry", "--type", "test.clip_noted", "--json").json()
    assert (none["decided"], none["behind"]) == (0, 0)


def test_letters_are_discarded_by_what_they_are_and_none_of_them_runs(
    command: Command, server: Server, stream: Stream, parked: None
) -> None:
    """The first of a subject sets free what is behind it: that must be gone by then."""
    done = command("dead", "discard", "noting", "--reason", "no answer", "--why", "sent by hand")
    assert (done.code, "2 events are discarded" in done.out) == (0, True)
    assert left(stream) == ["a2", "a3", "c1", "d1"], "those behind it are of another reason: they run"
    gone = command("dead", "discard", "--stream", STREAM, "--all", "--why", "all", "--json").json()
    assert (gone["decided"], left(stream)) == (4, [])
    noting = Noting()
    work(server, noting)
    assert noting.handled == []


@pytest.mark.any_server
def test_the_outcome_of_a_retry_is_waited_for_and_said(
    command: Command, home: Home, url: str, server: Server, stream: Stream, parked: None
) -> None:
    """Whoever lets hundreds run again must not look for each of them."""
    host = home.start(
        "--app", APP, "run", "--web-port", "off", "--projection", "trail", env={"AURASTREAM_REDIS_URL": url}
    )
    waiting = command("dead", "retry", "--all", "--wait", "0.2")
    assert (waiting.code, "4 still running" in waiting.out) == (1, True), "only views are run there"
    host.signal(15)
    host = home.start("--app", APP, "run", "--web-port", "off", env={"AURASTREAM_REDIS_URL": url})
    until(lambda: not left(stream), "all of them")
    assert host.signal(15) == 0
    stream.append([observation(event_id=f"{clip}9", clip=clip, minute=59) for clip in "xy"])
    work(server, Noting(failing("x9", "y9")))
    host = home.start("--app", APP, "run", "--web-port", "off", env={"AURASTREAM_REDIS_URL": url})
    first, _ = [f"{STREAM}/0/{letter.position}" for letter in list_letters(stream, "noting")]
    one = command("dead", "retry", "noting", first, "--wait", "20")
    assert (one.code, "1 done, 0 parked again, 0 still running" in one.out) == (0, True)
    rest = command("dead", "retry", "noting", "--all", "--wait", "20", "--json").json()
    assert rest["outcome"] == {"done": 1, "parked": 0, "running": 0}
    assert host.signal(15) == 0


@pytest.mark.any_server
def test_a_thousand_letters_take_seconds(command: Command, server: Server, stream: Stream) -> None:
    """One by one, forty took a minute."""

    class Once(Noting):
        attempts_max = 1
        parallel = 100

    names = [f"e{n}" for n in range(1_000)]
    stream.append([observation(event_id=name, clip=name) for name in names])
    work(server, Once(failing(*names)))
    begun = time.monotonic()

    done = command("dead", "retry", "noting", "--all", "--why", "mended", "--json").json()

    assert (done["decided"], time.monotonic() - begun < 8) == (1_000, True)
    assert state(server, stream)["outbox"] == []
    assert len(state(server, stream)["due"]) == 1_000
    keys = open_stream(server, "operations").keys
    assert sum(server.client.xlen(each.log) for each in keys) == 2_000, "an audit event each"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("retry", "noting"), "which letters?"),
        (("retry", "noting", f"{STREAM}/0/1-1", "--all"), "a place is one letter"),
        (("retry", "--all", "--wait", "-1"), "--wait"),
    ],
)
def test_a_choice_of_letters_that_is_none_is_refused(
    command: Command, stream: Stream, arguments: tuple[str, ...], said: str
) -> None:
    """All of them is a word of its own: nobody means it by leaving something out."""
    done = command("dead", *arguments)
    assert (done.code, said in done.err) == (2, True)


def test_a_dead_letter_shows_where_its_handler_failed(command: Command, line: list[str]) -> None:
    """Nobody can mend a RuntimeError without the line it came from."""
    letter = command("dead", "show", "noting", line[0], "--json").json()["letter"]
    assert "outside.py" in letter["traceback"]
    assert letter["traceback"].endswith("RuntimeError\n")
    assert "outside.py" in command("dead", "show", "noting", line[0]).out
