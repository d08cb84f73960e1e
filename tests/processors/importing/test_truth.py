"""
Truth: the report of an import equals answers that programs of others computed from the file alone, whatever
happened on the way.

The slice that ships with the product is always at hand; the larger files may be absent, and their tests are
then named as skipped.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aurastream.processors.commands.slice import SLICE
from aurastream.processors.history.report import final_state
from aurastream.processors.importing.formats import FileRow, find_formats, read_rows
from aurastream.processors.importing.importer import observation
from aurastream.projections import MemoryView, View
from aurastream.projections.built_in import Clip, Clips
from aurastream.projections.built_in.imports import Imports
from aurastream.projections.built_in.trail import Trail
from aurastream.streams import Server
from tests.conftest import SHARED
from tests.processors.importing.imports import (
    SLICE_FILE,
    SLICE_ROWS,
    Shell,
    assert_answers,
    computed_answers,
    import_here,
    lines_of,
    report_here,
    seed_of_this_run,
    slice_answers,
    streams_of,
    unequal,
    youtube_file,
)
from tests.servers import ServerProcess, until

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def server(one_server: ServerProcess) -> Iterator[Server]:
    server = Server(one_server.url)
    server.client.flushall()
    yield server
    server.close()


@pytest.fixture
def shell(nursery: Any, server: Server, one_server: ServerProcess, tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(nursery, one_server.url, tmp_path)
    yield shell
    shell.close()


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """The slice's first 3,000 rows: looks at 170 broadcasts on 20 days, for what would take long on all of
    them.
    """
    path = tmp_path / "part.csv"
    path.write_bytes(b"".join(lines_of(SLICE_FILE)[:3_001]))
    return path


def shared(name: str) -> Path:
    """A file of the full data, or a skip that names it."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"../shared/data/{name} is not here")
    return path


def shared_answers(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shared(f"expected/{name}.json").read_text())
    return found


# The answers.


def test_the_slice_gives_its_answers(shell: Shell, server: Server) -> None:
    """The shipped data have answers that were worked out without us."""
    done = shell.run(
        "import", SLICE_FILE, "--format", "chzzk", "--metadata", SLICE / "chzzk_vods.csv.gz", "--json"
    ).json()

    assert (done["rows"], done["appended"], done["rejected"], done["finished"]) == (
        SLICE_ROWS,
        SLICE_ROWS,
        0,
        True,
    )
    assert_answers(shell.report("chzzk"), slice_answers())
    assert shell.run("check").code == 0


def test_the_slice_s_answers_are_those_its_program_computes() -> None:
    """The expected file must not be edited until a test passes."""
    assert (
        computed_answers(SLICE_FILE, "chzzk", first_wins=False, as_of=["2026-07-01T00:00:00Z"])
        == slice_answers()
    )


@pytest.mark.parametrize(
    ("file", "form", "name", "other_than"),
    [
        ("youtube_trending_us_2017_11.csv.gz", "youtube-2017-11", "youtube_us_2017_11", ()),
        # Seven videos are twice on one day. The file's sums take the larger count of the two, ours the first:
        # the definition knows both rules and names the state of ours final_state_first_row_wins. The same
        # three fields are computed for our rule below.
        (
            "youtube_trending_us_2017_09.csv.gz",
            "youtube-2017-09",
            "youtube_us_2017_09",
            ("final_state", "sum_positive_delta", "days"),
        ),
        pytest.param("chzzk_vod_views.csv.gz", "chzzk", "chzzk", (), marks=pytest.mark.full_data),
    ],
)
def test_the_full_data_gives_the_answers_of_two_independent_programs(
    shell: Shell, file: str, form: str, name: str, other_than: tuple[str, ...]
) -> None:
    """Two programs in two languages agree; so must we, on every quantity."""
    path, expected = shared(file), shared_answers(name)

    done = shell.run("import", path, "--format", form, "--json").json()

    content = shell.report(form, "clips", "imports")
    assert (done["rows"], done["rejected"]) == (expected["rows"], expected["rejected_rows"])
    assert_answers(content, expected, other_than=other_than)
    if other_than:
        by_our_rule = computed_answers(path, expected["dataset"], first_wins=True)
        assert (
            computed_answers(path, expected["dataset"], first_wins=False, as_of=list(expected["as_of"]))
            == expected
        )
        assert_answers(content, by_our_rule)
        assert {field for field in content if by_our_rule[field] != expected[field]} == set(other_than)


