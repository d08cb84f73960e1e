"""
Every Redis client the project makes.

    connect(url) -> Server: one Redis, Valkey or cluster
    server.client          redis-py's client, for single commands
    server.wire(key)       a connection of one's own to the node that holds the key: send many, receive in
                           order

Always true: nothing is resent silently. redis-py repeats a command up to ten times by default, XADD included;
here every client has Retry(NoBackoff(), 0), and ``retried`` repeats only operations that are named
idempotent, with a bound, a growing pause with jitter, and UnknownOutcome at the end.

Decision (2026-11): the hot paths use redis-py's own connection objects without its client on top. The client
cannot send now and receive later, which is what lets a consumer fold while the server commits; its reply
callbacks build a dict per entry (about 2.5 us), and its packing looks at every argument before hiredis does
(1.5 us an event), so packing goes straight to hiredis. RESP2 is asked for, since RESP3 answers XREADGROUP
with maps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any, TypeVar, cast

import redis
import redis.asyncio as async_redis
from hiredis import pack_command
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import AbstractConnection
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from aurastream.streams.async_wire import AsyncWire
from aurastream.streams.errors import ServerUnfit
from aurastream.streams.settings import Ack

ANSWER_TIMEOUT_S = 20.0  # longer than any BLOCK and than a commit of the largest batch
CONNECT_TIMEOUT_S = 5.0
VERSION_MIN = (6, 2)

LOST = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, OSError)
_PASSING = (
    NoScriptError,
    ReadOnlyError,
    ClusterDownError,
    TryAgainError,
    AskError,
    ClusterError,
)  # AskError: MOVED too
_PASSING_WORDS = (
    "BUSY",
    "LOADING",
    "MASTERDOWN",
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "UNBLOCKED",
    "NOSCRIPT",
    "READONLY",
    "FAILOVER",
)

T = TypeVar("T")


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed later: a lost connection, a fail-over, a moved slot, a busy or
    loading server.
    """
    if isinstance(error, LOST + _PASSING):
        return True
    return isinstance(error, ResponseError) and str(error).startswith(_PASSING_WORDS)


