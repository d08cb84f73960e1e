"""
A connection for an event loop: many ask at once, each gets its own answers.

    ask -> written at once, behind what others wrote -> one reader task takes the answers in order, wakes the
    askers

Redis answers in the order it was asked, so the requests under way are a queue and no asker waits for
another's round trip. A lost connection fails every request under way (their outcome is unknown) and the wire
with it; who made the wire makes a new one.

Always true: a server that says nothing for the answer time-out, while something is under way that it was not
bidden to hold back, is lost, unless it was our loop that stood; one that answers what nobody waits for is out
of step, and lost as well.

Decision (2026-11): the reader takes bytes from redis-py's stream into a hiredis reader of its own. Silence is
measured from the last byte and not from the question, so that a large answer over a slow link is not taken
for silence, by one timer of the loop instead of one for each question; and a connection that was closed, or
fell out of step, is noticed while nothing is asked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from hiredis import Reader, pack_command
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError

from aurastream.streams.drive import Command, Reply, sound, waits_s
from aurastream.streams.wire import OUT_OF_STEP

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

READ_BYTES = 256 * 1024
LATE_S = 0.1  # by which the loop wakes late before that is taken for a pause of its own
TURN_S = 0.25  # for the loop to read what arrived while it stood
_NOTHING = object()


class _Request(NamedTuple):
    """Some commands of one asker. waits_s: how long the server may hold its answers back."""

    future: asyncio.Future[list[Reply]]
    expected: int
    answers: list[Reply]
    waits_s: float


class AsyncWire:
    """One connection of an event loop. Made by ``Server.async_wire``, for any number of its tasks."""

    def __init__(
        self,
        connection: AbstractConnection,
        answer_timeout_s: float,
        on_silence: Callable[[], None] = lambda: None,
    ) -> None:
        """connection: without a timeout of its own, which would cost a task for every request. on_silence:
        called when an answer did not come.
        """
        self._connection, self._timeout_s, self._on_silence = connection, answer_timeout_s, on_silence
        self._loop = asyncio.get_running_loop()
        self._under_way: deque[_Request] = deque()
        self._reader: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._looks_at = 0.0  # of the loop's clock: when the watch is due
        self._heard_at = 0.0  # of the loop's clock: the last byte, or the first question after a pause
        self._lost: BaseException | None = None

    async def open(self, *greeting: Command, timeout_s: float) -> AsyncWire:
        """Connect, and ask the greeting; its first error is raised. timeout_s: for all its steps."""
        try:
            async with asyncio.timeout(timeout_s):  # a server may accept and then say nothing
                await self._connection.connect()  # type: ignore[no-untyped-call]
                self._reader = asyncio.create_task(self._read(), name="aurastream-wire")
                await self.ask(*greeting)
        except TimeoutError as error:
            await self.close()
            self._on_silence()
            raise TimeoutError(f"no answer to a new connection within {timeout_s:g} s") from error
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
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        if not self._under_way:
            self._heard_at = self._loop.time()
        held_s = sum([waits_s(command) for command in commands])
        self._under_way.append(_Request(future, len(commands), [], held_s))
        if self._watch is None:
            self._look_in(self._timeout_s)
        # Nothing is awaited between the queue and the socket's buffer: requests are written as they queue.
        try:
            packed = [pack_command(command) for command in commands]
            await self._connection.send_packed_command(packed, check_health=False)
        except (RedisError, OSError) as error:
            self._fail(error)
        return await future

    def cut(self) -> None:
        """From any thread: whoever waits for an answer is given a lost connection instead."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._fail, RedisConnectionError("the server was silent"))

    async def close(self) -> None:
        """Drop the connection; requests under way fail, their outcome unknown."""
        self._fail(RedisConnectionError("closed"))
        await self._connection.disconnect(nowait=True)

    async def _read(self) -> None:
        reader = Reader(
            protocolError=InvalidResponse, replyError=BaseParser.parse_error, notEnoughData=_NOTHING
        )
        stream = self._connection._reader  # redis-py 8: what it reads from itself
        try:
            while stream is not None:
                data = await stream.read(READ_BYTES)
                if not data:
                    raise RedisConnectionError("the server closed the connection")
                self._heard_at = self._loop.time()
                reader.feed(data)
                while (answer := reader.gets(False)) is not _NOTHING:
                    self._take(answer)
        except (RedisError, OSError) as error:
            self._fail(error)

    def _take(self, answer: Reply) -> None:
        if not self._under_way:
            raise RedisConnectionError(OUT_OF_STEP)
        request = self._under_way[0]
        request.answers.append(answer)
        if len(request.answers) == request.expected:
            self._under_way.popleft()
            if not request.future.done():  # its asker was cancelled: the answers are nobody's
                request.future.set_result(request.answers)

    def _look_in(self, seconds: float) -> None:
        self._looks_at = self._loop.time() + seconds
        self._watch = self._loop.call_at(self._looks_at, self._look)

    def _look(self) -> None:
        """Whether the server has been silent for too long; else when to look again."""
        self._watch = None
        if not self._under_way:
            return
        now, bound_s = self._loop.time(), self._timeout_s + self._under_way[0].waits_s
        left_s = self._heard_at + bound_s - now
        if now - self._looks_at > LATE_S:  # blocked, or suspended: the answers may wait in the socket
            left_s = max(left_s, TURN_S)
        if left_s > 0:
            self._look_in(left_s)
            return
        self._fail(TimeoutError(f"no answer within {bound_s:g} s"))
        self._on_silence()

    def _fail(self, error: BaseException) -> None:
        self._lost = self._lost or error
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._reader is not None and self._reader is not asyncio.current_task(self._loop):
            self._reader.cancel()
        writer = self._connection._writer
        if writer is not None:
            writer.transport.abort()  # who waits for room in its buffer would wait for ever
        while self._under_way:
            future = self._under_way.popleft().future
            if not future.done():
                future.set_exception(RedisConnectionError(f"the connection was lost ({error})"))
