"""What the tests of imports share: commands on a server, the way from a file to its report, and files made
for a test.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import json
import os
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from aurastream.processors.commands.slice import SLICE
from aurastream.processors.history.report import report
from aurastream.processors.importing.formats import FileRow, Reject, find_formats, read_rows
from aurastream.processors.importing.importer import Imported, ImportOptions, import_file
from aurastream.projections import Consumer, check
from aurastream.projections.built_in.clips import Clips
from aurastream.projections.built_in.imports import Imports
from aurastream.streams import IMPORTS, Server, Settings, Stream, open_stream
from tests.commands import Done, Home, Nursery, Running

SLICE_FILE = SLICE / "chzzk_vod_views.csv.gz"
SLICE_ROWS = 25_872
COMMAND_MAX_S = 300.0  # half a million rows on a busy machine
CHZZK = "observed_at,video_no,view_count,category\n"
YOUTUBE = "video_id,date,title,channel_title,category_id,views,likes,dislikes,comment_total\n"


def seed_of_this_run() -> int:
    """AURASTREAM_TEST_SEED, or a new one; printed."""
    seed = int(os.environ.get("AURASTREAM_TEST_SEED", random.randrange(10**6)))
    print(f"AURASTREAM_TEST_SEED={seed}")
    return seed


class Shell:
    """Commands on one server, in a directory of their own."""

    def __init__(self, nursery: Nursery, url: str, directory: Path) -> None:
        self.directory, self.url = directory, url
        self._home = Home(nursery, directory / "home")

    def start(self, *arguments: object, stdin: bytes | str = b"", **settings: object) -> Running:
        """Start it; settings: AURASTREAM_ variables without that."""
        env = {"AURASTREAM_REDIS_URL": self.url} | {
            f"AURASTREAM_{name.upper()}": str(value) for name, value in settings.items()
        }
        running = self._home.start(*map(str, arguments), stdin=stdin, cwd=self.directory, env=env)
        running._connection.settimeout(COMMAND_MAX_S)
        return running

    def run(self, *arguments: object, stdin: bytes | str = b"", **settings: object) -> Done:
        """Its end; what it says is never a traceback."""
        running = self.start(*arguments, stdin=stdin, **settings)
        done = Done(running.wait(), running.out, running.err)
        assert "Traceback" not in done.err, done
        return done

    def report(self, stream: str, *projections: str, **settings: object) -> dict[str, Any]:
        """Consume all there is (by these projections; none: by all) and report."""
        chosen = [word for name in projections for word in ("--projection", name)]
        assert self.run("run", "--until-idle", *chosen, **settings).code == 0
        content: dict[str, Any] = self.run("report", "--stream", stream, "--json").json()
        return content

    def close(self) -> None:
        self._home.close()


def streams_of(server: Server, name: str, partitions: int = 4) -> tuple[Stream, Stream]:
    """A stream and that of its imports."""
    settings = Settings(partitions=partitions)
    return open_stream(server, name, create=True, settings=settings), open_stream(
        server, IMPORTS, create=True, settings=settings
    )


def import_here(server: Server, path: Path, form: str, **options: Any) -> Imported:
    """Import in this process, into the stream named after the format; rejects go beside the file."""
    stream, imports = streams_of(server, form)
    options.setdefault("rejects_path", path.with_name(f"{path.name}.rejects.jsonl"))
    return import_file(path, find_formats()[form], stream, imports, ImportOptions(**options))


def report_here(server: Server, form: str, **options: Any) -> dict[str, Any]:
    """Consume and report in this process."""
    stream, imports = streams_of(server, form)
    Consumer(server, [Clips(), Imports()], lambda: [stream, imports], **options).run(until_idle=True)
    return report(stream, Clips(), imports).content


def unequal(server: Server, form: str) -> list[Any]:
    """What check complains of."""
    return [
        result
        for stream in streams_of(server, form)
        for result in check(stream, [Clips(), Imports()])
        if not result.is_equal
    ]


def assert_answers(
    content: dict[str, Any], expected: dict[str, Any], *, other_than: Sequence[str] = ()
) -> None:
    """Every field, exactly. as_of is about earlier instants and has a test of its own."""
    assert set(expected) - set(content) == {"as_of"}
    assert set(content) <= set(expected)
    assert [name for name in content if content[name] != expected[name] and name not in other_than] == []
    assert content["final_state_first_row_wins"] == expected["final_state_first_row_wins"]


def slice_answers() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SLICE / "expected.json").read_text())
    return found


def computed_answers(
    path: Path, dataset: str, *, first_wins: bool, as_of: Sequence[str] = ()
) -> dict[str, Any]:
    """From the file alone, by the program that ships with the slice: standard library only, nothing of ours.

    first_wins: among equal times the first row of the file counts in every field, as it does in our views;
    else the largest.
    """
    oracle = _oracle()
    if first_wins:
        series = oracle.series
        oracle.series = lambda looks, **options: series(looks, **{**options, "first_wins": True})
    found: dict[str, Any] = json.loads(json.dumps(oracle.answers(path, dataset, as_of)))
    return found


def _oracle() -> ModuleType:
    spec = importlib.util.spec_from_file_location("oracle", SLICE / "expected.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines_of(path: Path) -> list[bytes]:
    """The file's lines, unpacked, the header first."""
    return (
        gzip.open(path).readlines() if path.suffix == ".gz" else path.read_bytes().splitlines(keepends=True)
    )


def parsed(content: bytes, form: str = "chzzk") -> list[FileRow | Reject]:
    """What read_rows makes of a file of this content."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rows.csv"
        path.write_bytes(content)
        return list(read_rows(path, find_formats()[form]))


def youtube_file(path: Path, dice: random.Random, rows: int) -> None:
    """Trending lists as they come: videos twice a day with other counts, falls, gaps, changed categories,
    damaged cells.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    views = {f"{n:05d}-video"[:11]: dice.randrange(5_000) for n in range(60)}
    day = 0
    for n in range(rows):
        day = n * 30 // rows
        video = dice.choice(list(views))
        views[video] = max(0, views[video] + dice.choice([0, 1, 3, 700, 90_000, -40, -2_000]))
        row = [
            video,
            f"{day + 1:02d}.09",
            'a "title", of\ntwo lines' if n % 7 == 0 else f"title {n}",
            "channel",
            dice.choice(["1", "10", "24"]),
            str(views[video]),
            "1",
            "2",
            "3",
        ]
        if dice.random() < 0.03:
            column, cell = dice.choice(
                [(0, "#NAME?"), (0, "sxcaeyJTx4Co"), (1, "1.1"), (1, "9.10"), (5, "1e3"), (5, "-1"), (5, "")]
            )
            row[column] = cell
        writer.writerow(row)
    path.write_text(YOUTUBE + text.getvalue(), newline="")
