"""Every block of the README and of the manual does what is printed."""

from __future__ import annotations

import re
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from aurastream.processors.commands.main import VERBS
from tests.commands import ROOT, Home, Nursery
from tests.docs.pages import PAGES, Shell, blocks

README = ROOT / "README.md"
EVERY = [README, *PAGES]
WORKED = [page for page in EVERY if any(not block.shown for block in blocks(page))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def place(home: Home, tmp_path: Path) -> Path:
    """A directory to work in. The home beside it ends with the test."""
    work = tmp_path / "work"
    work.mkdir()
    return work


@pytest.fixture
def clone(place: Path) -> Path:
    """What a fresh clone has after `make setup`."""
    for path in ROOT.iterdir():
        if path.name not in {".venv", ".git", ".aurastream"}:
            (place / path.name).symlink_to(path)
    (place / ".venv").symlink_to(Path(sys.executable).parent.parent)
    return place


@pytest.fixture
def own_environment(tmp_path: Path) -> Path:
    """The programs of a virtual environment that has AuraStream, and that a page may add to."""
    made = tmp_path / "env"
    venv.create(made, with_pip=False, symlinks=True)
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    theirs = next(made.glob("lib/*/site-packages"))
    (theirs / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    (made / "bin" / "pip").write_text(f'#!/bin/sh\nexec {made}/bin/python -m pip "$@"\n')
    (made / "bin" / "pip").chmod(0o755)
    return made / "bin"


@pytest.fixture
def shell(request: pytest.FixtureRequest, nursery: Nursery, home: Home, place: Path) -> Iterator[Shell]:
    """A shell for one page, with what the page's readers have before them."""
    page: Path = request.param
    if page == README:
        request.getfixturevalue("clone")
    if "export AURASTREAM_HOME" not in page.read_text():
        home.hold()  # a page with a home of its own may want its server to end
    programs = request.getfixturevalue("own_environment") if page.stem == "tutorial" else None
    shell = Shell(nursery, place, programs=programs)
    yield shell
    shell.close()


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(180)  # s: a page is up to thirty commands
@pytest.mark.parametrize(
    ("page", "shell"), [(page, page) for page in WORKED], ids=name_of, indirect=["shell"]
)
def test_every_block_does_what_is_printed(page: Path, shell: Shell) -> None:
    """A manual that nobody runs is wrong within a month."""
    shell.work_through(page)


def test_what_is_not_run_says_why() -> None:
    """A block is run, is a file that others of its page use, or says why it is neither."""
    silent = [
        f"{name_of(page)}:{block.line}"
        for page in EVERY
        for block in blocks(page)
        if not block.shown and not block.file and block.language not in {"console", "python"}
    ]

    assert silent == []


@pytest.mark.parametrize("page", EVERY, ids=name_of)
def test_every_link_within_leads_somewhere(page: Path) -> None:
    """Also where the manual is read on GitHub, which checks none."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        assert aim.exists(), f"{name_of(page)}: {target}"
        assert not anchor or anchor in anchors(aim), f"{name_of(page)}: {target}"


def anchors(page: Path) -> set[str]:
    """The names GitHub gives a page's headings."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_verb_named_exists_and_every_verb_is_named() -> None:
    """A verb that was renamed, and one that nobody described, are noticed here."""
    text = "\n".join(page.read_text() for page in EVERY if "reference" not in page.parts)
    named = set(re.findall(r"(?:^\$ |`)aurastream (?:--app [\w.]+ )?([a-z-]+)", text, re.MULTILINE))

    assert named - set(VERBS) == set()
    assert set(VERBS) - named == set()


def test_every_make_target_named_exists() -> None:
    """As with the verbs."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(page.read_text() for page in EVERY)

    assert set(re.findall(r"(?:^\$ |`)make ([a-z]+)", text, re.MULTILINE)) - targets == set()


def test_the_readme_is_short() -> None:
    """What it cannot say in 120 lines belongs into the manual."""
    assert len(README.read_text().splitlines()) < 120
