"""aurastream trim: what it says, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aurastream.streams import LogTrimmed, Server, Settings, Stream, open_stream
from aurastream.streams.archive import open_archive
from aurastream.streams.archive.archiver import Archiver
from tests.commands import Home
from tests.facts import observation

pytestmark = [pytest.mark.process, pytest.mark.any_server]


@pytest.fixture
def clips(home: Home) -> Iterator[Stream]:
    """A stream of 10 events in a home's server, read by the view clips."""
    user = home.hold()
    server = Server(user.json()["url"])
    stream = open_stream(server, "clips", create=True, partitions=1)
    stream.append([observation(views=n, minute=n) for n in range(10)])
    assert home.run("run", "--until-idle", "--projection", "clips", "--stream", "clips").code == 0
    yield stream
    stream.close()
    server.close()


def archive(stream: Stream, count: int, where: dict[str, str]) -> str:
    """The log's first entries, as many, into the archive."""
    position: str = stream.server.client.xrange(stream.keys[0].log, count=count)[-1][0].decode()
    opened = open_archive(Settings(archive=where["AURASTREAM_ARCHIVE"]), stream)
    assert opened is not None
    assert list(
        Archiver(opened, open_stream(stream.server, "operations", create=True)).run(0, until=position)
    )
    return position


@pytest.fixture
def kept(tmp_path: Path) -> dict[str, str]:
    """Where the archive is, for a command's environment."""
    return {"AURASTREAM_ARCHIVE": str(tmp_path / "archive")}


def test_it_says_who_holds_back_what_stays_and_exits_with_1(
    home: Home, clips: Stream, kept: dict[str, str]
) -> None:
    """A log that grows has a reason, and only its name lets a person act."""
    unarchived = home.run("trim", "--stream", "clips", "--keep-events", "2")
    position = archive(clips, 4, kept)
    blocked = home.run("trim", "--stream", "clips", "--keep-events", "2", "--json", env=kept)
    archive(clips, 4, kept)
    done = home.run("trim", "--stream", "clips", "--keep-events", "2", "--why", "disk", "--json", env=kept)
    nothing = home.run("trim", "--stream", "clips", "--older-than", "1d", env=kept)

    assert unarchived.code == 1
    assert "clips/0 is held back: nothing of the log is archived. Run `aurastream archive`." in unarchived.out
    assert blocked.code == 1
    (partition,) = json.loads(blocked.out)["partitions"]
    assert (partition["removed"], partition["until"], partition["left"]) == (4, position, 6)
    assert [(holder["kind"], holder["through"]) for holder in partition["blockers"]] == [
        ("archive", position)
    ]
    assert done.json()["complete"] is True
    assert (nothing.code, clips.server.client.xlen(clips.keys[0].log)) == (0, 2)
    operations = open_stream(clips.server, "operations")
    every = [
        entry.event for partition in range(operations.partitions) for entry in operations.read(partition)
    ]
    trail = [event for event in every if isinstance(event, LogTrimmed)]
    assert [(event.subject, event.entries, event.why) for event in trail] == [
        ("clips", 4, ""),
        ("clips", 4, "disk"),
    ]
    assert home.run("status", "--json").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "in one way"),
        (("--keep-events", "1", "--older-than", "7d"), "in one way"),
        (("--older-than", "7"), "36h or 7d"),
        (("--older-than", "999999w"), "longer than any log"),
        (("--before", "yesterday"), "ISO 8601"),
        (("--keep-events", "-1"), "0"),
        (("--keep-events", "1", "--stream", "nowhere"), "no stream 'nowhere'"),
    ],
)
def test_an_unclear_word_is_bad_input(home: Home, words: tuple[str, ...], said: str) -> None:
    """What is removed cannot be put back: a word with two meanings is refused."""
    done = home.run("trim", *words)

    assert (done.code, said in done.err) == (2, True), done


def test_a_dry_run_removes_nothing(home: Home, clips: Stream, kept: dict[str, str]) -> None:
    """It is run to be sure."""
    archive(clips, 10, kept)

    planned = home.run("trim", "--stream", "clips", "--before", "2100-01-01", "--dry-run", "--json", env=kept)

    assert planned.json()["dry_run"] is True
    assert sum(item["removed"] for item in planned.json()["partitions"] if item["stream"] == "clips") == 10
    assert clips.server.client.xlen(clips.keys[0].log) == 10


def ahead(stream: Stream, folder: Path) -> None:
    """A flipped bit in the slot: the archive is said to have what it has not."""
    last = stream.server.client.xrevrange(stream.keys[0].log, count=1)[0][0]
    stream.server.client.hset(stream.keys[0].archive, "position", last)


def lost(stream: Stream, folder: Path) -> None:
    next(folder.rglob("*.parquet")).unlink()


def flipped(stream: Stream, folder: Path) -> None:
    file = next(folder.rglob("*.parquet"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("spoil", [ahead, lost, flipped])
def test_nothing_goes_that_the_archive_does_not_have_byte_for_byte(
    home: Home, clips: Stream, kept: dict[str, str], spoil: Callable[[Stream, Path], None]
) -> None:
    """After the trim the archive alone has it."""
    archive(clips, 6, kept)
    unseen = home.run("trim", "--stream", "clips", "--keep-events", "0")
    spoil(clips, Path(kept["AURASTREAM_ARCHIVE"]))

    refused = home.run("trim", "--stream", "clips", "--keep-events", "0", env=kept)

    assert (unseen.code, "Set AURASTREAM_ARCHIVE" in unseen.err) == (1, True), unseen
    assert (refused.code, "audit verify" in refused.err) == (1, True), refused
    assert clips.server.client.xlen(clips.keys[0].log) == 10


def test_archive_and_trim_leave_every_command_as_it_was(
    home: Home, clips: Stream, kept: dict[str, str]
) -> None:
    """What the log no longer has, the archive has: check, view and a new run agree; without the archive they
    say what is missing.
    """
    before = home.run("view", "clips", "clip-1", "--stream", "clips", "--json").json()
    assert home.run("archive", "--stream", "clips", env=kept).code == 0

    done = home.run("trim", "--stream", "clips", "--keep-events", "0", "--json", env=kept).json()
    clips.append([observation(views=99, minute=99)])
    ran = home.run("run", "--until-idle", "--projection", "clips", "--stream", "clips", env=kept)
    checked = home.run("check", "--projection", "clips", "--stream", "clips", "--json", env=kept)
    blind = home.run("check", "--projection", "clips", "--stream", "clips", "--json")

    assert (done["partitions"][0]["removed"], done["complete"], ran.code) == (10, True, 0)
    assert checked.json()["checked"][0]["events"] == 11
    assert (blind.code != 0, "AURASTREAM_ARCHIVE" in blind.err) == (True, True), blind
    assert (
        home.run("view", "clips", "clip-1", "--stream", "clips", "--json").json()["state"]["views"]
        == 99
        > before["state"]["views"]
    )
