"""The server in memory answers as a real one does: random commands, and every script with the product's own
calls.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import redis

from aurastream.streams import Server
from tests.simulation.memory import LUA, Memory
from tests.simulation.mixed import play

SCRIPT = b"""
local found = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 3)
local n = redis.call('HINCRBY', KEYS[2], 'n', #found)
local packed = struct.pack('>I6I4', 1234567890123, n)
local high, low = struct.unpack('>I6I4', packed)
redis.call('ZADD', KEYS[3], -n, 'member' .. n, 0.5, 'half')
return {n, packed, high, low, found, redis.call('HGET', KEYS[2], 'none'), redis.call('TYPE', KEYS[1]).ok,
        redis.pcall('HGET', KEYS[3], 'a').err ~= nil, redis.call('HMGET', KEYS[2], 'none', 'n'),
        redis.call('ZRANGE', KEYS[3], 0, -1), 2.9, {1, false, 3}, true, 'end'}
"""


def random_command(dice: random.Random, sha: str) -> tuple[Any, ...]:
    log, table, ranked = (
        dice.choice(("log", "log", "log2")),
        dice.choice(("table", "table", "log")),
        dice.choice(("ranked", "table")),
    )
    position = dice.choice(("-", "+", "0", "5", "5-1", "7-3", "9"))
    field, member = dice.choice("abc"), dice.choice("xyz")
    group = dice.choice(("g", "h"))
    return dice.choice(
        (
            ("XADD", log, f"{dice.randrange(12)}-{dice.randrange(1, 4)}", "event", "e", "crc32", 7),
            ("XADD", log, f"{dice.randrange(12)}-{dice.randrange(1, 4)}", "event", "f", "crc32", 8),
            ("XLEN", log),
            (
                "XRANGE",
                log,
                dice.choice((position.replace("+", "-"), f"({dice.randrange(9)}-1")),
                "+",
                "COUNT",
                dice.randrange(1, 5),
            ),
            ("XRANGE", log, "-", position),
            ("XGROUP", "CREATE", log, group, dice.choice(("0", "5-1", "$")), "MKSTREAM"),
            ("XGROUP", "SETID", log, group, dice.choice(("0", "5-1", "$"))),
            ("XGROUP", "DESTROY", log, group),
            ("XGROUP", "DELCONSUMER", log, group, "owner"),
            ("XREADGROUP", "GROUP", group, "owner", "COUNT", dice.randrange(1, 4), "STREAMS", log, ">"),
            (
                "XREADGROUP",
                "GROUP",
                group,
                "owner",
                "COUNT",
                dice.randrange(1, 4),
                "NOACK",
                "STREAMS",
                log,
                ">",
            ),
            ("XACK", log, group, "5-1", "7-3", "3-1", "4-2"),
            ("HSET", table, field, dice.randrange(9), member, "v"),
            ("HSETNX", table, field, "once"),
            ("HGET", table, field),
            ("HMGET", table, field, "none", "c"),
            ("HGETALL", table),
            ("HLEN", table),
            ("HEXISTS", table, field),
            ("HDEL", table, field, "none"),
            ("HINCRBY", table, "n", dice.randrange(5)),
            ("ZADD", ranked, dice.randrange(-3, 3), member, -1.5, "half"),
            ("ZREM", ranked, member, "none"),
            ("ZRANGE", ranked, 0, dice.choice((-1, 0, 2))),
            ("ZRANGEBYSCORE", ranked, "-inf", dice.randrange(-2, 3)),
            ("ZREMRANGEBYSCORE", ranked, "-inf", -3),
            ("TYPE", dice.choice((log, table, ranked, "none"))),
            ("EVALSHA", sha, 3, log, "numbers", "scores"),
        )
    )


def answer_of(client: redis.Redis, command: tuple[Any, ...]) -> Any:
    """Raw, as a Wire gives it."""
    connection = client.connection_pool.get_connection()
    try:
        connection.send_command(*command)
        return connection.read_response(disable_decoding=True)
    except redis.ResponseError as error:
        return error
    finally:
        client.connection_pool.release(connection)


def alike(answer: Any) -> Any:
    """Errors by their first word; the order of a hash's fields is the server's own."""
    if isinstance(answer, Exception):
        word = str(answer).split(" ", maxsplit=1)[0]
        return "error " + (word if word.isupper() else "")
    return answer


@pytest.mark.parametrize("seed", range(6))
def test_random_commands_have_the_same_answers(server: Server, seed: int) -> None:
    """The simulation is worth as much as its server is like the real one."""
    dice, memory, done = random.Random(seed), Memory(), []
    sha = answer_of(server.client, ("SCRIPT", "LOAD", SCRIPT)).decode()
    assert memory.answer(("SCRIPT", "LOAD", SCRIPT)) == sha.encode()
    for _ in range(400):
        command = random_command(dice, sha)
        done.append(command)
        ours, theirs = alike(memory.answer(command)), alike(answer_of(server.client, command))
        if command[0] == "HGETALL" and isinstance(theirs, list):
            ours, theirs = sorted(zip(ours[::2], ours[1::2])), sorted(zip(theirs[::2], theirs[1::2]))  # noqa: B905
        assert ours == theirs, done[-5:]


def test_pending_entries_are_listed_alike(server: Server) -> None:
    """Recovery reads the pending list, so its shape matters to the byte."""
    memory = Memory()
    for number in range(1, 6):
        for ask in (memory.answer, lambda command: answer_of(server.client, command)):
            ask(("XADD", "log", f"{number}-1", "a", "b"))
    for command in (
        ("XGROUP", "CREATE", "log", "g", "0"),
        ("XREADGROUP", "GROUP", "g", "owner", "COUNT", 4, "STREAMS", "log", ">"),
    ):
        assert memory.answer(command) == answer_of(server.client, command)
    for command in (("XPENDING", "log", "g", "-", "3-1", 10), ("XPENDING", "log", "g", "-", "+", 2)):
        ours, theirs = memory.answer(command), answer_of(server.client, command)
        assert [row[:2] for row in ours] == [row[:2] for row in theirs]


def test_an_unknown_command_is_named() -> None:
    """A command the simulation lacks must stop it, and not answer nothing."""
    with pytest.raises(redis.ResponseError, match="SPOP"):
        raise Memory().answer(("SPOP", "key"))


def test_a_script_once_loaded_is_compiled_once() -> None:
    """Thousands of schedules run the same scripts; compiling them anew would be most of their time."""
    play(1)
    compiled = dict(LUA._compiled)
    play(2)
    assert compiled == LUA._compiled