@pytest.mark.parametrize(
    ("file", "form", "name"),
    [
        ("", "chzzk", ""),
        ("youtube_trending_us_2017_11.csv.gz", "youtube-2017-11", "youtube_us_2017_11"),
        ("youtube_trending_us_2017_09.csv.gz", "youtube-2017-09", "youtube_us_2017_09"),
        pytest.param("chzzk_vod_views.csv.gz", "chzzk", "chzzk", marks=pytest.mark.full_data),
    ],
    ids=["slice", "youtube_us_2017_11", "youtube_us_2017_09", "chzzk"],
)
def test_a_replay_up_to_an_instant_gives_the_state_of_that_instant(file: str, form: str, name: str) -> None:
    """as_of, which no report gives: the same fold, ended earlier."""
    path, expected = (shared(file), shared_answers(name)) if file else (SLICE_FILE, slice_answers())
    if name == "youtube_us_2017_09":  # two looks on one day: theirs takes the larger one, ours the first
        expected = computed_answers(path, "yt09", first_wins=True, as_of=list(expected["as_of"]))
    view = MemoryView(Clips())
    events = [
        observation(row, "f") for row in read_rows(path, find_formats()[form]) if isinstance(row, FileRow)
    ]
    done = 0

    for at in sorted(expected["as_of"]):
        end = next(
            (n for n in range(done, len(events)) if events[n].occurred_at > datetime.fromisoformat(at)),
            len(events),
        )
        view.take(events[done:end])
        done = end
        states = {key: msgspec.json.decode(raw, type=Clip) for key, raw in view.tables["clips"].items()}
        assert final_state(states) == expected["as_of"][at]


def test_the_damaged_sample_gives_the_rejects_of_two_independent_programs(
    shell: Shell, server: Server
) -> None:
    """What counts as damaged is a rule, not a habit of our parser."""
    path, expected = shared("youtube_trending_us_damaged_sample.csv"), shared_answers("damaged_sample")

    done = shell.run(
        "import", path, "--format", "youtube-2017-09", "--rejects", "refused.jsonl", "--json"
    ).json()

    content = shell.report("youtube-2017-09")
    rejects = [json.loads(line) for line in (shell.directory / "refused.jsonl").read_text().splitlines()]
    listed = (
        View(streams_of(server, "youtube-2017-09")[1], Imports())
        .listing("rejects", f"youtube-2017-09:{path.name}")
        .rows
    )
    assert [{"row": item["row"], "reject": item["columns"]} for item in rejects] == expected["rejects"]
    assert [
        {"row": item["row"], "reject": item["columns"]} for items in listed.values() for item in items
    ] == expected["rejects"]
    assert all(
        item["text"] and all(f"{column}: '" in item["reason"] for column in item["columns"])
        for item in rejects
    )
    assert (done["rows"], done["appended"], done["rejected"], done["rejects_file"]) == (
        40,
        8,
        32,
        "refused.jsonl",
    )
    assert {name: content[name] for name in ("rows", "valid_rows", "rejected_rows", "file_sha256")} == {
        name: expected[name] for name in ("rows", "valid_rows", "rejected_rows", "file_sha256")
    }


@pytest.mark.parametrize("nth", range(3))
def test_any_file_gives_the_answers_computed_from_it_alone(server: Server, tmp_path: Path, nth: int) -> None:
    """Ties, falls, gaps, changed categories, rejects, cells of two lines: at random, as no real file has all
    of them.
    """
    path = tmp_path / "trending.csv"
    youtube_file(path, random.Random(seed_of_this_run() + nth), 900)

    import_here(server, path, "youtube-2017-09", batch=97)

    expected = computed_answers(path, "yt09", first_wins=True)
    assert min(expected["ties_collapsed"], expected["decreasing_pairs"], expected["rejected_rows"]) > 5
    assert_answers(report_here(server, "youtube-2017-09", batch_max=83), expected)
    assert unequal(server, "youtube-2017-09") == []


