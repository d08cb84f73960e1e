"""
The importer: a file's rows are events with IDs of their own, once, in order, and what is refused is named.

On every server; what a command line makes of it is in test_bad_input.py, whether the numbers are right in
test_truth.py.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import signal
import subprocess
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurastream.processors.importing.formats import (
    FileRow,
    FormatError,
    Metadata,
    Reject,
    find_formats,
    read_metadata,
    read_rows,
)
from aurastream.processors.importing.importer import NAME_MAX, Imported, ImportOptions, file_id, import_file
from aurastream.projections import View
from aurastream.projections.built_in.imports import Imports
from aurastream.streams import (
    IMPORTS,
    ClipViewsObserved,
    Event,
    ImportFinished,
    ImportRowRejected,
    Server,
    Stream,
)
from aurastream.streams.events import IDENTIFIER
from aurastream.streams.keys import CREATORS
from tests.facts import consume, dump
from tests.processors.importing.imports import (
    CHZZK,
    SLICE_FILE,
    SLICE_ROWS,
    YOUTUBE,
    Shell,
    assert_answers,
    import_here,
    parsed,
    seed_of_this_run,
    slice_answers,
    streams_of,
)
from tests.servers import until


@pytest.fixture
def shell(nursery: Any, server: Server, url: str, tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(nursery, url, tmp_path)
    yield shell
    shell.close()


def events_of(stream: Stream) -> list[Event]:
    """All of a stream, partition by partition."""
    return [entry.event for partition in range(stream.partitions) for entry in stream.read(partition)]


def observations(server: Server, form: str = "chzzk") -> dict[str, ClipViewsObserved]:
    """By event ID, opened; the creator, a pseudonym, is left out."""
    stream = streams_of(server, form)[0]
    found = [stream.keyring.open_event(event) for event in events_of(stream)]
    return {
        event.event_id: msgspec.structs.replace(event, creator="")
        for event in found
        if isinstance(event, ClipViewsObserved)
    }


def said_of_imports(server: Server, kind: type[Event]) -> list[Any]:
    return [event for event in events_of(streams_of(server, "chzzk")[1]) if isinstance(event, kind)]


def written(path: Path, text: str) -> Path:
    path.write_text(text, newline="")
    return path


def chzzk_rows(count: int, first: int = 0) -> str:
    """Looks at three broadcasts, a minute apart."""
    start = datetime(2026, 4, 15, tzinfo=UTC)
    rows = [
        f"{start + timedelta(minutes=n):%Y-%m-%dT%H:%M:%SZ},{n % 3 + 1},{n},talk\n"
        for n in range(first, first + count)
    ]
    return "".join(rows)


# Names of files.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chzzk_vod_views.csv.gz", "chzzk_vod_views.csv.gz"),
        ("views of May.csv", "views:20of:20May.csv"),
        ("{a}:b.csv", ":7Ba:7D:3Ab.csv"),
        ("조회수.csv", ":EC:A1:B0:ED:9A:8C:EC:88:98.csv"),
        ("line\nbreak\x1b.csv", "line:0Abreak:1B.csv"),
        (os.fsdecode(b"latin-\xe9.csv"), "latin-:E9.csv"),
        ("x" * 100, "x" * 100),
    ],
)
def test_a_file_s_name_in_event_ids_is_legal_and_readable(name: str, expected: str) -> None:
    """People find a row by its event ID; the alphabet of IDs is narrower than that of names."""
    assert file_id(Path(name)) == expected


@given(
    st.lists(
        st.text(min_size=1, max_size=130).filter(lambda name: "/" not in name and name not in {".", ".."}),
        unique=True,
        max_size=6,
    )
)
@pytest.mark.slow
def test_names_that_differ_have_ids_that_differ(names: list[str]) -> None:
    """Two files of one ID would be one another's duplicates: rows lost without a word."""
    paths = [
        Path("directory", name)
        for name in names
        if "\0" not in name and not any("\ud800" <= char <= "\udfff" for char in name)
    ]
    ids = [file_id(path) for path in paths]

    assert len(set(ids)) == len(ids)
    assert all(len(found) <= NAME_MAX and IDENTIFIER.fullmatch(f"{found}:9007199254740991") for found in ids)


