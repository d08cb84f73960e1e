"""
A segment's entries as a Parquet table.

    raw entries + which are duplicates -> table (one row an entry)
        -> Parquet, zstd         and back: entries.py

    position        string     as in the log
    appended_at     timestamp  ms, UTC: the position's clock; null beyond the year 9999
    event_id, type, subject, source, correlation_id, causation_id   string; null for an entry that is no
        undamaged event
    occurred_at     timestamp  us, UTC
    fields          string     JSON object: all of the event but type, event_id and subject; the whole event
        where is_whole
    is_whole        bool       the event's JSON does not begin as ours does
    crc32           uint32     of the event's JSON
    is_duplicate    bool       another entry of the log is canonical for the event ID
    raw             binary     MessagePack of [field, value, ..]: of entries that are not the fields event
        and crc32, and damaged ones

Always true: ``entries_of(table_of(entries))`` are the entries, byte for byte. Pure but for pyarrow's memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from aurastream.streams import (
    DamagedEntry,
    Envelope,
    RawEntry,
    entries_json,
    entry_json,
    microseconds,
    read_envelopes,
)
from aurastream.streams.archive.manifest import GROUP_ENTRIES

ZSTD_LEVEL = 3
PAGE_BYTES = 16 * 2**20  # a column of a row group in one page, so that zstd sees all of it
LATEST_MS = 253_402_300_799_999  # the last millisecond of the year 9999: what a datetime holds

SCHEMA = pa.schema(
    [
        pa.field("position", pa.string(), nullable=False),
        pa.field("appended_at", pa.timestamp("ms", "UTC")),
        pa.field("event_id", pa.string()),
        pa.field("type", pa.string()),
        pa.field("subject", pa.string()),
        pa.field("occurred_at", pa.timestamp("us", "UTC")),
        pa.field("source", pa.string()),
        pa.field("correlation_id", pa.string()),
        pa.field("causation_id", pa.string()),
        pa.field("fields", pa.string()),
        pa.field("is_whole", pa.bool_(), nullable=False),
        pa.field("crc32", pa.uint32()),
        pa.field("is_duplicate", pa.bool_(), nullable=False),
        pa.field("raw", pa.binary()),
    ]
)
ENVELOPE = ("event_id", "type", "subject", "source", "correlation_id", "causation_id")
REPEATING = ["type", "subject", "source", "correlation_id", "causation_id"]  # few values: a dictionary
GROWING = dict.fromkeys(("position", "event_id", "fields"), "DELTA_BYTE_ARRAY")  # alike as the one before
COUNTING = dict.fromkeys(("appended_at", "occurred_at"), "DELTA_BINARY_PACKED")


class Identified(msgspec.Struct, frozen=True):
    """Entries with what can be read of them: per entry its JSON and its envelope, None where it is no
    undamaged event.
    """

    raw: list[RawEntry]
    jsons: list[bytes | None]
    envelopes: list[Envelope | None]


class _Cells(NamedTuple):
    """Of an entry's row, what its fields decide. fields: None where all of it is in raw."""

    fields: bytes | None
    is_whole: bool
    raw: bytes | None


def identify(raw: list[RawEntry]) -> Identified:
    """Read the envelopes."""
    whole = entries_json([fields for _, fields in raw])
    jsons: list[bytes | None] = list(whole) if whole is not None else [_json(fields) for _, fields in raw]
    readable = iter(read_envelopes([json for json in jsons if json is not None]))
    return Identified(raw, jsons, [next(readable) if json is not None else None for json in jsons])


def _json(fields: list[bytes]) -> bytes | None:
    try:
        return entry_json("", fields)
    except DamagedEntry:
        return None


def is_plain(fields: list[bytes]) -> bool:
    """Whether they are the two fields of our entries, in our order."""
    return len(fields) == 4 and fields[0] == b"event" and fields[2] == b"crc32"


def table_of(entries: Identified, duplicates: Collection[bytes]) -> pa.Table:
    """One row an entry."""
    cells = [
        _cells(fields, json, envelope)
        for (_, fields), json, envelope in zip(entries.raw, entries.jsons, entries.envelopes, strict=True)
    ]
    try:
        texts = _texts(cells)
    except pa.ArrowInvalid:  # a field that msgspec skipped is no UTF-8
        cells = [
            row if _is_text(row.fields) else _kept(fields)
            for row, (_, fields) in zip(cells, entries.raw, strict=True)
        ]
        texts = _texts(cells)
    envelopes = [
        envelope if row.fields is not None else None
        for row, envelope in zip(cells, entries.envelopes, strict=True)
    ]
    columns = {
        **_columns_of_places([position for position, _ in entries.raw], duplicates),
        **_columns_of_envelopes(envelopes),
        "fields": texts,
        "is_whole": pa.array((row.is_whole for row in cells), pa.bool_()),
        "crc32": pa.array(
            (
                int(fields[3]) if row.raw is None else None
                for row, (_, fields) in zip(cells, entries.raw, strict=True)
            ),
            pa.uint32(),
        ),
        "raw": pa.array((row.raw for row in cells), pa.binary()),
    }
    return pa.Table.from_arrays([columns[field.name] for field in SCHEMA], schema=SCHEMA)


def _columns_of_places(positions: list[bytes], duplicates: Collection[bytes]) -> dict[str, pa.Array]:
    clocks = [int(position.partition(b"-")[0]) for position in positions]
    return {
        "position": pa.array([position.decode() for position in positions], pa.string()),
        "appended_at": _times([ms if ms <= LATEST_MS else None for ms in clocks], "ms"),
        "is_duplicate": pa.array([position in duplicates for position in positions], pa.bool_()),
    }


def _columns_of_envelopes(envelopes: list[Envelope | None]) -> dict[str, pa.Array]:
    columns = {
        name: pa.array([None if item is None else getattr(item, name) for item in envelopes], pa.string())
        for name in ENVELOPE
    }
    occurred = [None if item is None else microseconds(item.occurred_at) for item in envelopes]
    return {**columns, "occurred_at": _times(occurred, "us")}


def _times(numbers: list[int | None], unit: str) -> pa.Array:
    return pa.array(numbers, pa.int64()).cast(pa.timestamp(unit, "UTC"))


def _texts(cells: Iterable[_Cells]) -> pa.Array:
    return pa.array([row.fields for row in cells], pa.binary()).cast(pa.string())


def _cells(fields: list[bytes], json: bytes | None, envelope: Envelope | None) -> _Cells:
    if json is None or envelope is None:
        return _kept(fields)
    raw = None if is_plain(fields) else msgspec.msgpack.encode(fields)
    begin = f'{{"type":"{envelope.type}","event_id":"{envelope.event_id}","subject":"{envelope.subject}",'
    encoded = begin.encode()
    if json.startswith(encoded):
        return _Cells(b"{" + json[len(encoded) :], False, raw)
    return _Cells(json, True, raw)


def _kept(fields: list[bytes]) -> _Cells:
    return _Cells(None, False, msgspec.msgpack.encode(fields))


def _is_text(content: bytes | None) -> bool:
    try:
        return content is None or content.decode() is not None
    except UnicodeDecodeError:
        return False


def to_parquet(table: pa.Table) -> bytes:
    """The file's bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=GROUP_ENTRIES,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        data_page_size=PAGE_BYTES,
        use_dictionary=REPEATING,  # pyright: ignore[reportArgumentType] - a list of columns too
        column_encoding={**GROWING, **COUNTING},
        store_schema=False,
        write_page_checksum=True,
    )
    return bytes(sink.getvalue())
