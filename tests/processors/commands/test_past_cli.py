"""
The past from the command line: report --at, view --at, why and checkpoint on real data, whose answers others
computed from the files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from aurastream.processors import fanout
from aurastream.processors.history import PastFolder
from aurastream.projections import ProjectionError
from aurastream.projections.built_in.clips import Clips
from aurastream.projections.past import AsOf, Past
from aurastream.streams import Codec, Server, Settings, open_stream
from tests.conftest import SHARED
from tests.facts import NOON, observation
from tests.processors.importing.imports import (
    SLICE_FILE,
    SLICE_ROWS,
    Shell,
    computed_answers,
    lines_of,
    slice_answers,
)
from tests.servers import ServerProcess

pytestmark = [pytest.mark.process, pytest.mark.any_server, pytest.mark.timeout(400)]


@pytest.fixture
def shell(nursery: Any, one_server: ServerProcess, tmp_path: Path) -> Iterator[Shell]:
    with_server = Server(one_server.url)
    with_server.client.flushall()
    with_server.close()
    shell = Shell(nursery, one_server.url, tmp_path)
    yield shell
    shell.close()


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """The slice's first 3,000 rows: looks at 170 broadcasts on 20 days."""
    path = tmp_path / "part.csv"
    path.write_bytes(b"".join(lines_of(SLICE_FILE)[:3_001]))
    return path


def consumed(shell: Shell, path: Path, form: str = "chzzk", *projections: str) -> None:
    assert shell.run("import", path, "--format", form).code == 0
    chosen = [word for name in projections for word in ("--projection", name)]
    assert shell.run("run", "--until-idle", *chosen).code == 0


def state_at(shell: Shell, stream: str, at: str, **settings: object) -> dict[str, Any]:
    content = shell.run("report", "--stream", stream, "--at", at, "--json", **settings).json()
    assert (content["at"], content["by"]) == (at, "occurred")
    found: dict[str, Any] = content["final_state"]
    return found


# The answers.


def test_the_slice_s_report_as_of_each_instant_is_what_was_computed_for_it(shell: Shell) -> None:
    """From the log, from the archive, with checkpoints, and with the log trimmed away: the same digest."""
    consumed(shell, SLICE_FILE)
    expected = slice_answers()["as_of"]
    archive = {"archive": shell.directory / "archive", "segment_events": 1_000}

    assert {at: state_at(shell, "chzzk", at) for at in expected} == expected
    assert shell.run("archive", "--stream", "chzzk", **archive).code == 0
    assert {at: state_at(shell, "chzzk", at, **archive) for at in expected} == expected
    made = shell.run("checkpoint", "clips", "--stream", "chzzk", "--json", **archive).json()
    assert [row["checkpoints"] for row in made["partitions"]] == [1, 1, 1, 1]  # 6,500 entries each
    assert shell.run("trim", "--stream", "chzzk", "--keep-events", 0, **archive).code == 0
    assert {at: state_at(shell, "chzzk", at, **archive) for at in expected} == expected
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert state_at(shell, "chzzk", now, **archive) == slice_answers()["final_state"]


@pytest.mark.parametrize(
    ("file", "form", "name"),
    [
        ("youtube_trending_us_2017_11.csv.gz", "youtube-2017-11", "youtube_us_2017_11"),
        ("youtube_trending_us_2017_09.csv.gz", "youtube-2017-09", "youtube_us_2017_09"),
        pytest.param("chzzk_vod_views.csv.gz", "chzzk", "chzzk", marks=pytest.mark.full_data),
    ],
)
def test_the_full_data_s_report_as_of_each_instant_is_that_of_two_independent_programs(
    shell: Shell, file: str, form: str, name: str
) -> None:
    """Time travel is proved by programs that share no line with ours."""
    if not (SHARED / file).exists():
        pytest.skip(f"../shared/data/{file} is not here")
    expected = json.loads((SHARED / f"expected/{name}.json").read_text())
    if name == "youtube_us_2017_09":  # two looks on one day: theirs takes the larger one, ours the first
        expected = computed_answers(SHARED / file, "yt09", first_wins=True, as_of=list(expected["as_of"]))
    archive = {"archive": shell.directory / "archive"}
    consumed(shell, SHARED / file, form, "clips", "imports")

    assert {at: state_at(shell, form, at) for at in expected["as_of"]} == expected["as_of"]
    assert shell.run("archive", **archive).code == 0
    assert shell.run("checkpoint", "clips", **archive).code == 0
    assert {at: state_at(shell, form, at, **archive) for at in expected["as_of"]} == expected["as_of"]


