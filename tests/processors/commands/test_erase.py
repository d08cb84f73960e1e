"""aurastream erase: after it nothing of a creator can be read, and nothing else has changed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from aurastream.projections.past.blobs import _MAGIC as MAGIC
from aurastream.projections.past.checkpoints import EVERY, SUFFIX
from aurastream.streams import OPERATIONS, CreatorErased, Server, Settings, Stream, open_stream
from aurastream.streams.errors import CreatorUnknown
from aurastream.streams.keys import CREATOR_KEYS, CREATORS, ERASURES
from aurastream.streams.personal.erasure import erase, forget_on_disk, settle
from tests.commands import Done, Home
from tests.facts import observation
from tests.servers import EVERY_SERVER, ServerProcess, binaries, forked, until

pytestmark = [pytest.mark.process, pytest.mark.slow]

Command = Callable[..., Done]
ADA, BOB = "Ada Zwölfender", "bob-the-4711th"
TITLES = {
    "ada-1": "Quittenmarmelade selbst gemacht",
    "ada-2": "Zwetschgenröster 생일 특집",
    "bob-1": "Dampflok im Maßstab 1:87",
}
CONTROL = "a title that nobody sealed"
GONE = [ADA, TITLES["ada-1"], TITLES["ada-2"], TITLES["ada-1"].upper(), TITLES["ada-1"][3:]]
ROWS = "video_id,date,title,channel_title,category_id,views,likes,dislikes,comment_total\n" + "".join(
    f'{clip:x>11},{day}.09,"{title}",{ADA if clip.startswith("ada") else BOB},22,{day * 1_000},1,1,1\n'
    for day in (14, 15)
    for clip, title in TITLES.items()
)


@pytest.fixture(params=EVERY_SERVER)
def kept(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server that keeps both files, uncompressed, so that a test can look for bytes in them."""
    options = (
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--save",
        "3600 1000000",
        "--rdbcompression",
        "no",
    )
    process = ServerProcess(binaries()[request.param], *options)
    yield process
    process.stop()


@pytest.fixture
def command(home: Home, kept: ServerProcess, tmp_path: Path) -> Command:
    environ = {
        "AURASTREAM_REDIS_URL": kept.url,
        "AURASTREAM_ARCHIVE": str(tmp_path / "archive"),
        "AURASTREAM_PARTITIONS": "2",
    }

    def run(*arguments: str, stdin: str = "") -> Done:
        return home.run("--app", "tests.processors.gossip", *arguments, stdin=stdin, env=environ)

    return run


def values_of(client: Redis) -> bytes:
    """Every key of the server with all that is in it, whatever its type."""
    found: list[Any] = []
    for key in client.scan_iter(count=1_000):
        kind = client.type(key)
        found += [key, b"|"]
        if kind == b"string":
            found.append(client.get(key))
        elif kind == b"hash":
            found += [part for pair in client.hgetall(key).items() for part in pair]
        elif kind == b"zset":
            found += client.zrange(key, 0, -1)
        elif kind == b"stream":
            found += [part for _, fields in client.xrange(key) for pair in fields.items() for part in pair]
        elif kind in {b"list", b"set"}:
            found += client.lrange(key, 0, -1) if kind == b"list" else client.smembers(key)
        else:
            raise AssertionError(f"{key!r} is a {kind!r}, which this test cannot look into")
    return b"\0".join(found)


def archived(directory: Path) -> bytes:
    """Every file of the archive, decompressed: a segment's columns and metadata, a checkpoint's tables."""
    from pyarrow import parquet

    found: list[bytes] = []
    for path in sorted(item for item in directory.rglob("*") if item.is_file()):
        found += [os.fsencode(path), path.read_bytes()]
        if path.suffix == SUFFIX:
            found.append(zlib.decompress(path.read_bytes()[len(MAGIC) + hashlib.sha256().digest_size :]))
        if path.suffix == ".parquet":
            table = parquet.read_table(path)
            found += [repr(table.schema.metadata).encode()]
            found += [
                value if isinstance(value, bytes) else str(value).encode()
                for row in table.to_pylist()
                for value in row.values()
            ]
    return b"\0".join(found)


