"""What the formats share: the row, the refused row, and the checks of single cells."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

import msgspec

from aurastream.streams import COUNT_MAX

Problems = dict[str, str]  # column -> what is wrong, in a few words

_VIDEO_ID = re.compile(r"[0-9A-Za-z_-]{11}", re.ASCII)


class FormatError(Exception):
    """A file that is not what it was said to be; the message says where and what to do."""


class FileRow(msgspec.Struct, frozen=True):
    """One look at one subject. number: data row from 1. observed_at, created_at: UTC."""

    number: int
    subject: str
    observed_at: datetime
    views: int
    category: str
    title: str
    channel: str
    created_at: datetime | None


class Reject(msgspec.Struct, frozen=True):
    """A data row that is unusable: the columns that make it so, why, and its text, 500 characters at most."""

    number: int
    columns: tuple[str, ...]
    reason: str
    text: str


class Metadata(msgspec.Struct, frozen=True):
    """What another file says of a subject."""

    title: str
    channel: str
    created_at: datetime | None


class Format(msgspec.Struct, frozen=True):
    """A kind of file. dataset: where its files come from, in reports. columns: its header, exactly.
    parse(number, cells, metadata) gives a FileRow, or the problems by column.
    """

    name: str
    dataset: str
    columns: tuple[str, ...]
    parse: Callable[[int, list[str], dict[str, Metadata]], FileRow | Problems]


def is_count(cell: str) -> bool:
    """ASCII digits, below 2^53."""
    return cell.isascii() and cell.isdecimal() and len(cell) <= 16 and int(cell) <= COUNT_MAX


def is_video_id(cell: str) -> bool:
    """As YouTube makes them: 11 of 0-9 A-Z a-z _ -."""
    return len(cell) == 11 and _VIDEO_ID.fullmatch(cell) is not None


def show(cell: str) -> str:
    """A cell in a sentence."""
    return repr(cell if len(cell) <= 40 else cell[:40] + "..")
