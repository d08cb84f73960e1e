"""
A segment's table back to entries, byte for byte (segment.py has the columns).

    table -> the usual beginning of each event's JSON made again
        -> (position, [b"event", JSON, b"crc32", digits]) -> what was kept raw, raw
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import pairwise

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from aurastream.streams import RawEntry
from aurastream.streams.archive.arrow import compute, text_of

NEEDED = [
    "position",
    "event_id",
    "type",
    "subject",
    "fields",
    "is_whole",
    "crc32",
    "is_duplicate",
    "raw",
]  # for entries_of

_BEGIN, _ID, _SUBJECT, _REST, _NOTHING = (
    text_of(part, pa.binary()) for part in (b'{"type":"', b'","event_id":"', b'","subject":"', b'",', b"")
)


def is_written(content: bytes, raw: list[RawEntry], duplicates: Collection[bytes]) -> bool:
    """Whether the file gives these entries, and no others, and marks these duplicates."""
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        start, marked = 0, 0
        for group in range(file.metadata.num_row_groups):
            back, marks = entries_of(file.read_row_group(group, columns=NEEDED, use_threads=False))
            written = [(position, fields) for position, fields in raw[start : start + len(back)]]
            if back != written or not marks <= set(duplicates):
                return False
            start, marked = start + len(back), marked + len(marks)
    return (start, marked) == (len(raw), len(duplicates))


@contextmanager
def collector_paused() -> Iterator[None]:
    """Without the garbage collector, which looks at all that is built again and again, finds no cycle, and
    takes half of the time.
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
    if not compute.any(table["is_duplicate"]).as_py():
        return raw, frozenset()
    marks = table["is_duplicate"].to_pylist()
    return raw, frozenset(position for position, is_one in zip(positions, marks, strict=True) if is_one)


def _jsons(table: pa.Table) -> pa.ChunkedArray:
    """The events' JSON; null where the entry is kept raw without one."""
    kind, name, subject, fields = (
        table[column].cast(pa.binary()) for column in ("type", "event_id", "subject", "fields")
    )
    usual = compute.binary_join_element_wise(
        _BEGIN,
        kind,
        _ID,
        name,
        _SUBJECT,
        subject,
        compute.binary_replace_slice(fields, 0, 1, _REST.as_py()),
        _NOTHING,
    )
    return (
        compute.if_else(table["is_whole"], fields, usual) if compute.any(table["is_whole"]).as_py() else usual
    )


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