def test_long_names_that_end_alike_or_begin_alike_differ() -> None:
    """Two files under one ID would lose the second one's rows as duplicates."""
    ids = {file_id(Path(name)) for name in ("a" * 200 + "b", "a" * 201, "b" + "a" * 200, "é" * 60, "é" * 61)}
    assert len(ids) == 5


# Rows become events.


def test_rows_become_events_with_the_file_s_name_and_the_row_s_number(server: Server, tmp_path: Path) -> None:
    """That ID is what makes an import repeatable."""
    path = written(
        tmp_path / "views of May.csv",
        CHZZK + "2026-04-15T12:00:00+09:00,12766257,1200,저스트 채팅\n2026-04-16T00:00:00Z,7,0,\n",
    )
    known = {"12766257": Metadata("a title", "a channel", datetime(2026, 4, 1, tzinfo=UTC))}

    done = import_here(server, path, "chzzk", metadata=known)

    first, second = (
        observations(server)["views:20of:20May.csv:1"],
        observations(server)["views:20of:20May.csv:2"],
    )
    assert first == ClipViewsObserved(
        event_id="views:20of:20May.csv:1",
        subject="12766257",
        occurred_at=datetime(2026, 4, 15, 3, tzinfo=UTC),
        source="import",
        views=1200,
        category="저스트 채팅",
        title="a title",
        channel="a channel",
        created_at=datetime(2026, 4, 1, tzinfo=UTC),
    )
    assert (second.subject, second.views, second.title, second.created_at) == ("7", 0, "", None)
    assert (done.rows, done.appended, done.duplicates, done.rejected, done.rejects_file, done.finished) == (
        2,
        2,
        0,
        0,
        None,
        True,
    )
    assert not list(tmp_path.glob("*.jsonl*")), "a rejects file without rejects"


def test_a_row_names_its_creator_and_its_texts_are_sealed(server: Server, tmp_path: Path) -> None:
    """Whoever imports wants to be able to erase; the file's channel is the name to erase by."""
    rows = "".join(
        f"{n:011d},13.09,{title},Some Channel,22,5,1,1,1\n"
        for n, title in enumerate(("hers", "sealed:1:forged", "sealed: a box"))
    )
    path = written(tmp_path / "f.csv", YOUTUBE + rows)

    done = import_here(server, path, "youtube-2017-09", rejects_path=tmp_path / "r.jsonl")

    events: list[Any] = events_of(streams_of(server, "youtube-2017-09")[0])
    assert {event.creator for event in events} == {server.client.hget(CREATORS, "Some Channel").decode()}
    assert all(
        event.title.startswith("sealed:1:") and event.channel.startswith("sealed:1:") for event in events
    )
    assert sorted(event.title for event in observations(server, "youtube-2017-09").values()) == [
        "hers",
        "sealed: a box",
    ]
    assert (done.appended, done.rejected) == (2, 1), (
        "and a title that looks sealed costs its row, not its batch"
    )
    assert "begins as a sealed text does" in (tmp_path / "r.jsonl").read_text()


