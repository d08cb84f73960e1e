"""
Every Redis client the project makes.

    connect: Server(url)   one Redis, Valkey or cluster, and what it is
    server.client          redis-py's client, for single commands
    server.wire(key)       a connection of one's own to the node that holds the key (wires.py)
    server.async_wire(key) the same for an event loop (async_wire.py)

Always true: nothing is resent silently. redis-py repeats a command up to ten times by default, XADD included;
here every client has Retry(NoBackoff(), 0), and what is repeated is named idempotent (drive.py).

Decision (2026-11): the hot paths use redis-py's own connection objects without its client on top. The client
cannot send now and receive later, which is what lets a consumer fold while the server commits; its reply
callbacks build a dict per entry (about 2.5 us), and its packing looks at every argument before hiredis does
(1.5 us an event), so packing goes straight to hiredis. RESP2 is asked for, since RESP3 answers XREADGROUP
with maps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast
from weakref import WeakKeyDictionary

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import BusyLoadingError, NoScriptError, RedisClusterException, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from aurastream.streams.async_wire import AsyncWire
from aurastream.streams.drive import Reply
from aurastream.streams.errors import ServerUnfit, ServerUnreachable
from aurastream.streams.faults import LOST, is_passing, said
from aurastream.streams.settings import Ack
from aurastream.streams.wire import Script, Wire

ANSWER_TIMEOUT_S = 4.0  # far more than any command of ours may hold a server; what BLOCK says is added
GREETING_S = 1.0  # for a new connection to a node that was silent last
VERSION_MIN = (6, 2)

W = TypeVar("W", Wire, AsyncWire)
Options: TypeAlias = dict[str, Any]  # keyword options of redis-py's clients and connections


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


class Server:
    """One server or cluster, and all connections this process has to it.

    answer_timeout_s: for each answer and each new connection; default: as the settings say.
    """

    def __init__(self, url: str, answer_timeout_s: float | None = None) -> None:
        self.url = url
        self.answer_timeout_s = ANSWER_TIMEOUT_S if answer_timeout_s is None else answer_timeout_s
        self.client, self.facts = _open(url, self.answer_timeout_s)
        self._fsyncs_always = False
        self._wires: WeakKeyDictionary[Wire | AsyncWire, str] = WeakKeyDictionary()  # -> node
        self._silent: set[str] = set()  # nodes that did not answer in time, and have not since

    def check_ack(self, ack: Ack) -> None:
        """Raise ServerUnfit where the server cannot vouch for what `ack` says: only appendfsync always is a
        disk's word.
        """
        if ack is not Ack.DISK or self._fsyncs_always:
            return
        plain = {_text(name): _text(value) for name, value in self.client.config_get("append*").items()}
        self._fsyncs_always = plain.get("appendonly") == "yes" and plain.get("appendfsync") == "always"
        if not self._fsyncs_always:
            raise ServerUnfit(
                "ack=disk needs the server to run with appendonly yes and appendfsync always; it does not. "
                "Set both, or choose ack=memory or ack=replica."
            )

    def wire(self, key: str) -> Wire:
        """A new connection to the node that holds the key. Raises one of LOST."""
        node = self.node_of(key)
        if isinstance(self.client, RedisCluster):
            pool = self.client.get_redis_connection(self._node(key)).connection_pool
        else:
            pool = self.client.connection_pool
        bound_s = self._greeting_s(node)
        settings = {**pool.connection_kwargs, "socket_connect_timeout": bound_s, "socket_timeout": bound_s}
        wire = Wire(pool.connection_class(**settings), self.answer_timeout_s, partial(self.silent, node))
        return self._opened(wire, node)

    async def async_wire(self, key: str) -> AsyncWire:
        """The same for the running event loop."""
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry as AsyncRetry

        node, options = self.node_of(key), _options(self.answer_timeout_s)
        options |= {"retry": AsyncRetry(NoBackoff(), 0), "socket_timeout": None}
        pool = Redis.from_url(self.url, **options).connection_pool
        settings = dict(pool.connection_kwargs)
        if self.facts.is_cluster:
            at = self._node(key)
            settings |= {"host": at.host, "port": at.port}
            settings.pop("db", None)
        connection = pool.connection_class(**settings)
        wire = AsyncWire(connection, self.answer_timeout_s, partial(self.silent, node))
        greeting = [("SCRIPT", "LOAD", script.text) for script in Script.every.values()]
        await wire.open(*greeting, timeout_s=self._greeting_s(node))
        return self._opened(wire, node)

    def silent(self, node: str) -> None:
        """A connection to the node was not answered in time: all others to it are dropped, so that nobody
        else waits out a time-out of his own, and what comes next asks anew. From any thread.
        """
        self._silent.add(node)
        for wire in [wire for wire, its in list(self._wires.items()) if its == node]:
            wire.cut()
        if isinstance(self.client, RedisCluster):
            at = self.client.get_node(node_name=node)
            pool = None if at is None or at.redis_connection is None else at.redis_connection.connection_pool
        else:
            pool = self.client.connection_pool
        if pool is not None:
            pool.disconnect()

    def _greeting_s(self, node: str) -> float:
        """How long a new connection to the node may take."""
        return min(GREETING_S, self.answer_timeout_s) if node in self._silent else self.answer_timeout_s

    def _opened(self, wire: W, node: str) -> W:
        self._wires[wire] = node
        self._silent.discard(node)
        return wire

    def node_of(self, key: str) -> str:
        """A name for the node that holds the key: keys of one name can share a wire. Raises one of LOST."""
        return str(self._node(key).name) if self.facts.is_cluster else ""

    def refresh(self) -> None:
        """Learn anew which node holds which slot; after a fail-over or a moved slot. Raises one of LOST."""
        if isinstance(self.client, RedisCluster):
            try:
                # what was silent last is asked last
                self.client.nodes_manager.initialize(last_failed_node_name=next(iter(self._silent), None))
            except (
                RedisClusterException
            ) as error:  # none of its nodes answers, or not for all slots: no RedisError
                raise RedisConnectionError(str(error)) from error

    def _node(self, key: str) -> ClusterNode:
        try:
            node: ClusterNode | None = cast(RedisCluster, self.client).get_node_from_key(key)
        except RedisClusterException as error:  # nobody holds its slot for now
            raise RedisConnectionError(str(error)) from error
        if node is None:
            raise RedisConnectionError(f"no node of the cluster holds {key}")
        return node

    def run(self, script: Script, keys: Iterable[str | bytes], args: Iterable[object]) -> Reply:
        """Call a script once; load it where the server has forgotten it (safe: NOSCRIPT ran nothing)."""
        command = script.call(keys, args)
        try:
            return self.client.execute_command(*command)
        except NoScriptError:
            return self.client.execute_command("EVAL", script.text, *command[2:])

    def close(self) -> None:
        """Close the client's connections; wires are closed by whoever made them."""
        self.client.close()


