"""
The bare server's limit: the bytes the product sent, sent again with nothing of ours in the way.

    with recorded() as sent: the product works        replay(url, sent): the same bytes, as fast as the server
                                                      takes them

The caller puts the server back into the state the recording began from, and compares the results: a replay
whose scripts answered STALE would look fast.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from hiredis import pack_command

from aurastream.streams import Script, Wire

RECEIVE_BYTES = 1 << 20
_END = b"end-of-the-replay"
_ANSWER_TO_END = b"$%d\r\n%s\r\n" % (len(_END), _END)


@contextmanager
def recorded() -> Iterator[list[bytes]]:
    """Everything that any Wire of this process sends, one item per send."""
    sent: list[bytes] = []
    original = Wire.send

    def send(self: Wire, commands: Iterable[tuple[Any, ...]]) -> None:
        batch = list(commands)
        sent.append(b"".join([pack_command(command) for command in batch]))
        original(self, batch)

    Wire.send = send  # type: ignore[method-assign]
    try:
        yield sent
    finally:
        Wire.send = original  # type: ignore[method-assign]


class Bare:
    """A raw connection, scripts loaded, ready to replay."""

    def __init__(self, url: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(url.removeprefix("unix://"))
        self.replay([pack_command(("SCRIPT", "LOAD", script.text)) for script in Script.every.values()])

    def replay(self, sent: list[bytes]) -> None:
        """Write everything without waiting, drop the answers, and return once the last one is there."""
        writer = threading.Thread(target=self._write, args=([*sent, pack_command(("ECHO", _END))],))
        writer.start()
        tail = b""
        buffer = bytearray(RECEIVE_BYTES)
        while not tail.endswith(_ANSWER_TO_END):
            size = self._socket.recv_into(buffer)
            if not size:
                raise ConnectionError("the server closed the connection during a replay")
            tail = (tail + buffer[max(0, size - len(_ANSWER_TO_END)) : size])[-len(_ANSWER_TO_END) :]
        writer.join()

    def _write(self, sent: list[bytes]) -> None:
        for item in sent:
            self._socket.sendall(item)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
