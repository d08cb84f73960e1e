"""
Read a file of rows as a stream: plain or gzip, RFC 4180 quoting, UTF-8.

    bytes -> (gunzip, bounded) -> lines (bounded) -> csv -> cells -> Row or Reject

Bad UTF-8, NUL, over-long lines and the wrong number of cells cost their row only. A damaged or bomb-like gzip ends the file with a
FormatError after the rows before it. Limits are constants below.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from aurastream.processors.formats.rows import Format, FormatError, Metadata, Reject, Row
from aurastream.processors.formats.tables import FORMATS

LINE_MAX = 1024 * 1024  # bytes
TEXT_MAX = 500  # characters of a refused row that are kept
RATIO_MAX = 200  # bytes out per byte in, once RATIO_FROM bytes have come out
RATIO_FROM = 64 * 1024 * 1024
METADATA_COLUMNS = ("video_no", "title", "date", "duration_min", "member_id", "generation", "unit")

_TOO_LONG = "\0too long"


def read_rows(path: Path, form: Format, metadata: Mapping[str, Metadata] | None = None) -> Iterator[Row | Reject]:
    """Every data row, numbered from 1. Raises FormatError for what is wrong with the file as a whole."""
    known = dict(metadata or {})
    width, parse = len(form.columns), form.parse
    for number, cells in _table(path, form.columns, form.name):
        text = ",".join(cells)
        if not text.isprintable() and (problem := _unreadable(text)):
            yield Reject(number, ("row",), f"row: {problem}", _shown(text))
        elif len(cells) != width:
            yield Reject(number, ("row",), f"row: {len(cells)} cells, the header has {width}", _shown(text))
        elif isinstance(row := parse(number, cells, known), Row):
            yield row
        else:
            yield Reject(number, _ordered(row, form), "; ".join(f"{name}: {why}" for name, why in row.items()), _shown(text))


def read_metadata(path: Path) -> dict[str, Metadata]:
    """Subjects of a Chzzk metadata file: title, channel (member_id), publication day."""
    found = {}
    for number, cells in _table(path, METADATA_COLUMNS, "chzzk metadata"):
        if len(cells) != len(METADATA_COLUMNS):
            raise FormatError(f"{path.name}: data row {number} has {len(cells)} cells, not {len(METADATA_COLUMNS)}. Mend the row.")
        video_no, title, date, _, member_id, *_ = cells
        try:
            created = datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC) if date else None
        except ValueError as error:
            raise FormatError(f"{path.name}: date {date[:40]!r} in data row {number} is no day as YYYY-MM-DD. Mend it.") from error
        found[video_no] = Metadata(title, member_id, created)
    return found


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


def _table(path: Path, columns: tuple[str, ...], name: str) -> Iterator[tuple[int, list[str]]]:
    """Data rows with their numbers, after the header was found to be right."""
    number = 0
    try:
        with _opened(path) as file:
            reader = csv.reader(_lines(file), strict=False)
            header = next(reader, None)
            _check_header(path, header, columns, name)
            for cells in reader:
                if cells:
                    number += 1
                    yield number, cells
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FormatError(
            f"{path.name}: the gzip stream is damaged or cut off after data row {number} ({error}). "
            "The rows before it were read; fetch the file again and repeat: what is there already counts once."
        ) from error
    except csv.Error as error:
        raise FormatError(f"{path.name}: no CSV after data row {number} ({error}). Mend the quoting there.") from error


def _check_header(path: Path, header: list[str] | None, columns: tuple[str, ...], name: str) -> None:
    if header is None:
        raise FormatError(f"{path.name} is empty: it has not even a header. Expected the columns {', '.join(columns)}.")
    if tuple(header) == columns:
        return
    fitting = [form.name for form in FORMATS.values() if form.columns == tuple(header)]
    missing = [column for column in columns if column not in header]
    unknown = [column[:40] for column in header if column not in columns][:10]
    remedy = f"Use --format {fitting[0]}" if fitting else "Give the file these columns, in this order: " + ", ".join(columns)
    raise FormatError(
        f"{path.name} is no {name} file: missing columns {', '.join(missing) or 'none'}, "
        f"unknown {', '.join(unknown) or 'none'}. {remedy}."
    )


def _opened(path: Path) -> Any:
    try:
        file = path.open("rb")
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}). Name a file, plain or .gz.") from error
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
            yield f"{line[:TEXT_MAX].decode('utf-8', 'replace').replace(chr(34), '')}{_TOO_LONG}\n"
        else:
            yield line.decode("utf-8-sig" if first else "utf-8", "surrogateescape")
        first = False
