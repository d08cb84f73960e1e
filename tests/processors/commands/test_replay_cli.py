"""The command `aurastream replay`: into a terminal, a pipe, a file, a stream, a projection; killed in the
middle of each.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aurastream.streams import BUILT_IN, Codec, Event, Keys, Server, Settings, open_stream
from tests.commands import Home, Nursery, environment
from tests.facts import NOON, observation
from tests.processors.history.test_replay import lines_of
from tests.servers import until

pytestmark = [pytest.mark.process, pytest.mark.any_server]

PLUGIN = """
from datetime import UTC, datetime
from pathlib import Path
from aurastream.processors.effects import Processor
from aurastream.streams import ClipViewsObserved, Event

class Told(Event, frozen=True, kw_only=True, tag="test.told"):
    schema_version = 2
    word: str
    loud: bool = False

UPCASTERS = {("test.told", 1): lambda content: {**content, "loud": content["word"].isupper()}}

class Outside(Processor):
    name = "outside"
    start = "beginning"
    events = (ClipViewsObserved,)

    def handle(self, event, attempt):
        with Path("calls").open("a") as file:
            file.write(f"{attempt.stream} {event.event_id}\\n")

class Everywhere(Outside):
    name = "everywhere"
    is_silent_in_replay = False

    def handle(self, event, attempt):
        with Path("everywhere").open("a") as file:
            file.write(f"{attempt.stream} {event.event_id}\\n")
"""


@pytest.fixture(scope="module")
def world(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home whose stream clips has 600 events, a second apart."""
    home = Home(nursery, tmp_path_factory.mktemp("world") / "home")
    try:
        home.hold()
        assert (
            home.run("append", "--stream", "clips", stdin="\n".join(line_of(n) for n in range(600))).code == 0
        )
        yield home
    finally:
        home.close()


def entries_of(server: Server, stream: str) -> int:
    """In all of its four partitions."""
    return sum(int(server.client.xlen(Keys(stream, partition).log)) for partition in range(4))


def line_of(number: int, **more: Any) -> str:
    at = (NOON + timedelta(seconds=number)).isoformat().replace("+00:00", "Z")
    event = {
        "type": "clip.views_observed",
        "event_id": f"e{number}",
        "subject": f"clip-{number % 7}",
        "occurred_at": at,
        "views": number,
    }
    return json.dumps({**event, **more})


def ids_in(file: Path) -> list[str]:
    return [line["event"]["event_id"] for line in lines_of(file.read_text())] if file.exists() else []


def in_order(world: Home) -> list[str]:
    return [line["event"]["event_id"] for line in lines_of(world.run("replay", "--stream", "clips").out)]


def test_a_line_is_an_event_with_its_place(world: Home) -> None:
    """The place is what a reader goes on from."""
    done = world.run("replay", "--stream", "clips", "--subject", "clip-3", "--to", "2026-04-15T12:00:20Z")

    assert done.code == 0, done
    assert [line["event"] for line in lines_of(done.out)] == [json.loads(line_of(n)) for n in (3, 10, 17)]
    assert set(lines_of(done.out)[0]) == {"stream", "partition", "position", "event"}
    assert done.err.startswith("3 events in ")
    assert sorted(in_order(world), key=lambda name: int(name[1:])) == [f"e{n}" for n in range(600)]


def test_cloudevents_are_what_append_takes(world: Home) -> None:
    """What leaves by one door must come back in by the other."""
    done = world.run("replay", "--stream", "clips", "--format", "cloudevents")

    assert world.run("append", "--stream", "copied", "--json", stdin=done.out).json()["appended"] == 600
    copied = world.run("replay", "--stream", "copied")
    assert [line["event"] for line in lines_of(copied.out)] != []
    assert {json.dumps(line["event"]) for line in lines_of(copied.out)} == {
        json.dumps(line["event"]) for line in lines_of(world.run("replay", "--stream", "clips").out)
    }


