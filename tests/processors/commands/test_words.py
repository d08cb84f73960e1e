"""A person's words are bounded where they enter: no verb changes anything that it could not tell."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from aurastream.processors.commands.main import VERBS, verb
from aurastream.processors.commands.options import Words
from aurastream.streams import OPERATIONS, Server, open_stream
from tests.commands import Home
from tests.facts import dump, observation

LONG = "x" * 1_001
DECIDING = [
    ("groups", "forget", "gone", "--stream", "clips"),
    ("trim", "--stream", "clips", "--keep-events", "1"),
    ("archive", "--stream", "clips"),
    ("rebuild", "clips", "--stream", "clips"),
    ("rebuild", "clips", "--stream", "clips", "--abandon"),
    ("rebuild", "clips", "--stream", "clips", "--subject", "clip-1", "--accept"),
    ("rollback", "clips", "--stream", "clips"),
    ("erase", "anna", "--yes"),
    ("dead", "retry", "mails", "clips/0/1-1"),
    ("dead", "discard", "mails", "clips/0/1-1"),
]


def every_command(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for part in command.commands.values():
            yield from every_command(part, f"{name} {part.name}")


def test_every_reason_a_person_gives_is_bounded_by_the_same_type() -> None:
    """One verb that forgets it locks a record, or removes what nobody is told of."""
    reasons = {
        name: parameter.type
        for top in VERBS
        for name, command in every_command(verb(top), top)
        for parameter in command.params
        if "--why" in parameter.opts
    }

    assert len(reasons) >= 8, reasons
    assert [name for name, kind in reasons.items() if not isinstance(kind, Words)] == []


@pytest.mark.process
@pytest.mark.any_server
def test_words_that_no_event_can_hold_change_nothing(home: Home, server: Server, url: str) -> None:
    """Neither a reason nor the name of who decides."""
    stream = open_stream(server, "clips", create=True, partitions=1)
    stream.append([observation(views=n, minute=n) for n in range(10)])
    server.client.hset(stream.keys[0].groups, "gone", "0 0 0")
    env = {"AURASTREAM_REDIS_URL": url, "AURASTREAM_ARCHIVE": str(home.directory / "archive")}
    open_stream(server, OPERATIONS, create=True).close()
    before = dump(server)

    for words in DECIDING:
        reason = () if words[0] == "archive" else ("--why", LONG)
        short = ("--why", "x") if reason else ()
        refused = [home.run(*words, *reason, env=env)] if reason else []
        if words[0] != "dead":  # who has no such letter is not asked for a name
            refused.append(home.run(*words, *short, env=env | {"LOGNAME": LONG}))
        for done in refused:
            assert (done.code, "characters" in done.err) == (2, True), (words, done)
    stream.close()

    assert dump(server) == before
