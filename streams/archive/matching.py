"""
Which entries of a row group a scan is for: by its statistics first, then by the columns of the values, then
by the rest.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from aurastream.streams.archive.arrow import compute, number_of, text_of
from aurastream.streams.archive.entries import NEEDED
from aurastream.streams.archive.where import Where

ANY_TIME = (-(2**63), 2**63)


def matching(file: pq.ParquetFile, group: int, where: Where) -> pa.Table | None:
    """The row group's entries with these values, with the columns NEEDED; None where there are none."""
    if not where.can_be_in(*_occurred(file, group)):
        return None
    mask: pa.ChunkedArray | None = None
    for column in _masks(file, group, where):
        mask = column if mask is None else compute.and_(mask, column)
        if not compute.any(mask).as_py():
            return None
    table = file.read_row_group(group, columns=NEEDED, use_threads=False)
    return table if mask is None else table.filter(mask)


def _masks(file: pq.ParquetFile, group: int, where: Where) -> Iterator[pa.ChunkedArray]:
    """For each value, which entries have it; a column is read when its turn has come."""
    for name, value in where.equals().items():
        column = _column(file, group, name)
        yield compute.equal(column, text_of(value.encode(), column.type))
    since, until = where.occurred()
    if since is None and until is None:
        return
    instants = _column(file, group, "occurred_at").cast(pa.int64())
    if since is not None:
        yield compute.greater_equal(instants, number_of(since, pa.int64()))
    if until is not None:
        yield compute.less(instants, number_of(until, pa.int64()))


def _column(file: pq.ParquetFile, group: int, name: str) -> pa.ChunkedArray:
    return file.read_row_group(group, columns=[name], use_threads=False)[name]


def _occurred(file: pq.ParquetFile, group: int) -> tuple[int | None, int | None]:
    """Least and greatest occurred_at of a row group, by its statistics; ANY_TIME where it has none."""
    column = file.metadata.row_group(group).column(file.schema_arrow.get_field_index("occurred_at"))
    statistics = column.statistics
    if statistics is not None and statistics.has_min_max:
        return statistics.min_raw, statistics.max_raw  # microseconds; min and max would be made by pandas
    is_empty = statistics is not None and statistics.null_count == column.num_values
    return (None, None) if is_empty else ANY_TIME
