"""Every verb of the command line: what it answers, in which form, and with which exit code."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from rich.cells import cell_len

from tests.commands import ROOT, Done, Environ, Home, Nursery, environment
from tests.servers import ServerProcess, binaries, until

pytestmark = [pytest.mark.process, pytest.mark.any_server]

VERBS = {
    "append",
    "archive",
    "audit",
    "check",
    "checkpoint",
    "dead",
    "demo",
    "erase",
    "groups",
    "import",
    "processors",
    "rebuild",
    "replay",
    "report",
    "rollback",
    "run",
    "schema",
    "serve-redis",
    "status",
    "trim",
    "view",
    "why",
}
EVIL = "\x1b[31mred\x1b]0;title\x07 \u202eright\u2066 \x9b2J\r\nstatus: fine\u200b"
VIEWS = (
    "observed_at,video_no,view_count,category\n2026-04-15T04:29:47Z,1,2246,talk\n"
    "2026-04-16T04:29:47Z,1,2250,talk\nnot a time,1,5,talk\n"
)


def line_of(number: int, clip: str, views: int, **more: Any) -> str:
    """An event as append takes it, one minute after the one before."""
    at = f"2026-04-15T{12 + number // 60}:{number % 60:02}:00Z"
    return json.dumps(
        {
            "type": "clip.views_observed",
            "event_id": f"e{number}",
            "subject": clip,
            "occurred_at": at,
            "views": views,
            **more,
        }
    )


@pytest.fixture(scope="module")
def world(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home whose stream clips-live has 30 events of three clips, folded; one process keeps its server."""
    home = Home(nursery, tmp_path_factory.mktemp("world") / "home")
    try:
        home.hold()
        lines = [
            line_of(n, f"clip-{n % 3}", n * 10, title=EVIL, category="a[red]b" if n % 3 else EVIL)
            for n in range(30)
        ]
        assert home.run("append", "--stream", "clips-live", stdin="\n".join(lines)).code == 0
        assert home.run("run", "--until-idle").code == 0
        yield home
    finally:
        home.close()


def refused(done: Done, code: int, *words: str) -> None:
    """One line on stderr, nothing on stdout, no traceback."""
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done
    assert "Traceback" not in done.err
    assert [word for word in words if word not in done.err] == []


# The verbs and their JSON.


def test_every_verb_that_is_promised_is_there_and_explains_itself(world: Home) -> None:
    """The verbs are an interface that scripts of others rely on."""
    listed = world.run("--help").out.partition("Commands:\n")[2]

    verbs = {line.split()[0] for line in listed.splitlines()}
    assert verbs == VERBS
    for verb in verbs:
        told = world.run(verb, "--help")
        assert (told.code, "--json" in told.out) == (0, True), verb


def test_an_id_that_begins_with_a_dash_is_a_key_like_any_other(home: Home) -> None:
    """One in 64 of YouTube's IDs does, and nobody thinks of `--` when he copies one."""
    home.hold()
    lines = "\n".join([line_of(1, "-wQwAbCh", 5), line_of(2, "-wQwAbCh", 7)])
    assert home.run("append", "--stream", "clips-live", stdin=lines).code == 0
    assert home.run("run", "--until-idle").code == 0

    seen = home.run("view", "clips", "-wQwAbCh", "--json").json()
    explained = home.run("why", "clips", "-wQwAbCh", "--last", "1", "--json").json()
    audited = home.run("audit", "-wQwAbCh", "--json")

    assert (seen["state"]["views"], explained["value"]["views"], audited.code) == (7, 7, 0)
    refused(home.run("view", "clips", "--nothing"), 2, "No such option")


