"""Where the archive's files are: whole or not there, in a directory and on S3."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aurastream.streams.archive.store import Store
from aurastream.streams.errors import ArchiveUnusable
from tests.streams.archive.places import bucket, directory, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    with s3_server() as options:
        yield options


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    place = (
        directory(tmp_path / "a" / "b")
        if request.param == "directory"
        else bucket(request.getfixturevalue("s3"))
    )
    return Store(place.url, place.options)


def test_files_are_written_listed_replaced_and_deleted(store: Store) -> None:
    """A directory and a bucket keep the same promises."""
    assert store.names("x/0000") == []
    store.write("x/0000/b", b"1" * 100_000)
    store.write("x/0000/a", b"2")
    store.write("x/0000/a", b"3")
    store.write("x/0000/below/c", b"4")

    assert store.names("x/0000") == ["a", "b"]
    assert (store.read("x/0000/a"), len(store.read("x/0000/b"))) == (b"3", 100_000)
    store.delete("x/0000/a")
    store.delete("x/0000/a")
    assert store.names("x/0000") == ["b"]
    with pytest.raises(FileNotFoundError):
        store.read("x/0000/a")


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power loss a name stands for all of its content, and the name itself is there."""
    store, steps = Store(str(tmp_path / "archive")), []
    sync, replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        steps.append(f"sync {os.readlink(f'/proc/self/fd/{descriptor}').removeprefix(str(tmp_path))}")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", lambda path, to: (steps.append("rename"), replace(path, to))[1])

    store.write("x/f", b"content")

    assert [step.split(".f.")[0] for step in steps] == [
        "sync ",
        "sync /archive",
        "sync /archive/x/",
        "rename",
        "sync /archive/x",
    ]


@pytest.mark.parametrize("url", ["nowhere://x/y", "s3://", "file-that-is-one/archive"])
def test_a_place_that_cannot_be_used_is_told_in_a_sentence(tmp_path: Path, url: str) -> None:
    """It is a setting: the person who set it reads the error."""
    (tmp_path / "file-that-is-one").write_text("")

    with pytest.raises(ArchiveUnusable, match="AURASTREAM_ARCHIVE"):
        Store(url if "://" in url else str(tmp_path / url)).write("x/f", b"")


@pytest.mark.slow
def test_a_bucket_that_is_none_is_told_in_a_sentence(s3: dict[str, Any]) -> None:
    """A missing bucket looks like a missing file, and must not be taken for an empty archive."""
    with pytest.raises(ArchiveUnusable, match="s3://no-bucket"):
        Store("s3://no-bucket/archive", s3).write("x/f", b"")


def test_what_is_shown_of_a_place_has_no_password() -> None:
    """Urls are kept in Redis, logged and printed."""
    assert Store("memory://user:secret@host/archive").url == "memory://host/archive"
