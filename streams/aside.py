"""
Blocking work beside an event loop, that holds up no exit.

    await aside(work) -> a daemon thread of its own -> its result, or what it raised

Decision (2026-11): a thread each, of the standard library. Refused: asyncio.to_thread, whose pool is joined
when the loop closes and again when the interpreter ends, so that a thread that waits for a frozen server
keeps a process alive that has stopped otherwise; a pool of daemon threads, as what runs here runs once a
second at most and a thread costs 50 us.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def aside(work: Callable[[], T]) -> T:
    """What work returns, or raises. Cancelled, the wait ends and the work goes on by itself."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():  # whoever waited was cancelled
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, raised = None, None
        try:
            result = context.run(work)
        except BaseException as error:  # handed on, whatever it is
            raised = error
        with suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, raised)

    threading.Thread(target=run, name="aurastream-aside", daemon=True).start()
    return await future