def files_of(process: ServerProcess) -> bytes:
    """What the server wrote to disk."""
    return b"\0".join(
        path.read_bytes() for path in sorted(Path(process.directory).rglob("*")) if path.is_file()
    )


def has_rewritten(client: Redis) -> bool:
    told: Any = client.info("persistence")
    busy = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
    return (
        not any(told[name] for name in busy)
        and told["aof_last_bgrewrite_status"] == told["rdb_last_bgsave_status"] == "ok"
    )


def found_in(content: bytes, words: list[str]) -> list[str]:
    """The words that are there, in UTF-8 or as JSON escapes."""
    return [
        word
        for word in words
        if any(form in content for form in (word.encode(), json.dumps(word)[1:-1].encode()))
    ]


@pytest.fixture
def shown(command: Command, tmp_path: Path) -> Callable[[], str]:
    """All that the commands print of the stream: what a person can see."""

    def run() -> str:
        asked = [
            ("view", "clips", "--stream", "yt", "--top", "10", "--json"),
            ("view", "clips", "xxxxxxada-1", "--stream", "yt", "--json"),
            ("report", "--stream", "yt", "--json"),
            ("dead", "list", "--json"),
            ("dead", "list"),
            ("audit", "xxxxxxada-1", "--json"),
            ("audit", "xxxxxxada-1", "--stream", "operations", "--json"),
            ("replay", "--stream", "yt", "--into", "-"),
            ("replay", "--stream", "replayed", "--into", "-"),
            ("view", "clips", "xxxxxxada-1", "--stream", "yt", "--at", "2027-01-01", "--json"),
            ("why", "clips", "xxxxxxada-1", "--stream", "yt", "--json"),
            ("why", "clips", "xxxxxxada-1", "--stream", "yt"),
            ("replay", "--stream", "praises", "--into", "-"),
            ("replay", "--stream", "operations", "--into", "-"),
        ]
        done = [command(*arguments) for arguments in asked]
        assert [item.code for item in done] == [0] * len(done), done
        return "\n".join(
            json.dumps(json.loads(item.out), ensure_ascii=False) if item.out.startswith("{\n") else item.out
            for item in done
        )

    return run


