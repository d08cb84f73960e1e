"""What holds back trimming can be let go by its name: each holder names the command, and the command does
it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aurastream.streams import (
    OPERATIONS,
    EffectDiscarded,
    GroupForgotten,
    Server,
    Settings,
    Stream,
    open_stream,
)
from aurastream.streams.pressure import join
from tests.commands import Done, Home
from tests.facts import consume, observation, raw_append
from tests.processors.effects.outside import STREAM, Noting, failing, work
from tests.projections.counting import Counting

pytestmark = [pytest.mark.process, pytest.mark.any_server]

Command = Callable[..., Done]
WAITING = 5  # rounds of holders at most: one that goes lets the next be seen


@pytest.fixture
def command(home: Home, url: str, tmp_path: Path) -> Command:
    def run(*arguments: str) -> Done:
        env = {"AURASTREAM_REDIS_URL": url, "AURASTREAM_ARCHIVE": str(tmp_path / "archive")}
        return home.run(*arguments, env=env)

    return run


@pytest.fixture
def operations(server: Server) -> Iterator[Stream]:
    operations = open_stream(server, OPERATIONS, create=True, settings=Settings(partitions=1))
    yield operations
    operations.close()


def held_by_all(server: Server, stream: Stream) -> None:
    """One holder of each kind there is, and more than one of some."""
    keys, client = stream.keys[0], server.client
    events = [
        observation(event_id=f"{clip}{n}", clip=clip, minute=n, views=n) for clip in "ab" for n in range(4)
    ]
    stream.append(events)
    first = stream.read_raw(0)[0][0].decode()
    consume(server, stream, Counting())
    work(server, Noting(failing("a1", "b2")))  # two lines of dead letters
    stream.wire(0).ask(join(keys, "counting@2"), ("HSET", keys.cursor("counting@2"), "position", first))
    stream.wire(0).ask(join(keys, "asleep"))  # joined, and never read
    client.xgroup_create(keys.log, "asleep", "0")
    for app in ("orders", "aurastream"):  # the second is what earlier builds' hosts have left
        client.hset(keys.acked(app), mapping={"position": first, "read": 1, "epoch": 1})
        client.xgroup_create(keys.log, app, first)
        client.hset(keys.lease(app), mapping={"owner": "", "epoch": 1, "until": 0})
    for name in ("theirs", "with blanks 'n quotes", "--odd", b"\xff\xfe", "x" * 300):
        client.xgroup_create(keys.log, name, "0")
    raw_append(server, stream, observation(event_id="a0", clip="a", minute=0, views=0))  # an ID twice


def blockers(command: Command, *words: str) -> list[dict[str, Any]]:
    done = command("trim", "--stream", STREAM, "--keep-events", "0", "--json", *words)
    assert done.code in (0, 1), done
    return [holder for row in json.loads(done.out)["partitions"] for holder in row["blockers"]]


def test_every_holder_is_let_go_by_the_command_that_it_names(
    command: Command, server: Server, stream: Stream, operations: Stream
) -> None:
    """An operator at three in the morning copies the line."""
    held_by_all(server, stream)
    seen: set[tuple[str, str]] = set()
    listed = {(row["kind"], row["group"]) for row in command("groups", "list", "--json").json()["groups"]}

    for _ in range(WAITING):
        gone: set[str] = set()  # a processor by its letters, and by itself: the first command does for both
        for holder in blockers(command):
            seen.add((holder["kind"], holder["name"]))
            commands = re.findall(r"`aurastream ((?:groups forget|archive)[^`]*)`", holder["why"])
            assert commands, holder
            done = command(*shlex.split(commands[-1]))
            assert done.code == int(holder["name"] in gone), (holder, done)
            gone.add(holder["name"])

    assert blockers(command) == []
    assert server.client.xlen(stream.keys[0].log) == 0
    kinds = [kind for kind, _ in seen]
    assert {"group", "app", "foreign group", "dead letter", "archive"} == set(kinds) - {"second entry"}
    assert {("app", "orders"), ("app", "aurastream"), ("group", "counting@2"), ("group", "asleep")} <= seen
    assert {name for kind, name in seen if kind == "foreign group"} >= {"--odd", "\\xff\\xfe", "x" * 300}
    assert {pair for pair in seen if pair[0] in ("group", "app", "foreign group")} <= listed
    events = [entry.event for entry in operations.read(0)]
    told = [event.group or event.subject for event in events if isinstance(event, GroupForgotten)]
    assert sorted(told) == sorted({name for kind, name in seen if kind in ("group", "app", "foreign group")})
    assert len([event for event in events if isinstance(event, EffectDiscarded)]) == 5


def test_an_app_that_was_let_go_holds_back_again_once_it_acknowledges(
    command: Command, server: Server, stream: Stream, operations: Stream
) -> None:
    """Gone for good was a guess: its place is kept, and it goes on from there."""
    from aurastream.processors.transport.lane import acquiring
    from aurastream.streams import Claim, drive

    stream.append([observation(event_id=f"e{n}", minute=n) for n in range(4)])
    assert command("archive", "--stream", STREAM).code == 0

    def acquire() -> Any:
        steps = acquiring(Claim("orders", stream.name, 0), 1, from_end=False)
        return drive(steps, lambda asks: stream.wire(0).ask(*[ask.command for ask in asks]))

    assert acquire() is not None
    (holder,) = blockers(command, "--dry-run")
    command("groups", "forget", "orders", "--stream", STREAM)
    is_let_go = blockers(command, "--dry-run") == []
    assert acquire() is not None  # which acknowledges where it goes on

    assert holder["name"] == "orders"
    assert is_let_go
    assert [item["name"] for item in blockers(command, "--dry-run")] == ["orders"]


def test_what_cannot_be_told_is_not_let_go(command: Command, server: Server, stream: Stream) -> None:
    """The event comes first: a decision that nobody could read of later was none."""
    stream.wire(0).ask(join(stream.keys[0], "asleep"))
    server.client.hset("aura:streams", OPERATIONS, '{"partitions":0}')

    done = command("groups", "forget", "asleep", "--stream", STREAM, "--why", "gone")

    assert done.code != 0
    assert server.client.hexists(stream.keys[0].groups, "asleep")
