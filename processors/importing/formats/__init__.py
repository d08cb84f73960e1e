"""
The files people have: rows in, observations out. Open to others: registry.py. Pure parsing; what becomes of a
row is importer.py's.

Promise: every data row is yielded once, as a FileRow or as a Reject that names its columns and why; a file
that cannot be read to its end says so in a FormatError after all rows before the damage. Rows are streamed; a
file's size does not matter.

Definitions of a valid row: one look at one subject, its ID and counts in the platform's own form, its date a
real day. The rules for likes, dislikes and comments hold as well: on the files we know they refuse exactly
the same rows.
"""

from aurastream.processors.importing.formats.reading import open_file, read_metadata, read_rows
from aurastream.processors.importing.formats.registry import FORMATS_GROUP, FormatUnfit, find_formats
from aurastream.processors.importing.formats.rows import FileRow, Format, FormatError, Metadata, Reject
from aurastream.processors.importing.formats.tables import OURS

__all__ = [
    "FORMATS_GROUP",
    "OURS",
    "FileRow",
    "Format",
    "FormatError",
    "FormatUnfit",
    "Metadata",
    "Reject",
    "find_formats",
    "open_file",
    "read_metadata",
    "read_rows",
]
