"""
A blocking connection of one's own: send many, receive in order. And the Lua scripts that it loads when it is
opened.

    Script(__file__, "lease.lua")                          one file beside its caller, called by its SHA-1
    Script(__file__, "append/budget.lua", .., "append.lua")  parts and the whole: joined in this order, as one
        chunk

A part is a file of local functions with a contract of its own; what it uses of an earlier part, its header
says. Lua on the server has no include; joined here, a function of a part costs what it would cost in one
file. See connection.py for why redis-py's client is not on top of a wire.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha1
from pathlib import Path

from hiredis import pack_command
from redis.connection import AbstractConnection
from redis.exceptions import ResponseError

from aurastream.streams.drive import Command, Reply, sound


class Script:
    """The script made of these files, which are beside `beside`. name: of the last one."""

    every: dict[str, Script] = {}  # noqa: RUF012 - the registry of scripts, filled at import

    def __init__(self, beside: str, *files: str) -> None:
        self.name = files[-1]
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
    threads.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self.outstanding = 0
        connection.connect()
        self.ask(*[("SCRIPT", "LOAD", script.text) for script in Script.every.values()])

    def send(self, commands: Iterable[Command]) -> None:
        """Write the commands. Raises one of LOST when the connection is gone."""
        packed = [pack_command(command) for command in commands]
        self.outstanding += len(packed)
        self._connection.send_packed_command(packed, check_health=False)

    def receive(self) -> Reply:
        """The next answer, or the server's error as a value."""
        self.outstanding -= 1
        try:
            return self._connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return error

    def ask(self, *commands: Command) -> list[Reply]:
        """Send and receive all; raises the first error among the answers."""
        self.send(commands)
        return sound([self.receive() for _ in commands])

    def close(self) -> None:
        """Drop the connection; answers under way are lost, and their outcome unknown."""
        self._connection.disconnect()
