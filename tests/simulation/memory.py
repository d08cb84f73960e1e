"""
A server in memory: the Redis commands the product uses, and its Lua scripts as they are.

    memory.run([(b"HSET", ..), ..]) -> answers as a Wire gives them: bytes, integers, lists, None, an error as
        a value

Always true: a command is whole or an error that changed nothing; a script that fails keeps what it wrote
before, as on a server. ``copy`` is the whole state, for a fail-over. The clock is a number that somebody else
moves.

``refusal`` is why it refuses writes for a while, in the words of a real server (test_refusals.py compares):
OOM refuses what may need memory, the others every write; within a script only its first one, since a script
that has begun to write is let through to its end. Redis 6.2 has the reason inside the script's error text.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha1
from typing import Any

import msgspec
from lupa.lua51 import LuaRuntime, lua_type
from redis._parsers.base import BaseParser
from redis.exceptions import NoScriptError, ResponseError

Position = tuple[int, int]
LAST = (2**64 - 1, 2**64 - 1)


class Status(bytes):
    """A simple string: a table with ``ok`` to a script, bytes to everybody else."""


class Group:
    """A consumer group: how far it was delivered, and to whom."""

    def __init__(self, last: Position) -> None:
        self.last = last
        self.pending: dict[Position, bytes] = {}

    def copy(self) -> Group:
        group = Group(self.last)
        group.pending = dict(self.pending)
        return group


class Log:
    """A stream."""

    def __init__(self) -> None:
        self.positions: list[Position] = []
        self.entries: list[tuple[bytes, list[bytes]]] = []
        self.last: Position = (0, 0)
        self.added = 0
        self.groups: dict[bytes, Group] = {}

    def copy(self) -> Log:
        log = Log()
        log.positions, log.entries, log.last, log.added = (
            list(self.positions),
            list(self.entries),
            self.last,
            self.added,
        )
        log.groups = {name: group.copy() for name, group in self.groups.items()}
        return log


class Ranked(dict[bytes, float]):
    """A sorted set."""

    def ordered(self) -> list[bytes]:
        return sorted(self, key=lambda member: (self[member], member))


# Commands that write; those that a full server refuses are the ones that may need memory.
GROWING = frozenset(b"SET HSET HSETNX HINCRBY ZADD XADD XGROUP".split())
WRITING = GROWING | frozenset(b"DEL HDEL ZREM ZREMRANGEBYSCORE XACK XREADGROUP".split())
REFUSALS = {
    "OOM": "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY": "READONLY You can't write against a read only replica.",
    "NOREPLICAS": "NOREPLICAS Not enough good replicas to write.",
    "MISCONF": "MISCONF Redis is configured to save RDB snapshots, but it's unable to persist to disk.",
}

KINDS: dict[type, bytes] = {dict: b"hash", Ranked: b"zset", Log: b"stream", bytes: b"string"}


class Memory:
    """The server."""

    def __init__(self) -> None:
        self.data: dict[bytes, Any] = {}
        self.scripts: set[str] = set()
        self.now_ms = 1_800_000_000_000.0
        self.refusal = ""  # one of REFUSALS
        self.is_old = False  # words its scripts' errors as Redis 6.2
        self.script = ""  # the one that runs
        self._has_written = False

    def copy(self) -> Memory:
        """As a replica that has everything but the scripts."""
        other = Memory()
        other.now_ms = self.now_ms
        for key, value in self.data.items():
            if isinstance(value, Log):
                other.data[key] = value.copy()
            else:
                other.data[key] = type(value)(value)
        return other

    def run(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Every command in order; an error is a value, and those behind it run."""
        return [self.answer(command) for command in commands]

    def answer(self, command: tuple[Any, ...]) -> Any:
        try:
            return self.call([_bytes(word) for word in command])
        except ResponseError as error:
            return error

    def call(self, words: list[bytes]) -> Any:
        """One command, or its error raised."""
        method = COMMANDS.get(words[0])
        if method is None:
            raise ResponseError(
                f"the server in memory has no command {words[0]!r}: add it to tests/simulation/memory.py"
            )
        if words[0] in WRITING:
            self._check_write(words[0])
        return method(self, words[1:])

    def _check_write(self, name: bytes) -> None:
        """Raise the refusal of a write, unless a script that has written before goes on."""
        is_refused = self.refusal and (name in GROWING or self.refusal != "OOM")
        if is_refused and not (self.script and self._has_written):
            raise refused(self.refusal, self.script, is_old=self.is_old)
        self._has_written = bool(self.script)

    def _of(self, key: bytes, kind: type) -> Any:
        value = self.data.get(key)
        if value is not None and type(value) is not kind:
            raise ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def _make(self, key: bytes, kind: type) -> Any:
        value = self._of(key, kind)
        if value is None:
            value = self.data[key] = kind()
        return value

    def _tidy(self, key: bytes) -> None:
        if not self.data[key]:
            del self.data[key]

    # Keys and the server.

    def _type(self, words: list[bytes]) -> Any:
        value = self.data.get(words[0])
        return Status(b"none" if value is None else KINDS[type(value)])

    def _get(self, words: list[bytes]) -> Any:
        return self.data.get(words[0])

    def _set(self, words: list[bytes]) -> Any:
        self.data[words[0]] = words[1]
        return Status(b"OK")

    def _del(self, words: list[bytes]) -> int:
        return sum(self.data.pop(key, None) is not None for key in words)

    def _time(self, _: list[bytes]) -> Any:
        seconds, milliseconds = divmod(self.now_ms, 1000)
        return [b"%d" % seconds, b"%d" % (milliseconds * 1000)]

    def _script(self, words: list[bytes]) -> Any:
        if words[0] == b"LOAD":
            sha = LUA.load(words[1])
            self.scripts.add(sha)
            return sha.encode()
        self.scripts.clear()
        return Status(b"OK")

    def _evalsha(self, words: list[bytes]) -> Any:
        sha, count = words[0].decode(), int(words[1])
        if sha not in self.scripts:
            raise NoScriptError("No matching script. Please use EVAL.", status_code="NOSCRIPT")
        self.script, self._has_written = sha, False
        try:
            return LUA.run(self, sha, words[2 : 2 + count], words[2 + count :])
        finally:
            self.script = ""

    # Hashes.

    def _hget(self, words: list[bytes]) -> Any:
        return (self._of(words[0], dict) or {}).get(words[1])

    def _hmget(self, words: list[bytes]) -> Any:
        held = self._of(words[0], dict) or {}
        return [held.get(field) for field in words[1:]]

    def _hgetall(self, words: list[bytes]) -> Any:
        return [part for pair in (self._of(words[0], dict) or {}).items() for part in pair]

    def _hlen(self, words: list[bytes]) -> int:
        return len(self._of(words[0], dict) or {})

    def _hset(self, words: list[bytes]) -> int:
        held = self._make(words[0], dict)
        before = len(held)
        held.update(zip(words[1::2], words[2::2], strict=True))
        return len(held) - before

    def _hsetnx(self, words: list[bytes]) -> int:
        held = self._make(words[0], dict)
        return 0 if words[1] in held else self._hset(words)

    def _hexists(self, words: list[bytes]) -> int:
        return int(words[1] in (self._of(words[0], dict) or {}))

    def _hkeys(self, words: list[bytes]) -> Any:
        return list(self._of(words[0], dict) or {})

    def _hdel(self, words: list[bytes]) -> int:
        held = self._of(words[0], dict)
        if held is None:
            return 0
        gone = sum(held.pop(field, None) is not None for field in words[1:])
        self._tidy(words[0])
        return gone

    def _hincrby(self, words: list[bytes]) -> int:
        held = self._make(words[0], dict)
        total = int(held.get(words[1], 0)) + int(words[2])
        held[words[1]] = b"%d" % total
        return total

    # Sorted sets.

    def _zadd(self, words: list[bytes]) -> int:
        held = self._make(words[0], Ranked)
        before = len(held)
        for score, member in zip(words[1::2], words[2::2], strict=True):
            held[member] = float(score)
        return len(held) - before

    def _zrem(self, words: list[bytes]) -> int:
        held = self._of(words[0], Ranked)
        if held is None:
            return 0
        gone = sum(held.pop(member, None) is not None for member in words[1:])
        self._tidy(words[0])
        return gone

    def _zrange(self, words: list[bytes]) -> Any:
        return (self._of(words[0], Ranked) or Ranked()).ordered()[_slice(words[1], words[2])]

    def _zrangebyscore(self, words: list[bytes]) -> Any:
        held = self._of(words[0], Ranked) or Ranked()
        low, high = (float(word.lstrip(b"(")) for word in words[1:3])
        return [
            member
            for member in held.ordered()
            if (low < held[member] if words[1][:1] == b"(" else low <= held[member])
            and (held[member] < high if words[2][:1] == b"(" else held[member] <= high)
        ]

    def _zcard(self, words: list[bytes]) -> int:
        return len(self._of(words[0], Ranked) or Ranked())

    def _zscore(self, words: list[bytes]) -> Any:
        score = (self._of(words[0], Ranked) or Ranked()).get(words[1])
        return None if score is None else b"%.17g" % score

    def _zremrangebyscore(self, words: list[bytes]) -> int:
        members = self._zrangebyscore(words)
        return self._zrem([words[0], *members]) if members else 0

    # Streams.

    def _xlen(self, words: list[bytes]) -> int:
        log = self._of(words[0], Log)
        return 0 if log is None else len(log.entries)

    def _xadd(self, words: list[bytes]) -> bytes:
        log: Log = self._make(words[0], Log)
        if words[1] == b"*":
            position = max((int(self.now_ms), 0), (log.last[0], log.last[1] + 1))
        else:
            position = _position(words[1], 0)
            if position <= log.last:
                raise ResponseError(
                    "The ID specified in XADD is equal or smaller than the target stream top item"
                )
        log.last = position
        log.added += 1
        name = b"%d-%d" % position
        log.positions.append(position)
        log.entries.append((name, words[2:]))
        return name

    def _xrange(self, words: list[bytes]) -> Any:
        log = self._of(words[0], Log)
        if log is None:
            return []
        start = bisect_right(log.positions, _position(words[1][1:], 0)) if words[1][:1] == b"(" else None
        if start is None:
            start = bisect_left(log.positions, _position(words[1], 0))
        end = bisect_right(log.positions, _position(words[2], LAST[1]))
        if len(words) > 3:
            end = min(end, start + int(words[4]))
        return [[name, list(fields)] for name, fields in log.entries[start:end]]

    def _group(self, key: bytes, name: bytes) -> tuple[Log, Group]:
        log = self._of(key, Log)
        if log is None or name not in log.groups:
            raise ResponseError(f"NOGROUP No such key {key.decode()!r} or consumer group {name.decode()!r}")
        return log, log.groups[name]

    def _xgroup(self, words: list[bytes]) -> Any:
        verb, key, name = words[:3]
        if verb == b"CREATE":
            log = self._make(key, Log)
            if name in log.groups:
                raise ResponseError("BUSYGROUP Consumer Group name already exists")
            log.groups[name] = Group(log.last if words[3] == b"$" else _position(words[3], 0))
            return Status(b"OK")
        if self._of(key, Log) is None:
            raise ResponseError("The XGROUP subcommand requires the key to exist.")
        if verb == b"DESTROY":
            return int(self.data[key].groups.pop(name, None) is not None)
        log, group = self._group(key, name)
        if verb == b"SETID":
            group.last = log.last if words[3] == b"$" else _position(words[3], 0)
            return Status(b"OK")
        gone = [position for position, owner in group.pending.items() if owner == words[3]]
        for position in gone:
            del group.pending[position]
        return len(gone)

    def _xreadgroup(self, words: list[bytes]) -> Any:
        name, consumer, key = words[1], words[2], words[words.index(b"STREAMS") + 1]
        count = int(words[words.index(b"COUNT") + 1])
        log, group = self._group(key, name)
        start = bisect_right(log.positions, group.last)
        entries = log.entries[start : start + count]
        if not entries:
            return None
        for position in log.positions[start : start + count]:
            if b"NOACK" not in words:
                group.pending[position] = consumer
            group.last = position
        return [[key, [[place, list(fields)] for place, fields in entries]]]

    def _xpending(self, words: list[bytes]) -> Any:
        _, group = self._group(words[0], words[1])
        low, high = _position(words[2], 0), _position(words[3], LAST[1])
        chosen = [position for position in sorted(group.pending) if low <= position <= high][: int(words[4])]
        return [[b"%d-%d" % position, group.pending[position], 0, 1] for position in chosen]

    def _xinfo(self, words: list[bytes]) -> Any:
        log = self._of(words[1], Log)
        if log is None:
            raise ResponseError("no such key")
        last = b"%d-%d" % log.last
        return [
            b"length",
            len(log.entries),
            b"last-generated-id",
            last,
            b"entries-added",
            log.added,
            b"groups",
            len(log.groups),
        ]

    def _xack(self, words: list[bytes]) -> int:
        log = self._of(words[0], Log)
        if log is None or words[1] not in log.groups:
            return 0
        pending = log.groups[words[1]].pending
        return sum(pending.pop(_position(word, 0), None) is not None for word in words[2:])


