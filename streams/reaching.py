"""
Reach a server that may be away, loading, silent or cutting connections: wait for it, and say so once.

    reach([url, ..], patience_s) -> the first that answers -> Server
        none for now -> said in the log -> a pause -> all again, until patience_s are over, or pause says stop
        one that will never do (a wrong password, no Redis) -> ServerUnfit at once

A host waits for as long as it lives, a verb for as long as the settings say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from aurastream.streams.connection import Server
from aurastream.streams.errors import ServerAway, ServerUnreachable
from aurastream.streams.faults import Backoff
from aurastream.streams.late import Logger

Pause = Callable[[float], bool]  # waits so many seconds; whether to give up, as the process stops

log = Logger("aurastream.server")


def asleep(seconds: float) -> bool:
    """The pause of who is not to be stopped."""
    time.sleep(seconds)
    return False


def reach(
    urls: Sequence[str], patience_s: float | None, answer_timeout_s: float, pause: Pause = asleep
) -> Server:
    """The server. patience_s: None: for ever. Raises ServerUnfit; ServerUnreachable after patience_s;
    ServerAway when the pause says so.
    """
    began, backoff, is_said = time.monotonic(), Backoff(), False
    while True:
        try:
            server = _first_of(urls, answer_timeout_s)
        except ServerUnreachable as error:
            waited_s = time.monotonic() - began
            if patience_s is not None and waited_s >= patience_s:
                raise
            if not is_said:
                log.warning("server_away", reason=str(error), waits_s=patience_s)
                is_said = True
            if pause(backoff.next_s()):
                raise ServerAway(time.monotonic() - began) from error
        else:
            if is_said:
                log.warning("server_back", away_s=round(time.monotonic() - began, 3))
            return server


def _first_of(urls: Sequence[str], answer_timeout_s: float) -> Server:
    for url in urls[:-1]:
        try:
            return Server(url, answer_timeout_s)
        except ServerUnreachable:
            continue
    return Server(urls[-1], answer_timeout_s)
