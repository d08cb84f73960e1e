"""
Lua scripts, each beside its caller: called by its SHA-1, loaded by every wire when it is opened.

    Script(__file__, "lease.lua")                             one file
    Script(__file__, "append/budget.lua", .., "append.lua")   parts and the whole: joined in this order, as
    one chunk

A part is a file of local functions with a contract of its own; what it uses of an earlier part, its header
says. Lua on the server has no include; joined here, a function of a part costs what it would cost in one
file.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha1
from pathlib import Path

from aurastream.streams.drive import Command


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
