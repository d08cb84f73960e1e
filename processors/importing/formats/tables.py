"""
Our formats: header, and how a row is read.

    chzzk            observed_at, video_no, view_count, category; titles from a second file
    youtube-2017-09  one line a trending video and day; date DD.MM of 2017
    youtube-2017-11  the richer format; trending_date YY.DD.MM

Fields of the YouTube sets: the data sets' own descriptions (Kaggle, "Trending YouTube Video Statistics").
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

from aurastream.processors.importing.formats.rows import (
    FileRow,
    Format,
    Metadata,
    Problems,
    is_count,
    is_video_id,
    show,
)

_NOTHING_KNOWN = Metadata("", "", None)


@lru_cache(4096)
def _instant(text: str) -> datetime | None:
    """ISO 8601 with an offset, in UTC; None for anything else. Cached: a snapshot's rows share it."""
    try:
        instant = datetime.fromisoformat(text)
        return instant.astimezone(UTC) if instant.tzinfo is not None else None
    except (ValueError, OverflowError):  # the latter: the offset moves it out of the years 1 to 9999
        return None


@lru_cache(4096)
def _day_of_2017(text: str) -> datetime | None:
    """DD.MM, two digits each."""
    return _day(text, 5, "%d.%m.%Y", ".2017")


@lru_cache(4096)
def _day_yy_dd_mm(text: str) -> datetime | None:
    """YY.DD.MM, two digits each."""
    return _day(text, 8, "%y.%d.%m", "")


def _day(text: str, length: int, form: str, tail: str) -> datetime | None:
    if len(text) != length or not text.isascii() or not text.replace(".", "").isdecimal():
        return None
    try:
        return datetime.strptime(text + tail, form).replace(tzinfo=UTC)
    except ValueError:
        return None


def _chzzk(number: int, cells: list[str], metadata: dict[str, Metadata]) -> FileRow | Problems:
    observed_at, video_no, view_count, category = cells
    at = _instant(observed_at)
    if (
        at is not None
        and is_count(view_count)
        and video_no.isascii()
        and video_no.isdecimal()
        and len(video_no) <= 32
    ):
        known = metadata.get(video_no, _NOTHING_KNOWN)
        return FileRow(
            number, video_no, at, int(view_count), category, known.title, known.channel, known.created_at
        )
    return _chzzk_problems(cells, at)


def _chzzk_problems(cells: list[str], at: datetime | None) -> Problems:
    observed_at, video_no, view_count, _ = cells
    problems = {}
    if at is None:
        problems["observed_at"] = f"{show(observed_at)} is no instant with an offset"
    if not (video_no.isascii() and video_no.isdecimal() and len(video_no) <= 32):
        problems["video_no"] = f"{show(video_no)} is not decimal"
    if not is_count(view_count):
        problems["view_count"] = f"{show(view_count)} is no count below 2^53"
    return problems


def _youtube_problems(video_id: str, counts: dict[str, str]) -> Problems:
    problems = {}
    if not is_video_id(video_id):
        problems["video_id"] = f"{show(video_id)} is not 11 of 0-9 A-Z a-z _ -"
    for column, cell in counts.items():
        if not is_count(cell):
            problems[column] = f"{show(cell)} is no count below 2^53"
    return problems


def _youtube_2017_09(number: int, cells: list[str], metadata: dict[str, Metadata]) -> FileRow | Problems:
    video_id, date, title, channel, category, views, likes, dislikes, comments = cells
    problems = _youtube_problems(
        video_id, {"views": views, "likes": likes, "dislikes": dislikes, "comment_total": comments}
    )
    at = _day_of_2017(date)
    if at is None:
        problems["date"] = f"{show(date)} is no day as DD.MM"
    if problems or at is None:
        return problems
    return FileRow(number, video_id, at, int(views), category, title, channel, None)


def _youtube_2017_11(number: int, cells: list[str], metadata: dict[str, Metadata]) -> FileRow | Problems:
    video_id, date, title, channel, category, published, views, likes, dislikes, comments, *_flags = cells
    problems = _youtube_problems(
        video_id, {"views": views, "likes": likes, "dislikes": dislikes, "comment_count": comments}
    )
    at, created = _day_yy_dd_mm(date), _instant(published)
    if at is None:
        problems["trending_date"] = f"{show(date)} is no day as YY.DD.MM"
    if created is None:
        problems["publish_time"] = f"{show(published)} is no instant with an offset"
    if problems or at is None:
        return problems
    return FileRow(number, video_id, at, int(views), category, title, channel, created)


def _format(name: str, dataset: str, columns: str, parse: Callable[..., FileRow | Problems]) -> Format:
    return Format(name, dataset, tuple(columns.split()), parse)


OURS = (
    _format("chzzk", "chzzk", "observed_at video_no view_count category", _chzzk),
    _format(
        "youtube-2017-09",
        "yt09",
        "video_id date title channel_title category_id views likes dislikes comment_total",
        _youtube_2017_09,
    ),
    _format(
        "youtube-2017-11",
        "yt11",
        "video_id trending_date title channel_title category_id publish_time views likes dislikes "
        "comment_count comments_disabled ratings_disabled video_error_or_removed",
        _youtube_2017_11,
    ),
)