def test_clips_that_only_fall_are_ranked_as_the_definition_says(server: Server, tmp_path: Path) -> None:
    """Definition 5: in max_velocity the fastest pair may be a fall and keeps its sign; in last_velocity a
    fall counts as 0.
    """
    path = tmp_path / "falling.csv"
    rows = [
        f"{n:011d},{day:02d}.09,t,c,1,{100_000 - day * (n * 7 % 5 + 1)},0,0,0\n"
        for day in (1, 2, 4)
        for n in range(8)
    ]
    path.write_text(
        "video_id,date,title,channel_title,category_id,views,likes,dislikes,comment_total\n" + "".join(rows)
    )

    import_here(server, path, "youtube-2017-09")

    expected = computed_answers(path, "yt09", first_wins=True)
    assert expected["top20_max_velocity"][-1]["delta"] < 0
    assert_answers(report_here(server, "youtube-2017-09"), expected)


# Whatever happened on the way.


def test_an_import_run_twice_changes_nothing(shell: Shell, server: Server) -> None:
    """Exactly once begins at the door."""
    first = shell.run("import", SLICE_FILE, "--format", "chzzk", "--json").json()
    shell.report("chzzk")
    second = shell.run("import", SLICE_FILE, "--format", "chzzk", "--batch", 777, "--json").json()

    assert (first["appended"], first["duplicates"]) == (SLICE_ROWS, 0)
    assert (second["appended"], second["duplicates"]) == (0, SLICE_ROWS)
    assert entries(server, "chzzk") == SLICE_ROWS
    assert entries(server, "imports") == 1
    assert_answers(shell.report("chzzk"), slice_answers())


@pytest.mark.slow
def test_two_imports_and_two_consumers_at_once_count_each_row_once(shell: Shell, server: Server) -> None:
    """Four processes. Of the importers each is held up once, so that each overtakes the other."""
    importers = [
        shell.start("import", SLICE_FILE, "--format", "chzzk", "--batch", size, "--json")
        for size in (300, 411)
    ]
    os.kill(importers[0].pid, signal.SIGSTOP)
    until(lambda: entries(server, "chzzk") >= 8_000, "the second one's rows")
    consumers = [shell.start("run", "--until-idle", batch_max=100) for _ in range(2)]
    os.kill(importers[1].pid, signal.SIGSTOP)
    os.kill(importers[0].pid, signal.SIGCONT)
    until(lambda: entries(server, "chzzk") >= 16_000, "the first one's rows")
    os.kill(importers[1].pid, signal.SIGCONT)

    done = [importer.json() for importer in importers]
    assert [importer.wait() for importer in importers] == [0, 0]
    assert [consumer.wait() for consumer in consumers] == [0, 0]

    assert sum(item["appended"] for item in done) == SLICE_ROWS == sum(item["duplicates"] for item in done)
    assert min(item["appended"] for item in done) > 5_000
    assert (entries(server, "chzzk"), entries(server, "imports")) == (SLICE_ROWS, 1)
    assert_answers(shell.report("chzzk"), slice_answers())
    assert shell.run("check").code == 0