def test_a_table_in_a_pipe_is_not_cut_for_a_terminal(home: Home) -> None:
    """What grep reads must be whole; a width is a terminal's, or COLUMNS'."""
    home.hold()
    long = line_of(1, "clip-1", 5, title="t" * 150)
    assert home.run("append", "--stream", "clips-live", stdin=long).code == 0
    assert home.run("run", "--until-idle").code == 0

    whole = home.run("view", "clips", "--ranking", "latest_views").out
    narrow = home.run("view", "clips", "--ranking", "latest_views", env={"COLUMNS": "80"}).out

    assert "t" * 150 in whole
    assert ("t" * 150 in narrow, "…" in narrow) == (False, True)


def test_the_installed_command_is_the_same_one(world: Home) -> None:
    """The other tests fork it; this one starts the console script anew."""
    command = ("view", "clips", "clip-2", "--stream", "clips-live", "--json")
    assert world.installed(*command).json() == world.run(*command).json()
    assert world.installed("check", "--stream", "no").code == 2


def test_append_counts_what_it_appended_what_was_there_and_what_it_refused(world: Home) -> None:
    """A bad line is named and costs its neighbours nothing."""
    lines = "\n".join([line_of(1, "a", 1), "no JSON", line_of(1, "a", 1), "", "[]", line_of(2, "a", 2)])

    done = world.run("append", "--stream", "appended", "--json", stdin=lines)

    assert done.code == 2
    assert json.loads(done.out) == {"stream": "appended", "appended": 2, "duplicates": 1, "refused": 2}
    assert ("line 2" in done.err, "line 5" in done.err, "Traceback" in done.err) == (True, True, False)


def test_append_takes_cloudevents(world: Home) -> None:
    """Other systems speak CloudEvents; nobody should have to translate."""
    event = {
        "specversion": "1.0",
        "id": "c1",
        "source": "poller",
        "type": "clip.views_observed",
        "subject": "a",
        "time": "2026-04-15T12:00:00Z",
    }
    lines = json.dumps({**event, "data": {"views": 5}})

    assert world.run("append", "--stream", "clouds", "--json", stdin=lines).json()["appended"] == 1
    assert world.run("append", "--stream", "clouds", "--json", stdin=lines).json()["duplicates"] == 1


def test_import_counts_rows_once_and_keeps_what_it_refused(world: Home, tmp_path: Path) -> None:
    """Run twice it must change nothing, and what is left out must be named."""
    (tmp_path / "views.csv").write_text(VIEWS)
    command = ("import", "views.csv", "--format", "chzzk", "--stream", "imported", "--json")

    first, again = world.run(*command, cwd=tmp_path).json(), world.run(*command, cwd=tmp_path).json()

    assert (first["rows"], first["appended"], first["duplicates"], first["rejected"]) == (3, 2, 0, 1)
    assert (again["rows"], again["appended"], again["duplicates"], again["rejected"]) == (3, 0, 2, 1)
    assert json.loads((tmp_path / first["rejects_file"]).read_text())["row"] == 3
    refused(
        world.run("import", "none.csv", "--format", "chzzk", cwd=tmp_path), 2, "none.csv", "cannot be read"
    )


def test_run_until_idle_ends_at_lag_0_and_says_what_it_read(world: Home) -> None:
    """A job that ends early would leave views behind the log without a word."""
    world.run("append", "--stream", "idle", stdin="\n".join(line_of(n, f"c{n}", n) for n in range(50)))

    done = world.run("run", "--until-idle", "--stream", "idle", "--json").json()

    assert done["projections"]["clips"] == 50
    assert done["stopped_by_signal"] is False
    groups = world.run("status", "--json").json()["streams"]["idle"]["groups"]
    assert sum(part["lag_events"] for parts in groups.values() for part in parts) == 0
    assert world.run("run", "--until-idle", "--stream", "idle", "--json").json()["projections"] == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_stops_between_batches_when_it_is_told_to(world: Home, number: signal.Signals) -> None:
    """A deployment stops workers all day long: exit 0, nothing half done, nothing pending."""
    worker = world.start("run", "--stream", "clips-live", "--json")
    until(lambda: "consumer_started" in worker.err, "the worker")

    assert worker.signal(number) == 0
    assert worker.json()["stopped_by_signal"] is True
    assert world.run("check", "--stream", "clips-live").code == 0
    groups = world.run("status", "--json").json()["streams"]["clips-live"]["groups"]
    assert {part["pending"] for parts in groups.values() for part in parts} == {0}


