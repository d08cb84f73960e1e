"""
A segment's entries as a Parquet table, and back to the same bytes.

    raw entries + which are duplicates -> table (one row an entry) -> Parquet, zstd         rows -> raw
        entries + duplicates

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
    raw             binary     MessagePack of [field, value, ..]: of entries that are not the fields event and
                    crc32, and damaged ones

Always true: ``entries_of(table_of(entries))`` are the entries, byte for byte. Pure but for pyarrow's memory.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from aurastream.streams import (
    DamagedEntry,
    Envelope,
    RawEntry,
    as_pair,
    entries_json,
    entry_json,
    read_envelopes,
)
from aurastream.streams.archive.arrow import text_of
from aurastream.streams.archive.manifest import GROUP_ENTRIES

ZSTD_LEVEL = 3
PAGE_BYTES = 16 * 2**20  # a column of a row group in one page, so that zstd sees all of it
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
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
NEEDED = (
    "position",
    "event_id",
    "type",
    "subject",
    "fields",
    "is_whole",
    "crc32",
    "is_duplicate",
    "raw",
)  # for entries_of
REPEATING = ["type", "subject", "source", "correlation_id", "causation_id"]  # few values: a dictionary
GROWING = {
    "position": "DELTA_BYTE_ARRAY",
    "event_id": "DELTA_BYTE_ARRAY",
    "fields": "DELTA_BYTE_ARRAY",
}  # alike as the one before
COUNTING = {"appended_at": "DELTA_BINARY_PACKED", "occurred_at": "DELTA_BINARY_PACKED"}

_BEGIN, _ID, _SUBJECT, _REST, _NOTHING = (
    text_of(part, pa.binary()) for part in (b'{"type":"', b'","event_id":"', b'","subject":"', b'",', b"")
)


class Identified(msgspec.Struct, frozen=True):
    """Entries with what can be read of them: per entry its JSON and its envelope, None where it is no
    undamaged event.
    """

    raw: list[RawEntry]
    jsons: list[bytes | None]
    envelopes: list[Envelope | None]


def identify(raw: list[RawEntry]) -> Identified:
    """Read the envelopes."""
    found = entries_json([fields for _, fields in raw])
    jsons: list[bytes | None] = list(found) if found is not None else [_json(fields) for _, fields in raw]
    sound = read_envelopes([json for json in jsons if json is not None])
    rest = iter(sound)
    envelopes = [next(rest) if json is not None else None for json in jsons]
    return Identified(raw, jsons, envelopes)


def _json(fields: list[bytes]) -> bytes | None:
    try:
        return entry_json("", fields)
    except DamagedEntry:
        return None


def table_of(found: Identified, duplicates: Collection[bytes]) -> pa.Table:
    """One row an entry."""
    envelopes = found.envelopes
    rows = [
        _row(fields, json, envelope)
        for (_, fields), json, envelope in zip(found.raw, found.jsons, envelopes, strict=True)
    ]
    texts, wholes, raws = ([row[index] for row in rows] for index in range(3))
    try:
        column = pa.array(texts, pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:  # a field that msgspec skipped is no UTF-8
        rows = [
            row if _is_text(row[0]) else _kept(fields)
            for row, (_, fields) in zip(rows, found.raw, strict=True)
        ]
        envelopes = [
            envelope if row[0] is not None else None for row, envelope in zip(rows, envelopes, strict=True)
        ]
        texts, wholes, raws = ([row[index] for row in rows] for index in range(3))
        column = pa.array(texts, pa.binary()).cast(pa.string())
    positions = [position.decode() for position, _ in found.raw]
    clocks = [as_pair(position)[0] for position in positions]
    columns: dict[str, Any] = {
        "position": positions,
        "appended_at": pa.array([ms if ms <= LATEST_MS else None for ms in clocks], pa.int64()),
        "occurred_at": pa.array(
            [None if item is None else microseconds(item.occurred_at) for item in envelopes], pa.int64()
        ),
        "fields": column,
        "is_whole": wholes,
        "crc32": [
            int(fields[3]) if row[2] is None else None
            for row, (_, fields) in zip(rows, found.raw, strict=True)
        ],
        "is_duplicate": [position in duplicates for position, _ in found.raw],
        "raw": raws,
    }
    for name in ("event_id", "type", "subject", "source", "correlation_id", "causation_id"):
        columns[name] = [None if item is None else getattr(item, name) for item in envelopes]
    arrays = [_array(columns[field.name], field.type) for field in SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _row(
    fields: list[bytes], json: bytes | None, envelope: Envelope | None
) -> tuple[bytes | None, bool, bytes | None]:
    """fields, is_whole and raw of an entry."""
    if json is None or envelope is None:
        return _kept(fields)
    raw = (
        None
        if len(fields) == 4 and fields[0] == b"event" and fields[2] == b"crc32"
        else msgspec.msgpack.encode(fields)
    )
    begin = f'{{"type":"{envelope.type}","event_id":"{envelope.event_id}","subject":"{envelope.subject}",'.encode()
    if json.startswith(begin):
        return b"{" + json[len(begin) :], False, raw
    return json, True, raw


def _kept(fields: list[bytes]) -> tuple[None, bool, bytes]:
    return None, False, msgspec.msgpack.encode(fields)


def _is_text(content: bytes | None) -> bool:
    try:
        return content is None or content.decode() is not None
    except UnicodeDecodeError:
        return False


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)


def microseconds(instant: Any) -> int:
    """Since 1970, of an aware datetime."""
    since = instant - EPOCH
    return int((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)


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
        use_dictionary=REPEATING,
        column_encoding={**GROWING, **COUNTING},
        store_schema=False,
        write_page_checksum=True,
    )
    return bytes(sink.getvalue())


def is_written(content: bytes, raw: list[RawEntry], duplicates: Collection[bytes]) -> bool:
    """Whether the file gives these entries, and no others, and marks these duplicates."""
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        start, marked = 0, 0
        for group in range(file.metadata.num_row_groups):
            back, marks = entries_of(file.read_row_group(group, columns=list(NEEDED), use_threads=False))
            if back != [
                (position, fields) for position, fields in raw[start : start + len(back)]
            ] or not marks <= set(duplicates):
                return False
            start, marked = start + len(back), marked + len(marks)
    return (start, marked) == (len(raw), len(duplicates))


@contextmanager
def collector_paused() -> Iterator[None]:
    """Without the garbage collector, which looks at all that is being built again and again and finds no
    cycle: half of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def entries_of(table: pa.Table) -> tuple[list[RawEntry], frozenset[bytes]]:
    """The entries of a table that has the columns NEEDED, and the positions of those that are duplicates."""
    with collector_paused():
        positions = values_of(table["position"])
        jsons = values_of(_jsons(table))
        crcs = values_of(table["crc32"].cast(pa.string()))
        raw: list[RawEntry] = [
            (position, [b"event", json, b"crc32", crc])
            for position, json, crc in zip(positions, jsons, crcs, strict=True)
        ]
    if table["raw"].null_count < len(raw):
        for index, kept in enumerate(table["raw"].to_pylist()):
            if kept is not None:
                raw[index] = (positions[index], msgspec.msgpack.decode(kept, type=list[bytes]))
    if not pc.any(table["is_duplicate"]).as_py():
        return raw, frozenset()
    marks = table["is_duplicate"].to_pylist()
    return raw, frozenset(position for position, is_one in zip(positions, marks, strict=True) if is_one)


