"""
Files become events, each row once: formats/ read them, importer.py appends.

Promise: an import may be repeated, killed or run twice at once; every row of the file is in the log once, or
refused with its reason.
"""

from aurastream.processors.importing.importer import BATCH, Imported, ImportOptions, import_file, sha256_of

__all__ = ["BATCH", "ImportOptions", "Imported", "import_file", "sha256_of"]