def _options(answer_timeout_s: float) -> Options:
    return {
        "protocol": 2,
        "socket_timeout": answer_timeout_s,
        "socket_connect_timeout": answer_timeout_s,
        "client_name": "aurastream",
    }


def _open(url: str, answer_timeout_s: float) -> tuple[redis.Redis | RedisCluster, Facts]:
    """A client without retries, and what it talks to. Raises ServerUnfit, ServerUnreachable where waiting may
    help, without the password.
    """
    options = {"retry": Retry(NoBackoff(), 0), **_options(answer_timeout_s)}
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
    except (*LOST, ResponseError, RedisClusterException) as error:
        raise _unreached(url, error) from error
    return client, facts


def _unreached(url: str, error: Exception) -> ServerUnfit:
    where = _without_password(url)
    if is_passing(error) or isinstance(error, RedisClusterException):
        return ServerUnreachable(
            f"cannot reach the Redis server at {where} ({said(error)}). "
            "Start it or correct AURASTREAM_REDIS_URL; unset it to use the embedded server."
        )
    return ServerUnfit(
        f"the Redis server at {where} does not let us in ({said(error)}). Correct the user and the password "
        "in AURASTREAM_REDIS_URL, or the server's ACL."
    )


def _facts(client: redis.Redis) -> Facts:
    info: dict[str, Reply] = client.info()
    if info.get("loading"):
        left = info.get("loading_eta_seconds", "?")
        raise BusyLoadingError(f"it is loading its data, for some {left} s more", status_code="LOADING")
    flavour = "valkey" if "valkey_version" in info else "redis"
    version = tuple(
        int(part) for part in str(info.get("valkey_version", info["redis_version"])).split(".")[:3]
    )
    mode = info.get("server_mode", info.get("redis_mode", "standalone"))
    return Facts(flavour, version, mode == "cluster", str(info.get("maxmemory_policy", "")))


def _text(value: Reply) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"  # a query may hold one too