def test_after_an_erasure_nothing_of_the_creator_is_anywhere_and_all_else_is_as_before(
    command: Command, kept: ServerProcess, shown: Callable[[], str], tmp_path: Path
) -> None:
    """The whole promise, looked for byte by byte: server, its files, archive, dead letters, views, derived
    events, audit trail.
    """
    (tmp_path / "videos.csv").write_text(ROWS)
    plain = {
        "type": "clip.views_observed",
        "event_id": "c",
        "subject": "control",
        "occurred_at": "2026-04-15T12:00:00Z",
        "views": 1,
    }
    by_hand = {
        **plain,
        "event_id": "d",
        "subject": "by-hand",
        "title": TITLES["ada-2"],
        "channel": ADA,
        "creator": ADA,
    }
    assert (
        command(
            "import", str(tmp_path / "videos.csv"), "--format", "youtube-2017-09", "--stream", "yt", "--json"
        ).json()["appended"]
        == 6
    )
    lines = "\n".join(json.dumps(event) for event in ({**plain, "title": CONTROL}, by_hand))
    assert command("append", "--stream", "yt", "--json", stdin=lines).json()["appended"] == 2
    assert command("run", "--until-idle").code == 0
    assert command("archive", "--json").code == 0
    assert command("replay", "--stream", "yt", "--into", "stream", "replayed").code == 0
    before, checked = shown().encode(), command("check", "--json").json()
    client = Redis.from_url(kept.url)
    pseudonym = client.hget(CREATORS, ADA).decode()
    key = client.hget(CREATOR_KEYS, pseudonym)
    bob = client.hget(CREATOR_KEYS, client.hget(CREATORS, BOB))

    everywhere = (values_of(client), files_of(kept), archived(tmp_path / "archive"))
    said, derived = (
        f"no luck with {TITLES['ada-1']} / {TITLES['ada-1'].upper()}",
        f"how lovely, {TITLES['ada-1']}",
    )
    everything = [ADA, *TITLES.values(), CONTROL, said, derived]
    assert found_in(before, everything) == everything, (
        "people see titles, the dead letters' reasons, and what was derived"
    )
    assert all(CONTROL.encode() in content for content in everywhere), (
        "what is not sealed is found, so that this test can fail"
    )
    assert [found_in(content, GONE) for content in everywhere] == [[ADA], [ADA], []], (
        "only the list of names has hers"
    )
    assert key in everywhere[1]

    done = command("erase", ADA, "--why", "asked on 12 April", "--yes", "--json").json()
    until(lambda: has_rewritten(client), "the server's files")

    everywhere = (values_of(client), files_of(kept), archived(tmp_path / "archive"))
    assert done == {
        "pseudonym": pseudonym,
        "event_id": f"erase:{pseudonym}",
        "rewriting": {"aof": True, "rdb": True},
        "settled": [],
    }
    assert [found_in(content, GONE) for content in everywhere] == [[], [], []]
    assert not any(key in content for content in everywhere)
    assert bob in everywhere[0]
    after = shown().encode()
    assert found_in(after, [*GONE, TITLES["bob-1"], BOB, CONTROL]) == [TITLES["bob-1"], BOB, CONTROL]
    told = command("audit", pseudonym, "--json").out
    assert "creator.erased" in told
    assert "asked on 12 April" in told
    assert checked["equal"]
    assert [
        item for item in command("check", "--json").json()["checked"] if item["stream"] != OPERATIONS
    ] == [item for item in checked["checked"] if item["stream"] != OPERATIONS]
    assert command("audit", "verify", "--json").code == 0
    assert command("replay", "--stream", "yt", "--into", "stream", "replayed-after").code == 0
    assert [client.xlen(f"aura:{{replayed-after.{partition}}}:log") for partition in (0, 1)] == [
        client.xlen(f"aura:{{yt.{partition}}}:log") for partition in (0, 1)
    ], "stored events of an erased creator move as they are"
    assert command("erase", ADA, "--why", "again", "--yes").code == 1
    client.close()


def test_a_rebuild_gives_the_erased_view(command: Command, kept: ServerProcess, tmp_path: Path) -> None:
    """From the archive and the log: the same bytes, which now open to nothing."""
    (tmp_path / "videos.csv").write_text(ROWS)
    command("import", str(tmp_path / "videos.csv"), "--format", "youtube-2017-09", "--stream", "yt")
    command("run", "--until-idle", "--projection", "clips")
    command("archive", "--stream", "yt")
    command("erase", ADA, "--why", "asked", "--yes")

    rebuilt = command("rebuild", "clips", "--stream", "yt", "--json")

    assert rebuilt.code == 0, rebuilt
    server = Server(kept.url)
    tables = [
        {
            key.rpartition(b":")[2]: server.client.hgetall(key)
            for key in server.client.keys(f"aura:{{yt.{partition}}}:view:clips:{generation}:clips")
        }
        for generation in (1, 2)
        for partition in (0, 1)
    ]
    assert tables[:2] == tables[2:]
    assert b"sealed:1:" in repr(tables).encode()
    state = command("view", "clips", "xxxxxxada-1", "--stream", "yt", "--json").json()["state"]
    assert (state.get("title", ""), state.get("channel", ""), state["views"]) == ("", "", 15_000)
    server.close()


