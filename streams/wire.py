"""
A blocking connection of one's own: send many, receive in order. And the Lua scripts that it loads when it is
opened.

    Script(__file__, "lease.lua")                          one file beside its caller, called by its SHA-1
    Script(__file__, "append/budget.lua", .., "append.lua")  parts and the whole: joined in this order, as one
        chunk

A part is a file of local functions with a contract of its own; what it uses of an earlier part, its header
says. A part of another package is named by its path. Lua on the server has no include; joined here, a
function of a part costs what it would cost in one file. See connection.py for why redis-py's client is not on
top of a wire.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha1
from pathlib import Path

from hiredis import pack_command
from redis.connection import AbstractConnection, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from aurastream.streams.drive import Command, Reply, sound, waits_s

OUT_OF_STEP = "the connection was out of step: it held an answer that nobody waited for"


class Script:
    """The script made of these files, which are beside `beside`. name: of the last one."""

    every: dict[str, Script] = {}  # noqa: RUF012 - the registry of scripts, filled at import

    def __init__(self, beside: str, *files: str | Path) -> None:
        self.name = Path(files[-1]).name
        folder = Path(beside).parent
        self.text = "".join([(folder / file).read_text(encoding="utf-8") for file in files])
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        Script.every[self.sha] = self

    def call(self, keys: Iterable[str | bytes], args: Iterable[object]) -> Command:
        """The EVALSHA command."""
        names = tuple(keys)
        return ("EVALSHA", self.sha, len(names), *names, *args)


class Wire:
    """One connection: commands go out together, answers come back in order.

    ``send`` writes without waiting; ``receive`` returns the next answer, an error of the server as a value
    (so that the answers behind it are not lost), and raises when the connection is lost. Not for several
    threads, but for ``cut``.
    """

    def __init__(
        self, connection: AbstractConnection, timeout_s: float, on_silence: Callable[[], None] = lambda: None
    ) -> None:
        """timeout_s: for each answer, besides what the server was bidden to wait. on_silence: called when
        one did not come.
        """
        self._connection, self._timeout_s, self._on_silence = connection, timeout_s, on_silence
        self._waits_s: deque[float] = deque()  # of the commands that are not answered yet
        self._is_sealed = isinstance(
            connection, SSLConnection
        )  # TLS has bytes of its own, which are none of ours
        try:
            connection.connect()
            self.ask(*[("SCRIPT", "LOAD", script.text) for script in Script.every.values()])
            if connection.socket_timeout != timeout_s:
                connection.update_current_socket_timeout(timeout_s)
        except BaseException:
            self.close()
            raise

    @property
    def outstanding(self) -> int:
        """How many answers are under way."""
        return len(self._waits_s)

    def send(self, commands: Iterable[Command]) -> None:
        """Write the commands. Raises one of LOST when the connection is gone, or out of step: a connection
        that answers what nobody asked cannot be trusted with the next question.
        """
        if not self._waits_s and not self._is_sealed and self._connection.can_read(0):
            self.close()
            raise RedisConnectionError(OUT_OF_STEP)
        written = list(commands)
        packed = [pack_command(command) for command in written]
        self._waits_s.extend([waits_s(command) for command in written])
        self._connection.send_packed_command(packed, check_health=False)

    def receive(self) -> Reply:
        """The next answer, or the server's error as a value."""
        wait_s = self._waits_s.popleft()
        try:
            if not wait_s:
                return self._connection.read_response(disable_decoding=True)
            return self._connection.read_response(disable_decoding=True, timeout=self._timeout_s + wait_s)
        except ResponseError as error:
            return error
        except InvalidResponse as error:
            self.close()
            raise RedisConnectionError(f"the server's answer cannot be read ({error})") from error
        except RedisTimeoutError as error:
            self._on_silence()
            raise RedisTimeoutError(f"no answer within {self._timeout_s + wait_s:g} s") from error

    def ask(self, *commands: Command) -> list[Reply]:
        """Send and receive all; raises the first error among the answers."""
        self.send(commands)
        return sound([self.receive() for _ in commands])

    def cut(self) -> None:
        """From any thread: whoever waits for an answer is given a lost connection instead."""
        end = self._connection._sock
        if end is not None:
            with suppress(OSError):  # closed meanwhile
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Drop the connection; answers under way are lost, and their outcome unknown."""
        self._waits_s.clear()
        self._connection.disconnect()