def test_status_names_projections_and_every_lag_is_a_number(world: Home) -> None:
    """Monitoring reads this: a null lag is an alert nobody gets."""
    world.run("append", "--stream", "waiting", stdin=line_of(1, "a", 1))

    status = world.run("status", "--json").json()

    assert list(status["projections"]) == sorted({"clips", "imports", "trail"} | set(status["projections"]))
    assert status["home"] == str(world.path)
    assert {"clips-live", "waiting"} <= set(status["streams"])
    parts = [
        part for stream in status["streams"].values() for group in stream["groups"].values() for part in group
    ]
    assert {type(part["lag_events"]) for part in parts} == {int}
    assert {type(part["lag_seconds"]) for part in parts} == {float}
    assert sum(part["lag_events"] for part in status["streams"]["waiting"]["groups"]["clips"]) == 1
    assert [part for part in parts if part["missing"] or part["rewound"]] == []


def test_view_gives_a_state_a_leaderboard_and_tables(world: Home) -> None:
    """These are the product's answers, with the positions they reflect."""
    on = ("--stream", "clips-live", "--json")
    state = world.run("view", "clips", "clip-1", *on).json()
    top = world.run("view", "clips", "--ranking", "latest_views", "--top", "2", *on).json()
    part = world.run("view", "clips", "--part", "a[red]b", *on).json()
    sums = world.run("view", "clips", "--table", "categories", *on).json()

    assert (state["key"], state["state"]["views"], state["state"]["title"]) == ("clip-1", 280, EVIL)
    assert [(row["key"], row["score"]) for row in top["rows"]] == [("clip-2", 290.0), ("clip-1", 280.0)]
    assert len(top["positions"]) == 4
    assert {row["key"] for row in part["rows"]} == {"clip-1", "clip-2"}
    assert {name: row["latest_views_sum"] for name, row in sums["rows"].items()} == {
        EVIL: 270,
        "a[red]b": 570,
    }


def test_audit_lists_the_facts_behind_a_number(world: Home) -> None:
    """Every number can be traced to its events, or it is not to be trusted."""
    rows = world.run("audit", "clip-1", "--stream", "clips-live", "--json").json()

    assert [row["views"] for row in rows] == list(range(10, 300, 30))
    assert [row["position"] for row in rows] == sorted(row["position"] for row in rows)


def test_report_is_a_document_of_the_views(world: Home) -> None:
    """It is compared with other programs' answers, field by field."""
    report = world.run("report", "--stream", "clips-live", "--json").json()

    assert (report["rows"], report["subjects"], report["final_state"]["latest_views_sum"]) == (30, 3, 840)


def test_check_says_yes_with_what_it_compared(world: Home) -> None:
    """A yes without a count could be the yes of a check that looked at nothing."""
    checked = world.run("check", "--stream", "clips-live", "--json").json()

    assert checked["equal"] is True
    assert sum(part["events"] for part in checked["checked"] if part["projection"] == "clips") == 30
    assert {part["is_equal"] for part in checked["checked"]} == {True}


def test_serve_redis_says_where_it_is(world: Home) -> None:
    """Others connect to what it prints."""
    told = world.hold().json()

    assert told["url"] == f"unix://{world.path}/server.sock"
    assert world.run("status", env={"AURASTREAM_REDIS_URL": told["url"]}).code == 0


