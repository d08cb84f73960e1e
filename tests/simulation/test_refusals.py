"""The server in memory refuses what a real one refuses, in its words: outside of scripts, and within."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from aurastream.streams import Server
from tests.refusing import refusing
from tests.servers import EVERY_SERVER, ServerProcess, binaries
from tests.simulation.memory import REFUSALS, Memory
from tests.simulation.test_memory import answer_of

READS_FIRST = b"redis.call('HGET', KEYS[2], 'f') redis.call('HSET', KEYS[2], 'f', 'in script') return 1"
REMOVES_FIRST = b"redis.call('HDEL', KEYS[2], '') redis.call('HSET', KEYS[2], 'f', 'begun') return 1"
READS = b"return redis.call('HGET', KEYS[2], 'f')"


@pytest.fixture(params=EVERY_SERVER)
def process(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    process = ServerProcess(binaries()[request.param])
    yield process
    process.stop()


def commands() -> list[tuple[Any, ...]]:
    return [
        ("XADD", "log", "1-1", "a", "b"),
        ("HSET", "table", "f", "v"),
        ("HSETNX", "table", "g", "v"),
        ("HINCRBY", "table", "n", 1),
        ("ZADD", "ranked", 1, "m"),
        ("SET", "text", "v"),
        ("XGROUP", "CREATE", "log", "g", "0"),
        ("XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "STREAMS", "log", ">"),
        ("XACK", "log", "g", "1-1"),
        ("HDEL", "table", "g"),
        ("ZREM", "ranked", "m"),
        ("DEL", "text"),
        ("HGET", "table", "f"),
        ("XRANGE", "log", "-", "+"),
    ]


def in_words(answer: Any) -> str:
    """What is compared: whether it was refused, and an error by the words of its reason, wherever in the text
    they stand.
    """
    if not isinstance(answer, Exception):
        return "answered"
    text = f"{type(answer).__name__} {answer}"
    return next((why for why, words in REFUSALS.items() if words[-24:-1] in text), text)


@pytest.mark.parametrize("why", sorted(REFUSALS))
def test_writes_are_refused_as_a_real_server_refuses_them(process: ServerProcess, why: str) -> None:
    """A simulation that refuses less, or in other words, proves less."""
    memory = Memory()
    with redis.Redis.from_url(process.url) as client:
        asks: tuple[Callable[[Any], Any], ...] = (memory.answer, lambda command: answer_of(client, command))
        for ask in asks:  # what is there before
            for command in commands()[:7]:
                ask(command)
        with refusing(process.url, why):
            memory.refusal = why
            for command in commands():
                ours, theirs = (in_words(ask(command)) for ask in asks)
                assert ours == theirs, command
            for script in (READS_FIRST, REMOVES_FIRST, READS):
                shas = [ask(("SCRIPT", "LOAD", script)) for ask in asks]
                assert shas[0] == shas[1]
                ours, theirs = (
                    in_words(ask(("EVALSHA", shas[0].decode(), 2, "log", "table"))) for ask in asks
                )
                assert ours == theirs, script


def test_a_refusal_is_an_error_of_redis_py(server: Server) -> None:
    """The classes matter: ReadOnlyError, OutOfMemoryError, or a bare ResponseError with the reason inside."""
    server.client.config_set("maxmemory", 1)
    memory = Memory()
    memory.refusal = "OOM"

    ours, theirs = (memory.answer(("HSET", "t", "f", "v")), answer_of(server.client, ("HSET", "t", "f", "v")))

    assert (type(ours), str(ours)) == (type(theirs), str(theirs))
    server.client.config_set("maxmemory", 0)
