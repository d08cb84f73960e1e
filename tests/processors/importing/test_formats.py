"""A stranger's format: a package beside ours, or a module named with --app; ours come in by the same door."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurastream.processors.importing.formats import FORMATS_GROUP, OURS, Format, FormatUnfit, find_formats
from tests.commands import Home
from tests.wheels import install

SOURCE = """
from datetime import UTC, datetime

from aurastream.processors.importing.formats import FileRow, Format


def parse(number, cells, metadata):
    video, seen, views = cells
    if not views.isdecimal():
        return {"views": f"{views!r} is no count"}
    at = datetime.fromtimestamp(int(seen), UTC)
    return FileRow(number, video, at, int(views), "", "", "", None)


PEER = Format("peertube", "peertube", ("video", "seen", "views"), parse)
"""
ROWS = "video,seen,views\np-1,1776254400,10\np-2,1776254400,many\np-1,1776258000,25\n"


def test_the_format_of_an_installed_package_is_imported_like_one_of_ours(home: Home, tmp_path: Path) -> None:
    """Nobody should have to fork the product to bring the files he has."""
    site = install(
        tmp_path, "peer", {"peer_formats.py": SOURCE}, {"peertube": "peer_formats:PEER"}, FORMATS_GROUP
    )
    (tmp_path / "looks.csv").write_text(ROWS)
    home.hold()

    done = home.installed(
        "import", "looks.csv", "--format", "peertube", "--json", cwd=tmp_path, env={"PYTHONPATH": site}
    ).json()

    assert (done["stream"], done["appended"], done["rejected"]) == ("peertube", 2, 1)
    assert home.run("run", "--until-idle").code == 0
    assert home.run("view", "clips", "p-1", "--json").json()["state"]["views"] == 25


def test_a_module_named_with_app_brings_its_formats_too(home: Home, tmp_path: Path) -> None:
    """As it brings event types and projections: one way to try something before it is packaged."""
    (tmp_path / "peer_formats.py").write_text(SOURCE)
    (tmp_path / "looks.csv").write_text(ROWS)
    home.hold()

    done = home.run(
        "--app", "peer_formats", "import", "looks.csv", "--format", "peertube", "--json", cwd=tmp_path
    )
    without = home.run("import", "looks.csv", "--format", "peertube", cwd=tmp_path)

    assert done.json()["appended"] == 2
    assert (without.code, "'peertube' is not one of 'chzzk'" in without.err) == (2, True)


def test_two_formats_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Which of them a file was read by would depend on the order of packages."""
    (tmp_path / "twice_formats.py").write_text(SOURCE.replace("peertube", "chzzk"))
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(FormatUnfit, match="two formats are named 'chzzk'"):
        find_formats(["twice_formats"])


def test_ours_are_formats_like_any_other() -> None:
    """What a stranger copies must be what we use."""
    assert all(isinstance(form, Format) for form in OURS)
    assert find_formats() == {form.name: form for form in OURS}