def _jsons(table: pa.Table) -> pa.ChunkedArray:
    """The events' JSON; null where the entry is kept raw without one."""
    kind, name, subject, fields = (
        table[column].cast(pa.binary()) for column in ("type", "event_id", "subject", "fields")
    )
    usual = pc.binary_join_element_wise(
        _BEGIN,
        kind,
        _ID,
        name,
        _SUBJECT,
        subject,
        pc.binary_replace_slice(fields, 0, 1, _REST.as_py()),
        _NOTHING,
    )
    return pc.if_else(table["is_whole"], fields, usual) if pc.any(table["is_whole"]).as_py() else usual


def values_of(column: pa.ChunkedArray) -> list[bytes]:
    """A column of text or bytes as Python bytes, b"" for null: five times as fast as to_pylist."""
    whole = column.combine_chunks()
    chunks = whole.chunks if isinstance(whole, pa.ChunkedArray) else [whole]
    values: list[bytes] = []
    for chunk in chunks:
        if len(chunk) == 0:
            continue
        _, bounds, content = chunk.buffers()
        ends = memoryview(bounds).cast("i")[chunk.offset : chunk.offset + len(chunk) + 1].tolist()
        data = content.to_pybytes() if content is not None else b""
        values += [data[start:end] for start, end in pairwise(ends)]
    return values