def test_by_default_operations_imports_and_replays_are_left_out(nursery: Nursery, tmp_path: Path) -> None:
    """The product's own streams are no facts of the person's who asks for everything."""
    home = Home(nursery, tmp_path / "home")
    try:
        home.hold()
        home.run("append", "--stream", "one", stdin=line_of(1))
        home.run("append", "--stream", "two", stdin=line_of(2))
        assert home.run("replay", "--into", "stream", "replay.both").code == 0
        (tmp_path / "views.csv").write_text("observed_at,video_no,view_count,category\nno time,1,5,talk\n")
        home.run("import", "views.csv", "--format", "chzzk", "--stream", "one")

        assert [line["stream"] for line in lines_of(home.run("replay").out)] == ["one", "two"]
        assert [
            line["event"]["into"] for line in lines_of(home.run("replay", "--stream", "operations").out)
        ] == ["replay.both"] * 2
    finally:
        home.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--speed", "fast"), ["is no speed", "max, or step"]),
        (("--speed", "step"), ["no terminal"]),
        (("--from", "noon"), ["ISO 8601", "--from"]),
        (("--into", "stream"), ["wants a name"]),
        (("--into", "stream", "Not A Name"), ["is no stream name"]),
        (("--into", "x.jsonl", "more"), ["one argument too many"]),
        (("--into", "stream:a", "b"), ["one too many"]),
        (("--after", "clips"), ["is not STREAM/PARTITION/POSITION"]),
        (("--after", "clips/0/1-1", "--into", "f.jsonl"), ["--after goes with"]),
        (("--resume",), ["--resume goes with --into file"]),
        (("--json",), ["--json goes with"]),
        (("--stream", "nope"), ["no stream 'nope'"]),
        (("--into", "projection", "nope"), ["no projection 'nope'"]),
    ],
)
def test_what_cannot_be_asked_is_told(world: Home, arguments: tuple[str, ...], words: list[str]) -> None:
    """Options that mean nothing together are refused, not ignored."""
    done = world.run("replay", *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
    assert [word for word in words if word not in done.err] == []


def test_a_stream_is_protected_from_a_replay_into_it(world: Home) -> None:
    """Processors act on what is appended to a live stream."""
    world.run("append", "--stream", "live", stdin=line_of(9_000))
    into = ("replay", "--stream", "clips", "--to", "2026-04-15T12:00:04Z", "--into")

    itself, live = world.run(*into, "stream", "clips"), world.run(*into, "stream:live")
    forced = world.run(*into, "stream:live", "--yes-into-live", "--why", "a drill", "--json")

    trail = world.run(*into, "stream:operations", "--yes-into-live")

    assert (itself.code, live.code, trail.code) == (1, 1, 1)
    assert "audit trail" in trail.err
    assert ("into itself" in itself.err, "is no replay" in live.err, "--yes-into-live" in live.err) == (
        True,
        True,
        True,
    )
    assert (forced.json()["events"], forced.json()["is_whole"]) == ({"clips": 5}, True)
    assert len(lines_of(world.run("replay", "--stream", "live").out)) == 6


def test_a_projection_is_folded_from_the_selection_alone(world: Home) -> None:
    """A what-if must not see, or touch, the live view."""
    into = (
        "replay",
        "--stream",
        "clips",
        "--to",
        "2026-04-15T12:00:59Z",
        "--into",
        "projection",
        "clips",
        "--json",
    )

    first, again = world.run(*into).json(), world.run(*into).json()

    assert (first["events"], first["already_there"], again["already_there"]) == ({"clips": 60}, 0, 60)
    state = world.run("view", "clips", "clip-3", "--stream", first["into"], "--json").json()
    assert state["state"]["views"] == 59
    assert world.run("check", "--stream", first["into"]).code == 0


def test_a_person_sees_what_was_folded_and_how_to_see_more(world: Home) -> None:
    """The scratch stream's name is needed for the next question."""
    done = world.run("replay", "--stream", "clips", "--subject", "clip-2", "--into", "projection:clips")
    assert done.code == 0
    assert ("clip-2" in done.out, "aurastream view clips --stream replay.clips." in done.out) == (True, True)


def test_a_file_of_something_else_is_never_touched(world: Home, tmp_path: Path) -> None:
    """Nor cut: what does not end with a line may be the only copy of somebody's work."""
    for more in ((), ("--resume",)):
        (tmp_path / "mine.txt").write_text("mine")
        done = world.run("replay", "--stream", "clips", "--into", "mine.txt", *more, cwd=tmp_path)
        assert (done.code, (tmp_path / "mine.txt").read_text()) == (1, "mine")
        assert ("--resume" if not more else "no line of a replay") in done.err


def test_a_file_killed_in_the_middle_goes_on_after_its_last_whole_line(world: Home, tmp_path: Path) -> None:
    """kill -9, twice; the union is the selection, each event once, in order."""
    file = tmp_path / "out.jsonl"
    into = ("replay", "--stream", "clips", "--into", "out.jsonl")
    for lines, more in ((50, ()), (300, ("--resume",))):
        running = world.start(*into, *more, "--speed", "200x", cwd=tmp_path)
        until(lambda: file.exists() and file.read_bytes().count(b"\n") > lines, f"{lines} lines")  # noqa: B023
        assert running.signal(signal.SIGKILL) == -9
        with file.open("ab") as half:
            half.write(b'{"stream":"clips","partition":0,"posi')
    assert len(file.read_bytes().splitlines()) < 600

    done = world.run(*into, "--resume", "--json", cwd=tmp_path)

    assert done.json()["is_whole"] is True
    assert ids_in(file) == in_order(world)


def test_a_stopped_pipe_says_where_to_go_on(world: Home) -> None:
    """At 1x the next event is a second away: SIGTERM does not wait for it."""
    running = world.start("replay", "--stream", "clips", "--speed", "20x")
    until(lambda: running.out.count("\n") > 5, "some lines")
    began = time.monotonic()
    assert running.signal(signal.SIGTERM) == 130
    assert time.monotonic() - began < 5
    token = running.err.partition("--after ")[2].split()[0]

    rest = world.run("replay", "--stream", "clips", "--after", token)

    told = [line["event"]["event_id"] for line in lines_of(running.out + rest.out)]
    assert told == in_order(world)


@pytest.mark.parametrize("by", ["the places at its end", "its last line"])
def test_a_pipe_continued_beside_producers_hands_on_every_event_once(home: Home, by: str) -> None:
    """16 partitions, written to all the time: what comes while the ends are looked up comes the next time."""
    home.hold()
    server, lines, token, rounds = Server(url_of(home)), [], "", 0
    stream = open_stream(server, "busy", create=True, settings=Settings(partitions=16))
    appended: list[str] = []

    def produce() -> None:
        while rounds < 5:
            batch = [
                observation(n, clip=f"clip-{n}", event_id=f"b{n}")
                for n in range(len(appended), len(appended) + 16)
            ]
            stream.append(batch)
            appended.extend(event.event_id for event in batch)

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        while rounds < 5 or len(lines) < len(appended):
            is_last = not producer.is_alive()
            done = home.run("replay", "--stream", "busy", *(("--after", token) if token else ()))
            assert done.code == 0, done
            more, rounds = lines_of(done.out), rounds + 1
            lines += more
            if by == "the places at its end":
                token = done.err.partition("--after ")[2].split()[0]
            elif more:
                token = "{stream}/{partition}/{position}".format(**more[-1])
            if is_last:
                break
    finally:
        rounds = 5
        producer.join()
        stream.close()
        server.close()

    ids = [line["event"]["event_id"] for line in lines]
    assert sorted(ids) == sorted(appended)
    assert len(ids) > 1_000


def test_a_stream_killed_in_the_middle_is_completed_by_the_same_command(world: Home) -> None:
    """kill -9 at a random place; each event is in the target once, in order, and the trail tells of one
    replay.
    """
    into = ("replay", "--stream", "clips", "--into", "stream", "replay.killed", "--why", "a drill")
    server = Server(url_of(world))
    for entries in (40, 250):
        running = world.start(*into, "--speed", "100x")
        until(lambda: entries_of(server, "replay.killed") > entries, f"{entries} entries")  # noqa: B023
        assert running.signal(signal.SIGKILL) == -9
    server.close()
    so_far = len(world.run("replay", "--stream", "replay.killed").out.splitlines())
    assert so_far < 600

    summary = world.run(*into, "--json").json()

    assert summary["events"]["clips"] <= 600 - so_far + 500  # at most a batch is appended again
    for partition in range(4):
        of = [
            [
                line["event"]
                for line in lines_of(world.run("replay", "--stream", name).out)
                if line["partition"] == partition
            ]
            for name in ("clips", "replay.killed")
        ]
        assert of[0] == of[1]
    told = [
        row
        for row in world.run("audit", "--stream", "operations", "--json").json()
        if row["into"] == "replay.killed"
    ]
    assert [(row["subject"], row["events"], row["why"]) for row in told] == [("clips", 600, "a drill")]


def test_a_projection_killed_in_the_middle_is_completed_by_the_same_command(world: Home) -> None:
    """The view is that of the selection, each event counted once."""
    into = ("replay", "--stream", "clips", "--from", "2026-04-15T12:00:10Z", "--into", "projection", "clips")
    running = world.start(*into, "--speed", "300x")
    server = Server(url_of(world))
    try:
        until(lambda: replayed_so_far(server) > 40, "some of it")
    finally:
        server.close()
    assert running.signal(signal.SIGKILL) == -9

    done = world.run(*into, "--json").json()

    states = world.run("view", "clips", "--table", "clips", "--stream", done["into"], "--json").json()["rows"]
    assert {name: state["views"] for name, state in states.items()} == {
        f"clip-{n % 7}": n for n in range(593, 600)
    }
    assert sum(state["observations"] for state in states.values()) == 590
    assert world.run("check", "--stream", done["into"]).code == 0


def replayed_so_far(server: Server) -> int:
    """Of the unfinished replay."""
    return max(
        (json.loads(raw)["events"].get("clips", 0) for raw in server.client.hvals("aura:replays")), default=0
    )


def test_a_replay_by_enter(world: Home) -> None:
    """On a terminal: an event for every Enter, and Ctrl-D is enough: it then says where to go on."""
    main, terminal = pty.openpty()
    program = str(Path(sys.executable).with_name("aurastream"))
    command = [program, "replay", "--stream", "clips", "--subject", "clip-1", "--speed", "step"]
    running = subprocess.Popen(
        command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(world.path)
    )
    os.close(terminal)
    os.write(main, b"\n\n\x04")
    out, err = running.communicate(timeout=60)
    os.close(main)

    assert [line["event"]["event_id"] for line in lines_of(out.decode())] == ["e1", "e8"]
    assert err.decode().count(": Enter") == 3
    last = lines_of(out.decode())[-1]
    assert f"--after clips/{last['partition']}/{last['position']}" in err.decode()
    assert running.returncode == 130


def test_on_a_terminal_no_text_commands_it(world: Home) -> None:
    """Events are strangers' texts; a pipe gets them as they are, a terminal harmless."""
    world.run("append", "--stream", "evil", stdin=line_of(1, title="\u202e\x9b2J\x1b[2J"))
    main, terminal = pty.openpty()
    command = [str(Path(sys.executable).with_name("aurastream")), "replay", "--stream", "evil"]
    subprocess.run(
        command,
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        env=environment(world.path),
        check=True,
    )
    os.close(terminal)
    seen = os.read(main, 65_536).decode()
    os.close(main)
    assert not set("\x1b\x9b\u202e") & set(seen)
    assert json.loads(seen)["event"]["title"] == "\u202e\x9b2J\x1b[2J"


def test_a_reader_that_has_seen_enough_ends_it(world: Home) -> None:
    """`| head` is no error."""
    reading, writing = os.pipe()
    os.close(reading)
    done = world.run("replay", "--stream", "clips", stdout=writing)
    os.close(writing)
    assert done.code == 0
    assert "Traceback" not in done.err


@pytest.fixture
def plugin(world: Home, tmp_path: Path) -> tuple[Home, Path]:
    (tmp_path / "replayed_app.py").write_text(PLUGIN)
    return world, tmp_path


def test_old_events_come_in_todays_form(plugin: tuple[Home, Path], request: pytest.FixtureRequest) -> None:
    """Also into a stream: what was written in version 1 is read as version 2 everywhere."""
    world, directory = plugin

    class Told(Event, frozen=True, kw_only=True, tag="test.told"):
        word: str

    name = request.node.name.replace("_", "-")[:40]
    server = Server(url_of(world))
    try:
        stream = open_stream(server, name, create=True, codec=Codec((*BUILT_IN, Told)))
        stream.append([Told(event_id="t1", subject="a", occurred_at=NOON, word="LOUD")])
        stream.close()
    finally:
        server.close()

    app = ("--app", "replayed_app", "replay", "--stream", name)
    plain = world.run("replay", "--stream", name, cwd=directory)
    today = world.run(*app, cwd=directory)
    refused = world.run("replay", "--stream", name, "--into", "stream:replay.told", cwd=directory)
    taken = world.run(*app, "--into", "stream:replay.told", cwd=directory)

    assert "loud" not in lines_of(plain.out)[0]["event"]  # nobody here knows a newer form
    assert (lines_of(today.out)[0]["event"]["loud"], lines_of(today.out)[0]["event"]["version"]) == (True, 2)
    assert refused.code == 1
    assert ("is not installed" in refused.err, "--app" in refused.err) == (True, True)
    assert taken.code == 0
    assert (
        lines_of(world.run(*app[:3], "--stream", "replay.told", cwd=directory).out)[0]["event"]["loud"]
        is True
    )


def url_of(world: Home) -> str:
    return f"unix://{world.path}/server.sock"


def test_a_worker_on_all_streams_does_nothing_for_a_replay(plugin: tuple[Home, Path]) -> None:
    """The whole command line: a running worker folds the replayed stream, and its processor is called for
    live events alone.
    """
    world, directory = plugin
    calls, everywhere = directory / "calls", directory / "everywhere"
    worker = world.start("--app", "replayed_app", "run", "--web-port", "off", cwd=directory)
    try:
        until(lambda: calls.exists() and calls.read_text().count("clips ") == 600, "the live events' effects")
        assert (
            world.run(
                "replay", "--stream", "clips", "--subject", "clip-1", "--into", "stream:replay.quiet"
            ).code
            == 0
        )
        until(
            lambda: everywhere.exists() and everywhere.read_text().count("replay.quiet ") == 86,
            "the loud processor to see it all",
        )
        assert world.run("append", "--stream", "clips-more", stdin=line_of(9_999)).code == 0
        until(lambda: "clips-more e9999\n" in calls.read_text(), "the live event's effect")
    finally:
        worker.signal(signal.SIGTERM)
    assert [line for line in calls.read_text().splitlines() if line.startswith("replay.")] == []
