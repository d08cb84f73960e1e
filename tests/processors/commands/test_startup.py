"""A verb answers at once: nothing heavy is imported that it does not use."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from aurastream.processors.commands.main import VERBS, verb
from tests.commands import Home, environment

HEAVY = {
    "aiohttp",
    "aiokafka",
    "cryptography.hazmat",  # redis-py looks whether there is a cryptography, and no further
    "faust",
    "fsspec",
    "multiprocessing",
    "numpy",
    "prometheus_client",
    "pyarrow",
    "pygments",
    "rich",
    "structlog",
}
LISTING = """
import sys
from aurastream.processors.commands.main import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


def modules_of(home: Home, *words: str) -> set[str]:
    """What is imported once the verb has answered."""
    done = subprocess.run(
        [sys.executable, "-c", LISTING, *words],
        cwd=home.directory,
        env=environment(home.path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["status", "--json"],
        ["view", "clips", "--table", "days", "--stream", "clips-live", "--json"],
        ["groups", "list", "--json"],
        ["schema", "export"],
    ],
    ids=lambda words: words[0],
)
def test_a_light_verb_imports_nothing_heavy(home: Home, words: list[str]) -> None:
    """Each of these libraries takes as long to import as such an answer takes."""
    home.hold()
    assert home.run("append", "--stream", "clips-live").code == 0

    modules = modules_of(home, *words)

    assert modules & HEAVY == set()
    assert "msgspec" in modules  # the list is of the process that answered


def test_help_lists_every_verb_with_what_it_does(home: Home) -> None:
    """Verbs that are imported when they are named must not fall out of the list of names."""
    lines = home.run("--help").out.partition("Commands:\n")[2].splitlines()

    listed = {words[0]: words[1:] for words in (line.split() for line in lines) if words}
    assert listed.keys() == VERBS.keys()
    assert all(len(words) > 2 for words in listed.values())
    assert all(verb(name).help for name in VERBS)


def test_a_misspelt_verb_is_refused_in_a_sentence(home: Home) -> None:
    """No import error of a module that is not there."""
    done = home.run("veiw", "--json")

    assert done.code == 2
    assert "veiw" in json.loads(done.err)["error"]["message"]