def test_check_exits_1_and_names_what_differs_after_tampering(home: Home) -> None:
    """The number somebody edited by hand, the one they deleted, and the one they made up."""
    home.hold()
    home.run(
        "append",
        "--stream",
        "clips",
        stdin="\n".join(line_of(n, f"clip-{n}", n) for n in range(9)),
        env={"AURASTREAM_PARTITIONS": "1"},
    )
    home.run("run", "--until-idle")
    with redis.Redis(unix_socket_path=str(home.path / "server.sock"), decode_responses=True) as client:
        state = client.hget("aura:{clips.0}:view:clips:1:clips", "clip-3")
        assert state is not None
        client.hset("aura:{clips.0}:view:clips:1:clips", "clip-3", state.replace('"views":3', '"views":333'))
        client.hdel("aura:{clips.0}:view:trail:1:subjects", "clip-4")
        client.zadd("aura:{clips.0}:view:clips:1:latest_views", {"made-up": -9})

    told, document = home.run("check"), home.run("check", "--json")

    assert (told.code, document.code) == (1, 1)
    differences = [item for part in json.loads(document.out)["checked"] for item in part["differences"]]
    assert {(item["table"], item["key"]) for item in differences} == {
        ("clips", "clip-3"),
        ("subjects", "clip-4"),
        ("latest_views", "made-up"),
    }
    assert [
        word
        for word in ("clip-3", "clip-4", "made-up", "333", "view != fold(log): 3 findings")
        if word not in told.out
    ] == []
    assert "Traceback" not in told.err


# What is refused, and how.


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("view", "nope"), 2, ["no projection 'nope'", "clips, imports, trail"]),
        (("run", "--projection", "nope"), 2, ["no projection 'nope'"]),
        (("check", "--projection", "nope"), 2, ["no projection 'nope'"]),
        (("view", "clips", "--stream", "nope"), 2, ["no stream 'nope'", "clips-live"]),
        (("check", "--stream", "nope"), 2, ["no stream 'nope'"]),
        (("audit", "clip-1", "--stream", "nope"), 2, ["no stream 'nope'"]),
        (("run", "--stream", "Not A Name"), 2, ["'Not A Name' is no stream name"]),
        (("view", "clips", "nobody", "--stream", "clips-live"), 1, ["has no 'nobody'"]),
        (("audit", "nobody"), 1, ["no event of 'nobody'"]),
        (
            ("view", "clips", "--ranking", "best", "--stream", "clips-live"),
            2,
            ["no ranking 'best'", "latest_views"],
        ),
        (
            ("view", "clips", "--ranking", "latest_views", "--part", "talk", "--stream", "clips-live"),
            2,
            ["has no parts", "viral"],
        ),
        (
            ("view", "clips", "--table", "best", "--stream", "clips-live"),
            2,
            ["no table 'best'", "categories"],
        ),
        (("view", "clips", "--top", "0"), 2, ["--top"]),
        (("view",), 2, ["Missing argument 'NAME'", "aurastream view --help"]),
        (("viewclips",), 2, ["No such command 'viewclips'"]),
        (("run", "--no-such-option"), 2, ["--no-such-option"]),
        (("append", "--expect", "clip-1"), 2, ["--expect", "SUBJECT=N"]),
        (("append", "--stream", "clips-live", "--expect", "clip-1=1"), 2, ["keeps no versions"]),
    ],
)
def test_what_does_not_exist_is_one_line_with_what_does(
    world: Home, arguments: tuple[str, ...], code: int, words: list[str]
) -> None:
    """A misspelt name is mended in seconds when the right ones are there."""
    stdin = line_of(1, "clip-1", 1)
    refused(world.run(*arguments, stdin=stdin), code, *words)

    document = world.run(*arguments, "--json", stdin=stdin)

    assert (document.code, document.out) == (code, "")
    error = json.loads(document.err)["error"]
    assert set(error) == {"type", "message"}
    assert [word for word in words if word not in error["message"]] == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", ["no Redis address"]),
        ("http://localhost", ["no Redis address"]),
        ("redis://:s3cret@localhost:port/0", ["no Redis address"]),
        ("redis://:a/s3cret@localhost:6379/0", ["no Redis address"]),
        ("redis://:s3cret@127.0.0.1:1/0", ["cannot reach", "127.0.0.1:1"]),
        ("redis://user:s3%25cret@127.0.0.1:1/0?password=s3cret", ["cannot reach"]),
        ("rediss://:s3cret@127.0.0.1:1/0", ["cannot reach", "rediss://127.0.0.1:1"]),
        ("unix://user:s3cret@/no/such.sock", ["cannot reach", "/no/such.sock"]),
    ],
)
def test_a_server_out_of_reach_is_exit_3_and_a_password_is_never_shown(
    world: Home, url: str, words: list[str]
) -> None:
    """Sentences end up in logs and tickets."""
    for flags in ((), ("--json",)):
        done = world.run("status", *flags, env={"AURASTREAM_REDIS_URL": url, "AURASTREAM_SERVER_WAIT_S": "0"})
        refused(done, 3, *words)
        assert "cret" not in done.err


