"""`aurastream rebuild` and `rollback` in processes of their own: what they say, JSON, exit codes."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aurastream.streams import Server
from tests.commands import ROOT, Home, Nursery
from tests.processors.commands.test_cli import line_of, refused
from tests.servers import until

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.any_server]

SLICE = ROOT / "processors" / "commands" / "slice" / "chzzk_vod_views.csv.gz"
APP = """
import os, signal
from tests.projections.counting import Counting

class Stopping(Counting):
    name = "stopping"

    def apply(self, state, event):
        if os.environ.get("STOP_AT") == event.event_id:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().apply(state, event)

class Waiting(Counting):
    name = "waiting"

    def apply(self, state, event):
        if os.environ.get("STOP_AT") == event.event_id:
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().apply(state, event)

projections = (Stopping, Waiting)
"""


def fill(home: Home) -> None:
    """Real observations, folded."""
    home.hold()
    assert home.run("import", str(SLICE), "--format", "chzzk").code == 0
    assert home.run("run", "--until-idle").code == 0


@pytest.fixture(scope="module")
def world(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with real observations, folded. Tests leave generations behind: which ones are there depends
    on their order.
    """
    home = Home(nursery, tmp_path_factory.mktemp("world") / "home")
    try:
        fill(home)
        yield home
    finally:
        home.close()


def test_a_rebuild_of_real_data_equals_the_live_view_and_is_rolled_back(home: Home) -> None:
    """The way every upgrade takes, and the way back; in a home of its own, as it counts the generations."""
    world = home
    fill(world)
    before = world.run("view", "clips", "--ranking", "max_velocity", "--json").json()["rows"]

    done = world.run("rebuild", "clips", "--json").json()
    trail = world.run("rebuild", "trail", "--stream", "chzzk", "--json").json()

    assert (done["generation"], done["differing"], done["swapped"], done["events"]) == (2, 0, True, 25_872)
    assert (trail["differing"], trail["swapped"]) == (0, True)
    assert sum(one["rows"] for one in done["compared"]) > 20_000
    assert world.run("view", "clips", "--ranking", "max_velocity", "--json").json()["rows"] == before
    assert world.run("check", "--json").json()["equal"] is True
    status = world.run("status", "--json").json()["streams"]["chzzk"]["generations"]["clips"]
    assert [(item["generation"], item["state"], item["read"]) for item in status] == [
        (1, "kept", 25_872),
        (2, "live", 25_872),
    ]
    assert "kept" in world.run("status").out

    back = world.run("rollback", "clips", "--why", "to see it", "--json").json()
    assert (back["generation"], back["previous"], back["lag_events"]) == (1, 2, 0)
    assert "generation 2 of clips is live again" in world.run("rollback", "clips").out
    assert world.run("view", "clips", "--ranking", "max_velocity", "--json").json()["rows"] == before


def test_another_definition_is_refused_with_its_rows_and_accepted_when_that_is_said(world: Home) -> None:
    """A person decides about numbers that change, with the rows before his eyes."""
    changed = {"AURASTREAM_CLIPS_VIRAL_VIEWS": "1000"}

    no = world.run("rebuild", "clips", env=changed)
    told = world.run("rebuild", "clips", "--json", env=changed)

    assert no.code == told.code == 1
    assert "rows that differ" in no.out
    assert "rebuild clips --accept" in no.out
    found = json.loads(told.out)
    assert (found["resumed"], found["swapped"]) == (True, False)
    assert found["differing"] >= sum(len(one["differences"]) for one in found["compared"]) > 0
    assert {"table", "key", "view", "log"} == set(found["compared"][0]["differences"][0])

    yes = world.run("rebuild", "clips", "--accept", "--why", "a new threshold", "--json", env=changed).json()
    assert (yes["generation"], yes["swapped"]) == (found["generation"], True)
    assert world.run("run", "--until-idle", "--stream", "chzzk", env=changed).code == 0
    trail = world.run("audit", "--stream", "operations", "--json")
    assert trail.code == 0, trail
    refused(world.run("rollback", "stopping"), 2, "no projection 'stopping'")
    assert world.run("rollback", "clips").code == 0


def test_a_build_can_be_given_up(world: Home) -> None:
    """A build that nobody finishes holds the trimmer back for ever."""
    changed = {"AURASTREAM_CLIPS_VIRAL_VIEWS": "2000"}
    built = world.run("rebuild", "clips", "--json", env=changed)

    done = world.run("rebuild", "clips", "--abandon", "--json", env=changed).json()

    assert built.code == 1
    assert done["abandoned"] == json.loads(built.out)["generation"] > 1
    refused(world.run("rebuild", "clips", "--abandon"), 1, "nothing is being built")


