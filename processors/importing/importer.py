"""
Import a file: rows become events, refused rows become events of their own, the end of the file one more.

    rows -> batches in file order -> append to the stream     rejects, end of file -> the stream "imports",
        and a rejects file

Event ID = file name + ":" + data row number, so importing again, or twice at once, appends nothing new, and
an import that was killed is resumed by starting it again. Order per subject is file order: every importer
sends its batches one after the other, and of two importers the one ahead is simply followed. A file whose
content changed under its name since it was imported is refused before its first row. A row from the future (a
broken clock) is refused like one that cannot be read, as append would refuse its whole batch.

A row that names its channel (YouTube's channel_title, Chzzk's member_id of the metadata) makes an event of
that creator, whose title and channel are sealed (streams/personal/); `aurastream erase` takes the name as it
is in the file. The rejects file is plain text.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from aurastream.processors.importing.formats import (
    FileRow,
    Format,
    FormatError,
    Metadata,
    Reject,
    open_file,
    read_rows,
)
from aurastream.streams import (
    AHEAD_MAX,
    ClipViewsObserved,
    Event,
    ImportFinished,
    ImportRowRejected,
    Outcome,
    Stream,
    is_reserved,
)

BATCH = 2_000
NAME_MAX = 100  # characters of a file's name in its events' IDs
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Imported(msgspec.Struct):
    """What an import did. appended + duplicates = valid rows; finished: the file was read to its end."""

    file: str
    stream: str
    rows: int = 0
    appended: int = 0
    duplicates: int = 0
    rejected: int = 0
    rejects_file: str | None = None
    file_sha256: str = ""
    finished: bool = False


def file_id(path: Path) -> str:
    """The file's name in event IDs and as a subject: a character outside A-Za-z0-9_.- as :XX of its UTF-8;
    long ones cut by digest.
    """
    name = re.sub(
        r"[^A-Za-z0-9_.-]",
        lambda other: "".join(f":{byte:02X}" for byte in os.fsencode(other.group())),
        path.name,
    )
    return _short(name)


def import_id(stream: str, file: str) -> str:
    """The subject of what an import says of itself: one content of one file in one stream."""
    return _short(f"{stream}:{file}")


def _short(name: str) -> str:
    return (
        name
        if len(name) <= NAME_MAX
        else f"{name[: NAME_MAX - 18]}::{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    )


class ImportOptions(msgspec.Struct, frozen=True):
    """How a file is imported. batch: rows an append. rejects_path: default FILE's name.rejects.jsonl here.
    progress: called with the account after each batch.
    """

    metadata: Mapping[str, Metadata] | None = None
    batch: int = BATCH
    rejects_path: Path | None = None
    progress: Callable[[Imported], None] = lambda account: None


AS_USUAL = ImportOptions()


def import_file(
    path: Path, form: Format, stream: Stream, imports: Stream, options: ImportOptions = AS_USUAL
) -> Imported:
    """Import the file. imports: the stream of what imports say of themselves.

    Raises FormatError (after the rows before the damage were appended) and the errors of append.
    """
    result = Imported(file_id(path), stream.name)
    result.file_sha256 = sha256_of(path)
    subject = import_id(stream.name, result.file)
    _refuse_changed(result, subject, path, imports)
    work = _FileImport(
        stream, imports, subject, result, options.rejects_path or Path(f"{path.name}.rejects.jsonl")
    )
    try:
        for chunk in _chunks(read_rows(path, form, options.metadata), options.batch):
            work.append(chunk)
            options.progress(result)
    except FormatError as error:
        error.add_note(_account(result))
        raise
    finally:
        result.rejects_file = work.rejects.close()
    work.finish(form)
    return result


class _FileImport:
    """An import under way: counts in its result; last: the latest instant seen so far."""

    def __init__(
        self, stream: Stream, imports: Stream, subject: str, result: Imported, rejects: Path
    ) -> None:
        self._stream, self._imports, self._subject, self._result = stream, imports, subject, result
        self.rejects, self._last = _Rejects(rejects), EPOCH

    def append(self, chunk: list[FileRow | Reject]) -> None:
        """Append one batch."""
        events, refused = self._events_of(chunk)
        placed = self._stream.append(events)
        self._imports.append(refused)
        duplicates = sum(item.outcome is Outcome.DUPLICATE for item in placed)
        self._result.rows += len(chunk)
        self._result.duplicates += duplicates
        self._result.appended += len(placed) - duplicates
        self._result.rejected += len(refused)

    def _events_of(self, chunk: list[FileRow | Reject]) -> tuple[list[Event], list[Event]]:
        """The observations, and the rejections: those are in the rejects file now."""
        events: list[Event] = []
        refused: list[Event] = []
        latest = datetime.now(UTC) + AHEAD_MAX
        for item in chunk:
            row = _refused(item, latest) if isinstance(item, FileRow) else item
            if isinstance(row, FileRow):
                events.append(observation(row, self._result.file))
                self._last = max(self._last, row.observed_at)
            else:
                self.rejects.write(row)
                refused.append(rejection(row, self._subject, self._stream.name))
        return events, refused

    def finish(self, form: Format) -> None:
        """The file was read to its end: say so."""
        result = self._result
        finished = ImportFinished(
            event_id=f"{self._subject}:finished:{result.file_sha256[:16]}",
            subject=self._subject,
            occurred_at=self._last,
            source="import",
            stream=self._stream.name,
            format=form.name,
            file_sha256=result.file_sha256,
            rows=result.rows,
            valid_rows=result.rows - result.rejected,
            rejected_rows=result.rejected,
        )
        self._imports.append([finished])
        result.finished = True


def _refused(row: FileRow, latest: datetime) -> FileRow | Reject:
    """The row, or why append would refuse it."""
    if row.observed_at > latest:
        why = f"observed {row.observed_at.isoformat()}, more than 24 h ahead"
    elif is_reserved(row.title) or is_reserved(row.channel):
        why = "its title or channel begins as a sealed text does"
    else:
        return row
    shown = f"{row.subject},{row.observed_at.isoformat()},{row.views},{row.category}"
    return Reject(row.number, ("row",), f"row: {why}", shown[:500])


def observation(row: FileRow, file: str) -> ClipViewsObserved:
    """The row as an event; texts are cut to what an event holds. The creator is the channel: nothing else in
    a file names one.
    """
    return ClipViewsObserved(
        event_id=f"{file}:{row.number}",
        subject=row.subject,
        occurred_at=row.observed_at,
        source="import",
        views=row.views,
        category=row.category[:1000],
        title=row.title[:1000],
        channel=row.channel[:1000],
        created_at=row.created_at,
        creator=row.channel[:1000],
    )


def rejection(row: Reject, subject: str, stream: str) -> ImportRowRejected:
    """The refused row as an event. Its time is no fact of ours, so it is the epoch, at every import."""
    return ImportRowRejected(
        event_id=f"{subject}:{row.number}",
        subject=subject,
        occurred_at=EPOCH,
        source="import",
        stream=stream,
        row=row.number,
        columns=row.columns,
        reason=row.reason.encode("utf-8", "backslashreplace").decode()[:1000],
    )


def sha256_of(path: Path) -> str:
    """Of the file as stored. Raises FormatError when it cannot be read."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_changed(result: Imported, subject: str, path: Path, imports: Stream) -> None:
    """Raise FormatError when the name has stood for other content in this stream. Asked of imports that came
    to their end: a file
    that was cut off is fetched again under its name, and its rows are the same rows."""
    for event in _events(imports, imports.partition_of(subject)):
        if (
            isinstance(event, ImportFinished)
            and event.subject == subject
            and event.file_sha256 != result.file_sha256
        ):
            raise FormatError(
                f"{path.name} was imported before with other content (sha256 {event.file_sha256[:12]}.., now "
                f"{result.file_sha256[:12]}..): the same row numbers would mean other facts. Nothing was "
                "appended; "
                "give the new content a name of its own."
            )