def refused(why: str, script: str = "", *, is_old: bool = False) -> ResponseError:
    """The error as redis-py makes it. script: within this one."""
    text = REFUSALS[why]
    if script and is_old:
        text = f"ERR Error running script (call to f_{script}): @user_script:1: @user_script: 1: -{text}"
    elif script:
        text += f" script: {script}, on @user_script:1."
    error = BaseParser.parse_error(text)
    assert isinstance(error, ResponseError), error
    return error


def _bytes(word: Any) -> bytes:
    if isinstance(word, bytes):
        return word
    return word.encode() if isinstance(word, str) else str(word).encode()


def _position(word: bytes, rest: int) -> Position:
    if word in (b"-", b"+"):
        return (0, 0) if word == b"-" else LAST
    milliseconds, dash, sequence = word.partition(b"-")
    return int(milliseconds), int(sequence) if dash else rest


def _slice(first: bytes, last: bytes) -> slice:
    end = int(last)
    return slice(int(first), None if end == -1 else end + 1)


COMMANDS: dict[bytes, Callable[[Memory, list[bytes]], Any]] = {
    name[1:].upper().encode(): method
    for name, method in vars(Memory).items()
    if name.startswith("_")
    and not name.startswith("__")
    and name not in ("_of", "_make", "_tidy", "_group", "_check_write")
}