def test_a_rewrite_that_began_before_the_erasure_is_not_trusted(kept: ServerProcess) -> None:
    """It writes what was there when it began: the key. So it has to end, and another one to begin."""
    server = Server(kept.url)
    client: Any = server.client
    stream = open_stream(server, "yt", settings=Settings(partitions=1), create=True)
    stream.append([observation(creator=ADA, title=TITLES["ada-1"])])
    key = client.hget(CREATOR_KEYS, client.hget(CREATORS, ADA))
    client.config_set("rdb-key-save-delay", 200_000)  # microseconds a key
    client.bgrewriteaof()

    erase(open_stream(server, OPERATIONS, create=True), ADA, why="asked", who="tests")
    assert client.info("persistence")["aof_rewrite_in_progress"] == 1, "or this test shows nothing"
    files = forget_on_disk(server)
    client.config_set("rdb-key-save-delay", 0)

    assert files == {"aof": True, "rdb": True}
    until(lambda: has_rewritten(client), "the server's files")
    assert key not in files_of(kept)
    assert ADA.encode() not in files_of(kept)
    server.close()


def test_checkpoints_hold_no_text_either(command: Command, kept: ServerProcess, tmp_path: Path) -> None:
    """They are views on disk, compressed, where nobody looks."""
    server = Server(kept.url)
    stream = open_stream(server, "yt", settings=Settings(partitions=1), create=True)
    stream.append(
        [observation(views=n, minute=n, creator=ADA, title=TITLES["ada-1"]) for n in range(2 * EVERY)]
    )
    assert command("archive", "--stream", "yt").code == 0

    def title_then() -> str:
        told = command("view", "clips", "clip-1", "--stream", "yt", "--at", "2026-04-22", "--json").json()
        return str(told["state"].get("title", ""))

    assert title_then() == TITLES["ada-1"]
    assert list((tmp_path / "archive").rglob(f"*{SUFFIX}")), "or this test shows nothing"
    content = archived(tmp_path / "archive")
    assert content.count(b"sealed:1:") > 2 * EVERY
    assert found_in(content, GONE) == []
    erase(open_stream(server, OPERATIONS, create=True), ADA, why="asked", who="tests")
    assert title_then() == ""
    assert archived(tmp_path / "archive") == content
    server.close()


# The command.


@pytest.fixture
def at_server(home: Home, url: str) -> Command:
    def run(*arguments: str, **options: Any) -> Done:
        return home.run(*arguments, env={"AURASTREAM_REDIS_URL": url}, **options)

    return run


def test_an_erasure_is_asked_for_twice_unless_one_says_yes(at_server: Command, stream: Stream) -> None:
    """It cannot be taken back."""
    stream.append([observation(creator="ada", title="t")])
    for arguments in (("erase", "ada", "--why", "asked"), ("erase", "ada", "--why", "asked", "--json")):
        done = at_server(*arguments)
        assert (done.code, "add --yes" in done.err) == (2, True)
    assert at_server("erase", "ada", "--yes").code == 2, "a reason is wanted"
    assert stream.server.client.hlen(CREATORS) == 1


def test_a_reason_must_not_keep_the_name(at_server: Command, stream: Stream) -> None:
    """The audit trail stays for ever: the name in it would undo the erasure."""
    stream.append([observation(creator="ada-7", title="t")])

    done = at_server("erase", "ada-7", "--why", "ADA-7 asked for it", "--yes")

    assert (done.code, "names the creator" in done.err) == (2, True)
    assert stream.server.client.hlen(CREATORS) == 1


def test_a_reason_that_cannot_be_kept_erases_nothing(at_server: Command, stream: Stream) -> None:
    """The fact must be there afterwards, so whether it can be is known before."""
    stream.append([observation(creator="ada", title="t")])

    done = at_server("erase", "ada", "--why", "x" * 1_001, "--yes")

    assert (done.code, "1,001 characters" in done.err) == (2, True)
    assert stream.server.client.hlen(CREATORS) == 1
    assert at_server("erase", "ada", "--why", "made up by nevada", "--yes").code == 0, (
        "a name within a word is none"
    )


