"""aurastream dead and groups: what a person sees, decides, and finds again in the audit trail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aurastream.processors.plugins import NameTaken, PluginBroken, find_plugins
from aurastream.streams import Server, Settings, Stream, open_stream
from tests.commands import Done, Home
from tests.facts import consume, observation
from tests.processors.effects.outside import CODEC, STREAM, ClipNoted, Noting, failing, work
from tests.projections.counting import Counting

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