def test_metadata_comes_from_its_file(server: Server, tmp_path: Path) -> None:
    """Titles and channels are in another file, and none may end at another clip."""
    rows = [
        row
        for row in read_rows(
            SLICE_FILE, find_formats()["chzzk"], read_metadata(SLICE_FILE.with_name("chzzk_vods.csv.gz"))
        )
        if isinstance(row, FileRow)
    ]
    assert len(rows) == SLICE_ROWS
    assert all(row.title and row.channel and row.created_at for row in rows)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (b"1,t,2026-04-31,5,m,1,u\n", "data row 1 is no day"),
        (b"1,t,2026-04-30,5,m,1\n", "data row 1 has 6 cells"),
        (b"1,\xff,2026-04-30,5,m,1,u\n", "data row 1 cannot be read: it is not UTF-8"),
        (b'1,"t,2026-04-30,5,m,1,u\n', "data row 1 cannot be read: a quote is never closed"),
    ],
)
def test_metadata_that_cannot_be_read_names_its_row(tmp_path: Path, row: bytes, said: str) -> None:
    """It is refused whole: rows imported with half of it would be facts with holes."""
    path = tmp_path / "vods.csv"
    path.write_bytes(b"video_no,title,date,duration_min,member_id,generation,unit\n" + row)

    with pytest.raises(FormatError, match=re.escape(said)):
        read_metadata(path)


def test_texts_longer_than_an_event_holds_are_cut(server: Server, tmp_path: Path) -> None:
    """One long title must not refuse a batch of two thousand rows."""
    path = written(
        tmp_path / "long.csv", YOUTUBE + f"00000-video,13.09,{'t' * 3000},{'é' * 3000},{'c' * 3000},5,1,1,1\n"
    )

    import_here(server, path, "youtube-2017-09")

    (event,) = observations(server, "youtube-2017-09").values()
    assert (event.title, event.channel, event.category) == ("t" * 1000, "é" * 1000, "c" * 1000)


def test_events_of_a_subject_stand_in_the_order_of_the_file(server: Server, tmp_path: Path) -> None:
    """Velocities are differences of neighbours."""
    path = written(tmp_path / "f.csv", CHZZK + chzzk_rows(300))

    import_here(server, path, "chzzk", batch=7)

    for subject in "123":
        assert [event.views for event in observations(server).values() if event.subject == subject] == list(
            range(int(subject) - 1, 300, 3)
        )


def test_progress_is_told_after_every_batch(server: Server, tmp_path: Path) -> None:
    """A person who watches must see that it goes on."""
    told: list[int] = []
    path = written(tmp_path / "f.csv", CHZZK + chzzk_rows(10))

    import_here(server, path, "chzzk", batch=4, progress=lambda done: told.append(done.rows))

    assert told == [4, 8, 10]


