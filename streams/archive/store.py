"""
The archive's files: a directory, or any place fsspec knows.

    Store("/var/aurastream") | Store("s3://bucket/prefix", {"endpoint_url": ..})    paths are relative, with /

Always true: a file is there whole or not at all, after a power loss too: in a directory it is written under
another name, synced, renamed, and the directory synced; an object store makes an object visible when it has
all of it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from aurastream.streams import ArchiveUnusable

T = TypeVar("T")

PART = ".part"  # of a file under way in a directory: what is left of one after a kill ends so


class Store:
    """Whole files by relative path.

    Raises FileNotFoundError where there is none, ArchiveUnusable for anything else that fails.
    """

    def __init__(self, url: str, options: Mapping[str, object] | None = None) -> None:
        self._root: Path | None = None
        if "://" not in url or url.startswith("file://"):
            self._root = Path(url.removeprefix("file://")).expanduser().absolute()
            self.url = str(self._root)
            return
        scheme, _, place = url.partition("://")
        place = place.rstrip("/")
        self.url = f"{scheme}://{place.rpartition('@')[2]}"  # kept and shown: without a name and password
        if not place:
            raise ArchiveUnusable(url, "it names no place")
        self._connect(f"{scheme}://{place}", options or {})

    def _connect(self, url: str, options: Mapping[str, object]) -> None:
        from fsspec.core import url_to_fs

        try:
            # Listings are never remembered: what is there decides what may be removed.
            self._fs, self._base = url_to_fs(url, use_listings_cache=False, **options)
        except (ImportError, ValueError, TypeError) as error:
            raise ArchiveUnusable(self.url, f"{error}") from error

    def read(self, path: str) -> bytes:
        """The file's bytes."""
        if self._root is not None:
            return bytes(self._guarded(path, (self._root / path).read_bytes))
        return bytes(self._guarded(path, self._fs.cat_file, f"{self._base}/{path}"))

    def write(self, path: str, content: bytes) -> None:
        """Put the file there, whole; one of that name is replaced."""
        try:
            if self._root is not None:
                self._guarded(path, _write_synced, self._root, path, content)
            else:
                self._guarded(path, self._fs.pipe_file, f"{self._base}/{path}", content)
        except FileNotFoundError as error:  # a bucket that is none
            raise ArchiveUnusable(self.url, str(error)) from error

    def delete(self, path: str) -> None:
        """Remove the file; one that is gone already is fine."""
        try:
            if self._root is not None:
                self._guarded(path, (self._root / path).unlink)
            else:
                self._guarded(path, self._fs.rm_file, f"{self._base}/{path}")
        except FileNotFoundError:
            return

    def names(self, folder: str) -> list[str]:
        """The names of the folder's files, sorted; none where there is no folder."""
        try:
            if self._root is not None:
                names = self._guarded(folder, _names_in, self._root / folder)
            else:
                listed = self._guarded(folder, self._fs.ls, f"{self._base}/{folder}", True)
                names = [item["name"].rpartition("/")[2] for item in listed if item["type"] == "file"]
        except FileNotFoundError:
            return []
        return sorted(name for name in names if name)

    def _guarded(self, path: str, operation: Callable[..., T], *arguments: object) -> T:
        try:
            return operation(*arguments)
        except (FileNotFoundError, ArchiveUnusable):
            raise
        except Exception as error:  # each file system raises kinds of its own, and not all are OSErrors
            raise ArchiveUnusable(f"{self.url}/{path}", f"{type(error).__name__}: {error}") from error


def _names_in(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.is_file()]


def _write_synced(root: Path, path: str, content: bytes) -> None:
    place = root / path
    _make_folders(place.parent)
    part = place.with_name(f".{place.name}.{secrets.token_hex(4)}{PART}")
    with part.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(place)
    _sync(place.parent)


def _make_folders(folder: Path) -> None:
    """Make it, and have each new name in its parent on the disk too."""
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
