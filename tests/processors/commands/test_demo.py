"""The demo, on the shipped slice: what a person sees first."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import redis
from rich.cells import cell_len

from aurastream.processors.commands.slice import SLICE
from tests.commands import ROOT, Home

pytestmark = [pytest.mark.process, pytest.mark.slow]

REPEATS = b"duplicates"  # in a partition's meta: counts repeated appends, and nothing else may change


def dump(home: Home) -> dict[bytes, object]:
    """Every key with its content; repeated appends left out."""
    with redis.Redis(unix_socket_path=str(home.path / "server.sock")) as client:
        held: dict[bytes, object] = {key: client.dump(key) for key in client.scan_iter(count=1_000)}
        for key in [
            key for key in held if key.endswith(b":log")
        ]:  # its dump holds when each group was last there
            held[key] = (
                client.xrange(key),
                [(g["name"], g["pending"], g["last-delivered-id"]) for g in client.xinfo_groups(key)],
            )
        for key in [key for key in held if key.endswith(b":meta")]:
            held[key] = {name: value for name, value in client.hgetall(key).items() if name != REPEATS}
    return held


def test_the_demo_appends_once_ends_with_the_check_and_changes_nothing_when_run_again(home: Home) -> None:
    """The first minute with the product: the answer is right, and running it again is safe."""
    home.hold()

    first = home.run("demo", "--slice", env={"COLUMNS": "80"})
    before = dump(home)
    second = home.run("demo", "--slice", env={"COLUMNS": "80"})

    assert [(done.code, done.err) for done in (first, second)] == [(0, ""), (0, "")]
    assert (
        "25,872 appended, 0 already there" in first.out,
        "0 appended, 25,872 already there" in second.out,
    ) == (True, True)
    assert "nothing new" in second.out
    for done in (first, second):
        verdict = next(line for line in reversed(done.out.splitlines()) if line.startswith("check"))
        assert verdict.startswith("check: view == fold(log)")
        assert (
            done.out.index("Viral")
            < done.out.index("Fastest")
            < done.out.index("Categories")
            < done.out.index(verdict)
        )
    assert timeless(first.out) == timeless(second.out)
    assert dump(home) == before
    assert_fits(first.out, 80)
    assert_next_steps_work(home, second.out)


def assert_fits(out: str, columns: int) -> None:
    """Wide characters take two columns; a line that wraps breaks a table."""
    tables = out.partition("\nViral")[2].partition("Look further")[0]
    assert len(tables.splitlines()) > 50
    assert [line for line in tables.splitlines() if cell_len(line) > columns] == []


def assert_next_steps_work(home: Home, out: str) -> None:
    """Its last words are commands to copy; they need neither flags nor settings, as the demo had none."""
    commands = [shlex.split(line) for line in out.partition("Look further:\n")[2].splitlines()]
    assert [words[1] for words in commands] == ["status", "view", "why", "audit", "check"]
    for program, *arguments in commands:
        assert Path(program).name == "aurastream"
        assert home.run(*arguments).code == 0


def timeless(text: str) -> list[str]:
    """What it says of the views: without rates and what was appended."""
    return [
        line
        for line in text.splitlines()
        if "rows/s" not in line and "already there" not in line and not line.startswith(("append:", "apply:"))
    ]


@pytest.mark.slow
def test_the_demo_as_a_document_and_from_the_shell(home: Home, tmp_path: Path) -> None:
    """make demo is this command; without a keeper its server goes with it and the next run finds the data."""
    assert re.search(
        r"^demo: setup .*\n\t\$\(BIN\)/aurastream demo --slice$",
        (ROOT / "Makefile").read_text(),
        re.MULTILINE,
    )

    document = home.installed("demo", "--slice", "--json", cwd=tmp_path).json()
    again = home.run("demo", "--slice", "--json").json()

    assert (document["imported"]["appended"], document["imported"]["rejected"]) == (25_872, 0)
    assert document["applied"] >= 2 * 25_872  # by clips and trail
    assert (again["imported"]["appended"], again["imported"]["duplicates"], again["applied"]) == (
        0,
        25_872,
        0,
    )
    assert {part["differing"] for part in [*document["checked"], *again["checked"]]} == {0}
    expected = json.loads((SLICE / "expected.json").read_text())
    report = home.run("report", "--json").json()
    assert {name: report[name] for name in expected if name in report} == {
        name: expected[name] for name in expected if name in report
    }
    assert report["final_state"] == expected["final_state"]