def test_one_key_is_folded_anew(world: Home) -> None:
    """One wrong row is put right without reading the whole log."""
    key = world.run("view", "clips", "--ranking", "latest_views", "--json").json()["rows"][0]["key"]

    done = world.run("rebuild", "clips", "--subject", key, "--json").json()

    assert (done["subject"], done["differing"], done["is_written"]) == (key, 0, False)
    assert done["rows"] > 1
    assert "equal to its events" in world.run("rebuild", "clips", "--subject", key).out
    refused(world.run("rebuild", "clips", "--subject", key, "--abandon"), 2, "exclude one another")


@pytest.fixture
def small(home: Home) -> Home:
    """Thirty events, folded, and a projection that stops the process at one of them."""
    home.path.parent.joinpath("stopper.py").write_text(APP)
    home.hold()
    lines = [line_of(n, f"clip-{n % 3}", n * 10) for n in range(30)]
    assert home.run("append", "--stream", "clips-live", stdin="\n".join(lines)).code == 0
    return home


def app(home: Home, *words: str, **options: Any) -> Any:
    return home.run(
        "--app",
        "stopper",
        *words,
        env={"PYTHONPATH": f"{home.directory}:{ROOT}", **options.pop("env", {})},
        **options,
    )


def test_a_signal_pauses_after_the_commit_under_way_and_says_how_to_go_on(small: Home) -> None:
    """Hours of building must survive a Ctrl-C."""
    assert app(small, "run", "--until-idle").code == 0

    paused = app(small, "rebuild", "stopping", env={"STOP_AT": "e7"})
    state = app(small, "status", "--json").json()["streams"]["clips-live"]["generations"]["stopping"]
    done = app(small, "rebuild", "stopping", "--json").json()

    refused(
        paused, 1, "stopped after the commit under way", "`aurastream rebuild stopping` goes on from there"
    )
    assert [(item["generation"], item["state"]) for item in state] == [(1, "live"), (2, "building")]
    assert state[1]["read"] > 0
    assert (done["generation"], done["resumed"], done["swapped"], done["events"]) == (2, True, True, 30)


def test_a_second_rebuild_is_told_of_the_first_and_one_that_was_killed_is_gone_on_with(small: Home) -> None:
    """Two operators must not build against each other, and a dead one must not block."""
    environ = {"PYTHONPATH": f"{small.directory}:{ROOT}", "AURASTREAM_LEASE_MS": "8000"}
    assert app(small, "run", "--until-idle").code == 0
    first = small.start("--app", "stopper", "rebuild", "waiting", env={**environ, "STOP_AT": "e7"})
    until(
        lambda: Path(f"/proc/{first.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T",
        "the first in the middle",
    )

    second = app(small, "rebuild", "waiting")
    assert first.signal(signal.SIGKILL) == -9
    third = app(small, "rebuild", "waiting", "--json").json()

    refused(second, 1, "is being rebuilt already: generation 2", f"-{first.pid}-", "of 30 events read")
    assert (third["generation"], third["resumed"], third["swapped"]) == (2, True, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rebuild", "nothing"), "no projection 'nothing'"),
        (("rebuild", "clips", "--keep", "soon"), "is no time"),
        (("rebuild", "clips", "--keep", "99999d"), "too long"),
        (("rollback", "clips", "--stream", "nowhere"), "nowhere"),
    ],
)
def test_what_makes_no_sense_is_bad_input(world: Home, words: tuple[str, ...], said: str) -> None:
    """Two wishes that exclude one another are refused before anything is changed."""
    refused(world.run(*words), 2, said)


def test_the_stream_never_means_one_of_the_products_own(nursery: Nursery, tmp_path: Path) -> None:
    """A view that folds everything has rows of the audit trail too, as soon as an operator has done anything;
    "several streams have a view" stopped the upgrade that the CHANGELOG tells everybody to make. Named, a
    system stream is meant.
    """
    home = Home(nursery, tmp_path / "home")
    try:
        fill(home)
        assert home.run("rebuild", "clips", "--why", "so that there is an audit trail").code == 0
        assert home.run("run", "--until-idle").code == 0

        plain = home.run("rebuild", "trail", "--accept", "--json")
        key = home.run("view", "clips", "--ranking", "latest_views", "--json").json()["rows"][0]["key"]
        looks = [("view", "trail", key), ("why", "trail", key), ("rollback", "trail"), ("report", "--json")]
        picked = [home.run(*words) for words in looks]
        named = home.run("rebuild", "trail", "--stream", "operations", "--accept", "--json")
        kept = home.run("view", "imports", "--json")

        assert plain.code == 0, plain
        assert plain.json()["stream"] == "chzzk"
        assert [done.code for done in picked] == [0] * len(picked), picked
        assert named.json()["stream"] == "operations"
        assert kept.code == 0, "a view of a system stream alone needs no name"
    finally:
        home.close()


