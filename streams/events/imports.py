"""What imports say of themselves."""

from __future__ import annotations

from aurastream.streams.events.envelope import Count, Event, Sha256, ShortText


class ImportRowRejected(Event, frozen=True, kw_only=True, tag="import.row_rejected"):
    """A row of an imported file could not become an event. The subject is stream:file name, as of all import
    events.

    row: data row number from 1. columns: those that make the row unusable. reason: a sentence. stream: where
    it was meant to go.
    """

    stream: ShortText
    row: Count
    columns: tuple[str, ...]
    reason: ShortText


class ImportFinished(Event, frozen=True, kw_only=True, tag="import.finished"):
    """A file was read to its end; the same content finishes once. rows = valid_rows + rejected_rows."""

    stream: ShortText
    format: ShortText
    file_sha256: Sha256
    rows: Count
    valid_rows: Count
    rejected_rows: Count