def test_a_server_of_ones_own_is_used_with_its_password_and_refused_where_unfit(
    world: Home, valkey: str
) -> None:
    """A server that evicts keys would lose events silently; and no message may show its password."""
    server = ServerProcess(valkey, "--maxmemory-policy", "allkeys-lru")
    try:
        env: Environ = {"AURASTREAM_REDIS_URL": server.url}
        refused(
            world.run("append", stdin=line_of(1, "a", 1), env=env),
            3,
            "maxmemory-policy is allkeys-lru",
            "noeviction",
        )
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("requirepass", "s3cret")
        wrong: Environ = {"AURASTREAM_REDIS_URL": server.url.replace("unix://", "unix://:s3cret2@")}
        right: Environ = {"AURASTREAM_REDIS_URL": server.url.replace("unix://", "unix://:s3cret@")}
        without, refusal, status = (world.run("status", "--json", env=env) for env in (env, wrong, right))
        assert (without.code, refusal.code, status.code) == (3, 3, 0)
        assert [
            done
            for done in (without, refusal, status)
            if "s3cret" in done.err + done.out or "Traceback" in done.err
        ] == []
        assert status.json()["home"] is None
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AURASTREAM_PARTITIONS", "0", "greater than or equal to 1"),
        ("AURASTREAM_PARTITIONS", "many", "integer"),
        ("AURASTREAM_ACK", "tomorrow", "memory"),
        ("AURASTREAM_BATCH_MAX", "1000000", "less than or equal to 16000"),
        ("AURASTREAM_CLIPS_VIRAL_PER_MINUTE", "abc", "number"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_range(
    world: Home, name: str, value: str, said: str
) -> None:
    """Whoever set it must find the variable and the limit in the sentence."""
    refused(world.run("status", env={name: value}), 2, f"{name}: ", said)
    assert (
        json.loads(world.run("status", "--json", env={name: value}).err)["error"]["type"] == "ValidationError"
    )


def test_a_connection_that_breaks_is_a_sentence(world: Home) -> None:
    """The server goes away under a command, and is not ours to start again."""
    server = ServerProcess(binaries()["valkey"])
    try:
        env: Environ = {
            "AURASTREAM_REDIS_URL": server.url,
            "AURASTREAM_ATTEMPTS_MAX": "1",
            "AURASTREAM_BATCH_MAX": "1",
        }
        world.run(
            "append",
            stdin="\n".join(line_of(n % 600, f"clip-{n}", n, event_id=f"x{n}") for n in range(10_000)),
            env=env,
        )
        catching_up = world.start("run", "--until-idle", env=env)  # by one entry a time: seconds
        until(lambda: "consumer_started" in catching_up.err, "the command")
        server.kill()
        assert catching_up.wait() == 3
        assert "Traceback" not in catching_up.err
        assert catching_up.err.splitlines()[-1].startswith("aurastream: ")
    finally:
        server.stop()


def test_a_rejects_file_that_cannot_be_written_is_named(world: Home, tmp_path: Path) -> None:
    """Refused rows must not be dropped because a folder is read-only."""
    (tmp_path / "more.csv").write_text(VIEWS)
    command = (
        "import",
        "more.csv",
        "--format",
        "chzzk",
        "--stream",
        "rejects",
        "--rejects",
        "no/such/place.jsonl",
    )

    refused(world.run(*command, cwd=tmp_path), 2, "no/such/place", "No such file or directory")


# What a terminal gets.


@pytest.mark.parametrize(
    "arguments",
    [
        ("view", "clips", "--ranking", "latest_views"),
        ("view", "clips", "--table", "categories"),
        ("view", "clips", "clip-0"),
        ("view", "clips", "--part", EVIL),
        ("view", "clips", "--part", EVIL + "nobody"),
        ("audit", "clip-0"),
        ("report",),
        ("view", "clips", "\x1b[2Jnobody"),
        ("view", "\x1b[2Jnobody"),
    ],
)
def test_text_from_outside_cannot_command_the_terminal(world: Home, arguments: tuple[str, ...]) -> None:
    """Titles are written by strangers: no escape sequence, no forged line, no turned direction, no markup."""
    done = world.run(*arguments, *(("--stream", "clips-live") if arguments[-1] != "\x1b[2Jnobody" else ()))

    shown = done.out + done.err
    assert len(shown) > 20
    assert [char for char in shown if char in "\x1b\x07\r\x9b\u202e\u2066\u200b"] == []
    assert "\nstatus: fine" not in shown
    assert done.code == (0 if done.out else done.code)
    assert arguments[-1] != "report" or "a[red]b" in shown


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("check", "--stream", "clips-live"),
        ("view", "clips", "--ranking", "latest_views"),
        ("audit", "clip-0"),
        ("report",),
        (),
    ],
)
def test_output_fits_the_terminal(world: Home, arguments: tuple[str, ...], columns: int) -> None:
    """A wrapped table cannot be read; wide characters take two cells."""
    on = () if arguments in ((), ("status",)) or "check" in arguments else ("--stream", "clips-live")
    done = world.run(*arguments, *on, env={"COLUMNS": str(columns)})

    wide = [line for line in done.out.splitlines() if cell_len(line) > columns and "home" not in line]
    assert wide == []