def test_a_report_as_of_a_time_has_every_number_of_the_file_cut_there(shell: Shell, part: Path) -> None:
    """Sums, top lists, categories, days: computed from the rows up to that time alone. Of an import that
    ended later nothing is said.
    """
    consumed(shell, part)
    rows = lines_of(part)
    at = sorted({row.split(b",")[0].decode() for row in rows[1:]})[9]
    cut = part.with_name("cut.csv")
    cut.write_bytes(b"".join(rows[:1] + [row for row in rows[1:] if row.split(b",")[0].decode() <= at]))

    content = shell.run("report", "--stream", "chzzk", "--at", at, "--json").json()

    expected = computed_answers(cut, "chzzk", first_wins=True)
    of_the_file = {"file", "file_sha256", "dataset"}
    assert (content["file"], content["rejected_rows"]) == (None, 0)
    assert {name: content[name] for name in content if name not in of_the_file | {"at", "by"}} == {
        name: expected[name] for name in expected if name not in of_the_file | {"as_of"}
    }


def test_report_and_view_say_as_of_when_and_at_which_positions(shell: Shell, part: Path) -> None:
    """A number of the past that does not say of when will be taken for one of now."""
    consumed(shell, part)
    key = lines_of(part)[1].split(b",")[1].decode()
    at = "2026-04-20"

    report = shell.run("report", "--stream", "chzzk", "--at", at)
    ranking = shell.run(
        "view", "clips", "--stream", "chzzk", "--at", at, "--ranking", "latest_views", "--top", 2
    )
    table = shell.run("view", "clips", "--stream", "chzzk", "--at", at, "--table", "days")
    state = shell.run("view", "clips", key, "--stream", "chzzk", "--at", at)
    told = shell.run(
        "view", "clips", "--stream", "chzzk", "--at", at, "--ranking", "latest_views", "--json"
    ).json()

    for done in (report, ranking, table, state):
        assert (done.code, "as of 2026-04-20T00:00:00Z (event time)" in done.out) == (0, True), done
    assert all("at 0: " in done.out for done in (report, ranking, table))
    assert re.search(
        r"\nat \d: \d+-\d+\n", state.out
    )  # of the key's own partition, the only one that was folded
    assert (told["at"], told["by"], sorted(told["positions"])) == (
        "2026-04-20T00:00:00Z",
        "occurred",
        ["0", "1", "2", "3"],
    )
    assert all(row["state"]["last_at"] <= "2026-04-20T00:00:00Z" for row in told["rows"])


def test_by_appended_is_what_the_view_said_then(shell: Shell, part: Path) -> None:
    """The second file is appended later, though what it tells of happened before."""
    lines = lines_of(part)
    first, second = part.with_name("first.csv"), part.with_name("second.csv")
    first.write_bytes(b"".join(lines[:1] + lines[1_500:]))
    second.write_bytes(b"".join(lines[:1_500]))
    consumed(shell, first)
    before = shell.run("report", "--stream", "chzzk", "--json").json()
    now = datetime.now(UTC).isoformat()
    consumed(shell, second)

    then = shell.run("report", "--stream", "chzzk", "--at", now, "--by", "appended", "--json").json()
    by_event_time = shell.run("report", "--stream", "chzzk", "--at", now, "--json").json()

    assert {name: then[name] for name in before} == before
    assert by_event_time["rows"] > before["rows"]


