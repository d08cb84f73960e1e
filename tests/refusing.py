"""A real server that refuses for a while, one way after another, and is mended."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis

from tests.servers import until

Undo = Callable[[], object]


def _full(client: Any) -> Undo:
    client.config_set("maxmemory", 1)
    return lambda: client.config_set("maxmemory", 0)


def _without_replicas(client: Any) -> Undo:
    client.config_set("min-replicas-to-write", 1)
    return lambda: client.config_set("min-replicas-to-write", 0)


def _read_only(client: Any) -> Undo:
    client.execute_command("REPLICAOF", "127.0.0.1", 1)
    return lambda: client.execute_command("REPLICAOF", "NO", "ONE")


def _without_disk(client: Any) -> Undo:
    """It cannot put a snapshot where the last one was, and is set to refuse writes then."""
    place = Path(client.config_get("dir")["dir"]) / client.config_get("dbfilename")["dbfilename"]
    before = client.config_get("save")["save"]
    client.config_set("save", "3600 1")
    place.unlink(missing_ok=True)
    (place / "in the way").mkdir(parents=True)
    client.bgsave()
    until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "the save to fail")

    def mend() -> None:
        shutil.rmtree(place)
        until(lambda: not client.info("persistence")["rdb_bgsave_in_progress"], "the last try to end")
        client.bgsave()
        until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok", "the save")
        client.config_set("save", before)

    return mend


def _busy(client: Any) -> Undo:
    """A script of somebody's that does not end."""
    client.config_set("lua-time-limit", 50)

    def run() -> None:
        with contextlib.suppress(redis.ResponseError), redis.Redis(connection_pool=_pool_of(client)) as own:
            own.eval("while true do end", 0)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: _says(client, "BUSY"), "the server to be busy")

    def mend() -> None:
        client.script_kill()
        thread.join()
        client.config_set("lua-time-limit", 5_000)

    return mend


def _pool_of(client: Any) -> redis.ConnectionPool:
    pool = client.connection_pool
    return redis.ConnectionPool(connection_class=pool.connection_class, **pool.connection_kwargs)


def _says(client: Any, word: str) -> bool:
    try:
        client.get("anything")
    except redis.ResponseError as error:
        return str(error).startswith(word)
    return False


# To writes; whoever looks is answered.
REFUSALS = {"OOM": _full, "NOREPLICAS": _without_replicas, "READONLY": _read_only, "MISCONF": _without_disk}
# To everything.
EVERY_REFUSAL = {**REFUSALS, "BUSY": _busy}


@contextlib.contextmanager
def refusing(url: str, word: str) -> Iterator[Undo]:
    """The server says this word to writes until the block ends, or until what it yields is called."""
    client = redis.Redis.from_url(url, decode_responses=True)
    mend = EVERY_REFUSAL[word](client)
    mended: list[object] = []
    one_at_a_time = threading.Lock()

    def once() -> None:
        with one_at_a_time:
            if not mended:
                mended.append(mend())

    try:
        yield once
    finally:
        once()
        client.close()
