"""
Personal fields: sealed under a key of their creator's own, so that dropping the key erases them everywhere at once.
"""

from __future__ import annotations

from aurastream.streams.connection import Server


class Keyring:
    """Seals and opens personal fields. One per stream object."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def open_json(self, raw: bytes) -> bytes:
        """JSON as stored, with every sealed text opened; what was erased becomes ""."""
        return raw