def test_a_kept_generation_that_is_wrong_is_shown_apart_and_can_be_dropped(home: Home) -> None:
    """What was accepted is right: that the one before was not is no reason to be red for a day."""
    home.hold()
    rows = "".join(
        f'{{"type":"clip.views_observed","event_id":"e{n}","subject":"clip-{n}",'
        f'"occurred_at":"2026-04-15T12:00:00Z","views":{n}}}\n'
        for n in range(20)
    )
    assert home.run("append", "--stream", "clips", stdin=rows).code == 0
    assert home.run("run", "--until-idle", "--projection", "clips").code == 0
    server = Server(f"unix://{home.path}/server.sock")
    wrong = list(server.client.scan_iter("aura:{clips.*}:view:clips:1:clips"))
    for key in wrong:
        server.client.hset(key, "clip-none", "{}")
    server.close()
    assert wrong
    refused(home.run("rebuild", "clips", "--retire", "1"), 1, "it is live")
    assert home.run("check", "--projection", "clips").code == 1
    assert home.run("rebuild", "clips", "--accept", "--why", "a wrong HSET").code == 0

    shown = home.run("check", "--projection", "clips")
    told = home.run("check", "--projection", "clips", "--stream", "clips", "--json").json()
    dropped = home.run("rebuild", "clips", "--retire", "1", "--why", "it is wrong", "--json")
    after = home.run("check", "--projection", "clips", "--json").json()

    assert (shown.code, "rebuild clips --stream clips --retire 1" in shown.out) == (0, True), shown
    assert "check: view == fold(log)" in shown.out
    assert [{item["generation"] for item in told[name]} for name in ("checked", "kept")] == [{2}, {1}]
    assert told["equal"] is True
    assert not all(item["is_equal"] for item in told["kept"])
    assert dropped.json() == {"retired": 1}
    assert after["kept"] == []
    refused(home.run("rollback", "clips"), 1, "is kept")
    refused(home.run("rebuild", "clips", "--retire", "1"), 1, "none of that number")
    whys = [row["why"] for row in home.run("audit", "--type", "generation.retired", "--json").json()]
    assert whys == ["it is wrong"]


def test_a_view_goes_by_the_settings_it_was_made_with(home: Home) -> None:
    """Another value in somebody's environment is a sentence, and neither a finding nor a host that refuses;
    a rebuild makes the view by it, and from then on everybody goes by that.
    """
    home.hold()
    made_with = {"AURASTREAM_CLIPS_VIRAL_AGE_HOURS": "72"}

    def append(first: int) -> None:
        rows = "".join(
            f'{{"type":"clip.views_observed","event_id":"e{n}","subject":"clip-{n % 5}",'
            f'"occurred_at":"2026-04-{15 + n // 5:02}T12:00:00Z","views":{n * 1000}}}\n'
            for n in range(first, first + 5)
        )
        assert home.run("append", "--stream", "clips", stdin=rows).code == 0

    def viral() -> list[str]:
        return [
            row["key"] for row in home.run("view", "clips", "--ranking", "viral", "--json").json()["rows"]
        ]

    append(0)
    append(5)
    assert home.run("run", "--until-idle", "--projection", "clips", env=made_with).code == 0
    before = viral()
    append(10)

    ran = home.run("run", "--until-idle", "--projection", "clips")
    checked = home.run("check", "--projection", "clips")
    past = home.run("view", "clips", "--at", "2026-04-16", "--json")
    rebuilt = home.run("rebuild", "clips", "--accept", "--why", "six hours will do", "--json")
    after = home.run("check", "--projection", "clips")
    elsewhere = home.run("run", "--until-idle", "--projection", "clips", env=made_with)
    settled = home.run("check", "--projection", "clips", env=made_with)

    assert before, "some are viral for three days"
    assert (ran.code, "viral_age_hours is 72.0, here 6.0" in ran.err) == (0, True), ran
    assert (checked.code, "viral_age_hours is 72.0, here 6.0" in checked.err) == (0, True), checked
    assert past.code == 0
    assert rebuilt.json()["differing"] > 0
    assert (after.code, "here" in after.err) == (0, False), after
    assert elsewhere.code == 0, elsewhere
    assert (settled.code, "viral_age_hours is 6.0, here 72.0" in settled.err) == (0, True), settled