def test_who_has_no_key_is_told_as_unknown(at_server: Command, server: Server) -> None:
    """A misspelt name must not look like a person who was erased."""
    done = at_server("erase", "nobody", "--why", "asked", "--yes", "--json")
    assert done.code == 1
    assert json.loads(done.err)["error"]["type"] == "CreatorUnknown"
    assert at_server("erase", "\udcff", "--why", "asked", "--yes").code == 1
    assert server.client.exists(CREATORS, CREATOR_KEYS, ERASURES) == 0


def test_a_creator_may_be_named_by_the_pseudonym(at_server: Command, stream: Stream) -> None:
    """It is all that the log shows."""
    stream.append([observation(creator="ada", title="t"), observation(minute=1, creator="bob", title="t")])
    pseudonym = stream.read(0)[0].event.creator  # type: ignore[attr-defined]

    assert at_server("erase", pseudonym, "--why", "asked", "--yes", "--json").json()["pseudonym"] == pseudonym
    assert stream.server.client.hgetall(CREATORS).keys() == {b"bob"}
    assert at_server("erase", pseudonym, "--why", "asked", "--yes").code == 1


def test_a_server_without_files_is_told_so(at_server: Command, stream: Stream) -> None:
    """A promise to rewrite files that do not exist would be a false comfort."""
    stream.append([observation(creator="ada", title="t")])
    done = at_server("erase", "ada", "--why", "asked", "--yes")
    assert done.code == 0
    assert done.out.count("the server keeps none") == 2
    assert "ada" not in done.out


# Killed in between.


def operations_of(server: Server) -> Stream:
    return open_stream(server, OPERATIONS, settings=Settings(partitions=1), create=True)


def facts(server: Server) -> list[CreatorErased]:
    return [entry.event for entry in operations_of(server).read(0) if isinstance(entry.event, CreatorErased)]


def killed_at(step: str, url: str) -> int:
    """An erasure in a process of its own that ends at a step; its exit code."""

    def live() -> None:
        erase(
            operations_of(Server(url)),
            "ada",
            why="asked",
            who="tests",
            on_step=lambda at: os.kill(os.getpid(), signal.SIGKILL) if at == step else None,
        )

    return forked(live, "the erasure")


@pytest.mark.parametrize(("step", "facts_then"), [("dropped", 0), ("appended", 1)])
def test_an_erasure_that_was_killed_is_told_of_by_the_next(
    server: Server, stream: Stream, step: str, facts_then: int
) -> None:
    """The key is gone with the script; the fact must not be lost with the process, nor be there twice."""
    stream.append(
        [observation(creator="ada", title="hers"), observation(minute=1, creator="bob", title="his")]
    )
    pseudonym = stream.read(0)[0].event.creator  # type: ignore[attr-defined]

    assert killed_at(step, server.url) == -signal.SIGKILL
    assert (len(facts(server)), server.client.hlen(ERASURES)) == (facts_then, 1)
    opened = open_stream(server, "clips-test").keyring.open_event(stream.read(0)[0].event)
    assert opened.title == ""  # type: ignore[attr-defined]

    event, settled = erase(operations_of(server), "bob", why="asked too", who="tests")

    assert [item.subject for item in settled] == [pseudonym]
    assert [(item.subject, item.event_id, item.why) for item in facts(server)] == [
        (pseudonym, f"erase:{pseudonym}", "asked"),
        (event.subject, f"erase:{event.subject}", "asked too"),
    ]
    assert server.client.exists(ERASURES) == 0
    assert list(settle(operations_of(server))) == []


def test_a_repeat_of_a_killed_erasure_settles_it_and_finds_no_such_creator(
    server: Server, stream: Stream
) -> None:
    """The key is gone first; its fact must follow, whoever comes next."""
    stream.append([observation(creator="ada", title="hers")])
    killed_at("dropped", server.url)

    with pytest.raises(CreatorUnknown, match="erased already") as told:
        erase(operations_of(server), "ada", why="asked", who="tests")

    assert "had been interrupted; it is in the audit trail now" in told.value.__notes__[0]

    assert len(facts(server)) == 1
    assert server.client.exists(ERASURES) == 0
