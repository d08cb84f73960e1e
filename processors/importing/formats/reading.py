"""
Read a file of rows as a stream: plain or gzip, RFC 4180 quoting, UTF-8.

    bytes -> (gunzip, bounded) -> lines (bounded) -> csv -> cells -> FileRow or Reject

Bad UTF-8, NUL, over-long lines, stray quotes and the wrong number of cells cost their row only: where a quote
is never closed, or a row of several lines has the wrong number of cells, its first line is refused and the
lines after it are read anew. A row of several lines that is legal, but some of whose lines are rows
themselves, is two stray quotes or a forgery: each of its lines is refused. A damaged or bomb-like gzip ends
the file with a FormatError after the rows before it. Limits are constants below.
"""

from __future__ import annotations

import csv
import gzip
import stat
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from aurastream.processors.importing.formats.registry import find_formats
from aurastream.processors.importing.formats.rows import FileRow, Format, FormatError, Metadata, Reject

LINE_MAX = 1024 * 1024  # bytes; of all the lines of a row together as well
TEXT_MAX = 500  # characters of a refused row that are kept
RATIO_MAX = 200  # bytes out per byte in, once RATIO_FROM bytes have come out
RATIO_FROM = 64 * 1024 * 1024
METADATA_COLUMNS = ("video_no", "title", "date", "duration_min", "member_id", "generation", "unit")

_TOO_LONG = "\0too long"


def read_rows(
    path: Path, form: Format, metadata: Mapping[str, Metadata] | None = None
) -> Iterator[FileRow | Reject]:
    """Every data row, numbered from 1. Raises FormatError for what is wrong with the file as a whole."""
    known = dict(metadata or {})
    width, parse = len(form.columns), form.parse

    def is_row(cells: list[str]) -> bool:
        return len(cells) == width and isinstance(parse(0, cells, known), FileRow)

    for number, cells, problem in _table(path, form.columns, form.name, is_row):
        text = ",".join(cells)
        if not text.isprintable() and (unreadable := _unreadable(text)):
            yield Reject(number, ("row",), f"row: {unreadable}", _shown(text))
        elif problem:
            yield Reject(number, ("row",), f"row: {problem}", _shown(text))
        elif len(cells) != width:
            yield Reject(number, ("row",), f"row: {len(cells)} cells, the header has {width}", _shown(text))
        elif isinstance(row := parse(number, cells, known), FileRow):
            yield row
        else:
            yield Reject(
                number,
                _ordered(row, form),
                "; ".join(f"{name}: {why}" for name, why in row.items()),
                _shown(text),
            )


def read_metadata(path: Path) -> dict[str, Metadata]:
    """Subjects of a Chzzk metadata file: title, channel (member_id), publication day."""
    metadata = {}
    for number, cells, problem in _table(
        path, METADATA_COLUMNS, "chzzk metadata", lambda cells: len(cells) == len(METADATA_COLUMNS)
    ):
        if problem := problem or _unreadable(",".join(cells)):
            raise FormatError(f"{path.name}: data row {number} cannot be read: {problem}. Mend the row.")
        if len(cells) != len(METADATA_COLUMNS):
            raise FormatError(
                f"{path.name}: data row {number} has {len(cells)} cells, not {len(METADATA_COLUMNS)}. Mend "
                "the row."
            )
        video_no, title, date, _, member_id, *_ = cells
        metadata[video_no] = Metadata(title, member_id, _day(date, path.name, number) if date else None)
    return metadata


def _day(date: str, file: str, number: int) -> datetime:
    """Its midnight, UTC. number: of the data row, for the sentence. Raises FormatError."""
    try:
        return datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise FormatError(
            f"{file}: date {date[:40]!r} in data row {number} is no day as YYYY-MM-DD. Mend it."
        ) from error


def _ordered(problems: dict[str, str], form: Format) -> tuple[str, ...]:
    return tuple(column for column in form.columns if column in problems)