@pytest.mark.slow
def test_a_consumer_killed_twenty_times_at_random_tells_the_truth(shell: Shell, server: Server) -> None:
    """kill -9 of `aurastream run`, in the middle of its batches; what the next one does is what a crash
    leaves it.
    """
    dice = random.Random(seed_of_this_run())
    shell.run("import", SLICE_FILE, "--format", "chzzk")
    stream, _ = streams_of(server, "chzzk")
    views = [View(stream, Clips()), View(stream, Trail())]

    def read() -> int:
        return sum(cursor.read for view in views for cursor in view.cursors().values())

    for nth in range(20):
        goal = read() + dice.randrange(1, 2 * SLICE_ROWS // 25)
        killed = shell.start("run", batch_max=dice.choice([7, 60, 400]), lease_ms=300)
        until(lambda goal=goal: read() >= goal, f"progress before kill {nth + 1}")
        assert killed.signal(signal.SIGKILL) == -signal.SIGKILL

    assert 0 < read() < 2 * SLICE_ROWS, "the kills came too late"
    assert_answers(shell.report("chzzk"), slice_answers())
    assert shell.run("check").code == 0


@pytest.mark.parametrize("batch", [1, 7, 1_000])
def test_batches_of_any_size_give_the_same_report(server: Server, part: Path, batch: int) -> None:
    """A setting for speed must not be one for numbers."""
    import_here(server, part, "chzzk", batch=batch)

    content = report_here(server, "chzzk", batch_max=batch)

    assert_answers(content, computed_answers(part, "chzzk", first_wins=True))
    assert unequal(server, "chzzk") == []


@pytest.mark.slow
@pytest.mark.parametrize("batch", [7, 1_000])
def test_the_whole_slice_in_batches_of_any_size_gives_its_answers(server: Server, batch: int) -> None:
    """The same, for all of the data and against the answers."""
    import_here(server, SLICE_FILE, "chzzk", batch=batch)

    assert_answers(report_here(server, "chzzk", batch_max=batch), slice_answers())


@pytest.mark.parametrize("when", ["before it is consumed", "after it was consumed", "before the import"])
def test_raw_copies_of_entries_count_once(server: Server, part: Path, when: str) -> None:
    """XADD by someone who knows nothing of the index: a mirror, a repair by hand, an old producer."""
    dice = random.Random(seed_of_this_run())
    import_here(server, part, "chzzk", batch=500)
    stream, imports = streams_of(server, "chzzk")
    logs = [keys.log for keys in (*stream.keys, *imports.keys)]
    copies = [
        (log, fields)
        for log in logs
        for _, fields in server.client.xrange(log)
        for _ in range(dice.choice([0, 1, 2]))
    ]
    if when == "before the import":
        server.client.flushall()
        stream.close()
        imports.close()
    elif when == "after it was consumed":
        report_here(server, "chzzk")
    else:
        dice.shuffle(copies)

    with server.client.pipeline(transaction=False) as pipeline:
        for log, fields in copies:
            pipeline.xadd(log, fields)
        pipeline.execute()
    import_here(server, part, "chzzk", batch=500)

    assert len(copies) > 2_000
    assert_answers(
        report_here(server, "chzzk", batch_max=300), computed_answers(part, "chzzk", first_wins=True)
    )
    assert sum(server.client.xlen(keys.log) for keys in stream.keys) == 3_000 + sum(
        log in logs[: stream.partitions] for log, _ in copies
    )
    assert unequal(server, "chzzk") == []


# These tests can fail.


@pytest.mark.parametrize("damage", ["a row lost", "a row twice", "a row of another value", "a row refused"])
def test_one_row_of_thousands_would_be_noticed(
    server: Server, part: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """The mutation check of this file."""
    rows = list(read_rows(part, find_formats()["chzzk"]))
    nth = random.Random(seed_of_this_run()).randrange(1_000, 2_000)
    row = rows[nth]
    assert isinstance(row, FileRow)
    if damage == "a row lost":
        del rows[nth]
    elif damage == "a row twice":
        rows.append(msgspec.structs.replace(row, number=3_001))
    elif damage == "a row of another value":
        rows[nth] = msgspec.structs.replace(row, views=row.views + 1)
    else:
        monkeypatch.setattr("aurastream.processors.importing.importer.EPOCH", row.observed_at)
        rows[nth] = msgspec.structs.replace(row, observed_at=datetime.fromisoformat("2999-01-01T00:00:00Z"))
    monkeypatch.setattr("aurastream.processors.importing.importer.read_rows", lambda *_: iter(rows))
    import_here(server, part, "chzzk")

    with pytest.raises(AssertionError):
        assert_answers(report_here(server, "chzzk"), computed_answers(part, "chzzk", first_wins=True))


def entries(server: Server, name: str) -> int:
    """How many entries the stream's logs have."""
    return sum(server.client.xlen(f"aura:{{{name}.{partition}}}:log") for partition in range(4))
