"""aurastream archive and audit verify, as a person runs them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from aurastream.processors.commands.slice import SLICE
from aurastream.streams import Server
from aurastream.streams.keys import Keys
from tests.commands import Done, Nursery
from tests.processors.importing.imports import SLICE_FILE, SLICE_ROWS, Shell
from tests.streams.archive.places import bucket, s3_server

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.any_server]

PARTITIONS = 2


class Archiving(Shell):
    """Commands with an archive in their directory."""

    def told(self, *arguments: object, **settings: object) -> Done:
        settings = {
            "archive": self.directory / "archive",
            "partitions": PARTITIONS,
            "segment_events": 5_000,
            **settings,
        }
        return self.run(*arguments, **settings)


@pytest.fixture
def shell(nursery: Nursery, server: Server, url: str, tmp_path: Path) -> Iterator[Archiving]:
    shell = Archiving(nursery, url, tmp_path)
    yield shell
    shell.close()


@pytest.fixture
def imported(shell: Archiving) -> Archiving:
    assert shell.told("import", SLICE_FILE, "--format", "chzzk").code == 0
    return shell


def test_what_was_imported_is_archived_listed_verified_and_read_by_duckdb(imported: Archiving) -> None:
    """The archive is for others too: whoever has DuckDB needs nothing of ours to read it."""
    made = imported.told("archive", "--stream", "chzzk", "--json").json()["segments"]
    listed = imported.told("archive", "list", "--stream", "chzzk", "--json").json()["segments"]
    verified = imported.told("audit", "verify", "--json").json()

    assert made == listed
    assert sum(item["entries"] for item in made) == SLICE_ROWS
    assert {item["entries"] for item in made if item["number"] == 1} == {5_000}
    assert verified["sound"] is True
    assert sum(item["archived"] for item in verified["checked"]) == SLICE_ROWS
    newest = duckdb.sql(f"""
        SELECT count(*), count(DISTINCT subject) FROM '{imported.directory}/archive/chzzk/*/*.parquet'
        WHERE NOT is_duplicate
    """).fetchall()[0]
    expected: dict[str, Any] = json.loads((SLICE / "expected.json").read_text())
    assert newest == (SLICE_ROWS, expected["subjects"])


def test_archiving_again_closes_nothing_but_what_is_new(imported: Archiving) -> None:
    """The audit trail's own new entries too, once: it ends."""
    first = imported.told("archive", "--json").json()["segments"]
    second = imported.told("archive", "--json").json()["segments"]

    assert {item["stream"] for item in first} == {"chzzk", "imports", "operations"}
    assert second == []
    assert "0 segments" in imported.told("archive").out.replace("nothing", "0 segments")


def test_a_segment_can_be_asked_to_have_a_size_and_to_end_before_a_time(imported: Archiving) -> None:
    """A nightly job closes whole days and leaves the small rest for the next night."""
    assert (
        imported.told("archive", "--stream", "chzzk", "--until", "2020-01-01", "--json").json()["segments"]
        == []
    )
    made = imported.told("archive", "--stream", "chzzk", "--min-events", "5000", "--json").json()["segments"]

    assert {item["entries"] for item in made} == {5_000}
    assert imported.told("archive", "--until", "yesterday").code == 2


def test_verify_says_no_and_names_partition_and_position(imported: Archiving) -> None:
    """A flipped byte is only found in time if a person is told where it is."""
    made = imported.told("archive", "--stream", "chzzk", "--json").json()["segments"]
    lost = next(item for item in made if (item["partition"], item["number"]) == (1, 2))
    for file in (imported.directory / "archive" / "chzzk" / "0001").glob("00000002-*"):
        file.unlink()

    done = imported.told("audit", "verify", "--json")
    shown = imported.told("audit", "verify", "--stream", "chzzk")

    assert (done.code, shown.code) == (1, 1)
    findings = json.loads(done.out)["findings"]
    assert [(item["stream"], item["partition"], item["segment"]) for item in findings] == [("chzzk", 1, 2)]
    assert (findings[0]["position"], findings[0]["until"]) == (lost["first"], lost["last"])
    assert f"chzzk/1 {lost['first']} .. {lost['last']}: segment 2" in shown.out


def test_the_archive_can_be_moved(imported: Archiving) -> None:
    """Disks fill up; the server must not go on pointing at the old one."""
    imported.told("archive", "--stream", "chzzk")
    other = imported.directory / "other"

    refused = imported.told("archive", archive=other)
    shutil.copytree(imported.directory / "archive", other)
    moved = imported.told("archive", "move", "--stream", "chzzk", "--json", archive=other).json()

    assert refused.code == 1
    assert "aurastream archive move" in refused.err
    assert sum(item["segments"] for item in moved["partitions"]) > PARTITIONS
    assert imported.told("archive", "--stream", "chzzk", archive=other).code == 0
    assert imported.told("audit", "verify", archive=other).code == 0


def test_a_partition_that_is_refused_holds_no_other_one_back(imported: Archiving, server: Server) -> None:
    """One damaged partition must not let all logs grow for ever."""
    imported.told("archive", "--stream", "chzzk")
    server.client.delete(Keys("chzzk", 0).log)

    done = imported.told("archive", "--json")

    assert done.code == 1
    told = json.loads(done.out)
    assert [(item["stream"], item["partition"]) for item in told["refused"]] == [("chzzk", 0)]
    assert "older copy" in told["refused"][0]["message"]
    assert {item["stream"] for item in told["segments"]} == {"imports", "operations"}
    assert "chzzk/0" in done.err


def test_without_a_place_there_is_a_sentence(imported: Archiving) -> None:
    """The setting that is missing is named, not guessed."""
    done = imported.told("archive", archive="")

    assert done.code == 2
    assert "Set AURASTREAM_ARCHIVE" in done.err


@pytest.mark.parametrize("place", ["nowhere://x/y", "s3://"])
def test_a_place_that_is_none_is_a_sentence(imported: Archiving, place: str) -> None:
    """A typing error in a URL is the person's to mend, so it must not look like a bug."""
    done = imported.told("archive", archive=place)

    assert done.code in (1, 2)
    assert "AURASTREAM_ARCHIVE" in done.err


def test_a_trimmed_log_is_verified_and_checked_from_the_archive(imported: Archiving, server: Server) -> None:
    """Trimming must not cost the proof: check and verify read on from the archive."""
    imported.told("archive", "--stream", "chzzk")
    assert imported.told("run", "--until-idle").code == 0
    trimmed = imported.told("trim", "--stream", "chzzk", "--keep-events", "1000", "--json")

    assert trimmed.code == 0, trimmed
    assert (
        sum(server.client.xlen(Keys("chzzk", partition).log) for partition in range(PARTITIONS))
        == PARTITIONS * 1_000
    )
    assert imported.told("audit", "verify").code == 0
    assert imported.told("check", "--stream", "chzzk").code == 0
    assert imported.told("audit", "verify", archive="").code == 1


def test_an_archive_on_s3_is_a_url_and_its_options(imported: Archiving) -> None:
    """Object stores are where archives live; no code may know that they are not a directory."""
    with s3_server() as options:
        place = bucket(options)
        there = {"archive": place.url, "archive_options": json.dumps(place.options)}

        made = imported.told("archive", "--stream", "chzzk", "--json", **there).json()["segments"]
        verified = imported.told("audit", "verify", "--json", **there)

        assert sum(item["entries"] for item in made) == SLICE_ROWS
        assert verified.json()["sound"] is True