class Script:
    """A Lua script beside its caller: ``Script(__file__, "append.lua")``. Called by its SHA-1, loaded by every wire.

    Several files are parts, one after the other, of one script with the last one's name: what several scripts do is written once.
    """

    every: dict[str, Script] = {}  # noqa: RUF012 - the registry of scripts, filled at import

    def __init__(self, beside: str, *names: str) -> None:
        self.name = names[-1]
        self.text = "".join(Path(beside).with_name(name).read_text(encoding="utf-8") for name in names)
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        Script.every[self.sha] = self

    def call(self, keys: Iterable[str | bytes], args: Iterable[Any]) -> tuple[Any, ...]:
        """The EVALSHA command."""
        names = tuple(keys)
        return ("EVALSHA", self.sha, len(names), *names, *args)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the server is."""

    flavour: str  # "redis" or "valkey"
    version: tuple[int, ...]
    is_cluster: bool
    eviction: str  # maxmemory-policy, "" where the server does not say

    @property
    def name(self) -> str:
        """For people: valkey 9.1.2."""
        return f"{self.flavour} {'.'.join(map(str, self.version))}"


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
        self.send([("SCRIPT", "LOAD", script.text) for script in Script.every.values()])
        for _ in range(self.outstanding):
            if isinstance(answer := self.receive(), Exception):
                raise answer

    def send(self, commands: Iterable[tuple[Any, ...]]) -> None:
        """Write the commands. Raises one of LOST when the connection is gone."""
        packed = [pack_command(command) for command in commands]
        self.outstanding += len(packed)
        self._connection.send_packed_command(packed, check_health=False)

    def receive(self) -> Any:
        """The next answer, or the server's error as a value."""
        self.outstanding -= 1
        try:
            return self._connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return error

    def ask(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send and receive all; raises the first error among the answers."""
        self.send(commands)
        answers = [self.receive() for _ in commands]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def close(self) -> None:
        """Drop the connection; answers under way are lost, and their outcome unknown."""
        self._connection.disconnect()


class Server:
    """One server or cluster, and all connections this process has to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client, self.facts = _open(url)
        self._fsyncs_always = False

    def check_ack(self, ack: Ack) -> None:
        """Raise ServerUnfit where the server cannot vouch for what `ack` says: only appendfsync always is a
        disk's word.
        """
        if ack is not Ack.DISK or self._fsyncs_always:
            return
        told: dict[Any, Any] = self.client.config_get("append*")
        plain = {_text(name): _text(value) for name, value in told.items()}
        self._fsyncs_always = plain.get("appendonly") == "yes" and plain.get("appendfsync") == "always"
        if not self._fsyncs_always:
            raise ServerUnfit(
                "ack=disk needs the server to run with appendonly yes and appendfsync always; it does not. "
                "Set both, or choose ack=memory or ack=replica."
            )

    def wire(self, key: str) -> Wire:
        """A new connection to the node that holds the key."""
        if self.facts.is_cluster:
            cluster = cast(RedisCluster, self.client)
            node = cluster.get_node_from_key(key)
            if node is None:
                raise RedisConnectionError(f"no node of the cluster holds {key}")
            pool = cluster.get_redis_connection(node).connection_pool
        else:
            pool = cast(redis.Redis, self.client).connection_pool
        return Wire(pool.connection_class(**pool.connection_kwargs))

    async def async_wire(self, key: str) -> AsyncWire:
        """The same for the running event loop."""
        options: dict[str, Any] = {**_options(), "retry": AsyncRetry(NoBackoff(), 0), "socket_timeout": None}
        pool = async_redis.Redis.from_url(self.url, **options).connection_pool
        settings = dict(pool.connection_kwargs)
        kind = pool.connection_class
        if self.facts.is_cluster:
            node = cast(RedisCluster, self.client).get_node_from_key(key)
            if node is None:
                raise RedisConnectionError(f"no node of the cluster holds {key}")
            settings |= {"host": node.host, "port": node.port}
            settings.pop("db", None)
        greeting = [("SCRIPT", "LOAD", script.text) for script in Script.every.values()]
        return await AsyncWire(kind(**settings), ANSWER_TIMEOUT_S).open(*greeting)

    def node_of(self, key: str) -> str:
        """A name for the node that holds the key: keys of one name can share a wire."""
        if not self.facts.is_cluster:
            return ""
        node = cast(RedisCluster, self.client).get_node_from_key(key)
        return "" if node is None else str(node.name)

    def refresh(self) -> None:
        """Learn anew which node holds which slot; after a fail-over or a moved slot."""
        if self.facts.is_cluster:
            cast(RedisCluster, self.client).nodes_manager.initialize()

    def run(self, script: Script, keys: Iterable[str | bytes], args: Iterable[Any]) -> Any:
        """Call a script once; load it first where the server has forgotten it (that is safe: NOSCRIPT ran
        nothing).
        """
        command = script.call(keys, args)
        try:
            return self.client.execute_command(*command)
        except NoScriptError:
            return self.client.execute_command("EVAL", script.text, *command[2:])

    def close(self) -> None:
        """Close the client's connections; wires are closed by whoever made them."""
        self.client.close()


def _options() -> dict[str, Any]:
    return {
        "protocol": 2,
        "socket_timeout": ANSWER_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "client_name": "aurastream",
    }


def _open(url: str) -> tuple[redis.Redis | RedisCluster, Facts]:
    """A client without retries, and what it talks to. Raises ServerUnfit, in a sentence without the password."""
    options = {"retry": Retry(NoBackoff(), 0), **_options()}
    try:
        client = redis.Redis.from_url(url, **options)
        facts = _facts(client)
        if facts.is_cluster:
            client.close()
            return RedisCluster.from_url(url, **options), facts
    except ValueError as error:
        raise ServerUnfit(
            f"AURASTREAM_REDIS_URL is no Redis address ({error}). Use redis://, rediss:// or unix://."
        ) from None
    except (*LOST, ResponseError) as error:
        raise ServerUnfit(
            f"cannot reach the Redis server at {_without_password(url)} ({error}). "
            "Start it or correct AURASTREAM_REDIS_URL; unset it to use the embedded server."
        ) from error
    return client, facts


def _facts(client: redis.Redis) -> Facts:
    info: dict[str, Any] = client.info()
    flavour = "valkey" if "valkey_version" in info else "redis"
    version = tuple(
        int(part) for part in str(info.get("valkey_version", info["redis_version"])).split(".")[:3]
    )
    mode = info.get("server_mode", info.get("redis_mode", "standalone"))
    return Facts(flavour, version, mode == "cluster", str(info.get("maxmemory_policy", "")))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"  # a query may hold one too
