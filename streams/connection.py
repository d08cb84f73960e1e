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
from typing import Any, TypeAlias, cast

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisClusterException, ResponseError
from redis.retry import Retry

from aurastream.streams.async_wire import AsyncWire
from aurastream.streams.drive import LOST, Reply
from aurastream.streams.errors import ServerUnfit
from aurastream.streams.settings import Ack
from aurastream.streams.wire import Script, Wire

ANSWER_TIMEOUT_S = 20.0  # longer than any BLOCK and than a commit of the largest batch
CONNECT_TIMEOUT_S = 5.0
VERSION_MIN = (6, 2)

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
        plain = {_text(name): _text(value) for name, value in self.client.config_get("append*").items()}
        self._fsyncs_always = plain.get("appendonly") == "yes" and plain.get("appendfsync") == "always"
        if not self._fsyncs_always:
            raise ServerUnfit(
                "ack=disk needs the server to run with appendonly yes and appendfsync always; it does not. "
                "Set both, or choose ack=memory or ack=replica."
            )

    def wire(self, key: str) -> Wire:
        """A new connection to the node that holds the key. Raises one of LOST."""
        if isinstance(self.client, RedisCluster):
            pool = self.client.get_redis_connection(self._node(key)).connection_pool
        else:
            pool = self.client.connection_pool
        return Wire(pool.connection_class(**pool.connection_kwargs))

    async def async_wire(self, key: str) -> AsyncWire:
        """The same for the running event loop."""
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry as AsyncRetry

        options: Options = {**_options(), "retry": AsyncRetry(NoBackoff(), 0), "socket_timeout": None}
        pool = Redis.from_url(self.url, **options).connection_pool
        settings = dict(pool.connection_kwargs)
        if self.facts.is_cluster:
            node = self._node(key)
            settings |= {"host": node.host, "port": node.port}
            settings.pop("db", None)
        wire = AsyncWire(pool.connection_class(**settings), ANSWER_TIMEOUT_S)
        greeting = [("SCRIPT", "LOAD", script.text) for script in Script.every.values()]
        return await wire.open(*greeting, timeout_s=CONNECT_TIMEOUT_S)

    def node_of(self, key: str) -> str:
        """A name for the node that holds the key: keys of one name can share a wire. Raises one of LOST."""
        return str(self._node(key).name) if self.facts.is_cluster else ""

    def refresh(self) -> None:
        """Learn anew which node holds which slot; after a fail-over or a moved slot. Raises one of LOST."""
        if isinstance(self.client, RedisCluster):
            try:
                self.client.nodes_manager.initialize()
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


def _options() -> Options:
    return {
        "protocol": 2,
        "socket_timeout": ANSWER_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "client_name": "aurastream",
    }


def _open(url: str) -> tuple[redis.Redis | RedisCluster, Facts]:
    """A client without retries, and what it talks to. Raises ServerUnfit, without the password."""
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
    info: dict[str, Reply] = client.info()
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
