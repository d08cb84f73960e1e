from aurastream.processors.importing.importer import BATCH, Imported, import_file, sha256_of

__all__ = ["BATCH", "Imported", "import_file", "sha256_of"]
