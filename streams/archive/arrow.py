"""
Arrow's values made from bytes, for comparisons and joins.

``pa.scalar`` and ``pa.array`` ask whether a value is one of pandas', and import pandas for that where it is
installed: half a second that a look at the past need not wait for. Made from buffers they ask nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from struct import pack
from typing import Any

import pyarrow as pa
import pyarrow.compute

compute: Any = pyarrow.compute  # makes its functions when it is imported: no checker of types sees them


def texts_of(values: Sequence[bytes], kind: pa.DataType) -> pa.Array:
    """Values of a binary or string type."""
    offsets = list(accumulate(map(len, values), initial=0))
    buffers = [None, pa.py_buffer(pack(f"<{len(offsets)}i", *offsets)), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(kind, len(values), buffers)


def text_of(value: bytes, kind: pa.DataType) -> pa.Scalar:
    """One value of a binary or string type."""
    return texts_of([value], kind)[0]


def number_of(value: int, kind: pa.DataType) -> pa.Scalar:
    """One value of a type that is 64 bits wide: int64, or a timestamp as its integer."""
    return pa.Array.from_buffers(kind, 1, [None, pa.py_buffer(pack("<q", value))])[0]
