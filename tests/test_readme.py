"""The README's snippets, run as they are printed."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from aurastream.processors.commands.main import VERBS
from aurastream.processors.commands.slice import SLICE
from aurastream.processors.plugins import GROUP
from aurastream.projections.built_in.clips import ClipSettings
from aurastream.streams import Settings
from tests.commands import ROOT, Home, environment
from tests.wheels import install

pytestmark = [pytest.mark.process, pytest.mark.slow]

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PROSE = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
CODE = "\n".join([*re.findall(r"`([^`]+)`", PROSE), *(text for _, text in BLOCKS)])


def block(language: str, holding: str) -> str:
    found = [text for named, text in BLOCKS if named == language and holding in text]
    assert len(found) == 1, f"{language} with {holding!r}"
    return found[0]


def commands(holding: str) -> list[str]:
    return [
        line.removeprefix("$ ") for line in block("console", holding).splitlines() if line.startswith("$ ")
    ]


def python(home: Home, source: str, directory: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=directory,
        env=environment(home.path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_snippet_is_one_of_those_run_here() -> None:
    """A new one needs a test, or it will rot."""
    known = [
        "make demo",
        "aurastream import",
        "AURASTREAM_ARCHIVE=",
        "import duckdb",
        "stream.append",
        "class Peaks",
        "entry-points",
        "MemoryView",
        "class Notices",
        "class Jobs",
        "schema export",
        "aurastream erase",
        "streams/  ",
    ]

    assert [text for _, text in BLOCKS if not any(word in text for word in known)] == []
    assert len(BLOCKS) == len(known)


def test_every_verb_named_exists_and_every_verb_is_explained() -> None:
    named = set(re.findall(r"^(?:\$ )?aurastream (?:--app \w+ )?([a-z-]+)", CODE, re.MULTILINE))

    assert named - set(VERBS) == set()
    assert {"import", "run", "view", "audit", "status", "check"} <= named


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"^(?:\$ )?make ([a-z]+)", CODE, re.MULTILINE)) - targets == set()


def test_every_setting_named_exists_with_the_default_named() -> None:
    fields = {f"AURASTREAM_{name}".upper(): field for name, field in Settings.model_fields.items()}
    fields |= {f"AURASTREAM_CLIPS_{name}".upper(): field for name, field in ClipSettings.model_fields.items()}
    rows = re.findall(r"^\| `(AURASTREAM_.*?)` \| (.*?) \|", README, re.MULTILINE)
    assert len(rows) >= 6

    for names, values in rows:
        first, *more = re.findall(r"\w+", names)
        prefix = "AURASTREAM_CLIPS" if "CLIPS" in first else "AURASTREAM"
        for name, value in zip(
            [first, *(f"{prefix}{other}" for other in more)], values.split(", "), strict=True
        ):
            assert str(getattr(fields[name].default, "value", fields[name].default)) == value, name


def test_the_console_commands_do_what_is_said(home: Home, tmp_path: Path) -> None:
    """On the end of the shipped slice, under the names the README gives the files."""
    header, *rows = gzip.decompress((SLICE / "chzzk_vod_views.csv.gz").read_bytes()).splitlines(keepends=True)
    (tmp_path / "views.csv.gz").write_bytes(gzip.compress(b"".join([header, *rows[-3_000:]])))
    (tmp_path / "vods.csv.gz").symlink_to(SLICE / "chzzk_vods.csv.gz")
    home.hold()
    first, *others = commands("aurastream import")
    assert first == "make setup && . .venv/bin/activate"
    environ = environment(home.path) | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    told = {}
    for command in others:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        told[command.split()[1]] = done.stdout

    assert "3,000 appended" in told["import"]
    assert "clips: max_velocity" in told["view"]
    assert "14787895" in told["view"]
    assert "14787895: " in told["audit"]
    assert "view == fold(log)" in told["check"]


@pytest.fixture
def imported(home: Home, tmp_path: Path) -> dict[str, str]:
    """The environment of a shell in which the first console block was worked through, in tmp_path."""
    header, *rows = gzip.decompress((SLICE / "chzzk_vod_views.csv.gz").read_bytes()).splitlines(keepends=True)
    (tmp_path / "views.csv.gz").write_bytes(gzip.compress(b"".join([header, *rows[-3_000:]])))
    (tmp_path / "vods.csv.gz").symlink_to(SLICE / "chzzk_vods.csv.gz")
    home.hold()
    environ = environment(home.path) | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    shell(commands("aurastream import")[1:3], environ, tmp_path)
    return environ


def shell(lines: list[str], environ: dict[str, str], directory: Path) -> str:
    """The lines as one script; all must succeed."""
    done = subprocess.run(
        ["bash", "-ec", "\n".join(lines)],
        cwd=directory,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_looking_back_works_as_printed_and_the_segments_are_read_by_others(
    imported: dict[str, str], tmp_path: Path
) -> None:
    """In the order of the page: views of the past, why, audit, replay, rebuild, rollback, archive, trim,
    verify.
    """
    told = shell(commands("AURASTREAM_ARCHIVE="), imported, tmp_path)

    assert "as of 2026-08-20" in told
    assert "84,510" in told or "84510" in told, "why shows what each observation changed"
    assert len((tmp_path / "clip.jsonl").read_text().splitlines()) == 2
    read = subprocess.run(
        [sys.executable, "-c", block("python", "import duckdb")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert read.returncode == 0, read.stderr
    assert "3000" in read.stdout
    assert "clip.views_observed" in read.stdout


def test_an_erasure_and_schemas_work_as_printed(imported: dict[str, str], tmp_path: Path) -> None:
    """The title is there before, and nowhere after."""
    title = ["aurastream view clips 14787895 --json"]
    before = shell(title, imported, tmp_path)
    shell(commands("schema export"), imported, tmp_path)
    creator = msgspec.json.decode(before)["state"]["channel"]
    line = commands("aurastream erase")[0]
    assert creator

    shell([line.replace("aokumo_rin", creator)], imported, tmp_path)

    after = msgspec.json.decode(shell(title, imported, tmp_path))["state"]
    assert (after.get("title", ""), after.get("channel", "")) == ("", "")
    assert after["views"] == 126319


def test_one_of_two_deciders_claims_the_job(home: Home, tmp_path: Path) -> None:
    home.hold()

    first = python(home, block("python", "class Jobs"), tmp_path)
    second = python(home, block("python", "class Jobs"), tmp_path)

    assert "APPENDED" in first
    assert second.startswith("[]")
    assert "Job(owner='worker-1')" in second


def test_the_worker_appends_one_entry_and_says_the_second_is_a_duplicate(home: Home, tmp_path: Path) -> None:
    home.hold()

    told = python(home, block("python", "stream.append"), tmp_path)

    assert (told.count("APPENDED"), told.count("DUPLICATE")) == (1, 1)
    assert python(home, block("python", "stream.append"), tmp_path).count("DUPLICATE") == 2
    assert (
        sum(
            part["events"]
            for part in home.run("status", "--json").json()["streams"]["clips-live"]["partitions"]
        )
        == 1
    )


def test_the_processor_derives_one_event_an_observation(home: Home, tmp_path: Path) -> None:
    (tmp_path / "notices.py").write_text(block("python", "class Notices"))
    home.hold()
    python(home, block("python", "stream.append"), tmp_path)

    assert home.run("--app", "notices", "run", "--until-idle", cwd=tmp_path).code == 0
    assert home.run("--app", "notices", "run", "--until-idle", cwd=tmp_path).code == 0

    assert (
        "notice.se"
        in home.run("--app", "notices", "audit", "clip-1", "--stream", "notices", cwd=tmp_path).out
    )
    streams = home.run("status", "--json").json()["streams"]
    assert sum(part["events"] for part in streams["notices"]["partitions"]) == 1


@pytest.fixture
def peaks(tmp_path: Path) -> Path:
    """A directory that holds peaks.py, as printed."""
    source = block("python", "class Peaks")
    assert source.startswith("# peaks.py\n")
    (tmp_path / "peaks.py").write_text(source)
    return tmp_path


def test_the_projection_runs_from_a_file_and_as_an_installed_package(home: Home, peaks: Path) -> None:
    """The example is a stranger's package: events of the log in, a view of its own out."""
    points = tomllib.loads(block("toml", "entry-points"))["project"]["entry-points"][GROUP]
    site = install(peaks, "peaks", {"peaks.py": (peaks / "peaks.py").read_text()}, points)
    home.hold()
    python(home, block("python", "stream.append"), peaks)
    app = re.findall(r"`aurastream (--app \w+ run)`", README)[0].split()

    assert home.run(*app, "--until-idle", cwd=peaks).code == 0
    seen = home.run("view", "peaks", "--json", env={"PYTHONPATH": site}).json()

    assert [(row["key"], row["state"]) for row in seen["rows"]] == [
        ("clip-1", {"views": 1200, "category": "Just Chatting"})
    ]
    assert home.run("check", env={"PYTHONPATH": site}).code == 0


def test_the_projection_is_tested_without_a_server(home: Home, peaks: Path) -> None:
    python(home, block("python", "MemoryView"), peaks)

    assert not home.path.exists()


def test_the_map_names_what_is_there() -> None:
    for folder in re.findall(r"(\w+)/  ", block("", "streams/  ")):
        assert (ROOT / folder).is_dir(), folder