def test_partitions_folded_by_processes_are_those_folded_here(
    one_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables, cursors and what is told of them come through the pipe as they were; so does why one could not
    be folded.
    """
    server = Server(one_server.url)
    server.client.flushall()
    stream = open_stream(server, "clips", create=True, settings=Settings(partitions=4))
    stream.append([observation(n, clip=f"c{n % 9}", minute=n, category=f"p{n % 3}") for n in range(300)])
    when = AsOf(NOON + timedelta(minutes=200))

    here = PastFolder(stream, Clips(), when)([0, 1, 2, 3])
    monkeypatch.setattr(fanout, "SMALL", 0)
    elsewhere = PastFolder(stream, Clips(), when)([0, 1, 2, 3])

    def told(found: dict[int, Past]) -> Any:
        return {
            number: (item.view.tables, item.view.cursor, item.position, item.read)
            for number, item in sorted(found.items())
        }

    assert told(elsewhere) == told(here)
    stream.append([observation(1, event_id="newer", minute=500)])
    raw = (
        Codec().encode(observation(2, event_id="newer-build")).replace(b'"views":2', b'"views":2,"version":9')
    )
    server.client.xadd(stream.keys[0].log, {"event": raw, "crc32": crc32(raw)})
    with pytest.raises(ProjectionError, match="version 9"):
        PastFolder(stream, Clips(), when)([0, 1, 2, 3])
    server.close()


# What cannot be asked.


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("view", "clips", "--at", "yesterday"), "'yesterday' is no ISO 8601 time"),
        (("report", "--at", "2026-13-01"), "'2026-13-01' is no ISO 8601 time"),
        (("why", "clips", "x", "--at", ""), "is no ISO 8601 time"),
        (("view", "clips", "--by", "appended"), "give --at a time as well"),
        (("view", "clips", "--at", "2026-04-20", "--by", "sometimes"), "'sometimes' is not one of"),
        (("view", "clips", "--at", "2026-04-20", "--table", "none"), "has no table 'none'"),
        (("why", "nothing", "x"), "no projection 'nothing'"),
    ],
)
def test_what_cannot_be_asked_gets_a_sentence(
    shell: Shell, part: Path, words: tuple[str, ...], said: str
) -> None:
    """A time that is misread would be answered with another time's numbers."""
    consumed(shell, part, "chzzk", "clips")

    done = shell.run(*words)

    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_a_time_before_all_has_nothing_and_says_so(shell: Shell, part: Path) -> None:
    """Nothing is an answer, and no zero."""
    consumed(shell, part, "chzzk", "clips")
    key = lines_of(part)[1].split(b",")[1].decode()

    for words in (("report",), ("view", "clips", key), ("why", "clips", key)):
        done = shell.run(*words, "--stream", "chzzk", "--at", "2001-01-01")
        assert (done.code, "as of 2001-01-01T00:00:00Z" in done.err) == (1, True), done


def test_checkpoints_without_an_archive_have_no_place(shell: Shell, part: Path) -> None:
    """The missing setting is named before half the work is done."""
    consumed(shell, part, "chzzk", "clips")
    done = shell.run("checkpoint", "clips")
    assert (done.code, "Set AURASTREAM_ARCHIVE" in done.err) == (1, True)


# Why.


def test_why_of_the_real_slice_lists_every_row_of_the_file(shell: Shell) -> None:
    """An explanation that leaves an event out explains another number."""
    consumed(shell, SLICE_FILE)
    rows = [row.decode().rstrip("\n").split(",") for row in lines_of(SLICE_FILE)[1:]]
    assert len(rows) == SLICE_ROWS
    key = max({row[1] for row in rows}, key=lambda name: sum(row[1] == name for row in rows))
    looks = [(row[0], int(row[2])) for row in rows if row[1] == key]

    found = shell.run("why", "clips", key, "--stream", "chzzk", "--json").json()

    assert (found["agrees"], found["events"], found["read"], found["scanned"]) == (
        True,
        len(looks),
        len(looks),
        0,
    )
    assert [step["occurred_at"] for step in found["steps"]] == [at for at, _ in looks]
    views = [
        look
        for look, before in zip(looks, [None, *looks], strict=False)
        if before is None or look[1] != before[1]
    ]
    assert [step["changed"]["views"]["after"] for step in found["steps"] if "views" in step["changed"]] == [
        count for _, count in views
    ]
    assert found["value"]["views"] == looks[-1][1] == found["stored"]["views"]
    last = shell.run("why", "clips", key, "--stream", "chzzk", "--last", 3)
    assert (last.code, f"(3 of {len(looks):,} events)" in last.out, "the view says the same" in last.out) == (
        0,
        True,
        True,
    )


def test_why_says_where_the_view_and_the_log_disagree(
    shell: Shell, part: Path, one_server: ServerProcess
) -> None:
    """It is the one place where a person looks at a wrong number first."""
    consumed(shell, part)
    key = lines_of(part)[1].split(b",")[1].decode()
    server = Server(one_server.url)
    (table,) = [
        name for name in server.client.keys("*:view:clips:1:clips") if server.client.hexists(name, key)
    ]
    server.client.hset(
        table, key, server.client.hget(table, key).replace(b'"observations":', b'"observations":9')
    )
    server.close()

    done = shell.run("why", "clips", key, "--stream", "chzzk")

    assert (done.code, "the view and the log disagree" in done.out) == (1, True)