def _shown(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()[:TEXT_MAX]


def _unreadable(text: str) -> str:
    """Why a row's text cannot be trusted; "" when it can."""
    if _TOO_LONG in text:
        return f"a line is longer than {LINE_MAX} bytes"
    if "\0" in text:
        return "it holds a NUL"
    if any("\ud800" <= char <= "\udfff" for char in text):
        return "it is not UTF-8"
    return ""


def _table(
    path: Path, columns: tuple[str, ...], name: str, is_row: Callable[[list[str]], bool]
) -> Iterator[tuple[int, list[str], str]]:
    """Data rows: number, cells, and what is wrong with the row's quoting ("" as a rule); after the header was
    found to be right.
    """
    number = 0
    try:
        with _opened(path) as file:
            records = _records(_lines(file), len(columns), is_row)
            header, problem = next(records, (None, ""))
            _check_header(path, header, problem, columns, name)
            for cells, problem in records:
                if cells:
                    number += 1
                    yield number, cells, problem
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FormatError(
            f"{path.name}: the gzip stream is damaged or cut off after data row {number} ({error}). "
            "The rows before it were read; fetch the file again and repeat: what is there already counts "
            "once."
        ) from error


def _records(
    source: Iterator[str], width: int, is_row: Callable[[list[str]], bool]
) -> Iterator[tuple[list[str], str]]:
    """Cells of every row and what is wrong with its quoting. Reads a line three times at most, on average."""
    lines = _CsvLines(source)
    while not lines.is_at_end:
        try:
            for cells in csv.reader(lines.taken()):
                if lines.is_at_end:  # csv asked for more: a quote was open
                    yield lines.refused("a quote is never closed")
                elif len(cells) != width and len(lines.row) > 1:
                    yield lines.refused(
                        f"it runs over {len(lines.row)} lines and has {len(cells)} cells, the header has "
                        f"{width}"
                    )
                elif len(lines.row) > 1 and any(
                    is_row(reading) for line in lines.row[1:] for reading in _readings(line)
                ):
                    several = f"{len(lines.row)} lines that quotes make one row"
                    problem = f"it is one of {several}, and some are rows themselves"
                    yield from [([_ended(line)], problem) for line in lines.row]
                    lines.row.clear()
                else:
                    lines.row.clear()
                    yield cells, ""
        except _RowTooLong:
            yield lines.refused("a quote is not closed for too long")
        except csv.Error as error:
            yield lines.refused(str(error).partition(" - ")[0])


class _RowTooLong(Exception):
    """The lines of a row are together longer than LINE_MAX."""


class _CsvLines:
    """The file's lines as csv asks for them; row: those of the row it is at."""

    def __init__(self, source: Iterator[str]) -> None:
        self.row: list[str] = []
        self.is_at_end = False
        self._source = source
        self._again: deque[str] = deque()
        self._new = 0  # lines of the row that were read for the first time

    def taken(self) -> Iterator[str]:
        """The lines from here on."""
        row, again, size = self.row, self._again, 0
        while True:
            if not row:
                self._new = size = 0
            if again:
                line = again.popleft()
            elif (fresh := next(self._source, None)) is not None:
                line = fresh
                self._new += 1
            else:
                self.is_at_end = True
                return
            size += len(line)
            if row and (size > LINE_MAX or line.endswith(_TOO_LONG)):
                again.appendleft(line)
                raise _RowTooLong
            row.append(line)
            yield line

    def refused(self, problem: str) -> tuple[list[str], str]:
        """Refuse the row's first line and give the others back. Where most of them were given back before,
        refuse them all: an
        adversary's file would else be read again for every line of it."""
        first, rest = self.row[0], self.row[1:]
        if 2 * self._new >= len(self.row):
            self._again.extendleft(reversed(rest))
            text = first
        else:
            text = "".join(self.row)
        self.row.clear()
        self.is_at_end = self.is_at_end and not self._again
        return [_ended(text)], problem


def _ended(line: str) -> str:
    return line.rstrip("\r\n")


def _readings(line: str) -> Iterator[list[str]]:
    """A line's cells when it is taken for itself: with its quotes meaning something, and without."""
    with suppress(csv.Error):  # then it has only the other reading
        yield from csv.reader([line])
    yield _ended(line).split(",")


def _check_header(
    path: Path, header: list[str] | None, problem: str, columns: tuple[str, ...], name: str
) -> None:
    if header is None:
        raise FormatError(
            f"{path.name} is empty: it has not even a header. Expected the columns {', '.join(columns)}."
        )
    if problem:
        raise FormatError(
            f"{path.name} is no {name} file: in its first line {problem}. Expected the columns "
            f"{', '.join(columns)}."
        )
    if tuple(header) == columns:
        return
    fitting = [form.name for form in find_formats().values() if form.columns == tuple(header)]
    missing = [column for column in columns if column not in header]
    unknown = [column[:40] for column in header if column not in columns][:10]
    remedy = (
        f"Use --format {fitting[0]}"
        if fitting
        else "Give the file these columns, in this order: " + ", ".join(columns)
    )
    raise FormatError(
        f"{path.name} is no {name} file: missing columns {', '.join(missing) or 'none'}, "
        f"unknown {', '.join(unknown) or 'none'}. {remedy}."
    )


def open_file(path: Path) -> BufferedReader:
    """The file, to be read. Raises FormatError when there is none, or when it could not be read a second
    time, as a pipe.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FormatError(
                f"{path} is no regular file, and an import reads it more than once. Name a file, plain or "
                ".gz."
            )
        return path.open("rb")
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}). Name a file, plain or .gz.") from error


def _opened(path: Path) -> Any:
    file = open_file(path)
    is_gzip = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return _Bounded(path, file) if is_gzip else file


class _Bounded(gzip.GzipFile):
    """A gzip stream that refuses to become absurdly larger than its file."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        super().__init__(fileobj=file, mode="rb")
        self._path, self._file = path, file

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(-1 if size is None else size)
        out = self.tell()
        if out > RATIO_FROM and out > RATIO_MAX * max(1, self._file.tell()):
            raise FormatError(
                f"{self._path.name} unpacks to more than {RATIO_MAX} times its size: refused as a gzip bomb. "
                "Unpack it by hand if it is real."
            )
        return line

    def close(self) -> None:
        super().close()
        self._file.close()


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Lines as text: surrogates stand for bytes that are not UTF-8, a marker for a line that is too long."""
    first = True
    while line := file.readline(LINE_MAX):
        if len(line) >= LINE_MAX and not line.endswith(b"\n"):
            while (rest := file.readline(LINE_MAX)) and not rest.endswith(b"\n"):
                pass
            yield f"{line[:TEXT_MAX].decode('utf-8', 'replace').replace(chr(34), '')}{_TOO_LONG}"
        else:
            yield line.decode("utf-8-sig" if first else "utf-8", "surrogateescape")
        first = False
