"""
The index of entities: where the events of each subject are, in streams that ask for expected versions.

    row    subject|chunk -> positions of its events number 16 * chunk, .. of 10 bytes each (index.py), in the
           order of its versions
    row    subject|chunk|slot -> position as text, where it exceeds 10 bytes; its place in the row above is
           zeros

append.lua keeps it in the script that appends, so the event that made a subject's version n is the one at
place n - 1. Zeros
without a row of their own: the event is from before there was an index. The trimmer leaves it alone: its
positions are found in the archive. What is not appended but added by hand (a raw XADD) has neither version
nor place.

Decision (2026-11): rows of 16, of all subjects of a call read by one command and written by one. An event
costs 13 bytes on Valkey 9.1, 15 on Redis 7.0; its server time is within the noise of a shared machine (-3 to
+6 us against keeping versions alone). Each append writes its row anew, 60 bytes of AOF an event in calls of
many subjects and 145 in calls of one. Refused: rows of 32 and 100 (2 and 3 bytes less, in the AOF 2 and 4
times as much), a field an event (60 bytes), HGET and HSET a subject (6 us).
"""

from __future__ import annotations

from aurastream.streams.drive import Command, Reply
from aurastream.streams.index import unpack_position
from aurastream.streams.stream import Stream

CHUNK = 16  # places a row has; append.lua holds the same number
PLACE_BYTES = 10
_NOWHERE = bytes(PLACE_BYTES)
ROWS_MAX = 128  # rows a look


class Places:
    """The places of one subject's events up to a version, read from the server as far as they are asked for.

    rows: those that the caller has read already, by chunk.
    """

    def __init__(
        self, stream: Stream, subject: str, version: int, rows: dict[int, bytes] | None = None
    ) -> None:
        self._stream, self._subject, self.version = stream, subject, version
        self._partition = stream.partition_of(subject)
        self._rows = dict(rows or {})

    def between(self, first: int, last: int) -> list[str | None]:
        """Positions of the events number first, .. last - 1 (from 0), in order; None for one that the index
        does not know.
        """
        chunks = range(first // CHUNK, -(-last // CHUNK))
        self._load(chunks)
        places: list[str | None] = []
        for chunk in chunks:
            start = chunk * CHUNK
            places += [
                self._place(chunk, slot) for slot in range(max(0, first - start), min(CHUNK, last - start))
            ]
        return places

    def _place(self, chunk: int, slot: int) -> str | None:
        packed = self._rows[chunk][slot * PLACE_BYTES : (slot + 1) * PLACE_BYTES]
        if packed not in (b"", _NOWHERE):
            return unpack_position(packed).decode()
        text: bytes | None = self._ask(("HGET", self._key, f"{self._subject}|{chunk}|{slot}"))
        return None if text is None else text.decode()

    def _load(self, chunks: range) -> None:
        missing = [chunk for chunk in chunks if chunk not in self._rows]
        for start in range(0, len(missing), ROWS_MAX):
            part = missing[start : start + ROWS_MAX]
            rows = self._ask(("HMGET", self._key, *[f"{self._subject}|{chunk}" for chunk in part]))
            self._rows |= {chunk: row or b"" for chunk, row in zip(part, rows, strict=True)}

    @property
    def _key(self) -> str:
        return self._stream.keys[self._partition].entities

    def _ask(self, command: Command) -> Reply:
        return self._stream.ask(self._partition, command, what=f"read of {self._subject}")[0]
