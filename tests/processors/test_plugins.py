"""A stranger's package: events and projections of their own, from a wheel of theirs or a module beside them,
without a fork of ours.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import Done, Home
from tests.wheels import install

pytestmark = [pytest.mark.process, pytest.mark.any_server]

TIPS = '''
"""Tips to streamers: an event, a projection, and what became of version 1."""

import msgspec

from aurastream.projections import Projection, Ranking, Totals
from aurastream.streams import Event


def whole_to_cents(content):
    amount = content.pop("amount")
    return {**content, "cents": amount * 100}


class TipReceived(Event, frozen=True, kw_only=True, tag="tip.received"):
    """A viewer gave money. Cents since version 2."""

    schema_version = 2
    upcasters = {1: whole_to_cents}
    cents: int
    giver: str = ""


class Purse(msgspec.Struct, frozen=True):
    cents: int
    tips: int


class Purses(Projection[Purse]):
    """What every streamer was given."""

    name = "purses"
    events = (TipReceived,)
    state = Purse
    rankings = (Ranking("richest", score="cents"),)
    totals = (Totals("all", of={"streamers": 1, "cents": "cents"}),)

    def apply(self, state: Purse | None, event: TipReceived) -> Purse:
        return Purse((state.cents if state else 0) + event.cents, (state.tips if state else 0) + 1)
'''
# As it was written before upcasters belonged to the class.
TIPS_OF_BEFORE = (
    TIPS.replace("    upcasters = {1: whole_to_cents}\n", "")
    + """
UPCASTERS = {("tip.received", 1): whole_to_cents}
"""
)

OLD_TIPS = '''
from aurastream.streams import Event


class TipReceived(Event, frozen=True, kw_only=True, tag="tip.received"):
    """A viewer gave money."""

    amount: int
'''


def tip(number: int, streamer: str, cents: int) -> str:
    at = f"2026-04-15T12:00:{number:02}Z"
    return json.dumps(
        {
            "type": "tip.received",
            "event_id": f"t{number}",
            "subject": streamer,
            "occurred_at": at,
            "cents": cents,
            "version": 2,
        }
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the stranger's wheel is installed."""
    modules = {"tipjar/__init__.py": "", "tipjar/tips.py": TIPS}
    return install(tmp_path_factory.mktemp("foreign"), "tipjar", modules, {"tips": "tipjar.tips"})


@pytest.fixture
def foreign(home: Home, site: str) -> tuple[Home, dict[str, str]]:
    """A home, and the environment in which the stranger's wheel is installed."""
    return home, {"PYTHONPATH": site}


def test_a_foreign_wheel_is_found_and_its_events_and_views_are_like_ours(
    foreign: tuple[Home, dict[str, str]],
) -> None:
    """Installing it is all: every verb knows its event type and its projection, in interpreters started from
    the shell.
    """
    home, env = foreign
    home.hold()
    lines = [tip(n, f"streamer-{n % 2}", 50 * n) for n in range(10)]

    appended = home.installed(
        "append", "--stream", "tips", "--json", stdin="\n".join([*lines, lines[0]]), env=env
    ).json()
    consumed = home.installed("run", "--until-idle", "--json", env=env).json()
    best = home.run("view", "purses", "--json", env=env).json()
    checked = home.run("check", "--json", env=env).json()

    assert (appended["appended"], appended["duplicates"]) == (10, 1)
    assert consumed["projections"]["purses"] == 10
    assert [(row["key"], row["score"], row["state"]) for row in best["rows"]] == [
        ("streamer-1", 1250.0, {"cents": 1250, "tips": 5}),
        ("streamer-0", 1000.0, {"cents": 1000, "tips": 5}),
    ]
    assert checked["equal"] is True
    assert "purses" in {part["projection"] for part in checked["checked"]}
    head, *rows = home.run("view", "purses", env=env).out.splitlines()[2:]
    assert head.split() == ["#", "key", "richest", "cents", "tips"]
    assert rows[0].split() == ["1", "streamer-1", "1,250.00", "1,250", "5"]


def test_without_the_package_its_events_are_refused_and_its_stream_is_kept(
    foreign: tuple[Home, dict[str, str]],
) -> None:
    """A worker of another deployment, which has never heard of tips, stops nothing and loses nothing."""
    home, env = foreign
    home.hold()
    home.run("append", "--stream", "kept", stdin=tip(1, "streamer-1", 70), env=env)

    done = home.run("append", "--stream", "kept", "--json", stdin=tip(2, "streamer-1", 70))
    read = home.run("run", "--stream", "kept", "--until-idle", "--json")
    unknown = home.run("view", "purses")

    assert (done.code, "'tip.received' is not installed" in done.err) == (2, True)
    assert read.json()["projections"]["clips"] == 1
    assert (unknown.code, "no projection 'purses'" in unknown.err) == (2, True)
    home.run("run", "--stream", "kept", "--until-idle", env=env)
    assert (
        home.run("view", "purses", "streamer-1", "--stream", "kept", "--json", env=env).json()["state"][
            "cents"
        ]
        == 70
    )