class Lua:
    """Lua 5.1 as a server sets it up: KEYS, ARGV, redis.call, struct, cjson, cmsgpack. One runtime for all
    servers of the process.
    """

    def __init__(self) -> None:
        self._lua = LuaRuntime(
            encoding=None, unpack_returned_tuples=True, register_eval=False, register_builtins=False
        )
        self._compiled: dict[str, Any] = {}
        self._server: Memory | None = None
        names = self._lua.globals()
        names[b"redis"] = self._lua.table_from({b"call": self._call, b"pcall": self._pcall})
        names[b"struct"] = self._lua.table_from({b"pack": _pack, b"unpack": _unpack})
        names[b"cjson"] = self._lua.table_from({b"decode": self._decode})
        names[b"cmsgpack"] = self._lua.table_from({b"unpack": self._unpacked})

    def load(self, text: bytes) -> str:
        sha = sha1(text, usedforsecurity=False).hexdigest()
        if sha not in self._compiled:
            self._compiled[sha] = self._lua.execute(b"return function(KEYS, ARGV) " + text + b"\nend")
        return sha

    def run(self, server: Memory, sha: str, keys: list[bytes], args: list[bytes]) -> Any:
        self._server = server
        table = self._lua.table_from
        return _to_python(self._compiled[sha](table(keys), table(args)))

    def _call(self, *words: Any) -> Any:
        assert self._server is not None
        # A number reaches a command as Lua writes it: %.17g.
        given = [
            word if isinstance(word, bytes) else (b"%d" % word if word == int(word) else b"%.17g" % word)
            for word in words
        ]
        return self._to_lua(self._server.call(given))

    def _pcall(self, *words: Any) -> Any:
        try:
            return self._call(*words)
        except ResponseError as error:
            return self._lua.table_from({b"err": str(error).encode()})

    def _to_lua(self, answer: Any) -> Any:
        if answer is None:
            return False
        if isinstance(answer, Status):
            return self._lua.table_from({b"ok": bytes(answer)})
        if isinstance(answer, list):
            return self._lua.table_from([self._to_lua(part) for part in answer])
        return answer

    def _unpacked(self, packed: bytes) -> Any:
        return self._table(msgspec.msgpack.decode(packed))

    def _table(self, content: Any) -> Any:
        """A message as Lua has it: text is bytes, lists count from 1."""
        if isinstance(content, str):
            return content.encode()
        if isinstance(content, list):
            return self._lua.table_from([self._table(part) for part in content])
        if isinstance(content, dict):
            return self._lua.table_from({name.encode(): self._table(part) for name, part in content.items()})
        return content

    def _decode(self, text: bytes) -> Any:
        content = json.loads(text)
        flat = {
            str(name).encode(): value.encode() if isinstance(value, str) else value
            for name, value in content.items()
        }
        return self._lua.table_from(flat)