@pytest.mark.slow
def test_gzip_is_read_as_a_stream(tmp_path: Path) -> None:
    """7 MiB of rows in little memory."""
    path = tmp_path / "f.csv.gz"
    line = f"2026-04-15T00:00:00Z,1,5,{'talk' * 50}\n"
    path.write_bytes(gzip.compress((CHZZK + line * 30_000).encode(), compresslevel=1))

    tracemalloc.start()
    try:
        rows = sum(1 for _ in read_rows(path, find_formats()["chzzk"]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert rows == 30_000
    assert peak < 2 * 2**20


# Refused rows.


def test_refused_rows_are_named_by_number_columns_and_reason_and_nothing_else_is_lost(
    server: Server, tmp_path: Path
) -> None:
    """A row left out silently is a wrong sum."""
    path = written(
        tmp_path / "f.csv",
        CHZZK + chzzk_rows(2) + "yesterday,x,-1,a\n" + chzzk_rows(2, 2) + "1,2\n" + chzzk_rows(1, 4),
    )

    done = import_here(server, path, "chzzk", batch=2)

    rejects = [json.loads(line) for line in (tmp_path / "f.csv.rejects.jsonl").read_text().splitlines()]
    assert rejects == [
        {
            "row": 3,
            "columns": ["observed_at", "video_no", "view_count"],
            "reason": "observed_at: 'yesterday' is no instant with an offset; video_no: 'x' is not decimal; "
            "view_count: '-1' is no count below 2^53",
            "text": "yesterday,x,-1,a",
        },
        {"row": 6, "columns": ["row"], "reason": "row: 2 cells, the header has 4", "text": "1,2"},
    ]
    assert [
        (event.event_id, event.subject, event.row, list(event.columns), event.reason)
        for event in said_of_imports(server, ImportRowRejected)
    ] == [
        (f"chzzk:f.csv:{item['row']}", "chzzk:f.csv", item["row"], item["columns"], item["reason"])
        for item in rejects
    ]
    assert sorted(observations(server)) == [f"f.csv:{number}" for number in (1, 2, 4, 5, 7)]
    assert (done.rows, done.appended, done.rejected) == (7, 5, 2)
    assert done.rejects_file == str(tmp_path / "f.csv.rejects.jsonl")


def test_rejects_are_the_same_at_every_import(server: Server, tmp_path: Path) -> None:
    """They are events, and a repeat must not make new ones."""
    path = written(tmp_path / "f.csv", CHZZK + chzzk_rows(3) + "x\n")
    import_here(server, path, "chzzk")
    before, told = dump(server), (tmp_path / "f.csv.rejects.jsonl").read_bytes()

    done = import_here(server, path, "chzzk")

    counts = {key for key in dump(server) if dump(server)[key] != before.get(key)}
    assert (done.appended, done.duplicates, done.rejected) == (0, 3, 1)
    assert all(key.endswith(b":meta") for key in counts), "only the count of repeats moves"
    assert (tmp_path / "f.csv.rejects.jsonl").read_bytes() == told


def test_a_row_from_the_future_is_refused_alone(server: Server, tmp_path: Path) -> None:
    """Append refuses a whole batch for it; the other rows of the batch are facts."""
    path = written(
        tmp_path / "f.csv", CHZZK + chzzk_rows(2) + "2999-01-01T00:00:00Z,1,5,x\n" + chzzk_rows(2, 2)
    )

    done = import_here(server, path, "chzzk")

    (reject,) = said_of_imports(server, ImportRowRejected)
    assert (reject.row, reject.reason) == (3, "row: observed 2999-01-01T00:00:00+00:00, more than 24 h ahead")
    assert (done.appended, done.rejected, done.finished) == (4, 1, True)


def test_an_instant_outside_the_calendar_is_refused_alone(server: Server) -> None:
    """Its offset moves it out of the years 1 to 9999, which Python says with OverflowError."""
    rows = parsed(
        (
            CHZZK + "0001-01-01T00:00:00+23:59,1,5,x\n9999-12-31T23:59:59-01:00,1,5,x\n" + chzzk_rows(1)
        ).encode()
    )
    assert [type(row) for row in rows] == [Reject, Reject, FileRow]


def test_a_rejects_file_that_cannot_be_written_is_a_sentence(server: Server, tmp_path: Path) -> None:
    """The remedy is another --rejects, and a repeat counts nothing twice."""
    path = written(tmp_path / "f.csv", CHZZK + "x\n" + chzzk_rows(1))

    with pytest.raises(
        FormatError, match=r"cannot be written \(No such file or directory\)\. Name another with --rejects"
    ):
        import_here(server, path, "chzzk", rejects_path=tmp_path / "nowhere" / "rejects.jsonl")

    assert import_here(server, path, "chzzk").appended == 1


# The end of the file.


def test_an_import_finishes_once(server: Server, tmp_path: Path) -> None:
    """Its end is a fact that reports sum over."""
    path = written(tmp_path / "f.csv", CHZZK + chzzk_rows(5) + "x\n")

    first = import_here(server, path, "chzzk")
    import_here(server, path, "chzzk", batch=2)

    (finished,) = said_of_imports(server, ImportFinished)
    assert (
        finished.subject,
        finished.stream,
        finished.format,
        finished.rows,
        finished.valid_rows,
        finished.rejected_rows,
    ) == ("chzzk:f.csv", "chzzk", "chzzk", 6, 5, 1)
    assert finished.file_sha256 == first.file_sha256
    assert finished.occurred_at == datetime(2026, 4, 15, 0, 4, tzinfo=UTC)
    imports = streams_of(server, "chzzk")[1]
    consume(server, imports, Imports())
    state = View(imports, Imports()).state("chzzk:f.csv")
    assert (state.rows, state.valid_rows, state.rejected, state.finishes) == (6, 5, 1, 1)


def test_many_imports_at_once_are_one(server: Server, tmp_path: Path) -> None:
    """Eight threads, each with a connection of its own."""
    path = written(tmp_path / "f.csv", CHZZK + chzzk_rows(200) + "x\n" + chzzk_rows(200, 200))

    def one(nth: int) -> Imported:
        with_own = Server(os.environ["AURASTREAM_REDIS_URL"])
        stream, imports = streams_of(with_own, "chzzk")
        return import_file(
            path,
            find_formats()["chzzk"],
            stream,
            imports,
            ImportOptions(batch=nth + 3, rejects_path=tmp_path / f"rejects-{nth}"),
        )

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(one, range(8)))

    assert sum(item.appended for item in done) == 400
    assert all(item.appended + item.duplicates == 400 for item in done)
    assert {item.rejected for item in done} == {1}
    assert (
        len(said_of_imports(server, ImportRowRejected)) == len(said_of_imports(server, ImportFinished)) == 1
    )
    for subject in "123":
        views = [event.views for event in observations(server).values() if event.subject == subject]
        assert views == sorted(views), "file order is lost"


def test_a_file_that_changed_under_its_name_is_refused_before_its_first_row(
    server: Server, tmp_path: Path
) -> None:
    """Its row numbers would stand for other facts."""
    path = written(tmp_path / "f.csv", CHZZK + chzzk_rows(5))
    import_here(server, path, "chzzk")
    before = dump(server)

    written(path, CHZZK + chzzk_rows(6, 1))
    with pytest.raises(
        FormatError, match=r"imported before with other content .* give the new content a name of its own"
    ):
        import_here(server, path, "chzzk")

    assert dump(server) == before
    assert import_here(server, path.rename(tmp_path / "g.csv"), "chzzk").appended == 6


@pytest.mark.slow
def test_an_import_killed_at_random_is_resumed_by_starting_it_again(shell: Shell, server: Server) -> None:
    """kill -9 in the middle of its batches, twelve times; what it says of itself is whole as well."""
    dice = random.Random(seed_of_this_run())

    def entries() -> int:
        return sum(server.client.xlen(f"aura:{{chzzk.{partition}}}:log") for partition in range(4))

    for nth in range(12):
        goal = entries() + dice.randrange(1, SLICE_ROWS // 13)
        killed = shell.start(
            "import", SLICE_FILE, "--format", "chzzk", "--batch", dice.choice([50, 333, 500])
        )
        until(lambda goal=goal: entries() >= goal, f"progress before kill {nth + 1}")
        assert killed.signal(signal.SIGKILL) == -signal.SIGKILL
    kept = entries()
    assert 0 < kept < SLICE_ROWS, "the kills came too late"
    assert not server.client.exists(*(f"aura:{{{IMPORTS}.{partition}}}:log" for partition in range(4)))

    done = shell.run("import", SLICE_FILE, "--format", "chzzk", "--json").json()

    assert (done["appended"], done["duplicates"]) == (SLICE_ROWS - kept, kept)
    assert_answers(shell.report("chzzk", "clips", "imports"), slice_answers())


def test_a_pipe_is_refused_and_not_waited_for(server: Server, tmp_path: Path) -> None:
    """An import reads its file twice, first for the digest; a pipe gives its content once, or never."""
    pipe = tmp_path / "pipe.csv"
    subprocess.run(["mkfifo", str(pipe)], check=True)

    with pytest.raises(FormatError, match="no regular file"):
        import_here(server, pipe, "chzzk")
