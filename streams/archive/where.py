"""
Which entries a scan is for, and which of a row group they are: by statistics first, then by the columns asked
for, then by the rest.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from aurastream.streams.archive.arrow import number_of, text_of
from aurastream.streams.archive.segment import NEEDED


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """The values asked for. occurred: from the first instant, up to but not including the second,
    microseconds since 1970.
    """

    subject: str | None = None
    type: str | None = None
    source: str | None = None
    correlation_id: str | None = None
    occurred: tuple[int | None, int | None] = (None, None)

    def equals(self) -> dict[str, str]:
        """Column -> the value it must have."""
        names = ("subject", "type", "source", "correlation_id")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def can_be_in(self, low: int | None, high: int | None) -> bool:
        """Whether events that occurred between the two (None: there are none) can be among them."""
        since, until = self.occurred
        if low is None or high is None:
            return since is None and until is None and not self.equals()
        return (since is None or high >= since) and (until is None or low < until)


def matching(file: pq.ParquetFile, group: int, where: Where) -> pa.Table | None:
    """The row group's entries with these values, with the columns NEEDED; None where there are none."""
    if not where.can_be_in(*_occurred(file, group)):
        return None
    mask: Any = None
    for name, value in where.equals().items():
        column = _column(file, group, name)
        mask = _both(mask, pc.equal(column, text_of(value.encode(), column.type)))
        if not pc.any(mask).as_py():
            return None
    since, until = where.occurred
    if since is not None or until is not None:
        instants = _column(file, group, "occurred_at").cast(pa.int64())
        mask = (
            mask if since is None else _both(mask, pc.greater_equal(instants, number_of(since, pa.int64())))
        )
        mask = mask if until is None else _both(mask, pc.less(instants, number_of(until, pa.int64())))
        if not pc.any(mask).as_py():
            return None
    table = file.read_row_group(group, columns=list(NEEDED), use_threads=False)
    return table if mask is None else table.filter(mask)


def _column(file: pq.ParquetFile, group: int, name: str) -> pa.ChunkedArray:
    return file.read_row_group(group, columns=[name], use_threads=False)[name]


def _both(mask: Any, other: Any) -> Any:
    return other if mask is None else pc.and_(mask, other)


def _occurred(file: pq.ParquetFile, group: int) -> tuple[int | None, int | None]:
    """Least and greatest occurred_at of a row group, by its statistics; as wide as can be where it has none."""
    column = file.metadata.row_group(group).column(file.schema_arrow.get_field_index("occurred_at"))
    found = column.statistics
    if found is None or not found.has_min_max:
        return (
            (None, None) if found is not None and found.null_count == column.num_values else (-(2**63), 2**63)
        )
    return found.min_raw, found.max_raw  # microseconds; min and max would be made by pandas
