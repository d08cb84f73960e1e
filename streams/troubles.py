"""
What a server refuses or does not answer now, for one event loop's connections.

    a question fails -> begin or refused: kept by node and command, said once -> the same is answered -> ended
    the last one ends -> said once

Reads go on where a full server refuses writes, so what ends a trouble is an answer to the command that was
refused, or to any where there was no answer at all. One that nobody tries again (its lane went elsewhere) is
forgotten after FORGET_S.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from aurastream.streams.drive import Command
from aurastream.streams.faults import said
from aurastream.streams.late import Logger

FORGET_S = 30.0

log = Logger("aurastream.server")


class _Refusal(NamedTuple):
    said: str
    since_ms: int
    last_s: float  # monotonic


class Troubles:
    """By node and command; the command is "" where the node did not answer at all."""

    def __init__(self) -> None:
        self._every: dict[tuple[str, str], _Refusal] = {}

    def __bool__(self) -> bool:
        return bool(self._every)

    def begin(self, where: tuple[str, str], error: BaseException) -> None:
        """It failed; again, perhaps."""
        now_s, before = time.monotonic(), self._every.get(where)
        since_ms = before.since_ms if before else int(time.time() * 1000)
        if not self._every:
            log.warning("server_refuses", node=where[0], said=said(error))
        self._every[where] = _Refusal(said(error), since_ms, now_s)

    def refused(self, node: str, command: Command, error: BaseException) -> None:
        """The server answered that it will not for now."""
        self.begin((node, _name(command)), error)

    def end(self, node: str, commands: Iterable[Command]) -> None:
        """The node answered these as it should."""
        ended = {(node, ""), ("", ""), *[(node, _name(command)) for command in commands]}
        since_ms = self.since_ms()
        self._every = {where: one for where, one in self._every.items() if where not in ended}
        if not self._every and since_ms is not None:
            log.warning("server_back", away_s=round(time.time() - since_ms / 1000, 3))

    def sentence(self) -> str:
        """The one that lasts longest; "" where there is none."""
        oldest = min(self._living(), key=lambda one: one.since_ms, default=None)
        if oldest is None:
            return ""
        lasts_s = max(0.0, time.time() - oldest.since_ms / 1000)
        return f"the server does not answer or refuses: {oldest.said} (for {lasts_s:.0f} s)"

    def since_ms(self) -> int | None:
        """Since when there is one."""
        return min((one.since_ms for one in self._living()), default=None)

    def _living(self) -> list[_Refusal]:
        """Without those that nobody meets any more."""
        now_s = time.monotonic()
        self._every = {at: one for at, one in self._every.items() if now_s - one.last_s < FORGET_S}
        return list(self._every.values())


def _name(command: Command) -> str:
    return str(command[1] if command[0] == "EVALSHA" else command[0])
