"""Imports: what was read of every file into every stream, which rows were refused and why. Keys are
stream:file name.
"""

from __future__ import annotations

import msgspec

from aurastream.projections.engine import Listing, Projection
from aurastream.streams import ImportFinished, ImportRowRejected


class Import(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file. rejected: rows refused so far; rows, valid_rows, file_sha256, format: once it was read to its
    end.

    stream: where its events went. finishes: contents under this name that were read to the end.
    """

    stream: str
    rejected: int = 0
    rows: int = 0
    valid_rows: int = 0
    file_sha256: str = ""
    format: str = ""
    finishes: int = 0


class Imports(Projection[Import]):
    """By stream and file name; lives in the stream of the imports' own events."""

    name = "imports"
    events = (ImportRowRejected, ImportFinished)
    state = Import
    table = "files"
    streams = ("imports",)
    listings = (
        Listing(
            "rejects",
            key=lambda event: event.subject,
            item=lambda before, after, event, position: (
                {"row": event.row, "columns": event.columns, "reason": event.reason}
                if isinstance(event, ImportRowRejected)
                else None
            ),
        ),
    )

    def apply(self, state: Import | None, event: ImportRowRejected | ImportFinished) -> Import:
        """One more refused row, or the end of the file."""
        held = state or Import(event.stream)
        if isinstance(event, ImportRowRejected):
            return msgspec.structs.replace(held, rejected=held.rejected + 1)
        return Import(
            event.stream,
            held.rejected,
            event.rows,
            event.valid_rows,
            event.file_sha256,
            event.format,
            held.finishes + 1,
        )
