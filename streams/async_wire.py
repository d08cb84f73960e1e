"""
A connection for an event loop: many ask at once, each gets its own answers.

    ask -> written at once, behind what others wrote -> one reader task takes the answers in order, wakes the
    askers

Redis answers in the order it was asked, so the requests under way are a queue and no asker waits for
another's round trip. A lost connection fails every request under way (their outcome is unknown) and the wire
with it; who made the wire makes a new one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from hiredis import pack_command
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from aurastream.streams.drive import Command, Reply, sound

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection


class AsyncWire:
    """One connection of an event loop. Made by ``Server.async_wire``, for any number of its tasks."""

    def __init__(self, connection: AbstractConnection, answer_timeout_s: float) -> None:
        """connection: without a timeout of its own, which would cost a task for every request."""
        self._connection, self._answer_timeout_s = connection, answer_timeout_s
        self._under_way: deque[tuple[asyncio.Future[list[Reply]], int]] = deque()
        self._asked = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._lost: BaseException | None = None

    async def open(self, *greeting: Command, timeout_s: float) -> AsyncWire:
        """Connect, and ask the greeting; its first error is raised. timeout_s: for all its steps."""
        try:
            async with asyncio.timeout(timeout_s):  # a server may accept and then say nothing
                await self._connection.connect()  # type: ignore[no-untyped-call]
                self._reader = asyncio.create_task(self._read(), name="aurastream-wire")
                await self.ask(*greeting)
        except BaseException:
            await self.close()
            raise
        return self

    @property
    def is_lost(self) -> bool:
        """Whether it can no longer be used."""
        return self._lost is not None

    async def ask(self, *commands: Command) -> list[Reply]:
        """Send and wait for all answers; raises the first error among them, or a lost connection."""
        return sound(await self.exchange(*commands))

    async def exchange(self, *commands: Command) -> list[Reply]:
        """The same with the server's errors as values."""
        if self._lost is not None:
            raise RedisConnectionError(f"the connection was lost ({self._lost})")
        if not commands:
            return []
        future: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        self._under_way.append((future, len(commands)))
        self._asked.set()
        # Nothing is awaited between the queue and the socket's buffer: requests are written as they queue.
        try:
            packed = [pack_command(command) for command in commands]
            await self._connection.send_packed_command(packed, check_health=False)
        except (RedisError, OSError) as error:
            self._fail(error)
        return await future

    async def close(self) -> None:
        """Drop the connection; requests under way fail, their outcome unknown."""
        self._fail(RedisConnectionError("closed"))
        if self._reader is not None:
            self._reader.cancel()
        await self._connection.disconnect(nowait=True)

    async def _read(self) -> None:
        try:
            while True:
                while self._under_way:
                    future, count = self._under_way[0]
                    async with asyncio.timeout(self._answer_timeout_s):
                        answers = [await self._answer() for _ in range(count)]
                    self._under_way.popleft()
                    if not future.done():  # its asker was cancelled: the answers are nobody's
                        future.set_result(answers)
                self._asked.clear()
                await self._asked.wait()
        except (RedisError, OSError, asyncio.CancelledError) as error:  # TimeoutError is an OSError
            self._fail(error)
            if isinstance(error, asyncio.CancelledError):
                raise

    async def _answer(self) -> Reply:
        try:
            return await self._connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return error

    def _fail(self, error: BaseException) -> None:
        self._lost = self._lost or error
        while self._under_way:
            future, _ = self._under_way.popleft()
            if not future.done():
                future.set_exception(RedisConnectionError(f"the connection was lost ({error})"))