def _to_python(value: Any) -> Any:
    if isinstance(value, float):
        return int(value)
    if lua_type(value) == "table":
        if (ok := value[b"ok"]) is not None:
            return ok
        listed = []
        while (part := value[len(listed) + 1]) is not None:
            listed.append(_to_python(part))
        return listed
    if value is False:
        return None
    return value


def _pack(layout: bytes, *values: Any) -> bytes:
    parts = []
    for (kind, size), value in zip(_layout(layout), values, strict=True):
        parts.append(value[:size] if kind == "c" else int(value).to_bytes(size, "big"))
    return b"".join(parts)


def _unpack(layout: bytes, packed: bytes, at: int = 1) -> tuple[Any, ...]:
    values, here = [], int(at) - 1
    for kind, size in _layout(layout):
        part = packed[here : here + size]
        values.append(part if kind == "c" else int.from_bytes(part, "big"))
        here += size
    return (*values, here + 1)


@lru_cache
def _layout(layout: bytes) -> list[tuple[str, int]]:
    """Big-endian unsigned integers and strings of fixed length: what our scripts use."""
    codes = layout.decode().removeprefix(">")
    parts = re.findall(r"([Ic])(\d+)", codes)
    assert "".join(kind + size for kind, size in parts) == codes, f"struct layout {layout!r}"
    return [(kind, int(size)) for kind, size in parts]


LUA = Lua()