def test_on_a_terminal_it_is_coloured_and_progress_leaves_no_trace(world: Home, tmp_path: Path) -> None:
    """Through a pseudo-terminal, as a person has it."""
    (tmp_path / "tty.csv").write_text(VIEWS)
    main, terminal = pty.openpty()
    command = [
        str(Path(sys.executable).with_name("aurastream")),
        "import",
        "tty.csv",
        "--format",
        "chzzk",
        "--stream",
        "tty",
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment(world.path),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        check=False,
    )
    os.close(terminal)
    seen = os.read(main, 65_536).decode()
    os.close(main)

    assert done.returncode == 0
    assert "2 appended" in seen
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h")  # the cursor is given back


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("view clips --table categories --stream clips-live --json", 0),
        ("audit clip-0 --stream clips-live", 0),
        ("check --json", 0),
        ("view clips nobody --stream clips-live", 1),
    ],
)
def test_a_reader_that_has_seen_enough_is_no_error(world: Home, command: str, code: int) -> None:
    """aurastream .. | head -1: the pipe breaks, the work and its exit code stay. Here the reader is gone
    before the first byte.
    """
    reading, writing = os.pipe()
    os.close(reading)

    done = world.run(*command.split(), stdout=writing)

    os.close(writing)
    assert (done.code, done.err.count("\n")) == (code, code)


def test_a_command_reads_nothing_but_its_own_settings(world: Home) -> None:
    """A stray .env, another tool's REDIS_URL: not ours."""
    done = world.run(
        "status", "--json", env={"REDIS_URL": "redis://127.0.0.1:1", "AURASTREAM_OTHER": "1"}, cwd=ROOT
    )

    assert done.json()["home"] == str(world.path)
