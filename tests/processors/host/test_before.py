"""AuraStream itself rolled out: hosts of the build before this one beside this build's, on one server.

What the page says of the two (docs/how-to/roll-out.md, "AuraStream itself") is tried here with the real one,
taken from this repository's history.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aurastream.streams import Server
from tests.commands import ROOT, Home
from tests.processors.host.rolling import STREAM, Build, Fleet
from tests.processors.host.test_roll_out import COLOURED, FIRST, is_in_order, pieces

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.any_server]

BEFORE = "ce0ca76"  # the last commit by which hosts had one lease group for all
ROOMS = ("aurastream", "streams", "projections", "processors")


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build before, as a folder to import."""
    command = ["git", "-C", str(ROOT), "archive", BEFORE, *ROOMS]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"this copy's history does not have the build before ({BEFORE})")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="tar")
    return folder


@pytest.fixture
def fleet(server: Server, url: str, home: Home) -> Iterator[Fleet]:
    """Nothing runs yet."""
    fleet = Fleet(server, url, home)
    yield fleet
    fleet.close()


def test_it_is_rolled_out_over_the_build_before(fleet: Fleet, before: Path) -> None:
    """Views move to the new hosts while the old ones live, effects when the last of those is gone; nothing is
    handled twice or never.
    """
    old, new = Build(fleet, "old", FIRST, before), Build(fleet, "new", FIRST)
    old.append("shop.sold", 0, 100, pieces=3)
    first = old.host()
    is_in_order(fleet, old)

    second = new.host().ready()
    fleet.wait_for(lambda: any("processors wait" in note for note in second.notes), "its effects to wait")
    new.append("shop.sold", 100, 100, pieces=3)
    old.append("shop.sold", 200, 100, pieces=3)
    is_in_order(fleet, new)
    assert pieces(new, 7) == pieces(old, 7) == 30 * 3

    first.stop()
    new.append("shop.sold", 300, 100, pieces=3)
    is_in_order(fleet, new)
    second.stop()
    assert pieces(new, 7) == 40 * 3


def test_what_an_old_host_set_aside_is_taken_up(fleet: Fleet, before: Path) -> None:
    """A producer that is too early: to an old host a new field is damage, to views and to effects. The
    upgraded host goes on, and reads what follows; what was set aside is taken up by a rebuild, and a retry.
    """
    old, new = Build(fleet, "old", FIRST, before), Build(fleet, "new", FIRST)
    newer = Build(fleet, "newer", COLOURED)
    old.append("shop.sold", 0, 100, pieces=3)
    first = old.host()
    newer.append("shop.sold", 100, 20, pieces=3, colour="red")
    fleet.settled("stocks", "receipts")
    assert fleet.counts("stocks")["dead"] == 20
    first.stop()
    new.says("check")

    second = new.host().ready()
    newer.append("shop.sold", 120, 80, pieces=3, colour="red")
    fleet.settled("stocks", "receipts")
    assert fleet.counts("stocks")["dead"] == 20
    assert pieces(new, 7) == 18 * 3
    new.says("check")
    told = newer.run("check")
    assert (told.code, "`aurastream rebuild stocks --stream shop` folds them too" in told.out) == (1, True)

    new.says("rebuild", "stocks", "--stream", STREAM, "--accept", "--why", "what was set aside")
    assert pieces(new, 7) == 20 * 3
    letters = json.loads(new.says("dead", "list", "receipts", "--json"))["letters"]
    for subject in {letter["subject"] for letter in letters}:  # those behind the first of a subject follow it
        letter = next(letter for letter in letters if letter["subject"] == subject)
        place = f"{letter['stream']}/{letter['partition']}/{letter['position']}"
        new.says("dead", "retry", "receipts", place)
    fleet.settled("stocks@2", "receipts")
    new.says("check")
    fleet.wait_for(lambda: fleet.handled() == sorted(fleet.appended), "every event to be handled once")
    second.stop()


def test_it_is_backed_out_of(fleet: Fleet, before: Path) -> None:
    """The build before goes on where this one stopped; a view that has read a new field it refuses, and folds
    one of its own.
    """
    old, new = Build(fleet, "old", FIRST, before), Build(fleet, "new", FIRST)
    newer = Build(fleet, "newer", COLOURED)
    old.append("shop.sold", 0, 100, pieces=3)
    first = new.host().ready()
    is_in_order(fleet, new)
    first.stop()

    second = old.host()
    old.append("shop.sold", 100, 100, pieces=3)
    is_in_order(fleet, old)
    second.stop()
    third = new.host().ready()
    newer.append("shop.sold", 200, 10, pieces=3, colour="red")
    is_in_order(fleet, new)
    third.stop()

    fourth = old.host()
    old.append("shop.sold", 210, 10, pieces=3)
    fleet.settled("receipts")
    assert "folded by definition" in old.run("check").out
    old.says("rebuild", "stocks", "--stream", STREAM, "--accept", "--why", "back out")
    fleet.settled("stocks@2")
    assert pieces(old, 7) == 21 * 3
    fourth.stop()
