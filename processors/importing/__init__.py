from aurastream.processors.importing.importer import BATCH, IMPORTS, Imported, import_file, sha256_of

__all__ = ["BATCH", "IMPORTS", "Imported", "import_file", "sha256_of"]