def test_a_module_beside_you_is_taken_with_app(home: Home, tmp_path: Path) -> None:
    """The way there: no package yet, a file in the current directory."""
    (tmp_path / "tips.py").write_text(TIPS)
    home.hold()

    assert (
        home.run("--app", "tips", "append", "--stream", "tips", stdin=tip(1, "a", 5), cwd=tmp_path).code == 0
    )
    assert home.run("--app", "tips", "run", "--until-idle", cwd=tmp_path).code == 0
    assert home.run("--app", "tips", "view", "purses", "a", "--json", cwd=tmp_path).json()["state"] == {
        "cents": 5,
        "tips": 1,
    }
    assert home.run("--app", "tips", "check", cwd=tmp_path).code == 0


@pytest.mark.parametrize("source", [TIPS, TIPS_OF_BEFORE], ids=["class", "module"])
def test_old_versions_of_a_foreign_event_are_upcast_by_every_verb(
    home: Home, tmp_path: Path, source: str
) -> None:
    """The log keeps what was written; the package says once what it means today."""
    (tmp_path / "tips.py").write_text(source)
    home.hold()
    old = {"type": "tip.received", "event_id": "old", "subject": "a", "occurred_at": "2026-04-15T12:00:00Z"}

    def run(*arguments: str, stdin: str = "") -> Done:
        done = home.run("--app", "tips", *arguments, stdin=stdin, cwd=tmp_path)
        assert done.code == 0, done.err
        return done

    (tmp_path / "tips.py").write_text(OLD_TIPS)
    run("append", "--stream", "tips", stdin=json.dumps({**old, "amount": 3}))
    (tmp_path / "tips.py").write_text(source)

    assert run("schema", "check", "--log", "--json").json()["log"]["decoded"] == {"tip.received": {"1": 1}}
    run("run", "--until-idle")
    state = {"cents": 300, "tips": 1}
    assert run("view", "purses", "a", "--json").json()["state"] == state
    assert run("view", "purses", "a", "--at", "2026-04-16T00:00:00Z", "--json").json()["state"] == state
    assert '"cents":300' in run("why", "purses", "a", "--json").out.replace(" ", "")
    assert '"cents":300' in run("replay", "--stream", "tips").out
    run("rebuild", "purses")
    run("check")


OURS = (
    "from aurastream.projections.built_in.clips import Clips\n"
    "from aurastream.projections import Projection\nimport msgspec\n"
)
BROKEN = {
    "no such module": (None, ["'plugin'", "No module named 'plugin'"]),
    "syntax": ("def broken(:", ["'plugin'", "SyntaxError"]),
    "raises": ("1 / 0", ["'plugin'", "ZeroDivisionError"]),
    "exits": ("import sys; sys.exit(0)", ["'plugin'", "SystemExit"]),
    "name twice": (
        OURS + "class Other(Clips): pass",
        ["two projections are named 'clips'", "plugin.Other", "clips.Clips"],
    ),
    "tag twice": (
        "from aurastream.streams import Event\nclass Mine(Event, frozen=True, kw_only=True, "
        "tag='clip.views_observed'): pass",
        ["two event types are named 'clip.views_observed'", "plugin.Mine", "ClipViewsObserved"],
    ),
    "bad name": (
        OURS
        + "class State(msgspec.Struct, frozen=True): n: int\nclass P(Projection): name, state = 'No Name', "
        "State",
        ["P", "no projection name"],
    ),
    "not frozen": (
        OURS + "class State(msgspec.Struct): n: int\nclass P(Projection): name, state = 'p', State",
        ["P", "frozen=True"],
    ),
    "no state": (OURS + "class P(Projection): name = 'p'", ["P", "state"]),
    "cannot be made": (
        OURS + "class P(Projection):\n  name = 'p'\n  def __init__(self): raise OSError('no disk')",
        ["P", "no disk"],
    ),
    "upcaster twice": (
        TIPS + '\nUPCASTERS = {("tip.received", 1): dict}\n',
        ["'plugin'", "two upcasters from version 1", "TipReceived.upcasters"],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_plugin_that_cannot_be_used_is_named_in_a_sentence(home: Home, tmp_path: Path, case: str) -> None:
    """Before anything is read or written; not even the server is started."""
    source, words = BROKEN[case]
    if source is not None:
        (tmp_path / "plugin.py").write_text(source)

    done = home.run("--app", "plugin", "status", cwd=tmp_path)
    document = home.run("--app", "plugin", "status", "--json", cwd=tmp_path)

    assert_refused(done, words)
    assert json.loads(document.err)["error"]["type"] in {"PluginBroken", "NameTaken"}
    assert not home.path.exists()


def test_a_broken_installed_plugin_is_named_too(home: Home, tmp_path: Path) -> None:
    """By its entry point's name, which is what can be uninstalled."""
    site = install(tmp_path, "halfdone", {"halfdone.py": "import not_there"}, {"half": "halfdone"})

    assert_refused(home.run("status", env={"PYTHONPATH": site}), ["'half'", "not_there"])


def assert_refused(done: Done, words: list[str]) -> None:
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
    assert [word for word in words if word not in done.err] == []