def _events(stream: Stream, partition: int) -> Iterator[Event]:
    after = "0-0"
    while entries := stream.read(partition, after):
        yield from (entry.event for entry in entries)
        after = entries[-1].position


def _chunks(rows: Iterator[FileRow | Reject], size: int) -> Iterator[list[FileRow | Reject]]:
    """Batches of rows; where the file ends in an error, the rows before it come first."""
    chunk: list[FileRow | Reject] = []
    try:
        for row in rows:
            chunk.append(row)
            if len(chunk) == size:
                yield chunk
                chunk = []
    except FormatError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def _account(result: Imported) -> str:
    of_them = f"{result.appended} appended, {result.duplicates} known, {result.rejected} refused"
    return f"{result.rows} rows were taken: {of_them}."


class _Rejects:
    """The rejects file, JSON lines; made at the first reject, complete or absent."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_name(f"{path.name}.{os.getpid()}.part")
        self._file: BinaryIO | None = None

    def write(self, reject: Reject) -> None:
        if self._file is None:
            self._file = self._opened()
        shown = {
            "row": reject.number,
            "columns": reject.columns,
            "reason": reject.reason,
            "text": reject.text,
        }
        self._file.write(msgspec.json.encode(shown) + b"\n")

    def _opened(self) -> BinaryIO:
        try:
            return self._part.open("wb")
        except OSError as error:
            raise FormatError(
                f"the rejects file {self._path} cannot be written ({error.strerror}). Name another with "
                "--rejects and repeat: what is there already counts once."
            ) from error

    def close(self) -> str | None:
        if self._file is None:
            return None
        self._file.close()
        self._part.replace(self._path)
        return os.fsencode(self._path).decode("utf-8", "backslashreplace")
